package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds what one document may unfold to through its aliases.
const maxNodes = 100_000

// reader turns YAML nodes into values of the keys' types. A node that has no such value is left out
// and reported, so that one pass finds every fault.
type reader struct {
	name   string // of the file or variable
	lines  bool   // places are name:line, not just name
	places places
	faults []error
	nodes  int
}

// document parses data, one YAML document (JSON is such a one), as a value of
// type t that is to stand at key. ok is false when there is nothing to use.
func (r *reader) document(data []byte, t reflect.Type, key string) (value any, ok bool) {
	var doc, more yaml.Node
	d := yaml.NewDecoder(strings.NewReader(string(data)))
	switch err := d.Decode(&doc); {
	case err != nil && len(strings.TrimSpace(string(data))) > 0 && !errors.Is(err, io.EOF):
		r.fault(nil, key, "", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil, false
	case err != nil || len(doc.Content) == 0:
		return nil, false
	}
	if !errors.Is(d.Decode(&more), io.EOF) {
		r.fault(&doc, key, "", "more than one YAML document")
	}
	return r.value(doc.Content[0], t, key)
}

// value reads n as a t.
func (r *reader) value(n *yaml.Node, t reflect.Type, key string) (any, bool) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if r.nodes++; r.nodes > maxNodes {
		if r.nodes == maxNodes+1 {
			r.fault(n, key, "", "too large")
		}
		return nil, false
	}
	if key != "" {
		r.places[key] = r.place(n)
	}
	null := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	switch {
	case null && t.Kind() == reflect.Struct && !strings.HasSuffix(key, "]"):
		return nil, false // a section whose keys are all commented out
	case null:
		r.fault(n, key, "", `has no value: leave the key out for its default, or write "" or []`)
	case t.Kind() == reflect.Struct:
		return r.section(n, t, key)
	case t.Kind() == reflect.Slice:
		return r.list(n, t.Elem(), key)
	case n.Kind != yaml.ScalarNode:
		r.fault(n, key, "", "must be a single value, not "+kindOf(n))
	default:
		v, err := parse(t, n.Value)
		if err == nil {
			return v, true
		}
		r.fault(n, key, n.Value, err.Error())
	}
	return nil, false
}

// section reads a mapping whose keys are the fields of t.
func (r *reader) section(n *yaml.Node, t reflect.Type, key string) (any, bool) {
	entry, isEntry := entries[t]
	if isEntry && n.Kind == yaml.ScalarNode {
		short := *n
		n = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Content: []*yaml.Node{
			{Kind: yaml.ScalarNode, Tag: "!!str", Value: entry.short, Line: n.Line}, &short,
		}}
		if entry.list {
			n.Content[1] = &yaml.Node{Kind: yaml.SequenceNode, Line: n.Line, Content: []*yaml.Node{&short}}
		}
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, key, "", "must be a section of keys, not "+kindOf(n))
		return nil, false
	}
	fields := fieldsOf(t)
	values := make(map[string]any)
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, at := n.Content[i].Value, n.Content[i]
		full := name
		if key != "" {
			full = key + "." + name
		}
		f := slices.IndexFunc(fields, func(f field) bool { return f.key == name })
		switch {
		case f < 0:
			// The value is not shown: it may be a secret in the wrong place.
			r.fault(at, full, "", "unknown key"+didYouMean(name, nearby(fields, key)))
		case seen[name]:
			r.fault(at, full, "", "is set twice")
		default:
			if v, ok := r.value(n.Content[i+1], fields[f].typ, full); ok {
				values[name] = v
			}
		}
		seen[name] = true
	}
	for name, v := range entry.unset {
		if _, ok := values[name]; !ok {
			values[name] = v
		}
	}
	return values, true
}

// list reads a sequence.
func (r *reader) list(n *yaml.Node, elem reflect.Type, key string) (any, bool) {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, key, "", "must be a list, not "+kindOf(n))
		return nil, false
	}
	values := make([]any, 0, len(n.Content))
	for i, c := range n.Content {
		if v, ok := r.value(c, elem, fmt.Sprintf("%s[%d]", key, i)); ok {
			values = append(values, v)
		} else if elem.Kind() == reflect.Struct {
			values = append(values, map[string]any{}) // keeps the numbers of later entries right
		}
	}
	return values, true
}

func (r *reader) fault(n *yaml.Node, key, value, reason string) {
	if value != "" {
		value = URL(value).GoString()
	}
	r.faults = append(r.faults, &Fault{Key: key, Value: value, Place: r.place(n), Reason: reason})
}

func (r *reader) place(n *yaml.Node) string {
	if r.lines && n != nil && n.Line > 0 {
		return r.name + ":" + strconv.Itoa(n.Line)
	}
	return r.name
}

// parse reads the text of a single value of type t.
func parse(t reflect.Type, s string) (any, error) {
	switch t {
	case durationType:
		return ParseDuration(s)
	case sizeType:
		return ParseSize(s)
	case urlType:
		return URL(s), nil
	}
	switch t.Kind() {
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, errors.New("must be true or false")
		}
		return b, nil
	case reflect.Int:
		i, err := strconv.Atoi(s)
		if err != nil {
			return nil, errors.New("not a whole number")
		}
		return i, nil
	default:
		return s, nil
	}
}

// nearby lists the keys that an unknown key beside fields may stand for: one of fields, or a key
// elsewhere in the file.
func nearby(fields []field, section string) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.key)
	}
	if strings.Contains(section, "[") {
		return names
	}
	return append(names, Keys()...)
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}
