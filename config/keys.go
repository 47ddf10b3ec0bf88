package config

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// EnvPrefix begins the name of every environment variable that sets a key.
const EnvPrefix = "IMGMIRROR_"

// EnvName is the environment variable that sets key: IMGMIRROR_CACHE_MAX_SIZE
// for cache.max_size.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// Keys lists every key in the order of the file: "listen", "tls.cert_file", …
// A list, such as sources, is one key.
func Keys() []string {
	var keys []string
	for key := range leaves(Defaults()) {
		keys = append(keys, key)
	}
	return keys
}

// Changed lists the keys in which two settings differ, in the order of Keys.
func Changed(a, b Config) []string {
	values := make(map[string]any)
	for key, v := range leaves(a) {
		values[key] = v
	}
	var keys []string
	for key, v := range leaves(b) {
		if !same(values[key], v) {
			keys = append(keys, key)
		}
	}
	return keys
}

// same compares two values of one key; a nil list is an empty one.
func same(a, b any) bool {
	if v := reflect.ValueOf(a); v.Kind() == reflect.Slice && v.Len() == 0 {
		return reflect.ValueOf(b).Len() == 0
	}
	return reflect.DeepEqual(a, b)
}

// leaves walks the keys of c with their values, in the order of the file. The struct is the one
// table of keys: file, environment, flags and defaults are read against the struct.
func leaves(c Config) func(yield func(key string, value any) bool) {
	return func(yield func(string, any) bool) {
		walk(reflect.ValueOf(c), "", yield)
	}
}

func walk(v reflect.Value, prefix string, yield func(string, any) bool) bool {
	for _, f := range fieldsOf(v.Type()) {
		field := v.Field(f.index)
		if field.Kind() == reflect.Struct {
			if !walk(field, prefix+f.key+".", yield) {
				return false
			}
		} else if !yield(prefix+f.key, field.Interface()) {
			return false
		}
	}
	return true
}

// field is one key of a section.
type field struct {
	key   string
	index int
	typ   reflect.Type
}

// fieldsOf lists the keys of a section or of a list's entries.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		if key := f.Tag.Get("yaml"); key != "" && key != "-" {
			fields = append(fields, field{key: key, index: i, typ: f.Type})
		}
	}
	return fields
}

// typeOf is the type of a key's value; nil for a key that is not there.
func typeOf(key string) reflect.Type {
	t := reflect.TypeFor[Config]()
	for part := range strings.SplitSeq(key, ".") {
		if t.Kind() != reflect.Struct {
			return nil
		}
		fields := fieldsOf(t)
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == part })
		if i < 0 {
			return nil
		}
		t = fields[i].typ
	}
	if t.Kind() == reflect.Struct {
		return nil // a section, not a key
	}
	return t
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	urlType      = reflect.TypeFor[URL]()
)

// entries says how an entry of a list of objects is completed.
var entries = map[reflect.Type]struct {
	short string         // the key that a plain text in place of an object sets
	list  bool           // the key short is a list
	unset map[string]any // values of keys that the object leaves out
}{
	reflect.TypeFor[Source]():   {short: "url", unset: map[string]any{"kind": defaultKind, "refresh": defaultRefresh}},
	reflect.TypeFor[Channel]():  {short: "name"},
	reflect.TypeFor[Prefetch](): {short: "match", list: true},
}
