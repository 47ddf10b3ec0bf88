// Package admin is the operator's side of the mirror: metrics, health, and the API under /api/v1 with
// its jobs and events, described by openapi.json. The operator's listener is apart from the clients'
// listener, so that the former can be bound to loopback and answers when the latter is full. Client is
// the other end, which the verbs use.
//
// The package owns jobs and the rules for callers; the work belongs to package mirror.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"imgmirror/proxy/mirror"
)

// Options of New. Without a Mirror there is no API, only metrics and health.
type Options struct {
	Gatherer prometheus.Gatherer // what /metrics shows
	Ready    func() bool         // what /readyz says
	Token    string              // opens /api and /debug to callers from the network; "" = to none of them
	Hosts    []string            // names by which browsers may call the mirror, beside addresses and localhost
	Logger   *slog.Logger        // nil = discard

	Registerer prometheus.Registerer // of the metrics of jobs; nil = they are not shown

	// HeadMemory bounds the heads of bundles that are being read or judged, each and together, in
	// bytes of bodies; 0 = what the largest bundle has.
	HeadMemory int64

	Mirror *mirror.Mirror
	// Certificate gives that of the clients' listener; nil, or a nil Certificate: it has none.
	Certificate func() *Certificate
	// Config gives the configuration in force as JSON, secrets masked.
	Config func() (json.RawMessage, error)
	// Doctor checks the set-up; there is something to tell of each.
	Doctor func(ctx context.Context) []Finding
}

// Server answers /metrics, /healthz, /readyz, the API and the profiler. Its
// methods may be called concurrently.
type Server struct {
	o        Options
	mirror   *mirror.Mirror
	log      *slog.Logger
	jobs     *jobs
	heads    heads
	glance   glance
	metrics  *metrics
	inner    *http.ServeMux // what only an operator may ask
	open     http.Handler   // for whoever can connect
	trusted  http.Handler   // for those whom the file system let in
	stopping chan struct{}  // closed when event streams are to end
	stop     sync.Once
	page     http.Handler // of Mount; nil: there is none
	tries    *Tries       // with a short token

	gathering chan struct{} // the turn of a caller of /metrics
}

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// stopTimeout is how long replies under way may go on when Run ends.
	stopTimeout = 5 * time.Second
	// soonTimeout is how long the taking of a reply that needs no token may last.
	soonTimeout = 30 * time.Second
	// restTimeout is what the rest of a request that has been answered may take to arrive.
	restTimeout = 2 * time.Second
	// maxHeader bounds a request's header; some 200 filters fit.
	maxHeader = 64 << 10
)

// New builds the server; it starts nothing.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o, mirror: o.Mirror, log: o.Logger, metrics: newMetrics(), stopping: make(chan struct{}), gathering: make(chan struct{}, 1), tries: NewTries()}
	s.jobs = newJobs(s.metrics)
	s.heads.limit = maxHead
	if o.HeadMemory > 0 {
		s.heads.limit = min(o.HeadMemory, maxHead)
	}
	if err := s.metrics.register(o.Registerer, s); err != nil {
		o.Logger.Error("the metrics of jobs are not shown", "error", err)
	}
	s.inner = http.NewServeMux()
	if o.Mirror != nil {
		for _, r := range s.routes() {
			s.inner.Handle(r.method+" "+apiPrefix+r.path, s.handle(r))
		}
	}
	s.inner.HandleFunc("/debug/pprof/", pprof.Index)
	s.inner.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	s.inner.HandleFunc("/debug/pprof/profile", pprof.Profile)
	s.inner.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	s.inner.HandleFunc("/debug/pprof/trace", pprof.Trace)
	route := http.HandlerFunc(s.route)
	s.trusted = s.front(route)
	open := s.front(s.guard(route))
	open.HandleFunc(pagePath, s.servePage)
	open.HandleFunc("GET /{$}", s.servePage)
	s.open = open
	return s
}

// front is what anyone may ask, with operators before what only they may.
func (s *Server) front(operators http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", soon(promhttp.HandlerFor(s.gatherer(), promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelError),
		// One bad collector must not hide the others.
		ErrorHandling: promhttp.ContinueOnError,
	})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.o.Ready() {
			say(w, http.StatusOK, "ready\n")
		} else {
			say(w, http.StatusServiceUnavailable, "not ready\n")
		}
	})
	mux.Handle("/api/", operators)
	mux.Handle("/debug/", operators)
	return mux
}

// gatherer gathers for one caller at a time: whoever can connect may ask, and the asking takes CPU.
func (s *Server) gatherer() prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		s.gathering <- struct{}{}
		defer func() { <-s.gathering }()
		return s.o.Gatherer.Gather()
	})
}

// soon is h for callers that take the reply within soonTimeout.
func soon(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(soonTimeout))
		h.ServeHTTP(w, r)
	})
}

// say sends a short text that no cache may keep.
func say(w http.ResponseWriter, status int, text string) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(soonTimeout))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that is gone needs no answer
}

// Handler is all routes, for a listener of another kind.
//
//	GET /metrics   what the Gatherer has, in the formats of Prometheus
//	GET /healthz   200 as long as the process lives
//	GET /readyz    200 or 503, as Options.Ready says
//	/api/v1/…      the API: openapi.json; with the token only
//	/debug/pprof/  the profiler; with the token only
//	/ui/           the page of Mount, which asks for the token by itself; / leads there
func (s *Server) Handler() http.Handler { return s.open }

// Trusted is Handler without a token: each caller that can connect may do everything.
func (s *Server) Trusted() http.Handler { return s.trusted }

// Run serves Handler on open and Trusted on trusted, either of which may be nil, until ctx ends.
// Then it cancels the jobs and waits for them, closes the listeners, lets replies under way end and
// returns. It returns the error that broke a listener, else nil. Call it once.
func (s *Server) Run(ctx context.Context, open, trusted net.Listener) error {
	type listener struct {
		net.Listener
		server  *http.Server
		callers *callers
	}
	var all []listener
	add := func(ln net.Listener, h http.Handler, most int) {
		if ln != nil {
			server := s.server(h)
			all = append(all, listener{ln, server, watchCallers(server, most, s.metrics)})
		}
	}
	add(open, s.open, maxCallers)
	add(trusted, s.trusted, 0)

	var serving sync.WaitGroup
	broken := make(chan error, len(all))
	for _, l := range all {
		serving.Go(func() {
			if err := l.server.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				broken <- fmt.Errorf("admin listener: %w", err)
			}
		})
	}
	ctx, stopKeeping := context.WithCancel(ctx)
	if socket, ok := trusted.(*Socket); ok {
		serving.Go(func() { socket.keep(ctx, s.log) })
	}
	var err error
	select {
	case err = <-broken:
	case <-ctx.Done():
	}
	stopKeeping()
	s.jobs.stop()
	s.stop.Do(func() { close(s.stopping) })
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, l := range all {
		serving.Go(func() {
			l.callers.end()
			if l.server.Shutdown(stop) != nil {
				l.server.Close()
			}
		})
	}
	serving.Wait()
	return err
}

func (s *Server) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           endsSoon(h),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// endsSoon is h with a limit for clients that keep back a part of an announced body: after the answer
// net/http waits for the part, to use the connection again.
func endsSoon(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTimeout)) }()
		h.ServeHTTP(w, r)
	})
}
