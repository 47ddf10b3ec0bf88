package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog/browse"
	"imgmirror/verify"
)

// Entry is one image with the sources that hold its bytes, in the order in which they are asked.
type Entry struct {
	Manifest manifest.Manifest
	Source   string   // name of the source that Manifest came from
	Listed   bool     // some source lists it; else it is reachable by uuid only
	Retired  bool     // no source lists it any more, and it is here because it is cached; then Listed means that it is still shown
	Holders  []Holder // empty when the catalogue is Offline, which has no source to ask
	// Others may hold an image that no list shows: they have not been asked. Their File asks for
	// the image first. A source that turns out to have the same files is a Holder from then on.
	Others []Holder
}

// Holder is a source that holds an image's bytes, with its own manifest: paths and urls differ.
type Holder struct {
	Source   Source
	Manifest manifest.Manifest
}

// shares is what the sources' last lists and a List have in memory together.
type shares struct {
	done map[*source]bool // the sources that have the texts of the List in their own lists
	// copied is a source's list. The List's images are a copy of copied, only their texts lie elsewhere. nil after
	// shareTexts.
	copied []manifest.Manifest
}

// List is one immutable merged list. All methods may be called concurrently.
type List struct {
	images  []manifest.Manifest
	text    []byte // of images: manifest.BuildList of them
	records []record
	byUUID  map[uuid.UUID]int32    // index in records
	extra   map[uuid.UUID]record   // unlisted images found since records were made; none of them is in byUUID
	entry   func(record) Entry     // the public view of a record
	ways    map[uuid.UUID][]string // of the images that came through other mirrors only

	hidden   map[string]map[string]int // by source and reason: how many images of its list are not shown
	broken   map[uuid.UUID]string      // images that a broken chain hides, and why it is broken
	replaced map[offer]string          // the source whose files are served in the place of the offer's

	// shares is guarded by Catalog.state, and the only part of a List that changes. The method with copies the pointer.
	shares *shares

	channels  channels
	views     map[string]func() *View       // by channel; each is made by its first caller
	inherited func() map[uuid.UUID][]string // see inherit; made by its first caller
	ancestors func() map[uuid.UUID]struct{} // see IsAncestor; made by its first caller
	paths     func() *Text                  // see PathsText; made by its first caller
	table     func() *browse.Table          // see Table; made by its first caller
	documents *documents                    // see Document
	browsed   *atomic.Int64                 // of the catalogue: when a Table was last asked for, Unix nanoseconds
	demand    *demand                       // of the catalogue
}

// View is the images that one channel shows, and the prepared answers with them, each made by its
// first caller. Immutable.
type View struct {
	images   []manifest.Manifest
	plain    func() *body
	named    func() *body // with the images' channels
	elements [2]func() *Text
	datasets [2]func() *Text
	demand   *demand // of the catalogue; nil: not the view that nearly all clients ask for
}

// newView is the view of images, the images of channel, of which list gives the default answer.
func newView(images []manifest.Manifest, channel string, list func() []byte, channels bool) *View {
	v := &View{images: images}
	v.plain = sync.OnceValue(func() *body { return newBody(list()) })
	v.named = v.plain
	if channels {
		v.named = sync.OnceValue(func() *body { return newBody(manifest.BuildChannelsList(images)) })
	}
	v.elements[0] = sync.OnceValue(func() *Text {
		b := v.plain()
		return newText(b.reply(Identity), len(images), func(i int) int { return len(images[i].V2()) })
	})
	v.elements[1] = v.elements[0]
	if channels {
		v.elements[1] = sync.OnceValue(func() *Text {
			b := v.named()
			return newText(b.reply(Identity), len(images), func(i int) int { return len(images[i].V2Channels()) })
		})
	}
	v.datasets[0] = sync.OnceValue(func() *Text { return newDatasets(images, "") })
	v.datasets[1] = sync.OnceValue(func() *Text { return newDatasets(images, channel) })
	return v
}

// Text is JSON with the places of its elements, one for each of Images.
func (v *View) Text(named bool) *Text {
	if named {
		return v.elements[1]()
	}
	return v.elements[0]()
}

// Datasets is the DSAPI form of Images; named: the URLs in the form lead to the view's channel.
func (v *View) Datasets(named bool) *Text {
	if named {
		return v.datasets[1]()
	}
	return v.datasets[0]()
}

// Images are those of List.Images that are in the channel, in the same order. Must not be modified.
func (v *View) Images() []manifest.Manifest { return v.images }

// JSON is the whole default answer of GET /images with a strong validator, unquoted; named: with
// the images' channels (spec 2.2). Must not be modified.
func (v *View) JSON(named bool) (body []byte, etag string) {
	b := v.body(named)
	return b.json, b.etag
}

// Reply is JSON in an encoding. The compressed form is made ahead of need (see demand), or by its first
// caller; others wait. Must not be modified.
func (v *View) Reply(named bool, e Encoding) *Reply {
	v.demand.note(named, e)
	return v.body(named).reply(e)
}

// Made tells whether Reply needs no time for the compressed form.
func (v *View) Made(named bool, e Encoding) bool {
	return e == Identity || v.body(named).made[e].Load()
}

// ETag is the validator of Reply, and needs no compressed form.
func (v *View) ETag(named bool, e Encoding) string {
	v.demand.note(named, e)
	return v.body(named).replies[e].ETag
}

// Headers are those of Reply, and need no compressed form.
func (v *View) Headers(named bool, e Encoding) *Account { return v.body(named).replies[e].Headers }

func (v *View) body(named bool) *body {
	if named {
		return v.named()
	}
	return v.plain()
}

// keep takes over the bodies of a view before that are the same, compressed forms included.
func (v *View) keep(before *View) {
	plain, named := v.plain(), v.named()
	if was := before.plain(); was.etag == plain.etag {
		v.plain = func() *body { return was }
	}
	if was := before.named(); was.etag == named.etag {
		v.named = func() *body { return was }
	}
}

// record is one stored image.
type record struct {
	manifest *manifest.Manifest
	source   *source
	listed   bool
	retired  bool
	holders  []found // nil: only source, with manifest
}

// hold sets r's holders, if r's source is not the only one.
func (r *record) hold(holders []manifest.Holder, byName map[string]*source) {
	if len(holders) < 2 {
		return
	}
	r.holders = make([]found, len(holders))
	for i, h := range holders {
		m, _ := h.Manifest.ShareText(r.manifest)
		r.holders[i] = found{byName[h.Source], m}
	}
}

// Reply is a whole default answer in an encoding, with its validator. Immutable.
type Reply struct {
	Body    []byte
	ETag    string // strong, unquoted
	Account *Account
	// Headers is for the headers of replies.
	Headers *Account
}

// Account is room for what the one who sends a text keeps with it, for as long as the text lives. A Text and
// a Reply of the same memory have the same Account.
type Account struct{ atomic.Value }

// body is a whole default answer; lists with the same images share it.
type body struct {
	json    []byte
	etag    string
	replies [encodings]Reply // with a Body once reply has given them
	making  [encodings]sync.Once
	made    [encodings]atomic.Bool // but for Identity
}

func newBody(json []byte) *body {
	sum := sha256.Sum256(json)
	b := &body{json: json, etag: hex.EncodeToString(sum[:16])}
	for e := range b.replies {
		b.replies[e] = Reply{ETag: b.etag + tagEnds[e], Account: new(Account), Headers: new(Account)}
	}
	b.replies[Identity].Body = json
	return b
}

func (b *body) reply(e Encoding) *Reply {
	if e != Identity {
		b.making[e].Do(func() {
			b.replies[e].Body = compressed(b.json, e)
			b.made[e].Store(true)
		})
	}
	return &b.replies[e]
}

// setViews prepares what each channel shows of l.images. The bodies of the default channel, which
// nearly all clients ask for, are made here. before is the list before l, or nil.
func (l *List) setViews(before *List) {
	whole := newView(l.images, manifest.AllChannels, func() []byte { return l.text }, l.channels.on())
	l.views = map[string]func() *View{manifest.AllChannels: func() *View { return whole }}
	for _, c := range l.channels {
		l.views[c.Name] = sync.OnceValue(func() *View {
			in := func(m manifest.Manifest) bool { return m.InChannel(c.Name) }
			images := only(l.images, in)
			return newView(images, c.Name, func() []byte { return manifest.BuildList(images) }, true)
		})
	}
	view, ok := l.View(l.DefaultChannel())
	if !ok {
		return
	}
	view.plain()
	view.named()
	view.demand = l.demand
	if before == nil {
		return
	}
	if was, ok := before.View(before.DefaultChannel()); ok {
		view.keep(was)
	}
}

// only gives the images that satisfy want; images itself when all do.
func only(images []manifest.Manifest, want func(manifest.Manifest) bool) []manifest.Manifest {
	unwanted := func(m manifest.Manifest) bool { return !want(m) }
	first := slices.IndexFunc(images, unwanted)
	if first < 0 {
		return images
	}
	return slices.Clip(slices.DeleteFunc(slices.Clone(images), unwanted))
}

// Images are the listed images that clients may be shown, in (published_at, uuid) order: active,
// public or of a source with ServePrivate, with a file, and in a channel when there are channels.
// Must not be modified.
func (l *List) Images() []manifest.Manifest { return l.images }

// Entry finds an image among all that are stored, also disabled images and ancestors that no list
// shows. Private images of sources without ServePrivate are not stored. The Holders belong to the
// caller.
func (l *List) Entry(id uuid.UUID) (Entry, bool) {
	r, ok := l.record(id)
	if !ok {
		return Entry{}, false
	}
	return l.entry(r), true
}

func (l *List) record(id uuid.UUID) (record, bool) {
	if i, ok := l.byUUID[id]; ok {
		return l.records[i], true
	}
	r, ok := l.extra[id]
	return r, ok
}

// all gives every stored image.
func (l *List) all(yield func(record) bool) {
	for _, r := range l.records {
		if !yield(r) {
			return
		}
	}
	for _, r := range l.extra {
		if !yield(r) {
			return
		}
	}
}

// IsAncestor tells whether an image of Images that DSAPI shows is built on the image id.
func (l *List) IsAncestor(id uuid.UUID) bool {
	_, ok := l.ancestors()[id]
	return ok
}

func (l *List) findAncestors() map[uuid.UUID]struct{} {
	ids := make(map[uuid.UUID]struct{})
	for i := range l.images {
		m := &l.images[i]
		for seen := !m.DSAPIVisible(); !seen && m.HasOrigin(); { // a circle ends with what is seen, too
			id := m.Origin
			_, seen = ids[id]
			ids[id] = struct{}{}
			if r, ok := l.record(id); ok {
				m = r.manifest
			} else {
				seen = true
			}
		}
	}
	return ids
}

// BySum finds an image with a file of that sha1 and size, and the index of the file. A size of 0
// stands for any; an image without a stated size is the second choice. BySum looks at every image:
// for start-up and administration, not for requests.
func (l *List) BySum(s verify.Sum, size int64) (Entry, int, bool) {
	if s.IsZero() {
		return Entry{}, 0, false
	}
	var found record
	index, ok := 0, false
	for r := range l.all {
		for i, f := range r.manifest.Files {
			switch {
			case f.SHA1 != s:
			case size == 0 || f.Size == size:
				return l.entry(r), i, true
			case f.Size == 0 && !ok:
				found, index, ok = r, i, true
			}
		}
	}
	if !ok {
		return Entry{}, 0, false
	}
	return l.entry(found), index, true
}

// with is l and further images that sources gave by uuid. with is nil when a merge is needed: an
// image is stored already, or closes a gap in a chain, which may then turn out without an end.
func (l *List) with(added []found, facts map[manifest.FileID]manifest.Facts) *List {
	copied := *l
	next := &copied
	next.inherited, next.ancestors = sync.OnceValue(next.inherit), sync.OnceValue(next.findAncestors)
	next.extra = maps.Clone(l.extra)
	if next.extra == nil {
		next.extra = make(map[uuid.UUID]record, len(added))
	}
	for _, f := range added {
		m := withFacts(f.manifest, facts)
		if _, ok := next.record(m.UUID); ok {
			return nil
		}
		if _, ok := next.record(m.Origin); ok && next.isOrigin(m.UUID) || m.Origin == m.UUID {
			return nil
		}
		next.extra[m.UUID] = record{manifest: &m, source: f.source}
	}
	return next
}

// isOrigin tells whether a stored image has id for its origin.
func (l *List) isOrigin(id uuid.UUID) bool {
	for r := range l.all {
		if r.manifest.Origin == id {
			return true
		}
	}
	return false
}
