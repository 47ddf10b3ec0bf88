package progress

import (
	"io"
	"sync"

	"imgmirror/proxy/admin"
)

// Reader paints how much has been read through it, as the item of a job.
type Reader struct {
	from io.Reader

	mu    sync.Mutex // guards what follows: a goroutine that sends may outlive its request
	show  *Bars
	item  admin.Item
	ended bool
}

// NewReader makes a Reader of from. Until End, show is the Reader's.
func NewReader(from io.Reader, show *Bars, item admin.Item) *Reader {
	item.State = admin.JobRunning
	return &Reader{from: from, show: show, item: item}
}

// Read reads from what was given to NewReader. It may be called beside End.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.item.Done += int64(n)
	if !r.ended {
		r.show.Tick(admin.Job{Items: []admin.Item{r.item}})
	}
	return n, err
}

// End takes the bar away for good.
func (r *Reader) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.show.Clear()
}
