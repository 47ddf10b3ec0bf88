package mirror

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/zfsimport"
)

// Pools puts images into the zpools of this machine; ZFS makes one of a zfsimport.Importer, which has
// the contract of each method. A pool "" is the configured one. The methods may be called
// concurrently.
type Pools interface {
	Check(ctx context.Context, pool string) error
	Recover(ctx context.Context, pool string) error
	Fits(ctx context.Context, image manifest.Manifest) error
	// Batch plans installs. wait: an image that another process imports is waited for.
	Batch(pool string, images []manifest.Manifest, wait bool) Batch
	Stage(ctx context.Context, image manifest.Manifest, progress func(zfsimport.Progress)) (zfsimport.Outcome, error)
	Installed(ctx context.Context, pool string) ([]zfsimport.Installed, error)
}

// Batch is a zfsimport.Batch.
type Batch interface {
	Install(ctx context.Context, image manifest.Manifest, progress func(zfsimport.Progress)) (zfsimport.Outcome, error)
	Close()
}

// errOriginFailed is the ErrNoOrigin of an image that had no turn, because its origin had none or has failed.
var errOriginFailed = fmt.Errorf("%w: the install of the origin has failed", zfsimport.ErrNoOrigin)

// ZFS is an importer as Pools.
type ZFS struct{ *zfsimport.Importer }

// Batch implements Pools.
func (z ZFS) Batch(pool string, images []manifest.Manifest, wait bool) Batch {
	b := z.Importer.Batch(pool, images)
	b.NoWait = !wait
	return b
}

// Installer installs images: one loop for a job, for the standing wishes and for a machine that takes
// its images from a mirror elsewhere.
type Installer struct {
	pools  Pools
	find   func(ctx context.Context) func(uuid.UUID) (catalog.Entry, error)
	cached func(catalog.Entry) bool
	// ahead brings the file of an image before the turn of the image; nil: files come as they are installed.
	ahead func(ctx context.Context, e catalog.Entry, why cache.Why, progress func(have int64)) error
	log   *slog.Logger
}

// NewInstaller makes an Installer for images that are not on disk here. find gives an image by its
// uuid; its error matches fs.ErrNotExist for an image that does not exist.
func NewInstaller(pools Pools, find func(context.Context, uuid.UUID) (manifest.Manifest, error), log *slog.Logger) Installer {
	return Installer{
		pools: pools, log: log,
		find: func(ctx context.Context) func(uuid.UUID) (catalog.Entry, error) {
			return func(id uuid.UUID) (catalog.Entry, error) {
				image, err := find(ctx, id)
				return catalog.Entry{Manifest: image}, err
			}
		},
		cached: func(catalog.Entry) bool { return false },
	}
}

// newImporter makes what puts images into zpools, from the cache or as they are being downloaded.
func (m *Mirror) newImporter(o Options) error {
	z := o.ZFS
	z.Open = m.openImage
	z.Source = o.PublicURL
	z.Find = m.findManifest
	z.Logger, z.Registerer = m.log, m.registry
	importer, err := zfsimport.New(z)
	if err != nil {
		return err
	}
	pools := o.Pools
	if pools == nil {
		pools = ZFS{importer}
	}
	m.Installer = Installer{
		pools: pools, find: m.finder, cached: m.Cached, log: m.log,
		ahead: func(ctx context.Context, e catalog.Entry, why cache.Why, progress func(int64)) error {
			_, err := m.bringFile(ctx, e, 0, why, cache.ByInstall, progress)
			return err
		},
	}
	return nil
}

// openImage gives the file of an image, from disk or from its download. An install that is given up
// ends the download.
func (m *Mirror) openImage(ctx context.Context, image manifest.Manifest) (io.ReadCloser, error) {
	e, err := m.Find(ctx, image.UUID)
	if err != nil {
		return nil, err
	}
	r, err := m.Open(ctx, e, 0, cache.Job, cache.ByInstall)
	if err != nil {
		return nil, err
	}
	return &imageFile{r, ctx}, nil
}

// imageFile is a Reader with reads that end with a context.
type imageFile struct {
	*cache.Reader
	ctx context.Context
}

func (f *imageFile) Read(p []byte) (int, error) {
	if _, err := f.WaitContext(f.ctx); err != nil {
		return 0, err
	}
	return f.Reader.Read(p)
}

// Target says where an install puts images.
type Target struct {
	Pool  string // "" = the configured one
	Stage bool   // the file is put where imgadm looks before it downloads; no pool is touched
}

// Installed lists the images in a pool, "" = the configured one.
func (in Installer) Installed(ctx context.Context, pool string) ([]zfsimport.Installed, error) {
	return in.pools.Installed(ctx, pool)
}

// PlanInstall gives the steps for images and their origins: every image once, after its origin, and
// families together (see zfsimport.Families). A chain need not go on below an image in the pool.
func (in Installer) PlanInstall(ctx context.Context, images []catalog.Entry, to Target) ([]Step, error) {
	record := make(map[uuid.UUID]bool) // of the images in the pool: imgadm's database has them
	if !to.Stage {
		all, err := in.pools.Installed(ctx, to.Pool)
		if err != nil {
			return nil, err
		}
		for _, i := range all {
			record[i.UUID] = i.Record
		}
	}
	find := in.find(ctx)
	steps := plan(images, func(id uuid.UUID) (catalog.Entry, error) {
		e, err := find(id)
		if _, present := record[id]; present && err != nil {
			return e, manifest.ErrChainEnd
		}
		return e, err
	}, in.cached)
	steps = zfsimport.Families(steps, func(s Step) manifest.Manifest { return s.Entry.Manifest })
	for i := range steps {
		st := &steps[i]
		image := st.Entry.Manifest
		complete, present := record[image.UUID]
		switch {
		case complete:
			st.Outcome, st.Err = zfsimport.Present, nil
		case present:
			st.Outcome, st.Err, st.Cached = "", nil, true // its record is missing, and no byte
		case st.Err != nil:
		default:
			st.Outcome = ""
			if err := in.pools.Fits(ctx, image); err != nil {
				st.Outcome, st.Err = zfsimport.Skipped, err
			}
		}
	}
	return steps, ctx.Err()
}

// Install installs, or stages, what PlanInstall has planned, in the order of the steps. It returns
// when all are done, or have failed, or ctx has ended; steps that ctx cut short, or kept from their
// turn, are not reported as Ended. The error is one of the pool, on which no step was begun.
func (in Installer) Install(ctx context.Context, steps []Step, to Target, report Report) error {
	if to.Stage {
		in.stage(ctx, steps, report)
		return nil
	}
	if err := in.Prepare(ctx, to.Pool); err != nil {
		return err
	}
	in.install(ctx, steps, to.Pool, cache.Job, report)
	return nil
}

// Prepare fails when there is no such pool on this machine, and else clears away what an install that
// was killed has left in the pool. What cannot be cleared away does not keep other images out.
func (in Installer) Prepare(ctx context.Context, pool string) error {
	if err := in.pools.Check(ctx, pool); err != nil {
		return err
	}
	if err := in.pools.Recover(ctx, pool); err != nil && ctx.Err() == nil {
		in.log.Warn("what an earlier install left cannot be put right", "pool", pool, "error", err)
	}
	return ctx.Err()
}

// install is the loop: one image after the other, origins first. With why Ahead, files are fetched
// ahead into free room only, and an image that another process imports is not waited for.
func (in Installer) install(ctx context.Context, steps []Step, pool string, why cache.Why, report Report) {
	ahead := in.fetchAhead(ctx, steps, why, report)
	defer ahead.stop()
	var images []manifest.Manifest
	for _, st := range steps {
		if st.waits() {
			images = append(images, st.Entry.Manifest)
		}
	}
	batch := in.pools.Batch(pool, images, why != cache.Ahead)
	defer batch.Close()
	missing := make(map[uuid.UUID]bool) // not in the pool after their turn
	for i, st := range steps {
		if ctx.Err() != nil {
			return
		}
		image := st.Entry.Manifest
		switch {
		case st.Outcome == zfsimport.Present:
		case !st.waits():
			missing[image.UUID] = true
		case missing[image.Origin]:
			missing[image.UUID] = true
			report(i, Turn{Ended: true, Err: tell(errOriginFailed, "its origin %s could not be installed", image.Origin)})
		default:
			missing[image.UUID] = !turn(ctx, i, report, func(progress func(zfsimport.Progress)) (zfsimport.Outcome, error) {
				return batch.Install(ctx, image, progress)
			})
		}
		ahead.done(i)
	}
}

// stage stages images, fetchWidth of them side by side.
func (in Installer) stage(ctx context.Context, steps []Step, report Report) {
	var g errgroup.Group
	g.SetLimit(fetchWidth)
	for i, st := range steps {
		if !st.waits() {
			continue
		}
		g.Go(func() error {
			if ctx.Err() == nil {
				turn(ctx, i, report, func(progress func(zfsimport.Progress)) (zfsimport.Outcome, error) {
					return in.pools.Stage(ctx, st.Entry.Manifest, progress)
				})
			}
			return nil
		})
	}
	_ = g.Wait() // its funcs give no error
}

// turn does step i, and tells whether the image is where it is to be.
func turn(ctx context.Context, i int, report Report, do func(func(zfsimport.Progress)) (zfsimport.Outcome, error)) bool {
	report(i, Turn{})
	outcome, err := do(func(p zfsimport.Progress) { report(i, Turn{Read: p.Read, Written: p.Written}) })
	if err == nil || ctx.Err() == nil {
		report(i, Turn{Ended: true, Outcome: outcome, Err: err})
	}
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

// fetchAhead begins to fetch what steps need, in their order, no more than fetchWidth images before
// their turn is over. The caller calls done after each step and stop at the end. An error shows again
// in the install.
func (in Installer) fetchAhead(ctx context.Context, steps []Step, why cache.Why, report Report) *ahead {
	a := &ahead{slots: make(chan struct{}, fetchWidth), stops: make([]context.CancelFunc, len(steps))}
	a.ctx, a.end = context.WithCancel(ctx)
	if in.ahead == nil {
		return a
	}
	own := make([]context.Context, len(steps))
	for i, st := range steps {
		if st.waits() && !st.Cached {
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
				_ = in.ahead(own[i], st.Entry, why, func(have int64) { report(i, Turn{Have: have}) })
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
