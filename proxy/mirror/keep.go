package mirror

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// ErrPublished says that the mirror has the only copy of a file, because it publishes the image.
var ErrPublished = errors.New("the image is published on this mirror")

// keeps tells whether the files of an image are kept from eviction by rule: no other mirror has the
// image, or a pin of the configuration names it.
func (m *Mirror) keeps(id uuid.UUID) bool {
	if m.published.Keeps(id) || m.keepsImported(id) {
		return true
	}
	pins := m.rules.Load().Pins
	if len(pins) == 0 {
		return false
	}
	image, err := m.knownManifest(id)
	if err != nil { // an image without a readable manifest stays
		m.log.Debug("an image cannot be held against cache.pins: it is kept", "uuid", id, "error", err)
		return true
	}
	return slices.ContainsFunc(pins, func(f manifest.Filter) bool { return f.Match(image) })
}

// knownManifest is findManifest without a question to the sources.
func (m *Mirror) knownManifest(id uuid.UUID) (manifest.Manifest, error) {
	if entry, ok := m.Current().Entry(id); ok {
		return entry.Manifest, nil
	}
	return m.store.Manifest(id)
}

// heal brings the bytes of a lost file anew, from a source that has them.
func (m *Mirror) heal(ctx context.Context, sum verify.Sum, size int64) error {
	entry, index, ok := m.Current().BySum(sum, size)
	if !ok {
		return fmt.Errorf("no image in the catalogue has this file: %w", fs.ErrNotExist)
	}
	_, err := m.bringFile(ctx, entry, index, cache.Job, cache.ByHeal, nil)
	return err
}

// Holding is one image with one file of it that is on disk.
type Holding struct {
	ID       uuid.UUID
	File     cache.File
	Manifest manifest.Manifest // zero: the catalogue does not know the image, and its copy cannot be read
	Source   string            // "": the catalogue does not know the image
	Retired  bool              // no source has the image any more
}

// matches tells whether the image satisfies all filters. An image of which nothing is known
// satisfies none.
func (h Holding) matches(all []manifest.Filter) bool {
	return len(all) == 0 || h.Manifest.Raw() != nil && manifest.MatchAll(h.Manifest, all)
}

// Holdings gives what is on disk of the images that match all filters, in the order of the list.
func (m *Mirror) Holdings(filters []manifest.Filter) []Holding {
	return m.holdings(m.store.Files(), filters)
}

// holdings is Holdings of these files.
func (m *Mirror) holdings(files []cache.File, filters []manifest.Filter) []Holding {
	list := m.Current()
	var out []Holding
	for _, f := range files {
		for _, id := range f.Images {
			h := Holding{ID: id, File: f, Retired: true}
			if e, ok := list.Entry(id); ok {
				h.Manifest, h.Source, h.Retired = e.Manifest, e.Source, e.Retired
			} else if image, err := m.store.Manifest(id); err == nil { // its source is configured no more
				h.Manifest = image
			}
			if h.matches(filters) {
				out = append(out, h)
			}
		}
	}
	slices.SortFunc(out, func(a, b Holding) int {
		return cmp.Or(a.Manifest.Published.Compare(b.Manifest.Published), bytes.Compare(a.ID[:], b.ID[:]),
			bytes.Compare(a.File.Sum[:], b.File.Sum[:]))
	})
	return out
}

// held gives what is on disk of the images that are meant; of all when none is. An image that is
// named and has nothing there is an error, and so are filters that match nothing: ErrNoMatch.
func (m *Mirror) held(w Wanted) ([]Holding, error) { return m.heldOf(m.store.Files(), w) }

// heldOf is held among these files.
func (m *Mirror) heldOf(files []cache.File, w Wanted) ([]Holding, error) {
	named := make(map[uuid.UUID]bool, len(w.UUIDs))
	for _, id := range w.UUIDs {
		named[id] = false
	}
	var out []Holding
	found := len(w.Filters) == 0
	for _, h := range m.holdings(files, nil) {
		match := len(w.Filters) > 0 && h.matches(w.Filters)
		found = found || match
		if _, ok := named[h.ID]; ok {
			named[h.ID] = true
		} else if !w.Empty() && !match {
			continue
		}
		out = append(out, h)
	}
	for _, id := range w.UUIDs {
		if !named[id] {
			return nil, tell(fs.ErrNotExist, "image %s is not cached", id)
		}
	}
	if !found {
		return nil, noMatch(w.Filters, " among those on disk")
	}
	return out, nil
}

// Kept tells whether an image is kept from eviction, by hand or by rule.
func (m *Mirror) Kept(id uuid.UUID) bool { return m.store.Kept(id) }

// Pinned gives the images that are pinned by hand; the map belongs to the caller.
func (m *Mirror) Pinned() map[uuid.UUID]bool { return m.store.Pinned() }

// Pin keeps the files of an image from eviction until Unpin, over restarts.
func (m *Mirror) Pin(id uuid.UUID) error { return m.store.Pin(id) }

// Unpin takes Pin back.
func (m *Mirror) Unpin(id uuid.UUID) error { return m.store.Unpin(id) }

// SelectPinned is Select for Unpin: the filters choose among the images that are pinned by hand, and
// an image that is pinned need not exist.
func (m *Mirror) SelectPinned(ctx context.Context, w Wanted) ([]uuid.UUID, error) {
	ids, pinned, list := w.UUIDs, m.store.Pinned(), m.Current()
	for _, id := range w.UUIDs {
		if pinned[id] {
			continue
		}
		if _, err := m.Find(ctx, id); err != nil {
			return nil, err
		}
	}
	if len(w.Filters) == 0 {
		return ids, nil
	}
	var more []uuid.UUID
	found := false
	for id := range pinned {
		e, ok := list.Entry(id)
		if !ok || !manifest.MatchAll(e.Manifest, w.Filters) {
			continue
		}
		if found = true; !slices.Contains(ids, id) {
			more = append(more, id)
		}
	}
	if !found {
		return nil, noMatch(w.Filters, " among those that are pinned by hand")
	}
	slices.SortFunc(more, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return append(slices.Clip(ids), more...), nil
}

// Delete removes the files of the images that are meant, all of them or, with an error, none, and
// gives up those of the images that were imported. A file that several images share goes for all. An
// image that is kept is an error that matches cache.ErrPinned or ErrPublished, and so is an origin of
// one. dry: Delete only tells.
func (m *Mirror) Delete(ctx context.Context, w Wanted, dry bool) ([]cache.Evicted, error) {
	lost, w := m.withoutLost(w)
	var held []Holding
	if !w.Empty() {
		var err error
		if held, err = m.held(w); err != nil {
			return nil, err
		}
	}
	files := make(map[verify.Sum]cache.File)
	doomed := make(map[uuid.UUID]bool)
	var order []verify.Sum
	for _, h := range held {
		if _, ok := files[h.File.Sum]; ok {
			continue
		}
		order = append(order, h.File.Sum)
		files[h.File.Sum] = h.File
		for _, id := range h.File.Images {
			doomed[id] = true
		}
	}
	all := slices.Concat(slices.Collect(maps.Keys(doomed)), lost)
	// An imported image without another source is kept from eviction, which must not keep Delete away.
	defer m.imported.Release(all...)()
	if err := m.unkept(doomed); err != nil {
		return nil, err
	}
	var out []cache.Evicted
	for _, sum := range order {
		f := files[sum]
		if !dry {
			_, err := m.store.Remove(ctx, sum)
			if errors.Is(err, fs.ErrNotExist) {
				continue // another removal was faster
			}
			if err != nil {
				return nil, err
			}
		}
		out = append(out, cache.Evicted{File: f, Reason: cache.ReasonDelete})
	}
	if dry {
		return out, nil
	}
	return out, m.forget(ctx, all...)
}

// withoutLost takes out of w the imported images whose files are gone: such images are listed, and
// have no file to remove.
func (m *Mirror) withoutLost(w Wanted) (lost []uuid.UUID, rest Wanted) {
	there := make(map[uuid.UUID]bool)
	for _, h := range m.Holdings(nil) {
		there[h.ID] = true
	}
	rest = Wanted{Filters: w.Filters, Newest: w.Newest}
	for _, id := range w.UUIDs {
		if _, imported := m.imported.Provenance(id); imported && !there[id] {
			lost = append(lost, id)
		} else {
			rest.UUIDs = append(rest.UUIDs, id)
		}
	}
	return lost, rest
}

// unkept is an error if one of the images must stay: the image is kept from eviction, or is an origin
// of one on disk that is.
func (m *Mirror) unkept(doomed map[uuid.UUID]bool) error {
	all := m.Holdings(nil)
	on := make(map[uuid.UUID]Holding, len(all))
	for _, h := range all {
		on[h.ID] = h
	}
	find := func(id uuid.UUID) (Holding, error) {
		if h, ok := on[id]; ok {
			return h, nil
		}
		return Holding{}, manifest.ErrChainEnd
	}
	for _, h := range all {
		if !m.store.Kept(h.ID) {
			continue
		}
		chain, err := manifest.Chain(h, func(h Holding) manifest.Manifest {
			return manifest.Manifest{UUID: h.ID, Origin: h.Manifest.Origin}
		}, find)
		if err != nil { // a ring has no origin that is of use: each image stands for itself
			chain = []Holding{h}
		}
		for _, link := range chain {
			published := m.published.Keeps(h.ID)
			switch id := link.ID; {
			case !doomed[id]:
			case published && id == h.ID:
				return tell(ErrPublished, "image %s is published on this mirror, which has its only copy: unpublish it", id)
			case published:
				return tell(ErrPublished, "image %s is published on this mirror, and %s is an origin of it", h.ID, id)
			case id == h.ID:
				return tell(cache.ErrPinned, "image %s is pinned", id)
			default:
				return tell(cache.ErrPinned, "image %s is pinned, and %s is an origin of it", h.ID, id)
			}
		}
	}
	return nil
}

// Vacuum evicts down to the low water mark, or with dry only tells what that would remove.
func (m *Mirror) Vacuum(ctx context.Context, dry bool) ([]cache.Evicted, error) {
	return m.store.Vacuum(ctx, dry)
}

// Held gives what is on disk of the images that are meant, of all when none is: what clients have got
// whole counts as on disk, and so does what the index has no record of yet. A file may be there twice.
func (m *Mirror) Held(ctx context.Context, w Wanted) ([]Holding, error) {
	if err := m.store.Settle(ctx); err != nil {
		return nil, err
	}
	unrecorded := m.store.Unrecorded() // first: these become the others
	return m.heldOf(append(unrecorded, m.store.Files()...), w)
}

// Verify hashes a file on disk again and heals the file if need be: see cache.Store.Check.
func (m *Mirror) Verify(ctx context.Context, sum verify.Sum, progress func(int64)) (cache.CheckResult, error) {
	return m.store.Check(ctx, sum, progress)
}

// Fills lists the downloads under way.
func (m *Mirror) Fills() []cache.FillInfo { return m.store.Fills() }

// Read gives a Reader for bundles, which the caller closes, on a verified file on disk. The error matches
// fs.ErrNotExist when there is none.
func (m *Mirror) Read(ctx context.Context, sum verify.Sum) (*cache.Reader, error) {
	blob := cache.Blob{Want: verify.Want{SHA1: sum}, By: cache.ByBundle}
	if _, ok := m.store.Peek(blob); !ok {
		return nil, tell(fs.ErrNotExist, "file %s is not cached", sum)
	}
	return m.store.File(ctx, blob, nil)
}
