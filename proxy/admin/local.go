package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
)

// Local gives a client that reaches the API in this process, without a listener and without a token.
func (s *Server) Local() *Client {
	return &Client{base: "http://localhost" + apiPrefix, http: &http.Client{Transport: inProcess{s}}}
}

// inProcess hands requests to the API's handler.
type inProcess struct{ server *Server }

// localCaller stands in the log for the address of a caller in this process.
const localCaller = "page"

// RoundTrip returns with the head of the reply. The close of the reply's body ends the handler, and
// waits for the handler's end.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	in := r.Clone(ctx)
	in.RemoteAddr, in.RequestURI = localCaller, r.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	body, pipe := io.Pipe()
	out := &localWriter{header: http.Header{}, body: pipe, begun: make(chan struct{})}
	done := make(chan struct{})
	go func() { // ends with the handler; the body's Close waits
		defer close(done)
		defer cancel()
		defer in.Body.Close() //nolint:errcheck // nothing more is read
		defer func() {
			switch p := recover(); {
			case p == nil:
				out.WriteHeader(http.StatusOK)
				pipe.Close() //nolint:errcheck // always nil
			default:
				if p != http.ErrAbortHandler { //nolint:errorlint,err113 // the value of a panic
					t.server.log.Error("panic", "panic", p, "path", in.URL.Path, "stack", string(debug.Stack()))
				}
				out.failed = fmt.Errorf("%s %s: the reply broke off", in.Method, in.URL.Path)
				pipe.CloseWithError(io.ErrUnexpectedEOF) //nolint:errcheck // always nil
				out.begin()
			}
		}()
		t.server.trusted.ServeHTTP(out, in)
	}()
	reply := &localBody{PipeReader: body, cancel: cancel, done: done}
	select {
	case <-out.begun:
	case <-ctx.Done():
		reply.Close() //nolint:errcheck // always nil
		return nil, context.Cause(ctx)
	}
	if out.status == 0 {
		return nil, errors.Join(out.failed, reply.Close())
	}
	return &http.Response{
		StatusCode: out.status, Status: fmt.Sprintf("%d %s", out.status, http.StatusText(out.status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: out.sent, Body: reply, ContentLength: -1, Request: r,
	}, nil
}

// localBody is the body of a reply.
type localBody struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   <-chan struct{}
}

func (b *localBody) Close() error {
	b.PipeReader.Close() //nolint:errcheck // always nil
	b.cancel()
	<-b.done
	return nil
}

// localWriter is the handler's side of a reply.
type localWriter struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	begun  chan struct{} // closed once the fields below are set
	status int           // 0 = the handler broke off before the head
	sent   http.Header
	failed error
}

func (w *localWriter) Header() http.Header { return w.header }

func (w *localWriter) begin() { w.once.Do(func() { close(w.begun) }) }

func (w *localWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

func (w *localWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush makes the writer an http.Flusher: each Write reaches the reader at once.
func (w *localWriter) Flush() { w.WriteHeader(http.StatusOK) }
