package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"imgmirror/config"
)

func TestReloaded(t *testing.T) {
	old := config.Defaults()
	check := func(change func(*config.Config), changed, waiting string) {
		t.Helper()
		next := config.Defaults()
		change(&next)
		c := reloaded(&old, &next)
		if got := strings.Join(config.Changed(old, *c), " "); got != changed {
			t.Errorf("changed %q, want %q", got, changed)
		}
		if got := strings.Join(config.Changed(*c, next), " "); got != waiting {
			t.Errorf("waiting %q, want %q", got, waiting)
		}
	}
	check(func(*config.Config) {}, "", "")
	check(func(c *config.Config) {
		c.Sources, c.Offline, c.Log.Level, c.Log.Requests = nil, true, "debug", "off"
		c.Cache.MaxSize, c.Cache.FillSlots, c.Cache.Pins = 1, 2, []string{"name=a"}
		c.Channels = []config.Channel{{Name: "release"}}
		c.Prefetch = []config.Prefetch{{Match: []string{"name=a"}}}
		c.Nodes = config.Nodes{Keep: 1, Max: 2}
		c.Writes = config.Writes{Enabled: true, Allow: []string{"10.0.0.0/8"}, TokenFile: "/w"}
	}, "log.level log.requests sources channels offline cache.max_size cache.fill_slots cache.pins nodes.keep nodes.max writes.enabled writes.allow writes.token_file prefetch", "")
	check(func(c *config.Config) {
		c.ZFSImport = config.ZFSImport{Enabled: true, Pool: "tank", Images: []string{"name=a"}, ZFSPath: "/z", DBDir: "/d"}
	}, "zfsimport.enabled zfsimport.images", "zfsimport.pool zfsimport.zfs_path zfsimport.db_dir")
	check(func(c *config.Config) {
		c.Listen, c.DataDir, c.DistDir, c.Admin.Listen, c.Log.Format = ":1", "/x", "/y", ":2", "json"
		c.Cache.StreamOnMiss = false
		c.TLS = config.TLS{CertFile: "c", KeyFile: "k"}
	}, "", "listen tls.cert_file tls.key_file data_dir dist_dir log.format admin.listen cache.stream_on_miss")
}

// Every key is either taken over or said to wait: reloaded must not forget one.
func TestReloadedKnowsEveryKey(t *testing.T) {
	old, next := config.Config{}, config.Defaults()
	next.TLS = config.TLS{CertFile: "c", KeyFile: "k"}
	c := reloaded(&old, &next)
	both := append(config.Changed(old, *c), config.Changed(*c, next)...)
	for _, key := range config.Changed(old, next) {
		if n := len(slices.DeleteFunc(slices.Clone(both), func(k string) bool { return k != key })); n != 1 {
			t.Errorf("%s is named %d times", key, n)
		}
	}
}

func TestReload(t *testing.T) {
	cfg := testConfig(t)
	m, _ := runProcess(t, cfg)
	first := m.Started()
	if n := len(listed(m)); n != 0 {
		t.Fatalf("%d images without a source", n)
	}

	next := *cfg
	next.Sources = []config.Source{sampleSource(t)}
	next.Log.Level = "debug"
	next.Clients.MaxConnections++
	if err := m.reload(t.Context(), &next); err != nil {
		t.Fatal(err)
	}
	<-m.Started()
	if n := len(listed(m)); n != samples {
		t.Errorf("%d images listed after the reload, want %d", n, samples)
	}
	if m.Started() == first {
		t.Error("the catalogue is the old one")
	}
	if m.level.Level() != slog.LevelDebug {
		t.Errorf("the log's level is %s", m.level.Level())
	}
	if got := m.cfg.Load(); got.Clients != cfg.Clients || got.Log.Level != "debug" {
		t.Errorf("in force: %+v", got)
	}
	// What was asked of the old catalogue is answered by the new one.
	if e, err := m.Get(t.Context(), sampleApp); err != nil || e.Source != "samples" {
		t.Errorf("Get: %s, %v", e.Source, err)
	}

	// What changes nothing of the sources leaves the catalogue alone.
	second := m.Started()
	same := next
	same.Cache.FillSlots = 1
	if err := m.reload(t.Context(), &same); err != nil {
		t.Fatal(err)
	}
	if m.Started() != second {
		t.Error("the catalogue was built anew for nothing")
	}

	// All or nothing.
	bad := same
	bad.Log.Level = "error"
	bad.Sources = []config.Source{{Name: "bad", URL: "http://127.0.0.1:1", Kind: "imgapi", CAFile: filepath.Join(t.TempDir(), "none")}}
	if err := m.reload(t.Context(), &bad); err == nil {
		t.Error("a source that cannot be made is no error")
	}
	if m.Started() != second || m.level.Level() != slog.LevelDebug || m.cfg.Load().Log.Level != "debug" {
		t.Error("half of a bad configuration was taken over")
	}
}

// A published image does not care about the sources' coming and going.
func TestReloadKeepsPublished(t *testing.T) {
	cfg := testConfig(t)
	m, _ := runProcess(t, cfg)
	text, file := sampleFiles(t, sampleBase)
	if _, err := m.Publish(t.Context(), text, strings.NewReader(string(file))); err != nil {
		t.Fatal(err)
	}
	next := *cfg
	next.Sources = []config.Source{sampleSource(t)}
	next.Catalog.Published = "last"
	if err := m.reload(t.Context(), &next); err != nil {
		t.Fatal(err)
	}
	<-m.Started()
	source := func(id uuid.UUID) string {
		e, _ := m.Current().Entry(id)
		return e.Source
	}
	if got := source(sampleBase); got != "samples" {
		t.Errorf("with catalog.published: last the image is from %q", got)
	}
	next.Catalog.Published = "first"
	if err := m.reload(t.Context(), &next); err != nil {
		t.Fatal(err)
	}
	if got := source(sampleBase); got != "published" {
		t.Errorf("with catalog.published: first the image is from %q", got)
	}
}

// A signal that cannot be obeyed changes nothing, and the next one is obeyed.
func TestHangup(t *testing.T) {
	cfg := testConfig(t)
	m, _ := runProcess(t, cfg)
	hangups, release := catchHangups()
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answers := make(chan error)
	next := *cfg
	next.Sources = []config.Source{sampleSource(t)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.reloadOn(ctx, hangups, func() (*config.Config, error) { return &next, <-answers })
	}()
	hangup := func(err error) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		answers <- err
	}
	hangup(os.ErrInvalid)
	if m.cfg.Load() != cfg {
		t.Error("a configuration that could not be read was taken over")
	}
	hangup(nil)
	hangup(nil) // is served after the one before
	if n := len(m.cfg.Load().Sources); n != 1 {
		t.Errorf("%d sources in force", n)
	}
	cancel()
	<-done
}
