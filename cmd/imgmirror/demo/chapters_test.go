package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sampleServer is an image server of the samples.
func sampleServer(t *testing.T) *httptest.Server {
	t.Helper()
	var list []json.RawMessage
	files := make(map[string][]byte)
	err := fs.WalkDir(samples, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := samples.ReadFile(name)
		switch id := "/images/" + path.Dir(name); path.Base(name) {
		case "manifest.json":
			list = append(list, text)
			files[id] = text
		default:
			files[id+"/file"] = text
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files["/images"], err = json.Marshal(list); err != nil {
		t.Fatal(err)
	}
	files["/ping"] = []byte(`{"imgapi":true}`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(text)))
	}))
	t.Cleanup(server.Close)
	return server
}

// TestWrongFigures: in front of something that only forwards, each chapter after the first fails, and
// names what is not as expected.
func TestWrongFigures(t *testing.T) {
	registry := prometheus.NewRegistry()
	for _, name := range []string{"imgmirror_fill_resumes_total", "imgmirror_verify_failures_total", "imgmirror_upstream_received_bytes_total", "imgmirror_fills_inflight"} {
		registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: name}))
	}
	// forward is a "mirror" without memory.
	forward := func(t *testing.T, url, dir string) *Mirror {
		t.Helper()
		l, err := newLine(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.close() })
		return &Mirror{URL: l.url, Dir: dir, Metrics: registry, Stop: l.close}
	}
	for name, c := range map[string]struct {
		tell func(context.Context, *story, *Mirror) error
		want string // "" = no error
	}{
		"pull":    {func(ctx context.Context, s *story, _ *Mirror) error { return s.pull(ctx) }, ""},
		"cut":     {func(ctx context.Context, s *story, _ *Mirror) error { return s.cut(ctx) }, "unexpected EOF"},
		"lie":     {func(ctx context.Context, s *story, source *Mirror) error { return s.lie(ctx, source) }, "clients with a whole wrong file: 1, expected 0"},
		"herd":    {func(ctx context.Context, s *story, _ *Mirror) error { return s.herd(ctx) }, "requests at the source: 8, expected 1"},
		"offline": {func(ctx context.Context, s *story, source *Mirror) error { return s.offline(ctx, source) }, "GET "},
		"carry":   {func(ctx context.Context, s *story, _ *Mirror) error { return s.carry(ctx) }, "expected BundleNotTrusted"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "wary", "files"), 0o755); err != nil {
				t.Fatal(err)
			}
			source := forward(t, sampleServer(t).URL, dir)
			l, err := newLine(source.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			out := new(strings.Builder)
			s := &story{teller: newTeller(out), dir: dir, line: l, mirror: forward(t, l.url, dir)}
			s.client = newClient(s.mirror.URL, s.say)
			s.start = func(_ context.Context, o Options) (*Mirror, error) {
				url := source.URL
				if len(o.Sources) > 0 {
					url = string(o.Sources[0].URL)
				}
				return forward(t, url, o.Dir), nil
			}
			s.verb = func(context.Context, ...string) Said { return Said{} }
			err = c.tell(ctx, s, source)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestPublished: a file with other bytes than its name tells is counted as wrong.
func TestPublished(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"aa/aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d": "hello",
		"bb/bbf4c61ddcc5e8a2dabede0f3b482cd9aea9434d": "hello",
	} {
		file := filepath.Join(dir, "files", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if files, wrong, err := published(t.Context(), dir); files != 2 || wrong != 1 || err != nil {
		t.Errorf("%d files, %d wrong, %v", files, wrong, err)
	}
}

// TestTeller: a figure is shown whatever its value; a wrong one is an error. Without a terminal there
// are no colours.
func TestTeller(t *testing.T) {
	out := new(strings.Builder)
	teller := newTeller(out)
	if err := teller.figure("bytes", 1234, 1234); err != nil {
		t.Error(err)
	}
	if err := teller.figure("bytes", 1234, 5); err == nil || err.Error() != "bytes: 1,234, expected 5" {
		t.Errorf("%v", err)
	}
	want := "   ok     bytes                                                       1,234\n" +
		"   wrong  bytes                                                       1,234\n"
	if out.String() != want || teller.figures != 1 {
		t.Errorf("%d figures:\n%s", teller.figures, out)
	}
	teller = newTeller(io.Discard)
	teller.coloured = true
	if got := teller.paint(green, "ok"); got != "\x1b[32mok\x1b[0m" {
		t.Errorf("%q", got)
	}
}
