package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// apiDoc is openapi.json as far as the tests look into it.
type apiDoc struct {
	Paths map[string]map[string]struct {
		OperationID string
		Parameters  []struct{ Name, In string }
		RequestBody *struct {
			Content map[string]struct{ Schema schema }
		}
		Responses map[string]docReply
	}
	Components struct {
		Schemas   map[string]schema
		Responses map[string]docReply
	}
}

type docReply struct {
	Ref     string `json:"$ref"`
	Content map[string]struct{ Schema schema }
}

// schema is what of JSON schema openapi.json uses.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 string
	Format               string
	Enum                 []string
	Items                *schema
	Properties           map[string]schema
	Required             []string
	AdditionalProperties *others
}

// others is what an object may have beside its properties: what schema says, unless they are not allowed.
type others struct {
	schema
	forbidden bool
}

func (o *others) UnmarshalJSON(text []byte) error {
	if string(text) == "false" {
		o.forbidden = true
		return nil
	}
	return json.Unmarshal(text, &o.schema)
}

func readDoc(t *testing.T) apiDoc {
	t.Helper()
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc apiDoc
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// reply gives what the description says of an answer.
func (d apiDoc) reply(path, method string, status int) (docReply, bool) {
	r, ok := d.Paths[path][strings.ToLower(method)].Responses[strconv.Itoa(status)]
	if name, shared := strings.CutPrefix(r.Ref, "#/components/responses/"); shared {
		r, ok = d.Components.Responses[name]
	}
	return r, ok
}

// faults are what is wrong with v, decoded from JSON, as an instance of s.
func (d apiDoc) faults(s schema, v any, at string) (all []string) {
	bad := func(format string, args ...any) { all = append(all, at+": "+fmt.Sprintf(format, args...)) }
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		named, ok := d.Components.Schemas[name]
		if !ok {
			bad("no schema %s", name)
		}
		return append(all, d.faults(named, v, at)...)
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" {
			bad("is an object, want %s", s.Type)
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				bad("%s is missing", name)
			}
		}
		for name, member := range v {
			if p, ok := s.Properties[name]; ok {
				all = append(all, d.faults(p, member, at+"."+name)...)
			} else if s.AdditionalProperties != nil && s.AdditionalProperties.forbidden {
				bad("%s is not described", name)
			} else if s.AdditionalProperties != nil {
				all = append(all, d.faults(s.AdditionalProperties.schema, member, at+"."+name)...)
			}
		}
	case []any:
		if s.Type != "array" {
			bad("is an array, want %s", s.Type)
			return all
		}
		for i, e := range v {
			all = append(all, d.faults(*s.Items, e, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case string:
		if s.Type != "string" || len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
			bad("%q is no %s %v", v, s.Type, s.Enum)
		}
		if s.Format == "date-time" {
			if _, err := time.Parse(time.RFC3339Nano, v); err != nil || !strings.HasSuffix(v, "Z") {
				bad("%q is no time in UTC", v)
			}
		}
	case float64:
		if s.Type != "integer" || v != float64(int64(v)) {
			bad("%v is no %s", v, s.Type)
		}
	case bool:
		if s.Type != "boolean" {
			bad("%v is no %s", v, s.Type)
		}
	default:
		bad("%v", v)
	}
	return all
}

// check holds an answer against the description. Operations are found as
// ServeMux finds them.
func (d apiDoc) check(t *testing.T, r *http.Request, resp *http.Response, body []byte) {
	t.Helper()
	mux := http.NewServeMux()
	for path := range d.Paths {
		mux.Handle(apiPrefix+path, http.NotFoundHandler())
	}
	_, pattern := mux.Handler(r)
	path := strings.TrimPrefix(pattern, apiPrefix)
	reply, ok := d.reply(path, r.Method, resp.StatusCode)
	if !ok {
		if path != "" && resp.StatusCode == http.StatusMethodNotAllowed || path == "" && resp.StatusCode == http.StatusNotFound {
			reply = d.Components.Responses["NotFound"] // same form
		} else {
			t.Errorf("%s %s: %d is not in openapi.json: %s", r.Method, path, resp.StatusCode, body)
			return
		}
	}
	kind := resp.Header.Get("Content-Type")
	content, ok := reply.Content[kind]
	if !ok {
		t.Errorf("%s %s: %d: Content-Type %q is not described", r.Method, path, resp.StatusCode, kind)
		return
	}
	if kind != typeJSON {
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Errorf("%s %s: %d: %v", r.Method, path, resp.StatusCode, err)
		return
	}
	for _, fault := range d.faults(content.Schema, v, "reply") {
		t.Errorf("%s %s: %d: %s", r.Method, path, resp.StatusCode, fault)
	}
}

func TestDescriptionHasEveryRoute(t *testing.T) {
	doc := readDoc(t)
	told := make(map[string]bool)
	for _, r := range New(Options{}).routes() {
		name := r.method + " " + r.path
		told[name] = true
		op, ok := doc.Paths[r.path][strings.ToLower(r.method)]
		if !ok {
			t.Errorf("%s is not in openapi.json", name)
			continue
		}
		want := append(slices.Clone(r.statuses), 401, 403, 500)
		slices.Sort(want)
		var got []int
		for status := range op.Responses {
			n, err := strconv.Atoi(status)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, n)
			if reply, ok := doc.reply(r.path, r.method, n); !ok || len(reply.Content) == 0 {
				t.Errorf("%s: %d says nothing", name, n)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: openapi.json has %v, the route has %v", name, got, want)
		}
		if (op.RequestBody != nil) != (r.accepts != "") {
			t.Errorf("%s: accepts %q, openapi.json has body %v", name, r.accepts, op.RequestBody)
		} else if op.RequestBody != nil {
			if _, ok := op.RequestBody.Content[r.accepts]; !ok {
				t.Errorf("%s: %s is not in openapi.json", name, r.accepts)
			}
		}
		var params []string
		for _, p := range op.Parameters {
			if p.In == "path" {
				params = append(params, "{"+p.Name+"}")
			}
		}
		for part := range strings.SplitSeq(r.path, "/") {
			if strings.HasPrefix(part, "{") && !slices.Contains(params, part) {
				t.Errorf("%s: %s is not described", name, part)
			}
		}
	}
	ids := make(map[string]bool)
	for path, ops := range doc.Paths {
		for method, op := range ops {
			if !told[strings.ToUpper(method)+" "+path] {
				t.Errorf("openapi.json has %s %s, which is no route", method, path)
			}
			if op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s %s: operationId %q is empty or not unique", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
		}
	}
}

func TestDescriptionHasEveryField(t *testing.T) {
	doc := readDoc(t)
	types := map[string]reflect.Type{}
	for _, v := range []any{
		Source{}, Check{}, Image{}, Hidden{}, Cached{}, Fill{}, Wanted{}, Dry{}, Job{}, Item{}, Removed{}, Finding{}, Error{},
		Install{}, Installed{},
		Status{}, Traffic{}, Disk{}, Scrub{}, Counts{}, Bound{}, Event{}, Certificate{}, Series{}, Point{},
		NodePage{}, Node{}, NodeFetch{}, ImageNodes{}, Forgotten{},
		Page{}, Row{}, Offer{}, OfferFile{}, ImageFile{},
		BundleWanted{}, Bundled{}, BundledFile{}, BundleHead{}, BundleImport{}, ImportedFile{}, ImportedImage{}, Provenance{},
	} {
		types[reflect.TypeOf(v).Name()] = reflect.TypeOf(v)
	}
	if got, want := slices.Sorted(maps.Keys(doc.Components.Schemas)), slices.Sorted(maps.Keys(types)); !slices.Equal(got, want) {
		t.Fatalf("schemas %v, want %v", got, want)
	}
	for name, typ := range types {
		s := doc.Components.Schemas[name]
		request := name == "Wanted" || name == "Dry" || name == "Install" || name == "BundleWanted" // all may be left out
		var props, required []string
		for _, field := range reflect.VisibleFields(typ) {
			if field.Anonymous {
				continue
			}
			tag, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			props = append(props, tag)
			if options != "omitempty" && options != "omitzero" && !request {
				required = append(required, tag)
			}
			if want, got := kindOf(field.Type), s.Properties[tag]; got.Type != want && got.Ref != want {
				t.Errorf("%s.%s: %s%s, want %s", name, tag, got.Type, got.Ref, want)
			}
		}
		slices.Sort(props)
		slices.Sort(required)
		slices.Sort(s.Required)
		if got := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(got, props) {
			t.Errorf("%s: properties %v, want %v", name, got, props)
		}
		if !slices.Equal(s.Required, required) {
			t.Errorf("%s: required %v, want %v", name, s.Required, required)
		}
	}
}

// kindOf is the type of a Go value's JSON, or what refers to it.
func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
		return "object"
	case t == reflect.TypeFor[time.Time](), t == reflect.TypeFor[[]byte]():
		return "string"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return kindOf(t.Elem())
	case reflect.Slice:
		return "array"
	case reflect.Map:
		return "object"
	case reflect.Struct:
		return "#/components/schemas/" + t.Name()
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	}
	return t.Kind().String()
}

func TestDescriptionIsServed(t *testing.T) {
	f := newFixture(t)
	var got, want any
	f.want(200, "GET", "/openapi.json", nil, &got)
	if err := json.Unmarshal(description, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("another description is served")
	}
}
