// Package proxy is the HTTP front that clients see: IMGAPI under /images, DSAPI under /datasets,
// the array of a static image server at /. The package owns routes, headers, conditional and range
// requests, the replies to errors, connection limits and draining. The package
// keeps no images: lists and manifests come from a Catalog, bytes from Files.
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
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
	"golang.org/x/time/rate"

	"imgmirror/cache"
	"imgmirror/proxy/accesslog"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/eventloop"
)

// Catalog knows the images; *mirror.Mirror is one. The methods may be called concurrently, and have
// their contracts at catalog.Catalog.
type Catalog interface {
	Current() *catalog.List
	Known(ctx context.Context) (*catalog.List, error)
	Get(ctx context.Context, id uuid.UUID) (catalog.Entry, error)
	Reachable(ctx context.Context, e catalog.Entry) bool
	InCircle(ctx context.Context, e catalog.Entry, index int) bool
}

// Files has the bytes; *mirror.Mirror is one. The methods may be called concurrently, and have
// their contracts at mirror.Files.
type Files interface {
	Open(ctx context.Context, e catalog.Entry, index int, why cache.Why, by cache.By) (*cache.Reader, error)
	OpenIcon(ctx context.Context, e catalog.Entry, by cache.By) (*cache.Reader, error)
	Stored(e catalog.Entry, index int) (cache.Info, bool)
	StoredIcon(e catalog.Entry) (cache.Info, bool)
}

// Values of Options.OnUnreachable.
const (
	// UnreachableError answers the truth, 503, for an image whose sources are all down. imgadm
	// gives up on a 503.
	UnreachableError = "error"
	// UnreachableNotFound answers 404 instead, for the image's file and manifest and for the
	// manifest of each image built on the image. imgadm then asks its next source (spec/imgadm 4.5).
	UnreachableNotFound = "notfound"
)

// Options of New. Required: Catalog, Files.
type Options struct {
	Catalog Catalog
	Files   Files

	// Nodes takes down what clients ask for; nil = there is no journal.
	Nodes Journal
	// Writes takes the images that clients bring, from those whom WriteRules allow; nil = there are
	// no writes.
	Writes Writes
	// WriteRules say who may write, until SetWriteRules.
	WriteRules WriteRules

	// PublicURL is the base of the file URLs in DSAPI manifests; "" derives the base from each
	// request's Host header (spec 2.7).
	PublicURL string
	// DistDir is the folder whose files nodes may fetch below /dist; "" = nothing is below /dist.
	DistDir string
	// ID is the mirror's own, by which mirrors that ask each other know themselves again (see
	// via); "" treats other mirrors as ordinary clients.
	ID string
	// Version is the server's own semantic version; "" = 0.0.0.
	Version string
	// StreamOnMiss sends a missing file during its fill; false verifies the whole file before the
	// reply's headers.
	StreamOnMiss bool
	// OnUnreachable is UnreachableError or UnreachableNotFound; "" = error.
	OnUnreachable string

	// ClientStall cuts a client that takes no bytes for ClientStall; 0 = 60s.
	ClientStall time.Duration
	// DrainTimeout is how long replies under way may go on after the end of Run's context; 0 = 30s.
	DrainTimeout time.Duration
	// MaxConnections bounds the open connections; 0 = 10000. At this bound and the next one the
	// connection that has been idle longest is closed for a newcomer; a newcomer is refused only
	// when every connection has a request that is being answered.
	MaxConnections int
	// Memory bounds what replies under way hold beside the catalogue's lists, in bytes: bodies made
	// for one reply, and lists that newer lists have replaced. A reply beyond Memory gets a 503.
	// Memory of a connection itself comes on top, see ConnectionMemory. 0 = 64 MB.
	Memory int64
	// MaxPerAddress bounds the open connections of one address; 0 = no bound.
	MaxPerAddress int

	// AccessLog gets each request after the last byte of its reply, and the last one before Serve returns;
	// nil = there is no access log.
	AccessLog *accesslog.Log

	// Ready is a further condition of /readyz and Server.Ready; nil = true. Ready must not wait.
	Ready func() bool

	// TLSConfig makes the server speak TLS; nil = plain HTTP.
	TLSConfig *tls.Config

	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = unregistered metrics
}

// Fixed times, outside of the configuration.
const (
	// readTimeout bounds the reading of one request, and so cuts a client that drips its headers.
	readTimeout = 30 * time.Second
	// idleTimeout is how long a connection stays open between requests: imgadm reuses pooled
	// connections without a limit of its own (spec 6.1).
	idleTimeout = 180 * time.Second
	// lookupTimeout bounds the wait for a manifest; clients get their 503 within 3 s (spec 5.5).
	lookupTimeout = 2900 * time.Millisecond
	// listTimeout bounds the wait for the sources' first answers after a start with an empty list.
	listTimeout = 2 * time.Second
	// retryAfter is the Retry-After of each 503.
	retryAfter = 5 * time.Second
	// openTimeout bounds the wait for the first byte of a file. The store gives up on refusing
	// sources within seconds; openTimeout is for the queue of fills, in which a client may wait
	// for minutes.
	openTimeout = 10 * time.Minute
)

// Sizes of fasthttp's buffers, one pair per connection that is being served.
const (
	readBuffer     = 8 << 10  // also the limit of a request's header
	writeBuffer    = 4 << 10  // sendfile and writev bypass the buffer
	writeBufferTLS = 32 << 10 // two TLS records
	maxRequestBody = 1        // what is read of a body before the request is looked at
)

// Server is the client listener. The methods of a Server may be called concurrently.
type Server struct {
	opts        Options // with the defaults filled in
	catalog     Catalog
	files       Files
	hostname    []byte
	port        atomic.Int32 // of the listener being served; 0 = none
	log         *slog.Logger
	metrics     *metrics
	pong        []byte
	pongHeaders catalog.Account

	writers atomic.Pointer[writeRules] // nil = there are no writes
	uploads uploads

	http   *fasthttp.Server
	conns  conns
	watch  watch
	bodies bodies
	loops  *eventloop.Loops // set by Serve; nil = each connection has a goroutine
	noFile sync.Once        // tells why lists have no file
	// refused and displaced bound the log's lines on connections; used by accept only.
	refused, displaced rate.Sometimes

	// base is the context of all work for clients; cut ends base at the drain deadline, and at the
	// latest when Serve returns.
	base context.Context
	cut  context.CancelFunc

	// unending is a child of base which ends at the begin of the drain, for replies without an end of their
	// own.
	unending    context.Context
	endUnending context.CancelFunc

	sums    sums          // of DistDir
	page    Page          // of Mount; nil = there is none
	renders chan struct{} // replies of the page that are being made

	listener atomic.Pointer[net.Listener]
	served   atomic.Bool // Serve was called
	serving  atomic.Bool // between the start of Serve and the start of its drain

	memory memory
}

// New checks the options and builds the server, and starts nothing.
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
	o.Memory = cmp.Or(o.Memory, 64e6)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost"
	}
	s := &Server{
		opts:      o,
		catalog:   o.Catalog,
		files:     o.Files,
		hostname:  []byte(hostname),
		log:       o.Logger.With("component", "proxy"),
		metrics:   newMetrics(o.Registerer),
		pong:      pong(o.Version),
		refused:   rate.Sometimes{Interval: time.Minute},
		displaced: rate.Sometimes{Interval: time.Minute},
	}
	s.base, s.cut = context.WithCancel(context.Background())
	s.unending, s.endUnending = context.WithCancel(s.base)
	s.sums.init()
	s.renders = make(chan struct{}, rendersAtOnce())
	s.SetWriteRules(o.WriteRules)
	s.uploads.gauge = s.metrics.uploads
	s.memory.init(o.Memory, &s.conns, s.metrics.bodies, s.metrics.bodiesRefused)
	s.conns.limit(o.MaxConnections, o.MaxPerAddress, s.metrics)
	limitMetrics(o, s.conns.crowd)
	s.watch.init(&s.conns, s.metrics)
	s.bodies.stall, s.bodies.log = o.ClientStall, s.log
	s.http = &fasthttp.Server{
		Handler:         s.handle,
		ErrorHandler:    s.malformed,
		HeaderReceived:  s.received,
		ExpectHandler:   s.expect,
		Name:            "imgmirror/" + o.Version,
		ConnState:       s.conns.changed,
		Concurrency:     o.MaxConnections + spareConns + 1, // conns keeps the limit
		ReadBufferSize:  readBuffer,
		WriteBufferSize: writeBuffer,
		ReadTimeout:     readTimeout,
		// WriteTimeout starts anew for every reply and covers a header and a small body. The body
		// of a file sets a deadline for each of its steps, see fileBody.
		WriteTimeout:       o.ClientStall,
		IdleTimeout:        idleTimeout,
		MaxRequestBodySize: maxRequestBody,
		// StreamRequestBody refuses a write by its header alone.
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		NoDefaultContentType:         true,
		LazyRequestTime:              true,
		Logger:                       printfLogger{s.log},
		// MaxConnsPerIP stays 0: the limit wraps the connection and so loses sendfile.
	}
	if o.TLSConfig != nil {
		s.http.WriteBufferSize = writeBufferTLS
	}
	return s, nil
}

// Listen opens the TCP port that Run serves, so that a bad address fails early. addr "host:0" takes
// a free port, which Addr tells. A second Listen is an error.
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

// Run is Serve on the listener of Listen; Run without Listen is an error.
func (s *Server) Run(ctx context.Context) error {
	ln := s.listener.Load()
	if ln == nil {
		return errors.New("proxy: Run before Listen")
	}
	return s.Serve(ctx, *ln)
}

// Close frees the port of a server before Run. Close has no effect on a server that has run.
func (s *Server) Close() error {
	ln := s.listener.Load()
	if ln == nil || s.served.Load() {
		return nil
	}
	return (*ln).Close()
}

// Ready tells whether the server takes requests and Options.Ready agrees. The server takes requests
// from the start of Serve until the end of Serve's context. /readyz says what Ready says.
func (s *Server) Ready() bool { return s.serving.Load() && s.opts.Ready() }

// Serve serves ln until ctx ends or ln breaks, and then drains: Ready turns false, ln and idle
// connections are closed at once, replies under way may end within DrainTimeout, and Serve cuts the
// rest. Serve returns after the drain: nil, or the error that broke ln. A second Serve is an error.
//
// The cut also ends a reply that waits for a fill.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.served.Swap(true) {
		return errors.New("proxy: Serve was called before")
	}
	s.port.Store(int32(portOf(ln.Addr()))) //nolint:gosec // a port has 16 bits
	s.serving.Store(true)
	watching, stopWatch := context.WithCancel(context.Background())
	var watched sync.WaitGroup
	watched.Go(func() { s.watch.run(watching) })
	defer watched.Wait()
	defer stopWatch()
	defer s.bodies.close()
	s.startLoops(ln)
	if s.loops != nil {
		defer s.loops.Close()
	}
	accepted := make(chan error, 1)
	go func() { accepted <- s.accept(ctx, ln) }()

	var broken error
	select {
	case <-ctx.Done():
		s.serving.Store(false)
		s.conns.draining.Store(true)
		ln.Close()
		<-accepted //nolint:errcheck // ctx asked for the end
	case broken = <-accepted:
		s.serving.Store(false)
		ln.Close()
	}

	defer s.cut()
	s.endUnending()
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

// printfLogger brings fasthttp's own messages, all about single connections, to slog.
type printfLogger struct{ log *slog.Logger }

// Printf makes fasthttp's message a line of the level debug.
func (l printfLogger) Printf(format string, args ...any) {
	l.log.Debug(fmt.Sprintf(format, args...))
}
