package config

import (
	"iter"
	"reflect"
	"strings"
	"time"
)

// EnvPrefix begins the name of every environment variable that sets a key.
const EnvPrefix = "IMGMIRROR_"

// EnvName is the environment variable that sets key: IMGMIRROR_CACHE_MAX_SIZE for cache.max_size.
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

// Help gives the text on each key in the order of Keys. Behind a list of objects follow the keys of an
// entry, such as "sources[].url".
func Help() iter.Seq2[string, string] {
	return func(yield func(key, help string) bool) {
		walk(reflect.ValueOf(Config{}), "", func(key, help string, _ any) bool { return yield(key, help) })
	}
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

// leaves gives the keys of c with their values, in the order of the file. The struct is the one table
// of keys: file, environment, flags and defaults are read against the struct.
func leaves(c Config) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		walk(reflect.ValueOf(c), "", func(key, _ string, value any) bool {
			return strings.Contains(key, "[].") || yield(key, value)
		})
	}
}

// walk visits the keys of a section with their texts and values, and behind a list of objects the keys
// of an entry.
func walk(section reflect.Value, prefix string, yield func(key, help string, value any) bool) bool {
	for _, f := range fieldsOf(section.Type()) {
		key, v := prefix+f.key, section.Field(f.index)
		if v.Kind() == reflect.Struct {
			if !walk(v, key+".", yield) {
				return false
			}
			continue
		}
		if !yield(key, f.help, v.Interface()) {
			return false
		}
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct && !walk(reflect.Zero(v.Type().Elem()), key+"[].", yield) {
			return false
		}
	}
	return true
}

// field is one key of a section.
type field struct {
	key   string
	help  string
	index int
	typ   reflect.Type
}

// fieldsOf lists the keys of a section or of a list's entries.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		if key := f.Tag.Get("yaml"); key != "" && key != "-" {
			fields = append(fields, field{key: key, help: f.Tag.Get("help"), index: i, typ: f.Type})
		}
	}
	return fields
}

// typeOf is the type of a key's value; nil for an unknown key, and for a section.
func typeOf(key string) reflect.Type {
	for known, value := range leaves(Config{}) {
		if known == key {
			return reflect.TypeOf(value)
		}
	}
	return nil
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
	reflect.TypeFor[Source]():   {short: "url", unset: map[string]any{"kind": defaultKind, "refresh": defaultRefresh, "lookup_rate": defaultLookupRate}},
	reflect.TypeFor[Channel]():  {short: "name"},
	reflect.TypeFor[Prefetch](): {short: "match", list: true},
}
