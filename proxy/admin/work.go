package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// What takes long, and so is a job.

// fetchWidth is how many images one job brings at the same time. The store has
// slots of its own, for all who want files.
const fetchWidth = 4

// refreshSources is POST /sources/refresh.
func (s *Server) refreshSources(w http.ResponseWriter, _ *http.Request) error {
	j, err := s.jobs.start("refresh", []Item{}, func(ctx context.Context, _ *job) error {
		return s.o.Catalog.Refresh(ctx)
	})
	if err != nil {
		return err
	}
	return started(w, j)
}

// fetch is POST /fetch.
func (s *Server) fetch(w http.ResponseWriter, r *http.Request) error {
	sel, err := readSome(r)
	if err != nil {
		return err
	}
	entries, err := s.entries(r.Context(), sel)
	if err != nil {
		return err
	}
	steps := s.plan(r.Context(), entries)
	if err := r.Context().Err(); err != nil {
		return err
	}
	items := make([]Item, len(steps))
	for i, step := range steps {
		items[i] = step.item
	}
	if sel.dry {
		return reply(w, http.StatusOK, items)
	}
	j, err := s.jobs.start("fetch", items, func(ctx context.Context, j *job) error {
		s.bring(ctx, j, steps)
		return nil
	})
	if err != nil {
		return err
	}
	return started(w, j)
}

// step is one image of a fetch.
type step struct {
	entry  catalog.Entry
	item   Item // as it is before the work
	origin int  // the step of its origin, -1 without one
}

// plan gives the steps for images and their origins: every image once, and
// after its origin. Where an origin cannot be had its descendants fail before
// they begin: they are of no use without.
func (s *Server) plan(ctx context.Context, entries []catalog.Entry) []step {
	var steps []step
	at := make(map[uuid.UUID]int)
	for _, e := range entries {
		if _, ok := at[e.Manifest.UUID]; ok {
			continue
		}
		chain, err := s.chain(ctx, e)
		if err != nil {
			at[e.Manifest.UUID] = len(steps)
			item := itemOf(e)
			item.State, item.Error = JobFailed, explain(err)
			steps = append(steps, step{entry: e, item: item, origin: -1})
			continue
		}
		origin := -1
		for i := len(chain) - 1; i >= 0; i-- {
			link := chain[i]
			known, ok := at[link.Manifest.UUID]
			if !ok {
				known = len(steps)
				at[link.Manifest.UUID] = known
				item := itemOf(link)
				if s.isCached(link) {
					item.State, item.Done = ItemPresent, item.Total
				}
				steps = append(steps, step{entry: link, item: item, origin: origin})
			}
			origin = known
		}
	}
	return steps
}

// itemOf is the item of an image that nothing has been done for.
func itemOf(e catalog.Entry) Item {
	m := e.Manifest
	item := Item{UUID: m.UUID.String(), Name: m.Name, Version: m.Version, State: ItemWaiting}
	for _, f := range m.Files {
		item.Total += f.Size
	}
	return item
}

// bring does the steps of a fetch: no more than fetchWidth at a time, and none
// before its origin is there.
func (s *Server) bring(ctx context.Context, j *job, steps []step) {
	children := make([][]int, len(steps))
	var ready []int
	for i, st := range steps {
		if st.origin >= 0 {
			children[st.origin] = append(children[st.origin], i)
		} else {
			ready = append(ready, i)
		}
	}
	type outcome struct {
		step int
		err  error
	}
	done := make(chan outcome)
	running := 0
	for len(ready) > 0 && ctx.Err() == nil || running > 0 {
		if len(ready) > 0 && running < fetchWidth && ctx.Err() == nil {
			i := ready[0]
			ready = ready[1:]
			running++
			go func() { done <- outcome{i, s.bringOne(ctx, j, i, steps[i])} }() // waited for below
			continue
		}
		end := <-done
		running--
		if end.err != nil {
			if ctx.Err() == nil {
				s.dropChildren(j, steps, children, end.step)
			}
			continue
		}
		// The rest of a chain before other chains: what is whole is of use.
		ready = append(children[end.step], ready...)
	}
}

// dropChildren fails all that need an image that could not be had.
func (s *Server) dropChildren(j *job, steps []step, children [][]int, failed int) {
	for _, i := range children[failed] {
		j.update(i, func(item *Item) {
			item.State = JobFailed
			item.Error = &Error{codeOriginMissing, fmt.Sprintf("its origin %s could not be fetched", steps[failed].entry.Manifest.UUID)}
		})
		s.dropChildren(j, steps, children, i)
	}
}

// bringOne does one step. The error says that the image is not on disk.
func (s *Server) bringOne(ctx context.Context, j *job, i int, st step) error {
	if st.item.State != ItemWaiting {
		if st.item.Error != nil {
			return st.item.Error
		}
		return nil
	}
	j.update(i, func(item *Item) { item.State = JobRunning })
	var before int64 // bytes of its earlier files
	for f := range st.entry.Manifest.Files {
		size, err := s.bringFile(ctx, st.entry, f, func(have int64) {
			j.update(i, func(item *Item) {
				item.Done = max(item.Done, before+have) // a fill that begins again goes back
				item.Total = max(item.Total, item.Done)
			})
		})
		if err != nil {
			if ctx.Err() == nil { // else the end of the job says what became of it
				j.update(i, func(item *Item) { item.State, item.Error = JobFailed, explain(err) })
			}
			return err
		}
		before += size
	}
	j.update(i, func(item *Item) { item.State, item.Done, item.Total = JobDone, before, before })
	return nil
}

// bringFile waits until one file of an image is on disk, and tells its size.
// When ctx ends first, the download goes on only for whoever else wants it; what
// has come is kept.
func (s *Server) bringFile(ctx context.Context, e catalog.Entry, index int, progress func(have int64)) (int64, error) {
	blob, sources := s.o.Blob(e, index)
	blob.Why = cache.Job
	r, err := s.o.Store.File(ctx, blob, sources)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if r.Result() == cache.Hit {
		return r.Size(), nil
	}
	for have := int64(0); ; {
		n, err := r.WaitContext(ctx)
		if errors.Is(err, io.EOF) {
			return r.Size(), r.Stored(ctx)
		}
		if err != nil {
			return 0, err
		}
		have += n
		r.SeekTo(have)
		progress(have)
	}
}

// verify is POST /verify.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) error {
	sel, err := readWanted(r)
	if err != nil {
		return err
	}
	if err := s.o.Store.Settle(r.Context()); err != nil { // an image that clients have got whole counts as cached
		return err
	}
	selected, err := s.onDisk(sel)
	if err != nil {
		return err
	}
	// A file that several images share is hashed once: for the first of them.
	seen := make(map[verify.Sum]bool)
	items := []Item{}
	var sums []verify.Sum
	for _, h := range selected {
		if seen[h.file.Sum] {
			continue
		}
		seen[h.file.Sum] = true
		sums = append(sums, h.file.Sum)
		items = append(items, Item{
			UUID: h.id.String(), Name: h.manifest.Name, Version: h.manifest.Version,
			State: ItemWaiting, Total: h.file.Size,
		})
	}
	j, err := s.jobs.start("verify", items, func(ctx context.Context, j *job) error {
		for i, sum := range sums { // one after the other: disks like that best
			if ctx.Err() != nil {
				return nil // the items tell
			}
			s.checkOne(ctx, j, i, sum)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return started(w, j)
}

// checkOne hashes one file of a verify job again.
func (s *Server) checkOne(ctx context.Context, j *job, i int, sum verify.Sum) {
	j.update(i, func(item *Item) { item.State = JobRunning })
	result, err := s.o.Store.Check(ctx, sum, func(done int64) {
		j.update(i, func(item *Item) { item.Done = done })
	})
	if err != nil && result == "" && ctx.Err() != nil {
		return // finish says that it was cancelled
	}
	j.update(i, func(item *Item) {
		if err != nil {
			item.Error = explain(err)
		}
		switch result {
		case cache.CheckOK:
			item.State = JobDone
		case cache.CheckHealed:
			item.State, item.Error = ItemHealed, nil
		case cache.CheckRestored:
			item.State, item.Error = ItemRestored, nil
		case cache.CheckQuarantined:
			item.State = ItemQuarantined
		default: // absent, unreadable, or gone before its turn
			item.State = JobFailed
		}
	})
}
