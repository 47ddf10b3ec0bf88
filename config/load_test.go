package config

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the expected messages of testdata/bad anew")

// loadText is Load of a file that holds text.
func loadText(text string, o LoadOptions) (*Config, error) {
	return load("imgmirror.yaml", []byte(text), o)
}

func mustLoad(t *testing.T, text string, o LoadOptions) *Config {
	t.Helper()
	c, err := loadText(text, o)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return c
}

func diff(want, got Config) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Config{}), cmpopts.IgnoreFields(Config{}, "File", "Warnings"))
}

func TestNothingSetIsDefaults(t *testing.T) {
	c, err := Load(LoadOptions{Default: filepath.Join(t.TempDir(), "absent.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(Defaults(), *c); d != "" {
		t.Error(d)
	}
	if c.File != "" || len(c.Warnings) > 0 {
		t.Errorf("File = %q, Warnings = %q, want none", c.File, c.Warnings)
	}
	for name, text := range map[string]string{"empty": "", "comments": "# nothing\n", "sections": "cache:\nlog:\n", "null": "---\n"} {
		if d := diff(Defaults(), *mustLoad(t, text, LoadOptions{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// The sample that packages install names every key, with its default.
func TestSampleFile(t *testing.T) {
	const sample = "../deploy/imgmirror.yaml"
	c, err := Load(LoadOptions{File: sample})
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(Defaults(), *c); d != "" {
		t.Error(d)
	}
	if c.File != sample {
		t.Errorf("File = %q", c.File)
	}
	for _, key := range Keys() {
		if _, ok := c.places[key]; !ok {
			t.Errorf("%s is not in %s", key, sample)
		}
	}
	for _, f := range fieldsOf(typeOf("sources").Elem()) {
		if _, ok := c.places["sources[0]."+f.key]; !ok {
			t.Errorf("sources[0].%s is not in %s", f.key, sample)
		}
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	if err := os.WriteFile(file, []byte("listen: :1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "b.yaml")
	if err := os.WriteFile(other, []byte("listen: :2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(LoadOptions{Default: file}); err != nil || c.Listen != ":1" {
		t.Errorf("default file: %v, %v", c, err)
	}
	if c, err := Load(LoadOptions{File: other, Default: file}); err != nil || c.Listen != ":2" || c.File != other {
		t.Errorf("named file: %v, %v", c, err)
	}
	if _, err := Load(LoadOptions{File: filepath.Join(dir, "c.yaml"), Default: file}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing named file: %v, want fs.ErrNotExist", err)
	}
	if _, err := Load(LoadOptions{Default: dir}); err == nil {
		t.Error("a folder in place of the default file is not an error")
	}
}

// One file for each rule, with what is said of it beside it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			_, err := Load(LoadOptions{File: file})
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.ReplaceAll(err.Error(), filepath.Dir(file)+string(filepath.Separator), "") + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("the message tells a password: %s", got)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".err"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFlagsOverEnvironmentOverFile(t *testing.T) {
	const file = `
listen: ":1"
data_dir: /file
offline: true
cache: {max_size: 1GB, fill_slots: 1, pins: [name=file]}
`
	c := mustLoad(t, file, LoadOptions{
		Environ: []string{
			"IMGMIRROR_LISTEN=:0", "IMGMIRROR_LISTEN=:2", "IMGMIRROR_DATA_DIR=/env", "IMGMIRROR_OFFLINE=",
			"IMGMIRROR_CACHE_FILL_SLOTS=2", "IMGMIRROR_CACHE_PINS=name=env, os=linux", `IMGMIRROR_ADMIN_LISTEN=""`,
			"PATH=/bin", "odd",
		},
		Flags: map[string]any{"listen": ":3", "fill.stall_timeout": 5 * time.Second, "cache.min_free": Size(7), "public_url": URL("http://u:p@m"), "verify.allow_unverified": true},
	})
	want := Defaults()
	want.Listen, want.DataDir, want.Admin.Listen, want.Offline = ":3", "/env", "", true
	want.Cache.MaxSize, want.Cache.FillSlots, want.Cache.MinFree = gigabyte, 2, 7
	want.PublicURL = "http://u:p@m"
	want.Cache.Pins = []string{"name=env", "os=linux"}
	want.Fill.StallTimeout, want.Verify.AllowUnverified = 5*time.Second, true
	if d := diff(want, *c); d != "" {
		t.Error(d)
	}
}

func TestEveryKeyFromEnvironment(t *testing.T) {
	values := map[string]string{
		"listen": ":1", "public_url": "http://m", "data_dir": "/d", "dist_dir": "/p", "offline": "true",
		"tls.cert_file": "/c", "tls.key_file": "/k", "log.level": "debug", "log.format": "json", "log.requests": "errors",
		"admin.listen": ":2", "admin.token_file": "/t", "sources": `[{"url":"http://a"}]`,
		"channels": `[{"name":"dev","default":true}]`, "catalog.retired": "hide", "catalog.hide_broken_chains": "true", "catalog.published": "last",
		"cache.max_size": "1GB", "cache.min_free": "2GB", "cache.fill_slots": "3", "cache.stream_on_miss": "false",
		"cache.on_unreachable": "notfound", "cache.pins": "os=linux", "fill.stall_timeout": "1s", "fill.min_rate": "1KB", "fill.deadline": "1h",
		"fill.streams": "2", "clients.stall_timeout": "1s", "clients.drain_timeout": "1s", "clients.max_connections": "8",
		"clients.max_per_address": "7", "clients.memory": "8MB", "page.public": "false", "nodes.keep": "7d", "nodes.max": "100", "writes.enabled": "true", "writes.allow": "10.0.0.0/8", "writes.token_file": "/w", "memory.limit": "1GB", "verify.scrub_every": "1h", "verify.scrub_rate": "1MB", "verify.allow_unverified": "1",
		"bundle.trusted_keys": "k", "bundle.require_signature": "true", "prefetch": `[{"match":["os=linux"],"newest":1}]`,
		"zfsimport.enabled": "true", "zfsimport.pool": "p", "zfsimport.images": "os=linux", "zfsimport.zfs_path": "/z",
		"zfsimport.db_dir": "/b", "s3.endpoint": "http://s", "s3.bucket": "b", "s3.prefix": "p/", "s3.access_key_file": "/a",
		"s3.secret_key_file": "/s", "s3.region": "r", "s3.path_style": "false",
	}
	var environ []string
	names := make(map[string]bool)
	for _, key := range Keys() {
		value, ok := values[key]
		if !ok {
			t.Errorf("%s: no value in this test", key)
		}
		if name := EnvName(key); names[name] {
			t.Errorf("two keys are called %s", name)
		} else {
			names[name] = true
			environ = append(environ, name+"="+value)
		}
	}
	c := mustLoad(t, "", LoadOptions{Environ: environ})
	if d := cmp.Diff(Keys(), Changed(Defaults(), *c)); d != "" {
		t.Errorf("keys that the environment does not set: %s", d)
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %q", c.Warnings)
	}
	// The same keys and texts as flags.
	flags := make(map[string]any)
	for key, value := range values {
		flags[key] = value
	}
	if d := diff(*c, *mustLoad(t, "", LoadOptions{Flags: flags})); d != "" {
		t.Errorf("flags: %s", d)
	}
}

func TestUnknownVariablesWarn(t *testing.T) {
	c := mustLoad(t, "", LoadOptions{Environ: []string{
		"IMGMIRROR_PORT=tcp://10.0.0.1:8080", "IMGMIRROR_CACHE_MAXSIZE=1GB", "IMGMIRRORS=1",
	}})
	want := []string{
		"environment: IMGMIRROR_CACHE_MAXSIZE sets nothing; did you mean IMGMIRROR_CACHE_MAX_SIZE?",
		"environment: IMGMIRROR_PORT sets nothing",
	}
	if d := cmp.Diff(want, c.Warnings); d != "" {
		t.Error(d)
	}
}

// Faults say which layer they come from, and a value that was overridden is
// judged no more.
func TestPlacesOfFaults(t *testing.T) {
	f := func(file, environ string, flags map[string]any, want string) {
		t.Helper()
		_, err := loadText(file, LoadOptions{Environ: []string{environ}, Flags: flags})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	f("cache:\n  max_size: x", "", nil, `imgmirror.yaml:2: cache.max_size: "x": not a size: write it like 500GB, 64MiB or 1000000`)
	f("", "IMGMIRROR_FILL_DEADLINE=soon", nil, `IMGMIRROR_FILL_DEADLINE: fill.deadline: "soon": not a duration: write it like 30s, 10m, 24h or 7d`)
	f("", "", map[string]any{"listen": "x"}, `command line: listen: "x": must be HOST:PORT or :PORT`)
	f("log: {level: loud}", "IMGMIRROR_LOG_LEVEL=warn", nil, "")
	f("sources: [{url: 'ftp://a', name: a}]", "", map[string]any{"sources": []string{"http://b"}}, "")
	f("sources: [{url: 'http://a'}]", "", map[string]any{"sources": []string{"http://b", "ftp://c"}},
		`command line: sources[1].url: "ftp://c": must be http:// or https://`)
	f("", `IMGMIRROR_SOURCES=[{"url":"http://a","knid":"imgapi"}]`, nil,
		`IMGMIRROR_SOURCES: sources[0].knid: unknown key; did you mean kind?`)
	f("", `IMGMIRROR_SOURCES=[{"url":`, nil, `IMGMIRROR_SOURCES: sources: line 1: did not find expected node content`)
	f("", `IMGMIRROR_SOURCES=[] []`, nil, `IMGMIRROR_SOURCES: sources: more than one YAML document`)
	if _, err := loadText("", LoadOptions{Flags: map[string]any{"lisen": ":80"}}); err == nil {
		t.Error("a flag for no key is not an error")
	}
}

func TestLists(t *testing.T) {
	sources := func(o LoadOptions, want ...string) {
		t.Helper()
		c := mustLoad(t, "", o)
		got := make([]string, 0)
		for _, s := range c.Sources {
			got = append(got, fmt.Sprint(s.URL, " ", s.Kind, " ", short(s.Refresh), " ", s.LookupRate))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	sources(LoadOptions{Flags: map[string]any{"sources": []string{"http://a", "/srv/b"}}}, "http://a auto 10m 200", "/srv/b directory 10m 200")
	sources(LoadOptions{Flags: map[string]any{"sources": []string{}}})
	sources(LoadOptions{Environ: []string{"IMGMIRROR_SOURCES=[]"}})
	sources(LoadOptions{Environ: []string{"IMGMIRROR_SOURCES=http://a, http://b"}}, "http://a auto 10m 200", "http://b auto 10m 200")
	sources(LoadOptions{Environ: []string{`IMGMIRROR_SOURCES=["http://a",{"url":"http://b","kind":"dsapi","refresh":"1m","lookup_rate":0}]`}}, "http://a auto 10m 200", "http://b dsapi 1m 0")

	c := mustLoad(t, "sources: []\nprefetch: ['name=a', {match: [name=b, os=linux], newest: 2}]\nchannels: [dev, {name: release, default: true}]", LoadOptions{})
	if c.Sources == nil || len(c.Sources) != 0 {
		t.Errorf("sources = %v, want an empty list", c.Sources)
	}
	if d := cmp.Diff([]Prefetch{{Match: []string{"name=a"}}, {Match: []string{"name=b", "os=linux"}, Newest: 2}}, c.Prefetch); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Channel{{Name: "dev"}, {Name: "release", Default: true}}, c.Channels); d != "" {
		t.Error(d)
	}
}

func TestSourceNames(t *testing.T) {
	f := func(file string, want ...string) {
		t.Helper()
		var got []string
		for _, s := range mustLoad(t, "sources: "+file, LoadOptions{}).Sources {
			got = append(got, s.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	f(`["https://images.smartos.org"]`, "images.smartos.org")
	f(`["https://Images.smartos.org:443/base", "http://a:80", "http://a:8080", "a:443"]`, "images.smartos.org", "a", "a:8080", "a:443")
	f(`["http://a", "http://a/2", {url: "https://a"}]`, "a", "a-2", "a-3")
	f(`["http://a", {url: "http://b", name: a}, {url: "http://a", name: a-2}]`, "a-3", "a", "a-2")
	f(`["http://u:p@a:81/", "http://[::1]:8080"]`, "a:81", "[::1]:8080")
	f(`["/srv/my images/", "file:///srv/x", "./y", "/"]`, "my-images", "x", "y", "-")
}

// Aliases may repeat a list, but not without end.
func TestAliases(t *testing.T) {
	c := mustLoad(t, "cache: {pins: &a [os=linux]}\nprefetch: [{match: *a}]", LoadOptions{})
	if d := cmp.Diff([]string{"os=linux"}, c.Prefetch[0].Match); d != "" {
		t.Error(d)
	}
	bomb := "cache: {pins: &a [" + strings.Repeat("os=linux,", 1000) + "]}\n" +
		"prefetch: [&b {match: *a}" + strings.Repeat(",*b", 1000) + "]"
	if _, err := loadText(bomb, LoadOptions{}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("error %.200v, want too large", err)
	}
}
