package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"imgmirror/manifest"
)

// Installer puts images into the zpools of this machine. Its methods may be
// called concurrently; it takes in one image at a time, and others wait for their
// turn. What it refuses is told by an *Error. A pool "" is the configured one.
type Installer interface {
	// Prepare fails when there is no such pool here, and else clears away what an
	// install that was killed has left in it.
	Prepare(ctx context.Context, pool string) error
	// Fits fails when this machine can never run the image.
	Fits(ctx context.Context, image manifest.Manifest) error
	// Batch plans to put images into a pool, in their order, origins first.
	Batch(pool string, images []manifest.Manifest) Batch
	// Stage puts the image's file where imgadm looks for it before it downloads.
	// It answers as Batch.Install does.
	Stage(ctx context.Context, image manifest.Manifest, progress func(Intake)) (state string, err error)
	// Installed lists the images in a pool.
	Installed(ctx context.Context, pool string) ([]Installed, error)
}

// Batch puts images into one pool, one after the other. What belongs together, an
// image with those that are built on it, no other program takes apart meanwhile, if the
// images follow each other. It is for one goroutine.
type Batch interface {
	// Install puts an image of the Batch, whose origin is there, into the pool. It
	// answers with JobDone, ItemPresent, ItemRepaired or ItemSkipped, which comes with an
	// error. When it fails, or ctx ends, the pool is as it was.
	Install(ctx context.Context, image manifest.Manifest, progress func(Intake)) (state string, err error)
	// Close gives back what the images that were not installed have kept.
	Close()
}

// Intake is how far one install has come.
type Intake struct {
	Read    int64 // bytes of the image's file
	Written int64 // of the stream in it, given to zfs receive
}

// install is POST /install.
func (s *Server) install(w http.ResponseWriter, r *http.Request) error {
	var body Install
	if err := readJSON(r, &body); err != nil {
		return err
	}
	sel, err := Wanted{UUIDs: body.UUIDs, Filters: body.Filters, DryRun: body.DryRun}.selection()
	if err == nil {
		err = sel.some()
	}
	if err == nil && body.Stage && body.Pool != "" {
		err = refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "stage touches no pool: leave pool out")
	}
	if err != nil {
		return err
	}
	there := make(map[string]Installed) // by uuid
	if !body.Stage {
		all, err := s.o.Installer.Installed(r.Context(), body.Pool)
		if err != nil {
			return err
		}
		for _, i := range all {
			there[i.UUID] = i
		}
	}
	entries, err := s.entries(r.Context(), sel)
	if err != nil {
		return err
	}
	steps := byFamily(s.plan(r.Context(), entries))
	if err := r.Context().Err(); err != nil {
		return err
	}
	items := make([]Item, len(steps))
	for i := range steps {
		s.planInstall(r.Context(), &steps[i], there)
		items[i] = steps[i].item
	}
	if sel.dry {
		return reply(w, http.StatusOK, items)
	}
	kind, work := "install", func(ctx context.Context, j *job) error { return s.installAll(ctx, j, body.Pool, steps) }
	if body.Stage {
		kind, work = "stage", func(ctx context.Context, j *job) error { return s.stageAll(ctx, j, steps) }
	}
	j, err := s.jobs.start(kind, items, work)
	if err != nil {
		return err
	}
	return started(w, j)
}

// byFamily puts steps, origins before what is built on them, into an order in which all that is built on an image
// follows the image: a Batch keeps those together.
func byFamily(steps []step) []step {
	root, order, place := make([]int, len(steps)), make([]int, len(steps)), make([]int, len(steps))
	for i, st := range steps {
		root[i], order[i] = i, i
		if st.origin >= 0 {
			root[i] = root[st.origin]
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(root[a], root[b]) })
	out := make([]step, len(steps))
	for at, i := range order {
		out[at], place[i] = steps[i], at
		if origin := steps[i].origin; origin >= 0 {
			out[at].origin = place[origin]
		}
	}
	return out
}

// planInstall makes a step of a fetch one of an install into where those images
// are that are there.
func (s *Server) planInstall(ctx context.Context, st *step, there map[string]Installed) {
	item := &st.item
	cached := item.State == ItemPresent
	image := st.entry.Manifest
	known, present := there[item.UUID]
	_, based := there[image.Origin.String()]
	if item.State == JobFailed && !present && !based { // it has an origin that cannot be had
		return
	}
	*item = Item{UUID: item.UUID, Name: item.Name, Version: item.Version, State: ItemWaiting}
	if len(image.Files) > 0 {
		item.Total = image.Files[0].Size // zpools have no room for more
	}
	if cached || present {
		item.Fetched = item.Total
	}
	if present && known.Record {
		item.State, item.Done = ItemPresent, item.Total
		return
	}
	if err := s.o.Installer.Fits(ctx, image); err != nil && !present {
		item.State, item.Error = ItemSkipped, explain(err)
	}
}

// installAll does the steps of an install one after the other, in their order:
// origins first. The files of those to come are fetched meanwhile.
func (s *Server) installAll(ctx context.Context, j *job, pool string, steps []step) error {
	if err := s.o.Installer.Prepare(ctx, pool); err != nil {
		return err
	}
	ahead := s.fetchAhead(ctx, j, steps)
	defer ahead.stop()
	var images []manifest.Manifest
	for _, st := range steps {
		if st.item.State == ItemWaiting {
			images = append(images, st.entry.Manifest)
		}
	}
	batch := s.o.Installer.Batch(pool, images)
	defer batch.Close()
	missing := make(map[uuid.UUID]bool) // those that are not in the pool after their turn
	for i, st := range steps {
		if ctx.Err() != nil {
			return nil // the items tell
		}
		image := st.entry.Manifest
		switch {
		case st.item.State == ItemPresent:
		case st.item.State != ItemWaiting:
			missing[image.UUID] = true
		case missing[image.Origin]:
			missing[image.UUID] = true
			j.update(i, func(item *Item) {
				item.State = JobFailed
				item.Error = &Error{codeOriginNotInPool, fmt.Sprintf("its origin %s could not be installed", image.Origin)}
			})
		default:
			missing[image.UUID] = !s.take(ctx, j, i, func(progress func(Intake)) (string, error) {
				return batch.Install(ctx, image, progress)
			})
		}
		ahead.done(i)
	}
	return nil
}

// stageAll does the steps of a job that stages, fetchWidth side by side.
func (s *Server) stageAll(ctx context.Context, j *job, steps []step) error {
	var g errgroup.Group
	g.SetLimit(fetchWidth)
	for i, st := range steps {
		if st.item.State != ItemWaiting {
			continue
		}
		g.Go(func() error {
			if ctx.Err() == nil {
				s.take(ctx, j, i, func(progress func(Intake)) (string, error) {
					return s.o.Installer.Stage(ctx, st.entry.Manifest, progress)
				})
			}
			return nil
		})
	}
	return g.Wait()
}

// take does one step, and tells whether the image is where it is to be.
func (s *Server) take(ctx context.Context, j *job, i int, do func(progress func(Intake)) (string, error)) bool {
	j.update(i, func(item *Item) { item.State = JobRunning })
	state, err := do(func(in Intake) {
		j.update(i, func(item *Item) {
			item.Done, item.Received = in.Read, in.Written
			item.Fetched = max(item.Fetched, item.Done)
			item.Total = max(item.Total, item.Done)
		})
	})
	if err != nil && ctx.Err() != nil {
		return false // the end of the job says what became of it
	}
	j.update(i, func(item *Item) {
		switch {
		case err == nil:
			item.State, item.Done, item.Fetched = state, item.Total, item.Total
		case state == ItemSkipped:
			item.State, item.Error = ItemSkipped, explain(err)
		default:
			item.State, item.Error = JobFailed, explain(err)
		}
	})
	return err == nil
}

// ahead is the fetching of files before it is their image's turn.
type ahead struct {
	end     context.CancelFunc
	running sync.WaitGroup
	slots   chan struct{}        // one is taken for each image from the start of its download to the end of its turn
	stops   []context.CancelFunc // by step; nil: nothing to fetch
	ctx     context.Context
}

// fetchAhead begins to fetch what steps need, in their order, no more than
// fetchWidth images before their turn is over. The caller calls done after each
// step and stop at the end. What goes wrong, the install will tell.
func (s *Server) fetchAhead(ctx context.Context, j *job, steps []step) *ahead {
	a := &ahead{slots: make(chan struct{}, fetchWidth), stops: make([]context.CancelFunc, len(steps))}
	a.ctx, a.end = context.WithCancel(ctx)
	own := make([]context.Context, len(steps))
	for i, st := range steps {
		if st.item.State == ItemWaiting && st.item.Fetched < st.item.Total {
			own[i], a.stops[i] = context.WithCancel(a.ctx)
		}
	}
	a.running.Go(func() {
		for i, st := range steps {
			if own[i] == nil {
				continue
			}
			select {
			case a.slots <- struct{}{}:
			case <-a.ctx.Done():
				return
			}
			if own[i].Err() != nil {
				continue // its turn is over
			}
			a.running.Go(func() {
				_, _ = s.bringFile(own[i], st.entry, 0, func(have int64) {
					j.update(i, func(item *Item) { item.Fetched = max(item.Fetched, have) })
				})
			})
		}
	})
	return a
}

// done says that the turn of step i is over.
func (a *ahead) done(i int) {
	if a.stops[i] == nil {
		return
	}
	a.stops[i]()
	select {
	case <-a.slots:
	case <-a.ctx.Done():
	}
}

func (a *ahead) stop() {
	a.end()
	a.running.Wait()
}

// installed is GET /installed.
func (s *Server) installed(w http.ResponseWriter, r *http.Request) error {
	all, err := s.o.Installer.Installed(r.Context(), r.URL.Query().Get("pool"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, list(all))
}
