package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsAreValid(t *testing.T) {
	c := Defaults()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if got, want := c.AdminTokenFile(), filepath.Join("imgmirror-data", "admin.token"); got != want {
		t.Errorf("AdminTokenFile() = %q, want %q", got, want)
	}
	c.Admin.TokenFile = "/run/token"
	if got := c.AdminTokenFile(); got != "/run/token" {
		t.Errorf("AdminTokenFile() = %q", got)
	}
	c.Log.Level = "warn"
	if c.Log.SlogLevel() != slog.LevelWarn {
		t.Errorf("SlogLevel() = %v", c.Log.SlogLevel())
	}
}

// A Config made by hand is judged by the same rules, and its faults can be
// told apart.
func TestValidate(t *testing.T) {
	c := Defaults()
	c.Cache.FillSlots, c.Cache.MaxSize = 0, -1
	err := c.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("error %v, want two faults", err)
	}
	f, ok := errors.AsType[*Fault](joined.Unwrap()[1])
	if !ok {
		t.Fatalf("error %v is no Fault", err)
	}
	if d := cmp.Diff(&Fault{Key: "cache.fill_slots", Value: `"0"`, Reason: "must be 1 to 1024"}, f); d != "" {
		t.Error(d)
	}
}

const withPasswords = `
public_url: http://u:hunter2@mirror
sources:
  - {name: a, url: "https://u:hunter2@a/base", proxy: "http://p:hunter2@proxy:3128"}
s3: {endpoint: "http://u:hunter2@s3", bucket: b}
`

func TestPasswordsAreNotPrinted(t *testing.T) {
	c := mustLoad(t, withPasswords, LoadOptions{})
	if got := string(c.Sources[0].URL); got != "https://u:hunter2@a/base" {
		t.Fatalf("the URL itself is %s", got)
	}
	var printed bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&printed, verb+"\n", *c)
		fmt.Fprintf(&printed, verb+"\n", c)
		fmt.Fprintf(&printed, verb+"\n", c.Sources[0].URL)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&printed, nil), slog.NewJSONHandler(&printed, nil)} {
		slog.New(h).Info("config", "config", c, "source", c.Sources[0], "url", c.Sources[0].URL)
	}
	if err := json.NewEncoder(&printed).Encode(c); err != nil {
		t.Error(err)
	}
	text, err := c.YAML()
	if err != nil {
		t.Error(err)
	}
	printed.Write(text)
	for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if i := strings.Index(printed.String(), secret); i >= 0 {
			t.Errorf("printed: …%s…", printed.String()[max(i-60, 0):i+len(secret)])
		}
	}
	if n := strings.Count(string(text), ":xxxxx@"); n != 4 {
		t.Errorf("%d masked passwords in the YAML, want 4:\n%s", n, text)
	}
}

func TestURLString(t *testing.T) {
	f := func(u URL, want string) {
		t.Helper()
		if got := u.String(); got != want {
			t.Errorf("%q: got %q, want %q", string(u), got, want)
		}
	}
	f("", "")
	f("http://a/b@c:d", "http://a/b@c:d")
	f("http://user@a", "http://user@a")
	f("http://user:secret@a/b?c", "http://user:xxxxx@a/b?c")
	f("http://user:sec/ret@a", "http://user:xxxxx@a")
	f("http://user:sec%ret@a:port", "http://user:xxxxx@a:port")
	f("user:secret@a:80", "user:xxxxx@a:80")
	f("10 potatoes", "10 potatoes")
}

// What config show prints is a file that gives the same settings.
func TestYAMLIsReadBack(t *testing.T) {
	f := func(file string) {
		t.Helper()
		c := mustLoad(t, file, LoadOptions{})
		text, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(*c, *mustLoad(t, string(text), LoadOptions{})); d != "" {
			t.Errorf("%s\nfrom\n%s", d, text)
		}
	}
	f("")
	f("sources: []\nadmin: {listen: ''}\ncache: {max_size: 1GiB, min_free: 0, pins: ['name=~x', 'os!=linux']}")
	f("data_dir: 'yes'\ns3: {prefix: '0x10', region: '~'}\nlog: {level: debug}\nbundle: {trusted_keys: ['a: b', '#c', ' d ']}")
	f("channels: [{name: dev, description: \"two\\nlines\"}]\nfill: {stall_timeout: 90s, min_rate: 0, deadline: 1h0m1s}")
	f("prefetch: [{match: [name=a], newest: 3}]\nsources: [{url: 'http://a', rate_limit: 40MB, refresh: 1500ms, lookup_rate: 0}]")

	text, err := Defaults().YAML()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`listen: :8080`, `  min_free: 10GB`, `  max_size: ""`, `    refresh: 10m`, `  scrub_every: 7d`, `  keep: 30d`, `channels: []`} {
		if !strings.Contains(string(text), line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

func TestChanged(t *testing.T) {
	a, b := Defaults(), Defaults()
	b.Channels, b.Cache.Pins = []Channel{}, []string{}
	if got := Changed(a, b); len(got) > 0 {
		t.Errorf("changed: %q, want nothing", got)
	}
	b.Log.Level, b.Sources[0].Include, b.S3.PathStyle = "debug", []string{"os=linux"}, false
	if d := cmp.Diff([]string{"log.level", "sources", "s3.path_style"}, Changed(a, b)); d != "" {
		t.Error(d)
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	f := func(content, want, reason string) {
		t.Helper()
		file := filepath.Join(dir, "secret")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSecret(file)
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if (err == nil) != (reason == "") || err != nil && !strings.Contains(err.Error(), file+": "+reason) {
			t.Errorf("error %v, want %q", err, reason)
		}
	}
	f("hunter2\n", "hunter2", "")
	f("hunter2\r\n", "hunter2", "")
	f(" two words \n\n", " two words \n", "")
	f("hunter2", "hunter2", "")
	f("\n", "", "is empty")
	f("", "", "is empty")
	f(strings.Repeat("x", maxSecret+1), "", "too large")
	if _, err := ReadSecret(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want not-exist", err)
	}
}

func TestReadableSecretsWarn(t *testing.T) {
	dir := t.TempDir()
	open, closed := filepath.Join(dir, "open"), filepath.Join(dir, "closed")
	for file, mode := range map[string]os.FileMode{open: 0o644, closed: 0o600} {
		if err := os.WriteFile(file, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	c := mustLoad(t, "", LoadOptions{Flags: map[string]any{
		"sources":          `[{"url":"http://a","username":"u","password_file":"` + open + `"},{"url":"http://b","token_file":"` + closed + `"}]`,
		"admin.token_file": filepath.Join(dir, "absent"),
	}})
	if d := cmp.Diff([]string{"sources[0].password_file: everyone on this machine can read " + open}, c.Warnings); d != "" {
		t.Error(d)
	}
}

// Waits for rate_limit make no source slow, so that no rate_limit is too small beside fill.min_rate.
func TestSmallRateLimit(t *testing.T) {
	for _, limit := range []string{"", "20KB", "19KB", "1KB"} {
		c := mustLoad(t, "", LoadOptions{Flags: map[string]any{"sources": `[{"url":"http://b","rate_limit":"` + limit + `"}]`, "fill.min_rate": "10KB"}})
		if len(c.Warnings) > 0 {
			t.Errorf("rate_limit %s: %q", limit, c.Warnings)
		}
	}
}

// An import of imgadm's with its origins needs six connections at once.
func TestNarrowLimitsWarn(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, 5: 1, 6: 0, 256: 0} {
		c := mustLoad(t, "", LoadOptions{Flags: map[string]any{"clients.max_per_address": n}})
		if len(c.Warnings) != want || want > 0 && !strings.Contains(c.Warnings[0], "clients.max_per_address: "+strconv.Itoa(n)+" is too few") {
			t.Errorf("max_per_address %d: %q", n, c.Warnings)
		}
	}
	if c := mustLoad(t, "", LoadOptions{Flags: map[string]any{"clients.max_connections": 5}}); len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "clients.max_connections") {
		t.Errorf("max_connections 5: %q", c.Warnings)
	}
}
