package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// line is the way from a mirror to an image server: an HTTP server that forwards all requests,
// notes the replies that are files, and does a fault to one of these. Its methods may be called
// concurrently.
type line struct {
	url    string
	to     string // URL of the image server
	client *http.Client
	server *http.Server
	done   chan error // gets what Serve ended with

	mu    sync.Mutex // guards the fields below
	files []*reply
	fault *fault // of the next file; nil: none
}

// reply is a reply that is a file.
type reply struct {
	from int64         // the first byte that was asked for
	sent int64         // bytes of the body that have left; valid once done
	done chan struct{} // closed when the reply is over
}

// fault is what happens to the body of one reply: at byte `at` the body waits for release, then is
// cut, or goes on with one wrong byte, or goes on as it is.
type fault struct {
	at         int64
	release    <-chan struct{} // nil: the body does not wait
	cut, wrong bool
}

// newLine opens a line to an image server; the caller closes the line.
func newLine(to string) (*line, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &line{
		url: "http://" + ln.Addr().String(), to: to,
		client: &http.Client{Transport: &http.Transport{DisableCompression: true}},
		done:   make(chan error, 1),
	}
	l.server = &http.Server{Handler: l} //nolint:gosec // the mirror of the story is the only client
	go func() { l.done <- l.server.Serve(ln) }()
	return l, nil
}

// close ends the line, its replies too: afterwards nothing answers. A second call does nothing.
func (l *line) close() error {
	err := l.server.Close()
	l.client.CloseIdleConnections()
	if ended, ok := <-l.done; ok {
		close(l.done)
		if !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}
	return err
}

// next has f happen to the next file; the files noted so far are forgotten.
func (l *line) next(f *fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files, l.fault = nil, f
}

// replies are the files noted since the last call of next, in the order of their requests. It waits
// for the end of all of them.
func (l *line) replies(ctx context.Context) ([]*reply, error) {
	l.mu.Lock()
	files := slices.Clone(l.files)
	l.mu.Unlock()
	for _, f := range files {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return files, nil
}

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, l.to+r.URL.RequestURI(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	req.Header = r.Header.Clone()
	resp, err := l.client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/file") || resp.StatusCode >= 300 {
		io.Copy(w, resp.Body) //nolint:errcheck // a mirror that has left needs no reply
		return
	}
	var from int64
	if resp.StatusCode == http.StatusPartialContent {
		_, err = fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from)
	}
	if err != nil || !l.file(r.Context(), w, resp.Body, from) {
		panic(http.ErrAbortHandler) // closes the connection in mid-body
	}
}

// file sends a file, and does the fault to the body if there is one. false: the body is to be cut.
func (l *line) file(ctx context.Context, w http.ResponseWriter, body io.Reader, from int64) bool {
	l.mu.Lock()
	f := l.fault
	l.fault = nil
	this := &reply{from: from, done: make(chan struct{})}
	l.files = append(l.files, this)
	l.mu.Unlock()
	defer close(this.done)
	send := func(r io.Reader) bool {
		sent, err := io.Copy(w, r)
		this.sent += sent
		return err == nil && http.NewResponseController(w).Flush() == nil
	}
	if f == nil {
		return send(body)
	}
	if !send(io.LimitReader(body, f.at-from)) {
		return false
	}
	if f.release != nil {
		select {
		case <-f.release:
		case <-ctx.Done():
			return false
		}
	}
	if f.wrong {
		body = &flipped{r: body}
	}
	return !f.cut && send(body)
}

// flipped is a body with a wrong first byte.
type flipped struct {
	r    io.Reader
	done bool
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 && !f.done {
		p[0] ^= 0xff
		f.done = true
	}
	return n, err
}
