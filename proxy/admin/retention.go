package admin

import (
	"net/http"

	"github.com/google/uuid"

	"imgmirror/cache"
)

// What an operator keeps and removes by hand.

// pin is POST /pin.
func (s *Server) pin(w http.ResponseWriter, r *http.Request) error {
	wanted, dry, err := readSome(r)
	if err != nil {
		return err
	}
	entries, err := s.mirror.Select(r.Context(), wanted)
	if err != nil {
		return err
	}
	ids := make([]uuid.UUID, len(entries))
	for i, e := range entries {
		ids[i] = e.Manifest.UUID
	}
	return s.setPins(w, ids, dry, true)
}

// unpin is POST /unpin. Filters choose among the images that are pinned by hand.
func (s *Server) unpin(w http.ResponseWriter, r *http.Request) error {
	wanted, dry, err := readSome(r)
	if err != nil {
		return err
	}
	ids, err := s.mirror.SelectPinned(r.Context(), wanted)
	if err != nil {
		return err
	}
	return s.setPins(w, ids, dry, false)
}

// setPins pins or unpins images and answers with what became of each.
func (s *Server) setPins(w http.ResponseWriter, ids []uuid.UUID, dry, want bool) error {
	set := s.mirror.Unpin
	if want {
		set = s.mirror.Pin
	}
	before, list := s.mirror.Pinned(), s.mirror.Current()
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

// remove is POST /delete.
func (s *Server) remove(w http.ResponseWriter, r *http.Request) error {
	wanted, dry, err := readSome(r)
	if err != nil {
		return err
	}
	gone, err := s.mirror.Delete(r.Context(), wanted, dry)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, removedOf(gone))
}

// vacuum is POST /vacuum.
func (s *Server) vacuum(w http.ResponseWriter, r *http.Request) error {
	var want Dry
	if err := readJSON(r, &want); err != nil {
		return err
	}
	gone, err := s.mirror.Vacuum(r.Context(), want.DryRun)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, removedOf(gone))
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
