package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"imgmirror/proxy/catalog"
	"imgmirror/proxy/via"
)

// meet reads which mirrors a question comes from, and tells those who we are. A question that comes
// back to its asker is not here: this mirror has nothing that this mirror does not have.
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

// listPaths answers GET /paths, by which mirrors tell each other how they came by what they list.
func (s *Server) listPaths(req *request) error {
	body, err := json.Marshal(s.catalog.Current().Paths())
	if err != nil {
		return err
	}
	s.json(req, body, tagOf(body))
	return nil
}

// errCircle ends the wait of a mirror for a file that mirrors wait for in a circle.
var errCircle = fmt.Errorf("mirrors wait for each other: %w", fs.ErrNotExist)

// unlessCircular gives the context of a wait for file index of e on behalf of the mirrors ids: the
// context ends with errCircle when these wait for each other. done must be called; it ends the
// watch and returns after the watch.
func (s *Server) unlessCircular(ids []string, e catalog.Entry, index int) (ctx context.Context, done func()) {
	if len(ids) == 0 {
		return s.base, func() {}
	}
	ctx, cancel := context.WithCancelCause(via.With(s.base, ids))
	var watch sync.WaitGroup
	watch.Go(func() {
		if s.catalog.InCircle(ctx, e, index) {
			cancel(errCircle)
		}
	})
	return ctx, func() { cancel(nil); watch.Wait() }
}
