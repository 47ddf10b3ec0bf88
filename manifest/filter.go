package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
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

// filterFields are the fields that a filter can have, beside those of tags.
var filterFields = []string{"uuid", "name", "version", "os", "type", "state", "owner", "public", "origin", "published_at", "description"}

// FilterFields are the fields that a filter can have, beside tag.KEY.
func FilterFields() []string { return slices.Clone(filterFields) }

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

	_, known := new(Manifest).field(f.field)
	switch key, tag := strings.CutPrefix(f.field, "tag."); {
	case tag && key == "":
		return bad("tag. needs a key, as in tag.KEY=value")
	case tag:
	case f.field == "":
		return bad("no field before the %s", f.op)
	case !known:
		return bad("no field %q; there are %s and tag.KEY", f.field, strings.Join(filterFields, ", "))
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

// String is the filter as ParseFilter reads it.
func (f Filter) String() string { return f.field + string(f.op) + f.value }

// Match tells whether m satisfies f.
func (f Filter) Match(m Manifest) bool {
	got, _ := m.field(f.field)
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

// field gives the text that a filter compares; "" for a field that the image does not have. known is
// false for a name that no filter has.
func (m *Manifest) field(name string) (text string, known bool) {
	switch name {
	case "uuid":
		return m.UUID.String(), true
	case "name":
		return m.Name, true
	case "version":
		return m.Version, true
	case "os":
		return m.OS, true
	case "type":
		return m.Type, true
	case "state":
		return m.State, true
	case "owner":
		return m.Owner, true
	case "public":
		return strconv.FormatBool(m.Public), true
	case "origin":
		if m.HasOrigin() {
			text = m.Origin.String()
		}
		return text, true
	case "published_at", "description":
		value, _ := unquote(lookup(m.v2, name))
		return string(value), true
	}
	key, tag := strings.CutPrefix(name, "tag.")
	if tag {
		text, _ = tagText(m.tag(key))
	}
	return text, tag
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
	is := func(v jsontext.Value) bool {
		text, ok := unquote(v)
		return ok && string(text) == want
	}
	v := lookup(m.raw, "billing_tags")
	return is(v) || v.Kind() == '[' && slices.ContainsFunc(elements(nil, v, 0), func(e span) bool { return is(v[e.start:e.end]) })
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
	return !slices.ContainsFunc(all, func(f Filter) bool { return !f.Match(m) })
}
