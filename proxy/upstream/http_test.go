package upstream

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

func TestNewErrors(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"name":           {URL: "http://h"},
		"no host":        {Name: "n"},
		"kind \"ftp\"":   {Name: "n", URL: "http://h", Kind: "ftp"},
		"ca_file":        {Name: "n", URL: "http://h", CAFile: "/nonexistent"},
		"no certificate": {Name: "n", URL: "http://h", CAFile: notPEM},
		"proxy":          {Name: "n", URL: "http://h", Proxy: "gopher://p"},
		"not an http":    {Name: "n", URL: "http://h", Proxy: "://"},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

func TestAuthorization(t *testing.T) {
	for _, test := range []struct {
		name   string
		server upstreamtest.Options
		client Options
		ok     bool
	}{
		{"basic", upstreamtest.Options{Username: "u", Password: "p"}, Options{Username: "u", Password: "p"}, true},
		{"bearer", upstreamtest.Options{Token: "t"}, Options{Token: "t"}, true},
		{"bearer wins", upstreamtest.Options{Token: "t"}, Options{Token: "t", Username: "u", Password: "p"}, true},
		{"wrong", upstreamtest.Options{Username: "u", Password: "p"}, Options{Username: "u", Password: "q"}, false},
		{"none", upstreamtest.Options{Token: "t"}, Options{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, test.server)
			add(t, s, small(1))
			test.client.URL = s.URL()
			_, err := newClient(t, test.client).List(t.Context(), manifest.Listing{})
			if test.ok && err != nil || !test.ok && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("in the url", func(t *testing.T) {
		s := newServer(t, upstreamtest.Options{Username: "u", Password: "p"})
		c := newClient(t, Options{URL: strings.Replace(s.URL(), "http://", "http://u:p@", 1)})
		if _, err := c.List(t.Context(), manifest.Listing{}); err != nil {
			t.Error(err)
		}
	})
}

func TestCredentialsStayWithTheSource(t *testing.T) {
	var got []string
	note := func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.URL.Path+" "+r.Header.Get("Authorization"))
		fmt.Fprint(w, "x")
	}
	other := serve(t, note)
	here := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/datasets/" + upstreamtest.ID(1).String() + "/away":
			got = append(got, "away "+r.Header.Get("Authorization"))
			http.Redirect(w, r, other+"/redirected", http.StatusFound)
		case "/datasets/" + upstreamtest.ID(1).String() + "/near":
			http.Redirect(w, r, "/near", http.StatusTemporaryRedirect)
		case "/near":
			note(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	c := newClient(t, Options{URL: here, Kind: kindDSAPI, Token: "secret"})
	for _, file := range []map[string]any{
		{"path": "away"}, {"path": "near"}, {"path": "absent", "url": other + "/stated"},
	} {
		file["size"] = 1
		m := parse(t, upstreamtest.ManifestV1(upstreamtest.ID(1), "n", "1", map[string]any{"files": []any{file}}))
		if string(read(t, c, m, 0)) != "x" {
			t.Error("not the file")
		}
	}
	want := "away Bearer secret, /redirected , /near Bearer secret, /stated "
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestRedirects(t *testing.T) {
	for hops, ok := range map[int]bool{0: true, 5: true, 6: false} {
		c := newClient(t, Options{Kind: kindStatic, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
			n := 0
			fmt.Sscanf(r.URL.Path, "/%d", &n)
			if n < hops {
				http.Redirect(w, r, fmt.Sprintf("/%d", n+1), http.StatusMovedPermanently)
				return
			}
			fmt.Fprint(w, v1List)
		})})
		_, err := c.List(t.Context(), manifest.Listing{})
		if (err == nil) != ok || err != nil && (!errors.Is(err, verify.ErrUnavailable) || retryable(err)) {
			t.Errorf("%d redirects: %v", hops, err)
		}
	}
}

// newTLSServer gives the address of a TLS server and the file of its CA.
func newTLSServer(t *testing.T, h http.Handler) (address, caFile string) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(caFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL, caFile
}

func TestTLS(t *testing.T) {
	address, caFile := newTLSServer(t, paths(map[string]string{"/images": v2List}))
	for _, test := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"unknown CA", Options{}, false},
		{"insecure", Options{Insecure: true}, true},
		{"ca_file", Options{CAFile: caFile}, true},
	} {
		test.o.URL, test.o.Kind = address, kindIMGAPI
		_, err := newClient(t, test.o).List(t.Context(), manifest.Listing{})
		if (err == nil) != test.ok || err != nil && !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// The end of the source's own certificate is seen, also when the certificate is not trusted.
func TestCertificateEnd(t *testing.T) {
	address, caFile := newTLSServer(t, paths(map[string]string{"/images": v2List}))
	pair, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pair)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, address+"/images", http.StatusFound) })
	for _, test := range []struct {
		name string
		o    Options
		want time.Time
	}{
		{"trusted", Options{URL: address, CAFile: caFile}, cert.NotAfter},
		{"not trusted", Options{URL: address}, cert.NotAfter},
		{"of another host", Options{URL: strings.Replace(plain, "127.0.0.1", "localhost", 1), CAFile: caFile}, time.Time{}},
		{"nobody there", Options{URL: "https://127.0.0.1:1"}, time.Time{}},
	} {
		r := prometheus.NewRegistry()
		test.o.Kind, test.o.Metrics = kindIMGAPI, NewMetrics(r, []string{"test"})
		c := newClient(t, test.o)
		if !c.CertificateEnd().IsZero() {
			t.Errorf("%s: a certificate before the first question", test.name)
		}
		_, _ = c.List(t.Context(), manifest.Listing{}) // the certificate tells
		want := 0.0
		if !test.want.IsZero() {
			want = float64(test.want.Unix())
		}
		if got, shown := c.CertificateEnd(), testutil.ToFloat64(c.certificate.shown); !got.Equal(test.want) || shown != want {
			t.Errorf("%s: %v, metric %v; want %v", test.name, got, shown, test.want)
		}
	}
}

func TestRedirectFromHTTPSToHTTP(t *testing.T) {
	var authorization string
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		fmt.Fprint(w, v2List)
	})
	address, caFile := newTLSServer(t, http.RedirectHandler(plain, http.StatusFound))
	c := newClient(t, Options{URL: address, Kind: kindIMGAPI, CAFile: caFile, Token: "t"})
	if _, err := c.List(t.Context(), manifest.Listing{}); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, errRedirect) {
		t.Errorf("error %v", err)
	}
	c = newClient(t, Options{URL: address, Kind: kindIMGAPI, Insecure: true, Token: "t"})
	if _, err := c.List(t.Context(), manifest.Listing{}); err != nil || authorization != "" {
		t.Errorf("insecure: %v, authorization %q", err, authorization)
	}
}

func TestProxy(t *testing.T) {
	var asked []string
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI)
		fmt.Fprint(w, v2List)
	})
	list := func(o Options) {
		t.Helper()
		o.URL, o.Kind = "http://images.example/sub", kindIMGAPI
		if _, err := newClient(t, o).List(t.Context(), manifest.Listing{}); err != nil {
			t.Error(err)
		}
	}
	list(Options{Proxy: proxy})
	t.Setenv("http_proxy", proxy)
	list(Options{})
	t.Setenv("http_proxy", "")
	t.Setenv("HTTP_PROXY", proxy)
	list(Options{})
	if len(asked) != 3 {
		t.Errorf("the proxy was asked for %q", asked)
	}
	for _, u := range asked {
		if u != "http://images.example/sub/images?state=active" {
			t.Errorf("the proxy was asked for %s", u)
		}
	}
	t.Setenv("NO_PROXY", "images.example")
	c := newClient(t, Options{URL: "http://images.example", Kind: kindIMGAPI})
	if _, err := c.Get(t.Context(), upstreamtest.ID(1)); !errors.Is(err, verify.ErrUnavailable) || len(asked) != 3 {
		t.Errorf("NO_PROXY: %v, %d requests", err, len(asked))
	}
}

func TestErrorBodies(t *testing.T) {
	f := func(body, wantCode, wantExcerpt string) {
		t.Helper()
		code, excerpt := describe([]byte(body))
		if code != wantCode || excerpt != wantExcerpt {
			t.Errorf("%q: %q, %q", body, code, excerpt)
		}
	}
	f(`{"code":"ResourceNotFound","message":"image not found"}`, "ResourceNotFound", "image not found")
	f(`{"error":{"code":"X","message":"y"}}`, "X", "y")
	f(`"404 Not Found"`, "", "404 Not Found")
	f("Not found", "", "Not found")
	f("<html>\n<body>\r\n  Oh&nbsp;no </body>", "", "<html> <body> Oh&nbsp;no </body>")
	f(`{"code":7,"message":["x"]}`, "", `{"code":7,"message":["x"]}`)
	f("", "", "")
	f("null", "", "null")
	f("a\x00b\x1b[31mc\xff", "", "a b [31mc?")
	f(strings.Repeat("é", 500), "", strings.Repeat("é", 120)+"…")
}

func FuzzErrorBodies(f *testing.F) {
	f.Add([]byte(`{"code":"X","message":"y"}`))
	f.Add([]byte(`"s"`))
	f.Add([]byte("\xff\x00<html>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		code, excerpt := describe(body)
		for _, s := range []string{code, excerpt} {
			if strings.ContainsAny(s, "\n\r\t\x1b\x00") || len([]rune(s)) > maxExcerpt+1 {
				t.Errorf("%q gives %q", body, s)
			}
		}
	})
}

func TestErrorBodyIsOfNoAccount(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"broken gzip": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "no gzip")
		},
		"cut": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "x")
		},
	} {
		c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, answer)})
		if _, err := c.Get(t.Context(), upstreamtest.ID(1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoAnswerInTime(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	s.Inject(upstreamtest.Fault{Stall: true, Status: 200, Body: "x"})
	c := newClient(t, Options{URL: s.URL(), Kind: kindIMGAPI, StallTimeout: 250 * time.Millisecond})
	m := parse(t, small(1))
	if _, err := c.Get(t.Context(), m.UUID); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, verify.ErrStalled) {
		t.Errorf("a body that stalls: %v", err)
	}
	s.Heal()
	s.Inject(upstreamtest.Fault{Delay: time.Hour})
	if _, err := c.Get(t.Context(), m.UUID); !errors.Is(err, verify.ErrStalled) || errors.Is(err, context.Canceled) {
		t.Errorf("no answer: %v", err)
	}
	if _, err := c.File(t.Context(), m, 0, 0); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, verify.ErrStalled) {
		t.Errorf("no answer to a file: %v", err)
	}
	if _, err := c.List(t.Context(), manifest.Listing{}); !errors.Is(err, verify.ErrStalled) {
		t.Errorf("no answer to a list: %v", err)
	}
	if n := s.Count("/images"); n != listTries {
		t.Errorf("%d tries", n)
	}
}

func TestCallerLeaves(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	s.Inject(upstreamtest.Fault{Delay: time.Hour})
	c := newClient(t, Options{URL: s.URL(), Kind: kindIMGAPI})
	c.metrics.up.Set(1)

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		s.Await(ctx, func(r []upstreamtest.Request) bool { return len(r) > 0 })
		cancel()
	}()
	if _, err := c.List(ctx, manifest.Listing{}); !errors.Is(err, context.Canceled) || errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
	if up := value(t, c.metrics.up); up != 1 {
		t.Errorf("the source counts as down: %v", up)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, upstreamtest.ID(1)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("deadline: %v", err)
	}
	if up := value(t, c.metrics.up); up != 0 {
		t.Errorf("the source counts as up: %v", up)
	}
}
