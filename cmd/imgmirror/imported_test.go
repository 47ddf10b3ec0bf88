package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/bundle"
	"imgmirror/config"
	"imgmirror/proxy/imported"
)

// TestKeepsImported: an imported image is kept as long as nobody else has it; when
// it is evicted although, it is imported no more.
func TestKeepsImported(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, stop := runMirror(t, cfg)
	fetchSample(t, m, sampleBase)
	add := func() {
		t.Helper()
		image, err := m.store.Manifest(sampleBase)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.imported.Add(image, imported.Provenance{Bundle: "b", Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if err := m.imported.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	add()
	if entry, _ := m.catalog.Current().Entry(sampleBase); len(entry.Holders) != 2 || entry.Source != "samples" {
		t.Errorf("of %s, and %d have it; a configured source goes first", entry.Source, len(entry.Holders))
	}
	if m.store.Kept(sampleBase) {
		t.Error("kept although its source has it")
	}
	m.store.SetLimits(1, 0)
	if _, err := m.store.Vacuum(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.imported.Provenance(sampleBase); ok {
		t.Error("imported although its file is gone")
	}
	if entry, ok := m.catalog.Current().Entry(sampleBase); !ok || len(entry.Holders) != 1 {
		t.Errorf("%d have it after the eviction", len(entry.Holders))
	}
	m.store.SetLimits(0, 0)
	fetchSample(t, m, sampleBase)
	add()
	stop()

	cfg.Sources = nil
	m, _ = runMirror(t, cfg)
	if !m.store.Kept(sampleBase) {
		t.Error("not kept although nobody else has it")
	}
	done := m.imported.Expect([]uuid.UUID{sampleApp})
	if !m.store.Kept(sampleApp) {
		t.Error("not kept while it is being imported")
	}
	done()
}

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
		decide, err := trust(cfg)
		if err != nil {
			t.Fatal(err)
		}
		key, err := decide(x, sig)
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
		if _, err := trust(cfg); err == nil || !strings.Contains(err.Error(), "bundle.trusted_keys[1]") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
