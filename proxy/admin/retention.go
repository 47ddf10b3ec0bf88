package admin

import (
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/verify"
)

// What an operator keeps and removes by hand.

// pin is POST /pin.
func (s *Server) pin(w http.ResponseWriter, r *http.Request) error {
	sel, err := readSome(r)
	if err != nil {
		return err
	}
	entries, err := s.entries(r.Context(), sel)
	if err != nil {
		return err
	}
	ids := make([]uuid.UUID, len(entries))
	for i, e := range entries {
		ids[i] = e.Manifest.UUID
	}
	return s.setPins(w, ids, sel.dry, true)
}

// unpin is POST /unpin. Filters choose among the images that are pinned by hand.
func (s *Server) unpin(w http.ResponseWriter, r *http.Request) error {
	sel, err := readSome(r)
	if err != nil {
		return err
	}
	ids, pinned, list := sel.ids, s.o.Store.Pinned(), s.o.Catalog.Current()
	for _, id := range sel.ids {
		if pinned[id] { // whether there is such an image or not
			continue
		}
		if _, err := s.lookup(r.Context(), id); err != nil {
			return err
		}
	}
	if len(sel.filters) > 0 {
		var more []uuid.UUID
		for id := range pinned {
			if e, ok := list.Entry(id); ok && !slices.Contains(ids, id) && matches(e.Manifest, sel.filters) {
				more = append(more, id)
			}
		}
		slices.SortFunc(more, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
		ids = append(ids, more...)
	}
	return s.setPins(w, ids, sel.dry, false)
}

// setPins pins or unpins images and answers with what became of each.
func (s *Server) setPins(w http.ResponseWriter, ids []uuid.UUID, dry, want bool) error {
	set := s.o.Store.Unpin
	if want {
		set = s.o.Store.Pin
	}
	before, list := s.o.Store.Pinned(), s.o.Catalog.Current()
	out := make([]Item, len(ids))
	for i, id := range ids {
		out[i] = Item{UUID: id.String(), State: JobDone}
		if e, ok := list.Entry(id); ok {
			out[i].Name, out[i].Version = e.Manifest.Name, e.Manifest.Version
		}
		switch {
		case before[id] == want:
			out[i].State = ItemPresent
		case dry:
		default:
			if err := set(id); err != nil {
				out[i].State, out[i].Error = JobFailed, explain(err)
			}
		}
	}
	return reply(w, http.StatusOK, out)
}

// remove is POST /delete: all of what is selected goes, or nothing does.
func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	sel, err := readSome(r)
	if err != nil {
		return err
	}
	lost, sel := s.withoutLost(sel)
	selected, err := s.onDisk(sel)
	if err != nil {
		return err
	}
	files := make(map[verify.Sum]cache.File)
	doomed := make(map[uuid.UUID]bool)
	var order []verify.Sum
	for _, h := range selected {
		if _, ok := files[h.file.Sum]; ok {
			continue
		}
		order = append(order, h.file.Sum)
		files[h.file.Sum] = h.file
		for _, id := range h.file.Images { // others may have the same file
			doomed[id] = true
		}
	}
	all := slices.Concat(slices.Collect(maps.Keys(doomed)), lost)
	defer s.o.Importer.Release(all)() // of imported images nobody else has the files: that must not keep them here
	if err := s.unkept(doomed); err != nil {
		return err
	}
	out := []Removed{}
	for _, sum := range order {
		f := files[sum]
		if !sel.dry {
			_, err := s.o.Store.Remove(r.Context(), sum)
			if errors.Is(err, fs.ErrNotExist) {
				continue // somebody was faster
			}
			if err != nil {
				return err
			}
		}
		out = append(out, removedOf(sum, f.Images, f.Size, string(cache.ReasonDelete)))
	}
	if !sel.dry {
		if _, err := s.o.Importer.Forget(r.Context(), all...); err != nil {
			return err
		}
	}
	return reply(w, http.StatusOK, out)
}

// withoutLost takes those images out of a selection that were imported and have
// no file any more: there is nothing to remove, but they are not to be listed.
func (s *Server) withoutLost(sel selection) (lost []uuid.UUID, rest selection) {
	there := make(map[uuid.UUID]bool)
	for _, h := range s.holdings(nil) {
		there[h.id] = true
	}
	rest = sel
	rest.ids = nil
	for _, id := range sel.ids {
		if _, imported := s.o.Importer.Provenance(id); imported && !there[id] {
			lost = append(lost, id)
		} else {
			rest.ids = append(rest.ids, id)
		}
	}
	return lost, rest
}

// unkept is an error if one of the images must stay: it is kept from eviction,
// or some image on disk is that descends from it.
func (s *Server) unkept(doomed map[uuid.UUID]bool) error {
	all := s.holdings(nil)
	origins := make(map[uuid.UUID]uuid.UUID, len(all))
	for _, h := range all {
		origins[h.id] = h.manifest.Origin
	}
	for _, h := range all {
		if !s.o.Store.Kept(h.id) {
			continue
		}
		for id, n := h.id, 0; id != uuid.Nil && n < maxChain; id, n = origins[id], n+1 {
			published := doomed[id] && s.o.Publisher.Keeps(h.id)
			switch {
			case published && id == h.id:
				return refuse(http.StatusConflict, codeImagePublished, "image %s is published on this mirror, which has its only copy: unpublish it", id)
			case published:
				return refuse(http.StatusConflict, codeImagePublished, "image %s is published on this mirror, and %s is an origin of it", h.id, id)
			case doomed[id] && id == h.id:
				return refuse(http.StatusConflict, codeImagePinned, "image %s is pinned", id)
			case doomed[id]:
				return refuse(http.StatusConflict, codeImagePinned, "image %s is pinned, and %s is an origin of it", h.id, id)
			}
		}
	}
	return nil
}

// vacuum is POST /vacuum.
func (s *Server) vacuum(w http.ResponseWriter, r *http.Request) error {
	var want Dry
	if err := readJSON(r, &want); err != nil {
		return err
	}
	evicted, err := s.o.Store.Vacuum(r.Context(), want.DryRun)
	if err != nil {
		return err
	}
	out := make([]Removed, len(evicted))
	for i, e := range evicted {
		out[i] = removedOf(e.Sum, e.Images, e.Size, string(e.Reason))
	}
	return reply(w, http.StatusOK, out)
}

func removedOf(sum verify.Sum, images []uuid.UUID, size int64, reason string) Removed {
	ids := make([]string, len(images))
	for i, id := range images {
		ids[i] = id.String()
	}
	return Removed{SHA1: sum.String(), UUIDs: ids, Size: size, Reason: reason}
}
