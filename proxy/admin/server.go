// Package admin is the operator's listener: metrics and health. It is apart
// from the client listener so that it can be bound to loopback, and it answers
// when that one is full.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options of New.
type Options struct {
	Gatherer prometheus.Gatherer // what /metrics shows; nil = nothing
	Ready    func() bool         // what /readyz says; nil = always ready
	Logger   *slog.Logger        // nil = discard
}

// Server answers /metrics, /healthz and /readyz.
type Server struct {
	handler http.Handler
	log     *slog.Logger
}

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// stopTimeout is how long replies under way may go on when Run ends. They
	// are small.
	stopTimeout = 5 * time.Second
)

// New builds the server; it starts nothing.
func New(o Options) *Server {
	if o.Gatherer == nil {
		o.Gatherer = prometheus.NewRegistry()
	}
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{log: o.Logger}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelError),
		// One bad collector must not hide the others.
		ErrorHandling: promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if o.Ready() {
			say(w, http.StatusOK, "ready\n")
		} else {
			say(w, http.StatusServiceUnavailable, "not ready\n")
		}
	})
	s.handler = mux
	return s
}

// say sends a short text that nobody may keep.
func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that is gone needs no answer
}

// Handler is all routes, for a listener of another kind. It may be used
// concurrently.
//
//	GET /metrics   what the Gatherer has, in the formats of Prometheus
//	GET /healthz   200 as long as the process lives
//	GET /readyz    200 or 503, as Options.Ready says
func (s *Server) Handler() http.Handler { return s.handler }

// Run serves ln until ctx ends, then closes it, lets replies under way end
// and returns. It returns the error that broke the listener, else nil.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		srv.Close()
		return fmt.Errorf("admin listener: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := srv.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-served
	if err != nil {
		return fmt.Errorf("admin listener: %w", err)
	}
	return nil
}
