package admin

import (
	"cmp"
	"context"
	"net/http"

	"imgmirror/cache"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
	"imgmirror/zfsimport"
)

// What takes long, and so is a job.

// refreshSources is POST /sources/refresh.
func (s *Server) refreshSources(*http.Request) (any, error) {
	return s.jobs.start(kindRefresh, []Item{}, func(ctx context.Context, _ *job) error {
		return s.mirror.Refresh(ctx)
	})
}

// fetch is POST /fetch.
func (s *Server) fetch(r *http.Request) (any, error) {
	wanted, dry, err := readSome(r)
	if err != nil {
		return nil, err
	}
	images, err := s.mirror.Select(r.Context(), wanted)
	if err != nil {
		return nil, err
	}
	steps := s.mirror.Plan(r.Context(), images)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	items := make([]Item, len(steps))
	for i, st := range steps {
		items[i] = itemOf(st)
		if st.Outcome == zfsimport.Present {
			items[i].Done = items[i].Total
		}
	}
	if dry {
		return items, nil
	}
	return s.jobs.start(kindFetch, items, func(ctx context.Context, j *job) error {
		s.mirror.Bring(ctx, steps, cache.Job, func(i int, t mirror.Turn) {
			j.update(i, func(item *Item) {
				item.Done = max(item.Done, t.Have) // a download that begins again goes back
				item.Total = max(item.Total, item.Done)
				if t.Size > 0 {
					item.Done, item.Total = t.Size, t.Size
				}
				item.turn(t)
			})
		})
		return nil
	})
}

// itemOf is the item of a step before its turn.
func itemOf(st mirror.Step) Item {
	m := st.Entry.Manifest
	item := Item{UUID: m.UUID.String(), Name: brief(m.Name), Version: brief(m.Version), State: ItemWaiting}
	for _, f := range m.Files {
		item.Total += f.Size
	}
	switch {
	case st.Outcome != "":
		item.State = itemStates[st.Outcome]
	case st.Err != nil:
		item.State = JobFailed
	}
	if st.Err != nil {
		item.Error = explain(st.Err)
	}
	return item
}

// turn takes over the state that a Turn tells.
func (item *Item) turn(t mirror.Turn) {
	switch {
	case !t.Ended:
		item.State = JobRunning
	case t.Outcome != "":
		item.State = itemStates[t.Outcome]
	default:
		item.State = JobFailed
	}
	if t.Ended && t.Err != nil {
		item.Error = explain(t.Err)
	}
}

// itemStates are outcomes in the words of the API.
var itemStates = map[zfsimport.Outcome]string{
	zfsimport.Done:     JobDone,
	zfsimport.Present:  ItemPresent,
	zfsimport.Repaired: ItemRepaired,
	zfsimport.Skipped:  ItemSkipped,
}

// verify is POST /verify.
func (s *Server) verify(r *http.Request) (any, error) {
	var body Wanted
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	wanted, err := body.understood()
	if err != nil {
		return nil, err
	}
	held, err := s.mirror.Held(r.Context(), wanted)
	if err != nil {
		return nil, err
	}
	// A file that several images share is hashed once: for the first of the images.
	seen := make(map[verify.Sum]bool)
	items := []Item{}
	var sums []verify.Sum
	for _, h := range held {
		if seen[h.File.Sum] {
			continue
		}
		seen[h.File.Sum] = true
		sums = append(sums, h.File.Sum)
		items = append(items, Item{
			UUID: h.ID.String(), Name: brief(h.Manifest.Name), Version: brief(h.Manifest.Version),
			State: ItemWaiting, Total: h.File.Size,
		})
	}
	return s.jobs.start(kindVerify, items, func(ctx context.Context, j *job) error {
		for i, sum := range sums { // one after the other: disks like that best
			if ctx.Err() != nil {
				return nil // the items tell
			}
			s.checkOne(ctx, j, i, sum)
		}
		return nil
	})
}

// checkOne hashes one file of a verify job again.
func (s *Server) checkOne(ctx context.Context, j *job, i int, sum verify.Sum) {
	j.update(i, func(item *Item) { item.State = JobRunning })
	result, err := s.mirror.Verify(ctx, sum, func(done int64) {
		j.update(i, func(item *Item) { item.Done = done })
	})
	if err != nil && result == "" && ctx.Err() != nil {
		return // finish says that it was cancelled
	}
	j.update(i, func(item *Item) {
		if err != nil {
			item.Error = explain(err)
		}
		// Another result is that the file is absent, unreadable, or was removed before its turn.
		item.State = cmp.Or(checkStates[result], JobFailed)
		if item.State == ItemHealed || item.State == ItemRestored {
			item.Error = nil
		}
	})
}

// checkStates are results of checks in the words of the API.
var checkStates = map[cache.CheckResult]string{
	cache.CheckOK:          JobDone,
	cache.CheckHealed:      ItemHealed,
	cache.CheckRestored:    ItemRestored,
	cache.CheckQuarantined: ItemQuarantined,
}
