package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestRoutes(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "imgmirror_test_total", Help: "Of this test."})
	registry.MustRegister(counter)
	counter.Add(3)
	var ready atomic.Bool
	h := New(Options{Gatherer: registry, Ready: ready.Load}).Handler()

	f := func(method, path string, status int, contains string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != status || !strings.Contains(w.Body.String(), contains) {
			t.Errorf("%s %s: %d %q, want %d with %q", method, path, w.Code, w.Body, status, contains)
		}
	}
	f("GET", "/metrics", 200, "imgmirror_test_total 3")
	f("GET", "/healthz", 200, "ok")
	f("HEAD", "/healthz", 200, "")
	f("GET", "/readyz", 503, "not ready")
	ready.Store(true)
	f("GET", "/readyz", 200, "ready")
	f("GET", "/healthz", 200, "ok")
	f("POST", "/readyz", 405, "")
	f("GET", "/", 404, "")
	f("GET", "/api/v1/images", 401, "UnauthorizedError")
}

func TestRun(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(Options{}).Run(ctx, ln, nil) }()

	client := &http.Client{Transport: &http.Transport{}} // keeps its connection open and idle
	resp, err := client.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || string(body) != "ok\n" {
		t.Fatalf("%d %q", resp.StatusCode, body)
	}

	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
}

func TestRunTellsWhatBrokeTheListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := New(Options{}).Run(t.Context(), ln, nil); err == nil {
		t.Error("no error")
	}
}
