package cache

import (
	"slices"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// EventKind says what has happened to a file.
type EventKind string

// The kinds of events. What eviction and operators remove is told by Options.OnRemove.
const (
	EventStored EventKind = "stored" // it was downloaded, and is on disk, verified
	EventWrong  EventKind = "wrong"  // a source, or the disk, gave other bytes than it should
	EventLost   EventKind = "lost"   // it was found wrong, unreadable or gone on disk, and was taken out of the cache
	EventHealed EventKind = "healed" // the same, and a source has brought it anew
)

// Event is something that has happened to one file.
type Event struct {
	Kind   EventKind
	Images []uuid.UUID // the images that have the file, as far as known; none for icons
	Sum    verify.Sum  // zero: not known
	Size   int64
	Source string // who sent the bytes; "disk" for bytes that were found on disk
	Err    error  // what is wrong with them; nil of EventStored and EventHealed
}

// tell gives an event to Options.OnEvent.
func (s *Store) tell(e Event) {
	if s.o.OnEvent != nil {
		s.o.OnEvent(e)
	}
}

// tellStored tells of a download that is complete.
func (s *Store) tellStored(f *fill, r *round) {
	e := Event{Kind: EventStored, Sum: r.view.digests.SHA1, Size: r.view.digests.Size, Source: r.names()}
	for _, b := range f.requests() {
		if b.ofImage() && !slices.Contains(e.Images, b.Image) {
			e.Images = append(e.Images, b.Image)
		}
	}
	if len(e.Images) > 0 {
		s.tell(e)
	}
}

// tellWrong tells of wrong bytes that the download's sources sent.
func (d *download) tellWrong(source string, err error) {
	e := Event{Kind: EventWrong, Sum: d.want.SHA1, Size: d.want.Size, Source: source, Err: err}
	if d.f.blob.ofImage() {
		e.Images = []uuid.UUID{d.f.blob.Image}
	}
	d.s.tell(e)
}

// tellOf tells of a file that is, or was, on disk.
func (s *Store) tellOf(f *stored, kind EventKind, err error) {
	s.mu.RLock()
	images := f.images
	s.mu.RUnlock()
	s.tell(Event{Kind: kind, Images: images, Sum: f.Digests.SHA1, Size: f.Digests.Size, Source: sourceDisk, Err: err})
}
