package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"imgmirror/cache"
	"imgmirror/config"
	"imgmirror/proxy/upstream/upstreamtest"
)

// gaugeOf is the value of a metric without labels.
func gaugeOf(t *testing.T, m *process, name string) float64 {
	t.Helper()
	all, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// New limits count from the reload on: the room, and how many downloads run at once.
func TestReloadLimits(t *testing.T) {
	source, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Stop)
	for n := 1; n <= 2; n++ {
		file := upstreamtest.Bytes(uint64(n), 5000)
		if err := source.Add(upstreamtest.Manifest(upstreamtest.ID(n), "image", "1", nil, file), file); err != nil {
			t.Fatal(err)
		}
	}
	source.Inject(upstreamtest.Fault{Path: "/file", Stall: true})
	cfg := testConfig(t)
	cfg.Sources = []config.Source{{Name: "s", URL: config.URL(source.URL()), Kind: "imgapi", Refresh: config.Defaults().Sources[0].Refresh}}
	cfg.Cache.FillSlots, cfg.Cache.MaxSize = 1, 5_000_000
	m, _ := runProcess(t, cfg)
	if got := gaugeOf(t, m, "imgmirror_cache_limit_bytes"); got != 5_000_000 {
		t.Errorf("the limit is %v", got)
	}
	for n := 1; n <= 2; n++ {
		e, ok := m.Current().Entry(upstreamtest.ID(n))
		if !ok {
			t.Fatalf("image %d is not listed", n)
		}
		go func() { // ends with the store
			if r, err := m.Open(t.Context(), e, 0, cache.Client, cache.ByClient); err == nil {
				r.Close() //nolint:errcheck // read only
			}
		}()
	}
	asked := func(want int) func([]upstreamtest.Request) bool {
		return func(all []upstreamtest.Request) bool {
			files := make(map[string]bool)
			for _, r := range all {
				if strings.HasSuffix(r.Path, "/file") {
					files[r.Path] = true
				}
			}
			return len(files) >= want
		}
	}
	if err := source.Await(t.Context(), asked(1)); err != nil {
		t.Fatal(err)
	}
	for gaugeOf(t, m, "imgmirror_fill_slots_waiting") == 0 {
		runtime.Gosched()
	}
	next := *cfg
	next.Cache.FillSlots, next.Cache.MaxSize = 2, 3_000_000
	if err := m.reload(t.Context(), &next); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := source.Await(ctx, asked(2)); err != nil {
		t.Errorf("the second download does not begin: %v", err)
	}
	if got := gaugeOf(t, m, "imgmirror_cache_limit_bytes"); got != 3_000_000 {
		t.Errorf("the limit after the reload is %v", got)
	}
}

// A secret that was changed in its file counts from the reload on, though no key has changed.
func TestReloadSecrets(t *testing.T) {
	source, err := upstreamtest.New(upstreamtest.Options{Token: "new"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Stop)
	file := upstreamtest.Bytes(1, 100)
	if err := source.Add(upstreamtest.Manifest(upstreamtest.ID(1), "image", "1", nil, file), file); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Sources = []config.Source{{Name: "s", URL: config.URL(source.URL()), Kind: "imgapi", TokenFile: secret, Refresh: config.Defaults().Sources[0].Refresh}}
	m, _ := runProcess(t, cfg)
	if _, err := m.Check(t.Context(), "s"); err == nil || len(listed(m)) != 0 {
		t.Fatalf("with the old token: %v, %d images", err, len(listed(m)))
	}
	if err := os.WriteFile(secret, []byte("new\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	same := *cfg
	if err := m.reload(t.Context(), &same); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Check(t.Context(), "s"); err != nil || len(listed(m)) != 1 {
		t.Errorf("with the new token: %v, %d images", err, len(listed(m)))
	}
}

// What a container engine is told is what the mirror says, and nothing else counts as ready.
func TestAskReady(t *testing.T) {
	for status, ready := range map[int]bool{200: true, 503: false, 500: false, 404: false, 204: false, 401: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" {
				status = 200
			}
			w.WriteHeader(status)
		}))
		err := askReady(t.Context(), server.Listener.Addr().String())
		server.Close()
		if (err == nil) != ready {
			t.Errorf("status %d: %v", status, err)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	if err := askReady(t.Context(), gone.Listener.Addr().String()); err == nil {
		t.Error("nobody listens, and the mirror is ready")
	}
}

// Clients from Node 0.10 on, which speak TLS 1.2, are served; the versions before it are not spoken.
func TestTLSVersions(t *testing.T) {
	cert := httptest.NewTLSServer(nil)
	cert.Close()
	m := &process{}
	dir := t.TempDir()
	cfg := testConfig(t)
	cfg.TLS = config.TLS{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
	writePair(t, cfg.TLS, cert.TLS.Certificates[0])
	conf, err := m.tlsConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for version, served := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		here, there := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = tls.Server(there, conf).HandshakeContext(t.Context()) // the client tells
			there.Close()
		}()
		client := tls.Client(here, &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true})
		if err := client.HandshakeContext(t.Context()); (err == nil) != served {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		here.Close()
		<-done
	}
}

// writePair writes a certificate and its key as files.
func writePair(t *testing.T, files config.TLS, pair tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		files.CertFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, files.KeyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
