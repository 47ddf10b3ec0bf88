package mirror

import (
	"context"
	"errors"
	"io"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/zfsimport"
)

// fetchWidth is the number of images that one call brings at the same time. The store has slots of
// its own, for all who want files.
const fetchWidth = 4

// begin starts, or joins, the download of a file without a wait for its bytes.
func (m *Mirror) begin(ctx context.Context, e catalog.Entry, index int) error {
	r, err := m.Open(ctx, e, index, cache.Ahead, cache.ByPrefetch)
	if err != nil {
		return err
	}
	return r.Close()
}

// bringFile waits until one file of an image is on disk, and gives its size. progress, which may be
// nil, is told how many bytes are here. When ctx ends first, a download for a Job goes on only for
// others who want the file; what has come is kept.
func (m *Mirror) bringFile(ctx context.Context, e catalog.Entry, index int, why cache.Why, by cache.By, progress func(have int64)) (int64, error) {
	r, err := m.Open(ctx, e, index, why, by)
	if err != nil {
		return 0, err
	}
	defer r.Close() //nolint:errcheck // nothing was read
	if r.Result() == cache.Hit || progress == nil {
		return r.Size(), r.Stored(ctx)
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

// Step is one image of what Bring or an install has to do.
type Step struct {
	Entry catalog.Entry
	// Cached: all files of the image are on disk.
	Cached bool
	// Outcome is what the image is found to be before its turn, zfsimport.Present or
	// zfsimport.Skipped; "" = it is to be brought.
	Outcome zfsimport.Outcome
	// Err is why the image is skipped, or cannot be had.
	Err error
}

// waits tells that something is to be done for the image.
func (s Step) waits() bool { return s.Outcome == "" && s.Err == nil }

// Turn tells how a Step goes. Within one step the turns are told one after the other.
type Turn struct {
	Have    int64 // bytes of the image's files that are on disk
	Read    int64 // bytes of the file that an install has read
	Written int64 // bytes of the ZFS stream that zfs receive has got
	Size    int64 // bytes of all files, once they are known; else 0

	Ended   bool              // the last Turn of the step
	Outcome zfsimport.Outcome // of an install, once Ended
	Err     error             // why the step has failed, or was skipped, once Ended
}

// Report is told of the Turns of step i. It may be called for several steps at once.
type Report func(i int, t Turn)

// Plan gives the steps for images and their origins: every image once, and after its origin. An
// image with an origin that cannot be had fails before it begins: the image is of no use without.
func (m *Mirror) Plan(ctx context.Context, images []catalog.Entry) []Step {
	return plan(images, m.finder(ctx), m.Cached)
}

func plan(images []catalog.Entry, find func(uuid.UUID) (catalog.Entry, error), cached func(catalog.Entry) bool) []Step {
	broken := make(map[uuid.UUID]error)
	all := manifest.Chains(images, manifestOf, find, func(e catalog.Entry, err error) bool {
		broken[e.Manifest.UUID] = err
		return true
	})
	steps := make([]Step, len(all))
	for i, e := range all {
		steps[i] = Step{Entry: e, Err: broken[e.Manifest.UUID], Cached: cached(e)}
		if steps[i].Cached && steps[i].Err == nil {
			steps[i].Outcome = zfsimport.Present
		}
	}
	return steps
}

// Bring brings the files of images to disk: no more than fetchWidth images at a time, and none before
// its origin is there. It returns when all are, or have failed, or ctx has ended; steps that ctx cut
// short, or kept from their turn, are not reported as Ended.
func (m *Mirror) Bring(ctx context.Context, steps []Step, why cache.Why, report Report) {
	place := make(map[uuid.UUID]int, len(steps))
	children := make([][]int, len(steps))
	var ready []int
	for i, st := range steps {
		image := st.Entry.Manifest
		place[image.UUID] = i
		if origin, ok := place[image.Origin]; ok && image.HasOrigin() && st.Err == nil {
			children[origin] = append(children[origin], i)
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
			go func() { done <- outcome{i, m.bringStep(ctx, steps[i], why, func(t Turn) { report(i, t) })} }() // waited for below
			continue
		}
		end := <-done
		running--
		if end.err != nil {
			if ctx.Err() == nil {
				dropChildren(steps, children, end.step, report)
			}
			continue
		}
		// A started chain goes before other chains: only a complete chain is of use.
		ready = append(children[end.step], ready...)
	}
}

// dropChildren fails all that need an image that could not be had.
func dropChildren(steps []Step, children [][]int, failed int, report Report) {
	for _, i := range children[failed] {
		report(i, Turn{Ended: true, Err: tell(manifest.ErrChain,
			"its origin %s could not be fetched", steps[failed].Entry.Manifest.UUID)})
		dropChildren(steps, children, i, report)
	}
}

// bringStep does one step of Bring. The error says that the image is not on disk.
func (m *Mirror) bringStep(ctx context.Context, st Step, why cache.Why, report func(Turn)) error {
	if !st.waits() {
		return st.Err
	}
	report(Turn{})
	var before int64 // bytes of its earlier files
	for index := range st.Entry.Manifest.Files {
		size, err := m.bringFile(ctx, st.Entry, index, why, cache.ByFetch, func(have int64) { report(Turn{Have: before + have}) })
		if err != nil {
			if ctx.Err() == nil {
				report(Turn{Ended: true, Err: err})
			}
			return err
		}
		before += size
	}
	report(Turn{Ended: true, Have: before, Size: before, Outcome: zfsimport.Done})
	return nil
}
