package cache

import (
	"container/heap"
	"slices"

	"github.com/google/uuid"
)

// queue gives the files of one moment in the order in which they may go: by File.before, but none
// that is pinned or in use, and an image's file only once no file of an image made on top of it is
// left. Images that stand on top of each other in a ring come last.
type queue struct {
	kept   func(uuid.UUID) bool
	all    []*waiting
	ready  waitingHeap
	images map[uuid.UUID]*queuedImage
	rings  []*waiting // see openRing; nil until the first call
	looked bool       // rings were looked for
}

// waiting is a file in the queue.
type waiting struct {
	File
	blocked int  // how many of its images have children
	fixed   bool // the record of one of its images is just being written
	taken   bool // it has left the queue
}

type queuedImage struct {
	origin   uuid.UUID
	files    []*waiting // of those that are in the queue
	left     int        // files on disk, in the queue or not
	children int        // images on top of it that have files on disk
}

// queue makes a queue of what is there now. kept is asked while it is used, with no lock held.
func (s *Store) queue() *queue {
	q := &queue{kept: s.Kept, images: make(map[uuid.UUID]*queuedImage)}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, im := range s.images.known {
		q.images[id] = &queuedImage{origin: im.Origin, left: len(im.Sums), children: s.images.children[id]}
	}
	q.ready = make(waitingHeap, 0, len(s.files))
	for _, f := range s.files {
		if f.hold.readers() > 0 {
			continue
		}
		w := &waiting{File: f.describe()}
		q.all = append(q.all, w)
		for _, id := range w.Images {
			im := q.images[id]
			if im == nil {
				w.fixed = true
				w.blocked++
				continue
			}
			im.files = append(im.files, w)
			if im.children > 0 {
				w.blocked++
			}
		}
		if w.blocked == 0 {
			q.ready = append(q.ready, w)
		}
	}
	heap.Init(&q.ready)
	return q
}

// next takes the next file out of the queue; children is how many images there
// still are on top of its images: none, but in a ring.
func (q *queue) next() (f File, children int, ok bool) {
	for len(q.ready) > 0 || q.openRing() {
		w := heap.Pop(&q.ready).(*waiting) //nolint:errcheck,forcetypeassert // nothing else is in there
		if q.keeps(w) {
			continue
		}
		w.taken = true
		for _, id := range w.Images {
			children += q.images[id].children
		}
		for _, id := range w.Images {
			im := q.images[id]
			if im.left--; im.left == 0 {
				q.unblock(im.origin)
			}
		}
		return w.File, children, true
	}
	return File{}, 0, false
}

// openRing makes the first of the files ready that block each other: their images form a ring of
// origins, or an image shares its file with its origin. All rings are found at once: what has to stay
// is the same whatever was taken out of the queue meanwhile.
func (q *queue) openRing() bool {
	if !q.looked {
		q.looked = true
		stay := q.staying()
		for _, w := range q.all {
			if !w.taken && !w.fixed && !q.keeps(w) && !slices.ContainsFunc(w.Images, func(id uuid.UUID) bool { return stay[id] }) {
				q.rings = append(q.rings, w)
			}
		}
		slices.SortFunc(q.rings, func(a, b *waiting) int { return a.before(b.File) })
	}
	for len(q.rings) > 0 {
		first := q.rings[0]
		q.rings = q.rings[1:]
		if !first.taken {
			heap.Push(&q.ready, first)
			return true
		}
	}
	return false
}

// staying gives the images of which a file cannot go, and all that these need:
// their origins, and whose files they share.
func (q *queue) staying() map[uuid.UUID]bool {
	stay := make(map[uuid.UUID]bool)
	var todo []uuid.UUID
	note := func(id uuid.UUID) {
		if !stay[id] {
			stay[id] = true
			todo = append(todo, id)
		}
	}
	for id, im := range q.images {
		waiting := 0 // of its files
		for _, w := range im.files {
			if !w.taken {
				waiting++
			}
			if w.fixed || !w.taken && q.keeps(w) {
				note(id)
			}
		}
		if im.left > waiting { // one is in use
			note(id)
		}
	}
	for len(todo) > 0 {
		im := q.images[todo[0]]
		todo = todo[1:]
		if q.images[im.origin] != nil {
			note(im.origin)
		}
		for _, w := range im.files {
			for _, id := range w.Images {
				if q.images[id] != nil {
					note(id)
				}
			}
		}
	}
	return stay
}

func (q *queue) keeps(w *waiting) bool { return slices.ContainsFunc(w.Images, q.kept) }

// unblock notes that one image on top of id has no file left.
func (q *queue) unblock(id uuid.UUID) {
	im := q.images[id]
	if im == nil {
		return
	}
	if im.children--; im.children > 0 {
		return
	}
	for _, w := range im.files {
		if w.blocked--; w.blocked == 0 && !w.taken {
			heap.Push(&q.ready, w)
		}
	}
}

// waitingHeap has the file at its top that goes before all others.
type waitingHeap []*waiting

func (h waitingHeap) Len() int      { return len(h) }
func (h waitingHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h waitingHeap) Less(i, j int) bool {
	return h[i].before(h[j].File) < 0
}
func (h *waitingHeap) Push(x any) { *h = append(*h, x.(*waiting)) } //nolint:errcheck,forcetypeassert // nothing else is in there
func (h *waitingHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
