// Package upstreamtest is an image server for tests: it speaks the dialects of
// real ones on a loopback port, has faults on order, and records what it was
// asked. It can be used outside of tests too.
package upstreamtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Dialect is the kind of server that a Server imitates.
type Dialect string

// The dialects. All but SmartOSImageServer answer ranges, ETags and Content-MD5.
const (
	IMGAPI             Dialect = "imgapi"               // /ping, /images
	DSAPI              Dialect = "dsapi"                // an old datasets server: /ping without imgapi, /datasets
	DSAPID             Dialect = "dsapid"               // both APIs; ignores limit and marker, and serves file N at /fileN only
	SmartOSImageServer Dialect = "smartos-image-server" // /datasets with urls made from the Host header; no ranges or validators
	Static             Dialect = "static"               // an array at the root, files at /UUID/PATH
)

// Options of New. The zero value is an IMGAPI server on a free port.
type Options struct {
	Dialect Dialect // "" means IMGAPI
	Addr    string  // "" means 127.0.0.1:0
	Prefix  string  // "/sub": where everything is mounted

	PageCap  int    // most images in an answer to a list without limit; 0 means no cap
	Gzip     bool   // compress lists for those who accept it
	Username string // with Password: ask for basic authentication
	Password string
	Token    string // ask for a bearer token
	Channel  string // the default channel of a server with channels; "" means that it has none
}

// Server is an image server. All methods may be called concurrently.
type Server struct {
	options Options

	mu      sync.Mutex
	changed chan struct{} // closed and replaced whenever a record changes
	images  []*image      // in the order in which they were added
	faults  []*fault
	records []*Request
	addr    string
	http    *http.Server // nil while stopped
	served  chan struct{}
	stop    chan struct{} // closed by Stop
	active  int           // requests being answered
}

// New starts a server.
func New(o Options) (*Server, error) {
	o.Dialect = cmp.Or(o.Dialect, IMGAPI)
	s := &Server{options: o, addr: cmp.Or(o.Addr, "127.0.0.1:0"), changed: make(chan struct{})}
	return s, s.Start()
}

// Start listens again after Stop, on the same address.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return errors.New("upstreamtest: already started")
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("upstreamtest: %w", err)
	}
	s.addr = l.Addr().String()
	server, served := &http.Server{Handler: s}, make(chan struct{})
	s.http, s.served, s.stop = server, served, make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(l) // ends by Stop
	}()
	return nil
}

// Stop closes the port and cuts all connections: the server is gone. It returns when
// no request is being answered any more.
func (s *Server) Stop() {
	s.mu.Lock()
	server, served := s.http, s.served
	if server != nil {
		close(s.stop)
	}
	s.http = nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	server.Close()
	<-served
	for {
		s.mu.Lock()
		active, changed := s.active, s.changed
		s.mu.Unlock()
		if active == 0 {
			return
		}
		<-changed
	}
}

// stopped is closed by the next Stop: an answer that stalls ends then.
func (s *Server) stopped() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop
}

// Close is Stop.
func (s *Server) Close() error {
	s.Stop()
	return nil
}

// URL is the address of the server with its prefix, without a slash at the end. It stays the same
// over Stop and Start.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.addr + s.options.Prefix
}

// Fault is something that goes wrong with requests. Of several that apply to one request, the first
// injected counts. A fault without any of the effects leaves the answer as it is.
type Fault struct {
	Path  string // how the path of a request ends: "/file", "UUID/file", "/images"; "" means all
	Skip  int    // so many of these requests are answered well
	Times int    // and then so many are not; 0 means all that follow

	Delay       time.Duration // before the answer begins
	Drop        bool          // close the connection without an answer
	Status      int           // answer this status with Body
	Body        string        // as text/html
	Cut         bool          // close the connection after After bytes of the body
	Stall       bool          // send nothing more after After bytes of the body, until the client leaves
	After       int64         // for Cut and Stall
	Corrupt     bool          // flip a bit of the byte at At
	At          int64         // offset in the whole file, for Corrupt
	Grow        int           // the file has so many bytes more, or less when negative
	IgnoreRange bool          // answer 200 to a range
	Chunked     bool          // no Content-Length
	Rate        int64         // bytes per second of this body
}

type fault struct {
	Fault
	seen int
}

// Inject adds a fault, from the next request on.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &fault{Fault: f})
}

// Heal removes all faults; answers under way keep theirs.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// fault counts the request for every fault it matches, and gives the one that applies.
func (s *Server) fault(path string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var applies Fault
	found := false
	for _, f := range s.faults {
		if !strings.HasSuffix(path, f.Path) {
			continue
		}
		f.seen++
		if !found && f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times) {
			applies, found = f.Fault, true
		}
	}
	return applies
}

// Request is the record of one request.
type Request struct {
	Method string
	Path   string // without the server's prefix
	Query  string
	Header http.Header
	Host   string
	Start  time.Time

	Status    int       // 0: not answered (yet)
	Bytes     int64     // of the body, handed to the connection
	FirstByte time.Time // of the body; zero: none yet
	Done      bool      // the answer is over, well or not
}

// Requests gives the records so far, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

func (s *Server) snapshot() []Request {
	all := make([]Request, len(s.records))
	for i, r := range s.records {
		all[i] = *r
	}
	return all
}

// Forget drops the records so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = nil
}

// Count is the number of requests whose path ends so; "" means all.
func (s *Server) Count(path string) int {
	n := 0
	for _, r := range s.Requests() {
		if strings.HasSuffix(r.Path, path) {
			n++
		}
	}
	return n
}

// Bytes is the number of bytes in the bodies of answers to requests whose path ends so.
func (s *Server) Bytes(path string) int64 {
	var n int64
	for _, r := range s.Requests() {
		if strings.HasSuffix(r.Path, path) {
			n += r.Bytes
		}
	}
	return n
}

// Await waits until ok holds for the records, which it is asked at every change of them.
func (s *Server) Await(ctx context.Context, ok func([]Request) bool) error {
	for {
		s.mu.Lock()
		records, changed := s.snapshot(), s.changed
		s.mu.Unlock()
		if ok(records) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// record changes the record of a request, or what else mu guards, and wakes the waiting.
func (s *Server) record(r *Request, change func(*Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(r)
	close(s.changed)
	s.changed = make(chan struct{})
}

// ServeHTTP answers one request, so that the server can be put behind another listener (TLS, say).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, mounted := strings.CutPrefix(r.URL.Path, s.options.Prefix)
	rec := &Request{
		Method: r.Method, Path: path, Query: r.URL.RawQuery, Header: r.Header.Clone(), Host: r.Host, Start: time.Now(),
	}
	s.record(rec, func(rec *Request) { s.records, s.active = append(s.records, rec), s.active+1 })
	defer s.record(rec, func(rec *Request) { rec.Done, s.active = true, s.active-1 })

	a := &answer{server: s, w: w, r: r, rec: rec, path: path, fault: s.fault(path)}
	switch {
	case !a.begin():
	case !s.authorized(r):
		w.Header().Set("WWW-Authenticate", "Basic")
		a.fail(http.StatusUnauthorized, "UnauthorizedError", "authentication needed")
	case !mounted:
		a.fail(http.StatusNotFound, "ResourceNotFound", r.URL.Path+" does not exist")
	default:
		a.route()
	}
}

func (s *Server) authorized(r *http.Request) bool {
	if s.options.Token != "" {
		return r.Header.Get("Authorization") == "Bearer "+s.options.Token
	}
	if s.options.Username != "" {
		user, password, _ := r.BasicAuth()
		return user == s.options.Username && password == s.options.Password
	}
	return true
}

// snapshotImages gives the images now served.
func (s *Server) snapshotImages() []*image {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.images)
}
