// Package admin is the operator's side of the mirror: metrics, health, and the
// API under /api/v1 with its jobs and events, described by openapi.json. It is
// apart from the client listener so that it can be bound to loopback, and it
// answers when that one is full. Client is the other end, which the verbs use.
//
// The package owns jobs and who may call; what is done belongs to those that
// Options names.
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

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// Catalog is what images there are; *catalog.Catalog is one. Its methods may be
// called concurrently.
type Catalog interface {
	// Current is the list now being served: immutable, never nil, no waiting.
	Current() *catalog.List
	// Get finds one image, asking the sources if need be. The error matches
	// fs.ErrNotExist when there is none, else it means "cannot tell".
	Get(ctx context.Context, id uuid.UUID) (catalog.Entry, error)
	// Status tells of every source, in order of priority.
	Status() []catalog.Status
	// Hidden says why an image that some source has is not shown to clients.
	Hidden(id uuid.UUID) []catalog.Hidden
	// Refresh asks every source for its list, now. The error joins those of the
	// sources that failed.
	Refresh(ctx context.Context) error
	// Check asks one source, by its name, for its list, now, and takes it over.
	// ctx bounds the wait only.
	Check(ctx context.Context, source string) error
}

// Store is where the files are; *cache.Store is one. Its methods may be called
// concurrently.
type Store interface {
	// File gives a Reader, which the caller closes, on the blob, from disk or
	// from the fill that it joins or starts.
	File(ctx context.Context, b cache.Blob, sources []cache.Source) (*cache.Reader, error)
	// Peek tells what is on disk of the blob, verified.
	Peek(b cache.Blob) (cache.Info, bool)
	// Files lists what is on disk.
	Files() []cache.File
	// Manifest gives the manifest of an image with a file on disk, as it was when
	// that was stored.
	Manifest(id uuid.UUID) (manifest.Manifest, error)
	// Fills lists the downloads under way.
	Fills() []cache.FillInfo
	// Settle waits until those that have all their bytes by now are over.
	Settle(ctx context.Context) error
	// Pin keeps an image's files from eviction until Unpin, over restarts.
	Pin(id uuid.UUID) error
	Unpin(id uuid.UUID) error
	// Pinned is the images pinned by hand; the map belongs to the caller.
	Pinned() map[uuid.UUID]bool
	// Kept tells whether an image is kept from eviction, by hand or by rule.
	Kept(id uuid.UUID) bool
	// Unfinished tells how many bytes an unfinished download has left for a blob.
	Unfinished(b cache.Blob) int64
	// Remove takes a file away; who reads it reads on. The error matches
	// fs.ErrNotExist when there is none.
	Remove(ctx context.Context, sum verify.Sum) (cache.Evicted, error)
	// Vacuum evicts down to the low water mark, or with dryRun only tells what
	// that would remove.
	Vacuum(ctx context.Context, dryRun bool) ([]cache.Evicted, error)
	// Check hashes a file again and heals it if need be. progress is told how many
	// bytes have been read. The error says why the result is neither ok nor healed.
	Check(ctx context.Context, sum verify.Sum, progress func(int64)) (cache.CheckResult, error)
}

// Publisher keeps the mirror's own images; *published.Source is one. Its methods
// may be called concurrently.
type Publisher interface {
	// Publish makes an image of a manifest and its file, which is read to its
	// end; it is in the catalogue when Publish returns nil.
	Publish(ctx context.Context, manifest []byte, file io.Reader) (manifest.Manifest, error)
	// Unpublish takes an image back, with its file unless other images have the
	// same one. The error matches fs.ErrNotExist when it is not published.
	Unpublish(ctx context.Context, id uuid.UUID) (manifest.Manifest, error)
	// Keeps tells whether the image is published, or about to be: nobody else has it.
	Keeps(id uuid.UUID) bool
}

// Options of New. Without a Catalog there is no API, only metrics and health.
type Options struct {
	Gatherer prometheus.Gatherer // what /metrics shows; nil = nothing
	Ready    func() bool         // what /readyz says; nil = always ready
	Token    string              // opens /api and /debug to those who come over the network; "" = nobody
	Hosts    []string            // names by which browsers may call the mirror, beside addresses and localhost
	Logger   *slog.Logger        // nil = discard

	Catalog Catalog
	Store   Store // required with Catalog
	// Blob says which bytes a file of an image is, and where they may be had.
	// Required with Catalog.
	Blob func(e catalog.Entry, index int) (cache.Blob, []cache.Source)
	// Publisher keeps the mirror's own images. Required with Catalog.
	Publisher Publisher
	// Installer puts images into the local zpool. Required with Catalog.
	Installer Installer
	// Importer keeps the images that bundles brought. Required with Catalog.
	Importer Importer
	// Trust decides whether a bundle's signature, nil when it has none, is good
	// enough. key is who signed it, "" when that was not checked; the error matches
	// bundle.ErrSignature. Required with Catalog.
	Trust func(x bundle.Index, sig []byte) (key string, err error)
	// Config gives the configuration in force as JSON, secrets masked; nil =
	// an empty object.
	Config func() (json.RawMessage, error)
	// Doctor checks the set-up; nil = nothing to say.
	Doctor func(ctx context.Context) []Finding
}

// Server answers /metrics, /healthz, /readyz, the API and the profiler. Its
// methods may be called concurrently.
type Server struct {
	o        Options
	log      *slog.Logger
	jobs     *jobs
	inner    *http.ServeMux // what only an operator may ask
	open     http.Handler   // for whoever can connect
	trusted  http.Handler   // for those whom the file system let in
	stopping chan struct{}  // closed when event streams are to end
	stop     sync.Once
}

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// stopTimeout is how long replies under way may go on when Run ends.
	stopTimeout = 5 * time.Second
	// restTimeout is what the rest of a request that has been answered may take to arrive.
	restTimeout = 2 * time.Second
	// maxHeader bounds a request's header; some 200 filters fit.
	maxHeader = 64 << 10
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
	if o.Config == nil {
		o.Config = func() (json.RawMessage, error) { return json.RawMessage("{}"), nil }
	}
	if o.Doctor == nil {
		o.Doctor = func(context.Context) []Finding { return nil }
	}
	s := &Server{o: o, log: o.Logger, jobs: newJobs(), stopping: make(chan struct{})}
	s.inner = http.NewServeMux()
	if o.Catalog != nil {
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
	s.open = s.front(s.guard(route))
	return s
}

// front is what anyone may ask, with operators before what only they may.
func (s *Server) front(operators http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.o.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelError),
		// One bad collector must not hide the others.
		ErrorHandling: promhttp.ContinueOnError,
	}))
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

// say sends a short text that nobody may keep.
func say(w http.ResponseWriter, status int, text string) {
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
func (s *Server) Handler() http.Handler { return s.open }

// Trusted is Handler for those who need no token: whoever can connect may do
// everything.
func (s *Server) Trusted() http.Handler { return s.trusted }

// Run serves Handler on open and Trusted on trusted, either of which may be
// nil, until ctx ends. Then it cancels the jobs and waits for them, closes the
// listeners, lets replies under way end and returns. It returns the error that
// broke a listener, else nil. Call it once.
func (s *Server) Run(ctx context.Context, open, trusted net.Listener) error {
	type listener struct {
		net.Listener
		server *http.Server
		silent *silent
	}
	var all []listener
	add := func(ln net.Listener, h http.Handler) {
		if ln != nil {
			server := s.server(h)
			all = append(all, listener{ln, server, watchSilent(server)})
		}
	}
	add(open, s.open)
	add(trusted, s.trusted)

	var serving sync.WaitGroup
	broken := make(chan error, len(all))
	for _, l := range all {
		serving.Go(func() {
			if err := l.server.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				broken <- fmt.Errorf("admin listener: %w", err)
			}
		})
	}
	var err error
	select {
	case err = <-broken:
	case <-ctx.Done():
	}
	s.jobs.stop()
	s.stop.Do(func() { close(s.stopping) })
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	for _, l := range all {
		serving.Go(func() {
			l.silent.end()
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

// endsSoon is h for clients that keep back some of what they announced: net/http waits for that after its answer, to use
// the connection again.
func endsSoon(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTimeout)) }()
		h.ServeHTTP(w, r)
	})
}
