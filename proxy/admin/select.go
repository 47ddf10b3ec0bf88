package admin

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// selection is a Wanted that has been understood.
type selection struct {
	ids     []uuid.UUID // each once
	filters []manifest.Filter
	dry     bool
}

// readWanted reads a request's Wanted. It may be empty.
func readWanted(r *http.Request) (selection, error) {
	var w Wanted
	if err := readJSON(r, &w); err != nil {
		return selection{}, err
	}
	return w.selection()
}

// selection understands w, which may be empty.
func (w Wanted) selection() (selection, error) {
	sel := selection{dry: w.DryRun}
	seen := make(map[uuid.UUID]bool, len(w.UUIDs))
	for _, text := range w.UUIDs {
		id, err := uuidOf(text)
		if err != nil {
			return selection{}, err
		}
		if !seen[id] {
			seen[id] = true
			sel.ids = append(sel.ids, id)
		}
	}
	var err error
	sel.filters, err = filtersOf(w.Filters)
	return sel, err
}

func (sel selection) empty() bool { return len(sel.ids) == 0 && len(sel.filters) == 0 }

// readSome is readWanted for what may not be done to everything by mistake.
func readSome(r *http.Request) (selection, error) {
	sel, err := readWanted(r)
	if err == nil {
		err = sel.some()
	}
	return sel, err
}

// some refuses a selection of nothing.
func (sel selection) some() error {
	if sel.empty() {
		return refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "name images by uuids or filters")
	}
	return nil
}

// entries gives the images of the catalogue that are selected: those named by
// uuid, listed or not, then the listed ones that match all filters, in the
// list's order.
func (s *Server) entries(ctx context.Context, sel selection) ([]catalog.Entry, error) {
	var out []catalog.Entry
	seen := make(map[uuid.UUID]bool)
	for _, id := range sel.ids {
		e, err := s.lookup(ctx, id)
		if err != nil {
			return nil, err
		}
		seen[id] = true
		out = append(out, e)
	}
	if len(sel.filters) == 0 {
		return out, nil
	}
	list := s.o.Catalog.Current()
	for _, m := range list.Images() {
		if seen[m.UUID] || !matches(m, sel.filters) {
			continue
		}
		if e, ok := list.Entry(m.UUID); ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// onDisk gives what is on disk of the images selected; of all when nothing is.
// An image that is named and has nothing there is an error.
func (s *Server) onDisk(sel selection) ([]holding, error) {
	named := make(map[uuid.UUID]bool, len(sel.ids))
	for _, id := range sel.ids {
		named[id] = false
	}
	var out []holding
	for _, h := range s.holdings(nil) {
		if _, ok := named[h.id]; ok {
			named[h.id] = true
		} else if !sel.empty() && (len(sel.filters) == 0 || !h.matches(sel.filters)) {
			continue
		}
		out = append(out, h)
	}
	for _, id := range sel.ids {
		if !named[id] {
			return nil, refuse(http.StatusNotFound, codeNotFound, "image %s is not cached", id)
		}
	}
	return out, nil
}
