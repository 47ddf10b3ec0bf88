package cache

import (
	"bytes"
	"cmp"
	"container/heap"

	"github.com/google/uuid"
)

// queue gives the files of one moment in the order in which they may go: the
// least recently used first, but none that is pinned or in use, and an image's
// file only once no file of an image made on top of it is left.
type queue struct {
	kept   func(uuid.UUID) bool
	ready  waitingHeap
	images map[uuid.UUID]*queuedImage
}

// waiting is a file in the queue.
type waiting struct {
	File
	blocked int // how many of its images have children
}

type queuedImage struct {
	origin   uuid.UUID
	files    []*waiting // of those that are in the queue
	left     int        // files on disk, in the queue or not
	children int        // images on top of it that have files on disk
}

// queue makes a queue of what is there now. kept is asked while it is used, with
// no lock held.
func (s *Store) queue() *queue {
	q := &queue{kept: s.Kept, images: make(map[uuid.UUID]*queuedImage)}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, im := range s.images {
		q.images[id] = &queuedImage{origin: im.Origin, left: len(im.Sums), children: s.children[id]}
	}
	q.ready = make(waitingHeap, 0, len(s.files))
	for _, f := range s.files {
		if f.hold.readers() > 0 {
			continue
		}
		w := &waiting{File: f.describe()}
		for _, id := range w.Images {
			im := q.images[id]
			if im == nil { // its record is just being written
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

// next takes the next file out of the queue.
func (q *queue) next() (File, bool) {
	for len(q.ready) > 0 {
		w := heap.Pop(&q.ready).(*waiting) //nolint:errcheck,forcetypeassert // nothing else is in there
		if q.keeps(w) {
			continue
		}
		for _, id := range w.Images {
			im := q.images[id]
			if im.left--; im.left == 0 {
				q.unblock(im.origin)
			}
		}
		return w.File, true
	}
	return File{}, false
}

func (q *queue) keeps(w *waiting) bool {
	for _, id := range w.Images {
		if q.kept(id) {
			return true
		}
	}
	return false
}

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
		if w.blocked--; w.blocked == 0 {
			heap.Push(&q.ready, w)
		}
	}
}

// waitingHeap has the least recently used file at its top.
type waitingHeap []*waiting

func (h waitingHeap) Len() int      { return len(h) }
func (h waitingHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h waitingHeap) Less(i, j int) bool {
	return cmp.Or(h[i].LastUsed.Compare(h[j].LastUsed), bytes.Compare(h[i].Sum[:], h[j].Sum[:])) < 0
}
func (h *waitingHeap) Push(x any) { *h = append(*h, x.(*waiting)) } //nolint:errcheck,forcetypeassert // nothing else is in there
func (h *waitingHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
