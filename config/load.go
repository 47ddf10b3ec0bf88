package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// LoadOptions say where Load looks.
type LoadOptions struct {
	// File must exist when it is named. "" is Default, if that exists.
	File string
	// Default is read when File is "" and Default exists; "" is DefaultFile.
	Default string
	// Environ is the environment in the form of os.Environ. EnvName(key) sets key: the value as
	// in the file, a list as JSON or separated by commas, sources as a JSON list of objects. An
	// empty variable counts as not set; two quotes ("") set the empty text.
	Environ []string
	// Flags holds the values of the command line, by key: a value of the key's type, its text in
	// the form of Environ, or []string for a list. A list of URLs is a list of sources.
	Flags map[string]any
}

// Load reads the settings: defaults < file < environment < flags. Its error joins a *Fault for each
// value of a wrong form and for each broken rule of Validate. The error on a missing file that File
// names matches fs.ErrNotExist.
//
// A variable that begins with IMGMIRROR_ and belongs to no key is a warning and no fault: Docker
// and Kubernetes put such variables (IMGMIRROR_PORT, …) beside a service of that name.
func Load(o LoadOptions) (*Config, error) {
	file, data, err := readFile(o)
	if err != nil {
		return nil, err
	}
	return load(file, data, o)
}

// readFile gives the file that counts; name is "" when there is none.
func readFile(o LoadOptions) (name string, data []byte, err error) {
	name = cmp.Or(o.File, o.Default, DefaultFile)
	data, err = os.ReadFile(name)
	switch {
	case o.File == "" && errors.Is(err, fs.ErrNotExist):
		return "", nil, nil
	case err != nil:
		return "", nil, fmt.Errorf("config file: %w", err)
	}
	return name, data, nil
}

func load(file string, data []byte, o LoadOptions) (*Config, error) {
	// viper lays the layers over one another. Each layer's values have been read against the types
	// of the keys, and their places are kept. The environment comes in by Set: BindEnv looks at the
	// environment of the process and not at Environ.
	v := viper.New()
	for key, value := range leaves(Defaults()) {
		v.SetDefault(key, value)
	}
	r := &reader{name: file, lines: true, places: places{}}
	if values, ok := r.document(data, reflect.TypeFor[Config](), ""); ok {
		if err := v.MergeConfigMap(values.(map[string]any)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	faults := r.faults
	set := func(key, place string, read func(r *reader, t reflect.Type) (any, bool)) {
		r.places.override(key, place)
		layer := &reader{name: place, places: r.places}
		if value, ok := read(layer, typeOf(key)); ok {
			v.Set(key, value)
		}
		faults = append(faults, layer.faults...)
	}
	env, warnings := environment(o.Environ)
	for _, key := range Keys() {
		if text, ok := env[key]; ok {
			set(key, EnvName(key), func(r *reader, t reflect.Type) (any, bool) { return r.text(text, t, key) })
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.Flags)) {
		if typeOf(key) == nil {
			return nil, fmt.Errorf("no such key: %s", key)
		}
		set(key, "command line", func(r *reader, t reflect.Type) (any, bool) { return r.flag(o.Flags[key], t, key) })
	}

	c := &Config{}
	exact := func(d *mapstructure.DecoderConfig) {
		d.TagName, d.WeaklyTypedInput, d.DecodeHook = "yaml", false, nil
	}
	if err := v.UnmarshalExact(c, exact); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	c.File, c.places = file, r.places
	c.Warnings = slices.Concat(warnings, readableSecrets(*c), narrowLimits(*c), openWrites(*c))
	nameSources(c.Sources)
	faults = append(faults, c.check(faults)...)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return c, nil
}

// environment picks the variables that set keys. It warns of a variable that has the prefix and
// sets no key.
func environment(environ []string) (env map[string]string, warnings []string) {
	keys := make(map[string]string)
	for _, key := range Keys() {
		keys[EnvName(key)] = key
	}
	env = make(map[string]string)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, EnvPrefix) {
			continue
		}
		key, known := keys[name]
		if !known {
			warnings = append(warnings, fmt.Sprintf("environment: %s sets nothing%s",
				name, didYouMean(name, slices.Sorted(maps.Keys(keys)))))
			continue
		}
		delete(env, key) // the last one counts, as everywhere
		if value != "" {
			env[key] = value
		}
	}
	slices.Sort(warnings)
	return env, slices.Compact(warnings)
}

// text reads the text of a variable or a flag.
func (r *reader) text(s string, t reflect.Type, key string) (any, bool) {
	if s == `""` {
		s = ""
	}
	if t.Kind() != reflect.Slice {
		return r.value(scalar(s), t, key)
	}
	if strings.HasPrefix(strings.TrimSpace(s), "[") {
		return r.document([]byte(s), t, key)
	}
	var items []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return r.value(sequence(items), t, key)
}

// flag reads a value of the command line.
func (r *reader) flag(v any, t reflect.Type, key string) (any, bool) {
	switch v := v.(type) {
	case []string:
		return r.value(sequence(v), t, key)
	case URL:
		return r.text(string(v), t, key) // fmt.Sprint masks the password
	default:
		return r.text(fmt.Sprint(v), t, key)
	}
}

func scalar(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func sequence(items []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, item := range items {
		n.Content = append(n.Content, scalar(item))
	}
	return n
}
