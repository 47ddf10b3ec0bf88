package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"sync"

	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// Entry is one image and the sources that hold its bytes, in the order in which they should be asked.
type Entry struct {
	Manifest manifest.Manifest
	Source   string   // name of the source that Manifest came from
	Listed   bool     // some source lists it; else it is reachable by uuid only
	Holders  []Holder // empty when the catalogue is Offline: there is nobody to ask
}

// Holder is a source that holds an image's bytes, with its own manifest of the image (paths and urls differ).
type Holder struct {
	Source   Source
	Manifest manifest.Manifest
}

// List is one immutable merged list. All methods may be called concurrently.
type List struct {
	images  []manifest.Manifest
	records []record
	byUUID  map[uuid.UUID]int32  // index in records
	extra   map[uuid.UUID]record // unlisted images found since records were made; none of them is in byUUID
	body    *body
	offline bool // entries have no holders
}

// record is one stored image.
type record struct {
	manifest *manifest.Manifest
	source   *source
	listed   bool
	holders  []found // nil: only source, with manifest
}

// body is the whole default answer; lists with the same images share it.
type body struct {
	json []byte
	etag string
	gzip func() []byte
}

func newBody(images []manifest.Manifest) *body {
	b := &body{json: manifest.BuildList(images)}
	sum := sha256.Sum256(b.json)
	b.etag = hex.EncodeToString(sum[:16])
	b.gzip = sync.OnceValue(func() []byte {
		var buf bytes.Buffer
		buf.Grow(len(b.json) / 8)
		zw := gzip.NewWriter(&buf)
		// Writes to a bytes.Buffer do not fail.
		_, _ = zw.Write(b.json)
		_ = zw.Close()
		return buf.Bytes()
	})
	return b
}

// JSON is the whole default answer of GET /images and a strong validator of it (unquoted), both made with
// the list. Must not be modified.
func (l *List) JSON() (body []byte, etag string) { return l.body.json, l.body.etag }

// Gzip is JSON compressed. The first caller makes it, others wait for that. Must not be modified.
func (l *List) Gzip() []byte { return l.body.gzip() }

// Images are the listed images that clients may be shown (active, public or of a source with ServePrivate,
// with a file) in (published_at, uuid) order. Must not be modified.
func (l *List) Images() []manifest.Manifest { return l.images }

// Entry finds an image among all that are stored, listed or not: also disabled ones and ancestors that no
// list shows. Private images of sources without ServePrivate are not stored. The Holders belong to the caller.
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

// BySum finds an image that has a file with that sha1, and which one. It looks at every image: for start-up
// and administration, not for requests.
func (l *List) BySum(s verify.Sum) (Entry, int, bool) {
	if s.IsZero() {
		return Entry{}, 0, false
	}
	for r := range l.all {
		for i := range r.manifest.Files {
			if r.manifest.Files[i].SHA1 == s {
				return l.entry(r), i, true
			}
		}
	}
	return Entry{}, 0, false
}

// with is l and further images that sources gave by uuid. It is nil when that takes a merge: one of them is stored
// already, or it closes a gap between stored images, which may show that their chain has no end.
func (l *List) with(added []found, facts map[manifest.FileID]manifest.Facts) *List {
	next := *l
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
	return &next
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

func (l *List) entry(r record) Entry {
	e := r.entry()
	if l.offline {
		e.Holders = nil
	}
	return e
}

func (r record) entry() Entry {
	e := Entry{Manifest: *r.manifest, Source: r.source.name, Listed: r.listed}
	if r.holders == nil {
		e.Holders = []Holder{{Source: r.source.Source, Manifest: *r.manifest}}
		return e
	}
	e.Holders = make([]Holder, len(r.holders))
	for i, h := range r.holders {
		e.Holders[i] = Holder{Source: h.source.Source, Manifest: h.manifest}
	}
	return e
}
