package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/cache/bundle"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/nodes"
)

func TestTrust(t *testing.T) {
	secret, public, err := bundle.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := bundle.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(file, public, 0o600); err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(strings.TrimSpace(string(public)), "\n")
	x := bundle.Index{ID: uuid.New()}
	good, err := bundle.Sign(secret, "", x)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := bundle.Sign(stranger, "", x)
	if err != nil {
		t.Fatal(err)
	}
	f := func(keys []string, require bool, sig []byte, taken, checked bool) {
		t.Helper()
		cfg := testConfig(t)
		cfg.Bundle = config.Bundle{TrustedKeys: keys, RequireSignature: require}
		o, err := options(cfg)
		if err != nil {
			t.Fatal(err)
		}
		key, err := o.Signatures.Check(x, sig)
		if (err == nil) != taken || err != nil && !errors.Is(err, bundle.ErrSignature) || (key != "") != checked {
			t.Errorf("key %q, %v; want taken %t, checked %t", key, err, taken, checked)
		}
	}
	f(nil, false, nil, true, false)
	f(nil, false, bad, true, false)
	for _, key := range []string{line, file, string(public)} {
		f([]string{key}, false, nil, true, false)
		f([]string{key}, true, nil, false, false)
		f([]string{key}, true, good, true, true)
		f([]string{key}, false, bad, false, false)
	}
	cfg := testConfig(t)
	for _, key := range []string{"nonsense", "missing.pub", "/no/such/key"} {
		cfg.Bundle.TrustedKeys = []string{line, key}
		if _, err := options(cfg); err == nil || !strings.Contains(err.Error(), "bundle.trusted_keys[1]") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// The rules of a configuration: filters, and images by UUID in any case.
func TestRules(t *testing.T) {
	cfg := testConfig(t)
	cfg.Cache.MaxSize, cfg.Cache.MinFree, cfg.Cache.FillSlots = 1, 2, 3
	cfg.Cache.Pins = []string{"name=a", "name=b"}
	cfg.Nodes.Max = 5
	cfg.Prefetch = []config.Prefetch{{Match: []string{"name=c", "os=smartos"}, Newest: 4}}
	cfg.ZFSImport = config.ZFSImport{Enabled: true, Images: []string{"name=d", strings.ToUpper(sampleApp.String())}}
	got, err := rules(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := func(texts ...string) []manifest.Filter {
		t.Helper()
		all, err := manifest.ParseFilters(texts)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	want := mirror.Rules{
		MaxSize: 1, MinFree: 2, FillSlots: 3, Pins: f("name=a", "name=b"),
		Prefetch:   []mirror.Wanted{{Filters: f("name=c", "os=smartos"), Newest: 4}},
		Installing: true, Install: []mirror.Wanted{{Filters: f("name=d")}, {UUIDs: []uuid.UUID{sampleApp}}},
		Nodes: nodes.Limits{Keep: cfg.Nodes.Keep, Max: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	cfg.ZFSImport.Enabled = false
	if got, err := rules(cfg); err != nil || got.Installing {
		t.Errorf("the import is off: %+v, %v", got, err)
	}
}

// A filter on a field that no image has is told with its key, before anything is opened.
func TestFiltersChecked(t *testing.T) {
	for key, change := range map[string]func(*config.Config){
		"cache.pins": func(c *config.Config) { c.Cache.Pins = []string{"nonsense=a"} },
		"prefetch[1].match": func(c *config.Config) {
			c.Prefetch = []config.Prefetch{{Match: []string{"name=a"}}, {Match: []string{"nonsense=a"}}}
		},
		"zfsimport.images[1]": func(c *config.Config) { c.ZFSImport.Images = []string{"name=a", "nonsense=a"} },
		"sources[0].include":  func(c *config.Config) { c.Sources = []config.Source{{Name: "s", Include: []string{"nonsense=a"}}} },
		"sources[0].exclude":  func(c *config.Config) { c.Sources = []config.Source{{Name: "s", Exclude: []string{"nonsense=a"}}} },
	} {
		cfg := testConfig(t)
		if err := checkFilters(cfg); err != nil {
			t.Errorf("without filters: %v", err)
		}
		change(cfg)
		if err := checkFilters(cfg); err == nil || !strings.Contains(err.Error(), key+": ") || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
