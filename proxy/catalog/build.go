package catalog

import (
	"io/fs"
	"slices"
	"sync"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

const (
	maxDepth = manifest.MaxChain - 1 // ancestors that an image may have (spec 7, G4)
	maxLines = 20                    // log lines about one kind of trouble for one list
)

// rebuild brings the current list up to date with the inputs. It does nothing when it already is.
func (c *Catalog) rebuild() {
	c.building.Lock()
	defer c.building.Unlock()
	c.rebuildLocked()
}

// rebuildLocked is rebuild with building held.
func (c *Catalog) rebuildLocked() {
	cur := c.current.Load()
	c.state.Lock()
	stale, added, facts := c.stale, c.added, c.facts
	c.added = nil
	c.state.Unlock()
	if !stale && len(added) == 0 {
		return
	}
	if !stale {
		// What was found by uuid is new to the list as a rule; then the list as it stands is a good
		// beginning, and a client does not wait for a merge.
		if next := cur.with(added, facts); next != nil {
			c.swap(next)
			return
		}
	}
	c.state.Lock()
	c.stale, c.added = false, nil
	in := c.inputs()
	c.state.Unlock()
	next := c.build(in, cur)
	next.setViews(cur)
	c.swap(next)
}

// swap makes l the list being served; building is held, but by New.
func (c *Catalog) swap(l *List) {
	c.current.Store(l)
	c.hidden.Store(nil)
	if len(l.images) > 0 {
		select {
		case <-c.filled:
		default:
			close(c.filled)
		}
	}
	c.metrics.images.Set(float64(len(l.images)))
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// inputs is what a list is built from: taken under state, not changed afterwards.
type inputs struct {
	sources []input // by priority
	facts   map[manifest.FileID]manifest.Facts
	absent  map[uuid.UUID]bool // origins that every source said it does not have
}

type input struct {
	source   *source
	text     []byte                 // that images may lie in
	ways     map[uuid.UUID][]string // of images, if the source is a mirror
	images   []manifest.Manifest    // as listed, with details, unfiltered
	unlisted []manifest.Manifest
	retired  []manifest.Manifest
}

// inputs takes a snapshot; state is held.
func (c *Catalog) inputs() inputs {
	in := inputs{facts: c.facts, absent: make(map[uuid.UUID]bool)}
	for _, s := range c.sources {
		in.sources = append(in.sources, input{
			source: s, text: s.list.Text, ways: s.list.Ways, images: s.told(), unlisted: manifests(s.unlisted), retired: manifests(s.retired),
		})
		s.list.Text = nil // what lies in it keeps it in memory, for as long as it is needed
	}
	if len(c.sources) > 0 {
		for id := range c.sources[0].absent {
			if c.absentEverywhere(id) {
				in.absent[id] = true
			}
		}
	}
	return in
}

// manifests are those of a source's unlisted or retired images, in no order; state is held.
func manifests(of map[uuid.UUID]given) []manifest.Manifest {
	out := make([]manifest.Manifest, 0, len(of))
	for _, u := range of {
		out = append(out, u.manifest)
	}
	return out
}

// absentEverywhere tells that every source said that it does not have id; state is held.
func (c *Catalog) absentEverywhere(id uuid.UUID) bool {
	for _, s := range c.sources {
		if _, ok := s.absent[id]; !ok {
			return false
		}
	}
	return true
}

// build makes the list of in, without views. before is the list before, or nil; building is held.
func (c *Catalog) build(in inputs, before *List) *List {
	listings, retired := in.listings(c.opts.HideRetired)
	merged, conflicts := manifest.Merge(listings)
	l := &List{
		entry:     c.entry,
		documents: new(documents),
		channels:  c.channels,
		records:   make([]record, 0, len(merged)),
		byUUID:    make(map[uuid.UUID]int32, len(merged)),
		replaced:  replacedBy(conflicts),
		shares:    &shares{done: make(map[*source]bool)},
		browsed:   &c.browsed,
		demand:    &c.demand,
	}
	l.inherited, l.ancestors = sync.OnceValue(l.inherit), sync.OnceValue(l.findAncestors)
	l.paths = sync.OnceValue(l.pathsText)
	for i := range merged {
		m := &merged[i]
		r := record{manifest: m.Manifest, source: c.byName[m.Source], listed: m.Listed, retired: retired[m.Manifest.UUID]}
		l.byUUID[m.Manifest.UUID] = int32(len(l.records))
		l.records = append(l.records, r)
	}
	broken := l.brokenChains(in.absent)

	if c.opts.HideBrokenChains {
		l.broken = broken
	}
	l.setImages(in, listings, before)
	for i := range l.records {
		l.records[i].hold(merged[i].Holders, c.byName)
	}
	l.setTable()
	l.countHidden(in)
	l.ways = in.ways(l)
	c.metrics.retired.Set(float64(len(retired)))
	c.report(conflicts, broken)
	return l
}

// setImages sets the images that clients are shown. They must lie in a row, and their texts in one block, which is the
// answer that lists them. The images of a source that has them so already are taken as they are.
func (l *List) setImages(in inputs, listings []manifest.Listing, before *List) {
	shown, count := make([]bool, len(l.records)), 0
	for i := range l.records {
		if shown[i] = l.hides(&l.records[i]).Reason == ""; shown[i] {
			count++
		}
	}
	var last []byte
	if before != nil {
		last = before.text
	}
	for i, src := range in.sources {
		images := listings[i].Images
		if !l.lieIn(images, shown, count) {
			continue
		}
		texts := [][]byte{src.text, last}
		if at := slices.IndexFunc(texts, func(text []byte) bool { return manifest.LieIn(text, images[:count]) }); at >= 0 {
			l.images, l.text = images[:count:count], texts[at]
			break
		}
		if count == len(images) && sameSlice(images, src.images) { // all is shown, and nothing was filled in
			l.shares.copied = images
		}
	}
	var packed []manifest.Manifest
	if l.text == nil {
		packed = make([]manifest.Manifest, 0, count)
	}
	rest := make([]manifest.Manifest, 0, len(l.records)-count)
	for i := range l.records {
		r := &l.records[i]
		home := &rest
		if shown[i] {
			if l.text != nil {
				continue
			}
			home = &packed
		}
		*home = append(*home, *r.manifest)
		r.manifest = &(*home)[len(*home)-1]
	}
	if l.text == nil {
		l.images, l.text = packed, manifest.PackList(packed, last)
	}
	manifest.PackList(rest, nil)
}

// lieIn tells that the records that are shown, so many, are the first of images.
func (l *List) lieIn(images []manifest.Manifest, shown []bool, count int) bool {
	if count > len(images) {
		return false
	}
	next := 0
	for i := range l.records {
		if shown[i] {
			if l.records[i].manifest != &images[next] {
				return false
			}
			next++
		}
	}
	return true
}

// listings are the inputs as Merge takes them: filtered, and with the facts of files. Retired
// images that no source lists are among the listed ones, or with hide among the unlisted ones. The
// second result names the retired images.
func (in inputs) listings(hide bool) ([]manifest.Listing, map[uuid.UUID]bool) {
	out := make([]manifest.Listing, len(in.sources))
	left := make([]map[uuid.UUID]manifest.Manifest, len(in.sources)) // what the filters left out
	for i, src := range in.sources {
		out[i].Source = src.source.name
		out[i].Images, left[i] = src.source.filter(src.images)
		out[i].Unlisted = src.source.servable(src.unlisted)
	}
	retired := in.addRetired(out, hide)
	takeAncestors(out, left)
	if len(in.facts) > 0 {
		known := make(map[uuid.UUID]bool, len(in.facts))
		for id := range in.facts {
			known[id.Image] = true
		}
		for i := range out {
			out[i].Images = allWithFacts(out[i].Images, known, in.facts)
			out[i].Unlisted = allWithFacts(out[i].Unlisted, known, in.facts)
		}
	}
	return out, retired
}

// addRetired adds to each listing the retired images of its source that no source lists. The result
// names these.
func (in inputs) addRetired(ls []manifest.Listing, hide bool) map[uuid.UUID]bool {
	added := make(map[uuid.UUID]bool)
	if !slices.ContainsFunc(in.sources, func(src input) bool { return len(src.retired) > 0 }) {
		return added
	}
	listed := make(map[uuid.UUID]bool)
	for i := range ls {
		for j := range ls[i].Images {
			listed[ls[i].Images[j].UUID] = true
		}
	}
	for i, src := range in.sources {
		taken, _ := src.source.filter(src.retired)
		taken = slices.DeleteFunc(slices.Clone(taken), func(m manifest.Manifest) bool { return listed[m.UUID] })
		for j := range taken {
			added[taken[j].UUID] = true
		}
		if hide {
			ls[i].Unlisted = append(ls[i].Unlisted, taken...)
		} else {
			ls[i].Images = slices.Concat(ls[i].Images, taken)
		}
	}
	return added
}

// takeAncestors adds to each listing, as unlisted, the left-out images that images of any listing
// are built on.
func takeAncestors(ls []manifest.Listing, left []map[uuid.UUID]manifest.Manifest) {
	if !slices.ContainsFunc(left, func(m map[uuid.UUID]manifest.Manifest) bool { return len(m) > 0 }) {
		return
	}
	var wanted []uuid.UUID
	for i := range ls {
		for _, images := range [][]manifest.Manifest{ls[i].Images, ls[i].Unlisted} {
			for j := range images {
				if images[j].HasOrigin() {
					wanted = append(wanted, images[j].Origin)
				}
			}
		}
	}
	for len(wanted) > 0 {
		id := wanted[len(wanted)-1]
		wanted = wanted[:len(wanted)-1]
		for i := range ls {
			m, ok := left[i][id]
			if !ok {
				continue
			}
			delete(left[i], id)
			ls[i].Unlisted = append(ls[i].Unlisted, m)
			if m.HasOrigin() {
				wanted = append(wanted, m.Origin)
			}
		}
	}
}

// brokenChains gives the reason for each listed image with a broken chain of origins. absent are
// the origins that no source has; an unknown origin breaks nothing.
func (l *List) brokenChains(absent map[uuid.UUID]bool) map[uuid.UUID]string {
	broken := make(map[uuid.UUID]string)
	for _, r := range l.records {
		if !r.listed || !r.manifest.HasOrigin() {
			continue
		}
		_, err := manifest.Chain(*r.manifest, func(m manifest.Manifest) manifest.Manifest { return m }, func(id uuid.UUID) (manifest.Manifest, error) {
			origin, ok := l.record(id)
			switch {
			case ok:
				return *origin.manifest, nil
			case absent[id]:
				return manifest.Manifest{}, fs.ErrNotExist
			}
			return manifest.Manifest{}, manifest.ErrChainEnd
		})
		if err != nil {
			broken[r.manifest.UUID] = err.Error()
		}
	}
	return broken
}

// report counts the troubles of a new list, and logs those that are new; building is held.
func (c *Catalog) report(conflicts []manifest.Conflict, broken map[uuid.UUID]string) {
	c.metrics.conflicts.Set(float64(len(conflicts)))
	c.metrics.broken.Set(float64(len(broken)))

	said := make(map[manifest.Conflict]bool, len(conflicts))
	lines := 0
	for _, x := range conflicts {
		if !c.saidConflict[x] {
			if lines++; lines <= maxLines {
				c.log.Warn("sources have different files of one image; the first is served",
					"uuid", x.UUID, "source", x.Kept, "ignored", x.Left)
			}
		}
		said[x] = true
	}
	if lines > maxLines {
		c.log.Warn("more images of which sources have different files", "count", lines-maxLines)
	}
	c.saidConflict = said

	lines = 0
	for id, why := range broken {
		if c.saidBroken[id] == "" {
			if lines++; lines <= maxLines {
				c.log.Warn("image cannot be installed: its chain of origins is broken", "uuid", id, "reason", why)
			}
		}
	}
	if lines > maxLines {
		c.log.Warn("more images with broken chains of origins", "count", lines-maxLines)
	}
	c.saidBroken = broken
}
