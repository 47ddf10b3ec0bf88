package proxy

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"imgmirror/cache"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/via"
)

// meet reads from Via which mirrors a question comes from, and answers a mirror's question with
// this mirror's own ID in Via. A question that comes back to its own asker gets a 404.
func (s *Server) meet(req *request) error {
	if s.opts.ID == "" {
		return nil
	}
	var values []string
	for _, v := range req.ctx.Request.Header.PeekAll("Via") {
		values = append(values, string(v))
	}
	if req.via = via.Parse(values...); len(req.via) == 0 {
		return nil
	}
	req.set(hdrVia, via.Format(s.opts.ID))
	if slices.Contains(req.via, s.opts.ID) {
		return notFound("%s is not here: this mirror has asked itself", req.path)
	}
	return nil
}

// reader tells whether a client asks, or a mirror for its clients.
func (req *request) reader() cache.By {
	if len(req.via) > 0 {
		return cache.ByPeer
	}
	return cache.ByClient
}

// listPaths answers GET /paths, by which mirrors tell each other the way of each listed image.
func (s *Server) listPaths(req *request) error {
	return s.sendList(req, listOf(textKind{form: formPaths}, s.catalog.Current().PathsText()))
}

// errCircle ends a mirror's wait for a file when mirrors wait for each other in a circle.
var errCircle = fmt.Errorf("mirrors wait for each other: %w", fs.ErrNotExist)

// unlessCircular gives the context of req's wait for file index of e. The context ends with
// errCircle when the mirrors behind req wait for each other. The caller must call done: done ends
// the watch for a circle and returns after the watch.
func (s *Server) unlessCircular(req *request, e catalog.Entry, index int) (ctx context.Context, done func()) {
	if len(req.via) == 0 {
		return s.forClient(req), func() {}
	}
	ctx, cancel := context.WithCancelCause(via.With(s.forClient(req), req.via))
	var watch sync.WaitGroup
	watch.Go(func() {
		if s.catalog.InCircle(ctx, e, index) {
			cancel(errCircle)
		}
	})
	return ctx, func() { cancel(nil); watch.Wait() }
}
