package admin

import (
	"net/http"

	"github.com/google/uuid"

	"imgmirror/cache"
)

// What an operator keeps and removes by hand.

// pin is POST /pin.
func (s *Server) pin(r *http.Request) (any, error) {
	wanted, dry, err := readSome(r)
	if err != nil {
		return nil, err
	}
	entries, err := s.mirror.Select(r.Context(), wanted)
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, len(entries))
	for i, e := range entries {
		ids[i] = e.Manifest.UUID
	}
	return s.setPins(ids, dry, true), nil
}

// unpin is POST /unpin. Filters choose among the images that are pinned by hand.
func (s *Server) unpin(r *http.Request) (any, error) {
	wanted, dry, err := readSome(r)
	if err != nil {
		return nil, err
	}
	ids, err := s.mirror.SelectPinned(r.Context(), wanted)
	if err != nil {
		return nil, err
	}
	return s.setPins(ids, dry, false), nil
}

// setPins pins or unpins images and tells the outcome of each.
func (s *Server) setPins(ids []uuid.UUID, dry, want bool) []Item {
	set := s.mirror.Unpin
	if want {
		set = s.mirror.Pin
	}
	before, list := s.mirror.Pinned(), s.mirror.Current()
	out := make([]Item, len(ids))
	for i, id := range ids {
		out[i] = Item{UUID: id.String(), State: JobDone}
		if e, ok := list.Entry(id); ok {
			out[i].Name, out[i].Version = brief(e.Manifest.Name), brief(e.Manifest.Version)
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
	return out
}

// remove is POST /delete.
func (s *Server) remove(r *http.Request) (any, error) {
	wanted, dry, err := readSome(r)
	if err != nil {
		return nil, err
	}
	gone, err := s.mirror.Delete(r.Context(), wanted, dry)
	return removedOf(gone), err
}

// vacuum is POST /vacuum.
func (s *Server) vacuum(r *http.Request) (any, error) {
	var want Dry
	if err := readJSON(r, &want); err != nil {
		return nil, err
	}
	gone, err := s.mirror.Vacuum(r.Context(), want.DryRun)
	return removedOf(gone), err
}

func removedOf(gone []cache.Evicted) []Removed {
	out := make([]Removed, len(gone))
	for i, e := range gone {
		ids := make([]string, len(e.Images))
		for k, id := range e.Images {
			ids[k] = id.String()
		}
		out[i] = Removed{SHA1: e.Sum.String(), UUIDs: ids, Size: e.Size, Reason: string(e.Reason)}
	}
	return out
}
