// Package proxy is the HTTP front that clients see: IMGAPI under /images, DSAPI under /datasets,
// the array of a static image server at /. It owns routes, headers, conditional and range requests,
// the table that turns errors into statuses, connection limits, draining and the access log. It
// keeps no images: what is listed comes from a Catalog, what is sent from Files.
package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"golang.org/x/time/rate"

	"imgmirror/cache"
	"imgmirror/proxy/catalog"
)

// Catalog is what images there are; *mirror.Mirror is one. The methods may be called concurrently,
// and have their contracts at catalog.Catalog.
type Catalog interface {
	Current() *catalog.List
	Known(ctx context.Context) (*catalog.List, error)
	Get(ctx context.Context, id uuid.UUID) (catalog.Entry, error)
	Reachable(ctx context.Context, e catalog.Entry) bool
	InCircle(ctx context.Context, e catalog.Entry, index int) bool
}

// Files is where the bytes are; *mirror.Mirror is one. The methods may be called concurrently, and
// have their contracts at mirror.Files.
type Files interface {
	Open(ctx context.Context, e catalog.Entry, index int, why cache.Why) (*cache.Reader, error)
	OpenIcon(ctx context.Context, e catalog.Entry) (*cache.Reader, error)
	Stored(e catalog.Entry, index int) (cache.Info, bool)
	StoredIcon(e catalog.Entry) (cache.Info, bool)
}

// Values of Options.OnUnreachable.
const (
	// UnreachableError answers 503 for an image whose sources are all down:
	// the truth, on which imgadm gives up.
	UnreachableError = "error"
	// UnreachableNotFound answers 404 instead, on which imgadm asks its next source (spec/imgadm
	// 4.5): to the file and to the manifest, and to the manifest of each image that is built on it.
	UnreachableNotFound = "notfound"
)

// Options of New. Required: Catalog, Files.
type Options struct {
	Catalog Catalog
	Files   Files

	// PublicURL is the base of the file URLs in DSAPI manifests; "" derives it
	// from each request's Host header (spec 2.7).
	PublicURL string
	// ID is the mirror's, by which mirrors that ask each other know themselves
	// again (see via); "" = other mirrors are clients like all.
	ID string
	// Version is the server's own semantic version; "" = 0.0.0.
	Version string
	// StreamOnMiss sends a file that is not on disk while it comes in; false
	// waits until all of it is verified before the reply's headers.
	StreamOnMiss bool
	// OnUnreachable is UnreachableError or UnreachableNotFound; "" = error.
	OnUnreachable string

	// ClientStall cuts a client that takes no bytes for so long; 0 = 60s.
	ClientStall time.Duration
	// DrainTimeout is how long replies under way may go on when Run is told to stop; 0 = 30s.
	DrainTimeout time.Duration
	// MaxConnections bounds the open connections; 0 = 10000.
	MaxConnections int
	// MaxPerAddress bounds the open connections of one address; 0 = no bound.
	MaxPerAddress int

	// Ready is asked in addition by /readyz and Server.Ready; nil = always true. It must not wait.
	Ready func() bool

	// TLSConfig makes the server speak TLS; nil = plain HTTP.
	TLSConfig *tls.Config

	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = metrics that nobody sees
}

// Times that are nobody's business to tune.
const (
	// readTimeout bounds the reading of one request, so that a client which
	// drips its headers is cut.
	readTimeout = 30 * time.Second
	// idleTimeout is how long a connection is kept between requests: imgadm
	// reuses pooled ones without a limit of its own (spec 6.1).
	idleTimeout = 180 * time.Second
	// lookupTimeout bounds the wait for a manifest; clients get their 503 within 3 s (spec 5.5).
	lookupTimeout = 2900 * time.Millisecond
	// listTimeout bounds the wait for the first answers of sources after a start,
	// while there is nothing to list; listRetry is when it is worth asking again.
	listTimeout = 2 * time.Second
	listRetry   = 5 * time.Second
	// openTimeout bounds the wait for the first byte of a file. Sources that
	// refuse are given up by the store within seconds; this one is for the
	// queue of fills, in which a client may well stand for minutes.
	openTimeout = 10 * time.Minute
)

// Sizes of fasthttp's buffers, one pair per connection that is being served.
const (
	readBuffer     = 8 << 10  // also the limit of a request's header
	writeBuffer    = 4 << 10  // sendfile and writev pass it by
	writeBufferTLS = 32 << 10 // two TLS records
	maxRequestBody = 1        // how much of a body is waited for: nothing here takes one
)

// Server is the client listener. Its methods may be called concurrently.
type Server struct {
	opts     Options // with the defaults filled in
	catalog  Catalog
	files    Files
	hostname string
	port     atomic.Int32 // of the listener being served; 0 = none
	log      *slog.Logger
	metrics  *metrics
	pong     []byte

	http     *fasthttp.Server
	conns    conns
	refusals rate.Sometimes // of their lines in the log; used by accept only

	// base is the context of everything done for a client; cut ends it when
	// the drain deadline has passed.
	base context.Context
	cut  context.CancelFunc

	listener atomic.Pointer[net.Listener]
	served   atomic.Bool // Serve was called
	serving  atomic.Bool // between the start of Serve and the start of its drain

	datasets datasetsCache
}

// New checks the options and builds the server; it starts nothing.
func New(o Options) (*Server, error) {
	if o.Catalog == nil || o.Files == nil {
		return nil, errors.New("proxy: Catalog and Files are required")
	}
	o.OnUnreachable = cmp.Or(o.OnUnreachable, UnreachableError)
	if o.OnUnreachable != UnreachableError && o.OnUnreachable != UnreachableNotFound {
		return nil, fmt.Errorf("proxy: OnUnreachable is %q, not %q or %q", o.OnUnreachable, UnreachableError, UnreachableNotFound)
	}
	if o.PublicURL != "" {
		u, err := url.Parse(o.PublicURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("proxy: PublicURL %q is not an http or https URL", o.PublicURL)
		}
	}
	o.PublicURL = strings.TrimRight(o.PublicURL, "/")
	o.Version = cmp.Or(o.Version, "0.0.0")
	o.ClientStall = cmp.Or(o.ClientStall, time.Minute)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 30*time.Second)
	o.MaxConnections = cmp.Or(o.MaxConnections, 10000)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost"
	}
	s := &Server{
		opts:     o,
		catalog:  o.Catalog,
		files:    o.Files,
		hostname: hostname,
		log:      o.Logger.With("component", "proxy"),
		metrics:  newMetrics(o.Registerer),
		pong:     pong(o.Version),
		refusals: rate.Sometimes{Interval: time.Minute},
	}
	s.base, s.cut = context.WithCancel(context.Background())
	s.conns.limit(o.MaxConnections, o.MaxPerAddress, s.metrics)
	s.http = &fasthttp.Server{
		Handler:         s.handle,
		ErrorHandler:    s.malformed,
		HeaderReceived:  s.received,
		Name:            "imgmirror/" + o.Version,
		Concurrency:     o.MaxConnections + 1, // the limit is kept by conns
		ReadBufferSize:  readBuffer,
		WriteBufferSize: writeBuffer,
		ReadTimeout:     readTimeout,
		// WriteTimeout is armed anew for every reply and covers a header and a small body. The body
		// of a file sets its own deadlines as it moves on, see fileBody.
		WriteTimeout:       o.ClientStall,
		IdleTimeout:        idleTimeout,
		MaxRequestBodySize: maxRequestBody,
		// Streamed, so that a write is refused by its header alone.
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		NoDefaultContentType:         true,
		LazyRequestTime:              true,
		Logger:                       printfLogger{s.log},
		// MaxConnsPerIP stays 0: it wraps the connection and so loses sendfile.
	}
	if o.TLSConfig != nil {
		s.http.WriteBufferSize = writeBufferTLS
	}
	return s, nil
}

// Listen opens the TCP port that Run will serve, so that a bad address is known
// early. Addr "host:0" takes a free port, which Addr tells.
func (s *Server) Listen(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	if !s.listener.CompareAndSwap(nil, &ln) {
		ln.Close()
		return fmt.Errorf("listen for clients on %s: already listening", addr)
	}
	return nil
}

// Addr is the address that Listen opened; nil before.
func (s *Server) Addr() net.Addr {
	if ln := s.listener.Load(); ln != nil {
		return (*ln).Addr()
	}
	return nil
}

// Run is Serve on what Listen opened.
func (s *Server) Run(ctx context.Context) error {
	ln := s.listener.Load()
	if ln == nil {
		return errors.New("proxy: Run before Listen")
	}
	return s.Serve(ctx, *ln)
}

// Close frees the port of a server that will not be run. It has no effect on one that was.
func (s *Server) Close() error {
	ln := s.listener.Load()
	if ln == nil || s.served.Load() {
		return nil
	}
	return (*ln).Close()
}

// Ready tells that requests are being taken: from the start of Serve until its
// context ends, and Options.Ready agrees. It is what /readyz says.
func (s *Server) Ready() bool { return s.serving.Load() && s.opts.Ready() }

// Serve serves ln until ctx ends, then drains: Ready turns false, ln is closed,
// idle connections are closed at once, replies under way may end within
// DrainTimeout, what is left is cut. It returns when all of that is done: nil,
// or the error that broke the listener. A Server serves once.
//
// A reply that waits for a fill is given up at the cut.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.served.Swap(true) {
		return errors.New("proxy: Serve was called before")
	}
	s.port.Store(int32(portOf(ln.Addr()))) //nolint:gosec // a port has 16 bits
	s.serving.Store(true)
	accepted := make(chan error, 1)
	go func() { accepted <- s.accept(ctx, ln) }()

	var broken error
	select {
	case <-ctx.Done():
		s.serving.Store(false)
		s.conns.draining.Store(true)
		ln.Close()
		<-accepted //nolint:errcheck // the end that was asked for
	case broken = <-accepted:
		s.serving.Store(false)
		ln.Close()
	}

	defer s.cut()
	drained := s.conns.drain()
	deadline := time.NewTimer(s.opts.DrainTimeout)
	defer deadline.Stop()
	select {
	case <-drained:
	case <-deadline.C:
		s.cut()
		s.log.Warn("replies cut at the drain deadline", "connections", s.conns.cut())
		<-drained
	}
	return broken
}

// printfLogger brings fasthttp's own messages, all of them about single connections, to slog.
type printfLogger struct{ log *slog.Logger }

func (l printfLogger) Printf(format string, args ...any) {
	l.log.Debug(fmt.Sprintf(format, args...))
}
