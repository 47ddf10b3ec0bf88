package manifest

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// Filter is one condition as on the command line: field=value, field=~substring, field!=value.
// ParseFilter makes a Filter; the zero Filter matches nothing.
type Filter struct {
	field string // "tag.KEY" keeps its prefix
	op    filterOp
	value string
}

type filterOp string

const (
	opEqual    filterOp = "="
	opContains filterOp = "=~"
	opNot      filterOp = "!="
)

// filterFields are the fields of a Filter beside tag.KEY.
const filterFields = "uuid name version os type state owner public origin published_at description"

// ParseFilter reads one condition; fields: uuid name version os type state owner public origin
// published_at description tag.KEY. Comparison is exact and minds case; an empty value means that
// the image has none. A condition that no image can meet (a malformed uuid, an unknown state) is an
// error. Errors match ErrInvalid and quote the filter.
func ParseFilter(s string) (Filter, error) {
	bad := func(format string, args ...any) (Filter, error) {
		return Filter{}, fmt.Errorf("filter %q is %w: %s", shorten(s), ErrInvalid, fmt.Sprintf(format, args...))
	}
	i := strings.IndexByte(s, '=')
	if i < 0 {
		return bad("want field=value, field=~substring or field!=value")
	}
	f := Filter{field: s[:i], op: opEqual, value: s[i+1:]}
	if name, not := strings.CutSuffix(f.field, "!"); not {
		f.field, f.op = name, opNot
	} else if rest, contains := strings.CutPrefix(f.value, "~"); contains {
		f.value, f.op = rest, opContains
	}

	switch key, tag := strings.CutPrefix(f.field, "tag."); {
	case tag && key == "":
		return bad("tag. needs a key, as in tag.KEY=value")
	case tag:
	case f.field == "":
		return bad("no field before the %s", f.op)
	case !knownField(f.field):
		return bad("no field %q; there are %s and tag.KEY", f.field, strings.ReplaceAll(filterFields, " ", ", "))
	}
	if f.op == opContains {
		return f, nil
	}
	switch f.field {
	case "uuid", "origin":
		if _, ok := readUUID(f.value, true); ok {
			f.value = strings.ToLower(f.value)
		} else if f.value != "" || f.field == "uuid" {
			return bad("%q is not a uuid", f.value)
		}
	case "public":
		if _, err := strconv.ParseBool(f.value); err != nil || len(f.value) < len("true") {
			return bad("public is true or false")
		}
		f.value = strings.ToLower(f.value)
	case "state":
		if !isState(f.value) {
			return bad("state is one of active, disabled, unactivated, creating, failed")
		}
	}
	return f, nil
}

func knownField(name string) bool {
	for field := range strings.FieldsSeq(filterFields) {
		if field == name {
			return true
		}
	}
	return false
}

// String is the filter as ParseFilter reads it.
func (f Filter) String() string { return f.field + string(f.op) + f.value }

// Match tells whether m satisfies f.
func (f Filter) Match(m Manifest) bool {
	got := m.field(f.field)
	switch f.op {
	case opEqual:
		return got == f.value
	case opContains:
		return strings.Contains(got, f.value)
	case opNot:
		return got != f.value
	}
	return false
}

// field gives the text that a filter compares; "" for a field that the image does not have.
func (m *Manifest) field(name string) string {
	switch name {
	case "uuid":
		return m.UUID.String()
	case "name":
		return m.Name
	case "version":
		return m.Version
	case "os":
		return m.OS
	case "type":
		return m.Type
	case "state":
		return m.State
	case "owner":
		return m.Owner
	case "public":
		return strconv.FormatBool(m.Public)
	case "origin":
		if m.Origin == uuid.Nil {
			return ""
		}
		return m.Origin.String()
	case "published_at", "description":
		text, _ := unquote(lookup(m.v2, name))
		return string(text)
	}
	text, _ := tagText(m.tag(strings.TrimPrefix(name, "tag.")))
	return text
}

// tag gives the value of one tag, nil for a missing tag. The value is read from the manifest's
// text: questions about tags are too rare to keep the tags of many images apart.
func (m *Manifest) tag(key string) jsontext.Value {
	tags := lookup(m.v2, "tags")
	if tags.Kind() != '{' {
		return nil
	}
	return lookup(tags, key)
}

// tagText gives a tag's value for comparison: a string as it is, a number or boolean as its JSON
// text; ok is false for other values.
func tagText(v jsontext.Value) (text string, ok bool) {
	switch v.Kind() {
	case '"':
		b, _ := unquote(v)
		return string(b), true
	case '0', 't', 'f':
		return string(v), true
	}
	return "", false
}

// hasBillingTag looks into the source's text: V2 has no billing tags.
func (m *Manifest) hasBillingTag(want string) bool {
	v := lookup(m.raw, "billing_tags")
	is := func(v []byte) bool {
		text, ok := unquote(v)
		return ok && bytes.Equal(text, []byte(want))
	}
	if v.Kind() != '[' {
		return is(v)
	}
	for _, e := range elements(nil, v, 0) {
		if is(v[e.start:e.end]) {
			return true
		}
	}
	return false
}

// ParseFilters is ParseFilter for several; the error is of the first that is wrong.
func ParseFilters(texts []string) ([]Filter, error) {
	var all []Filter
	for _, text := range texts {
		f, err := ParseFilter(text)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// MatchAll tells whether m satisfies all filters.
func MatchAll(m Manifest, all []Filter) bool {
	for _, f := range all {
		if !f.Match(m) {
			return false
		}
	}
	return true
}
