package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

const (
	// holdBack is the end of a body that no reader gets before its digests hold.
	holdBack = 64 << 10
	// Progress is announced to readers when that many bytes are new, or after that long.
	announceBytes = 1 << 20
	announceAfter = 10 * time.Millisecond
)

// round is one attempt to have all bytes of a blob in one partial file.
type round struct {
	// Shared: guarded by fill.mu. The fill's own goroutine, their one writer, reads them without it.
	path        string // of the file, partial or final
	size        int64  // of the whole body; -1 while nobody has told
	seen        int64  // bytes that readers know to be in the file
	open        bool   // a source has answered well
	verified    bool   // the digests hold
	err         error  // why the round ended without that
	digests     verify.Digests
	md5         []byte // what the source claims, or the manifest says
	modTime     time.Time
	contentType string

	// For the fill's goroutine alone.
	file     *os.File
	hash     *verify.Writer
	have     int64        // bytes in the file
	told     int64        // of which this goroutine told readers
	leftover int64        // of which were there before
	from     []*candidate // who brought the others
	lead     *candidate   // who brought the last ones; nil when he is not to be asked first
	only     *candidate   // in a solo round: the one

	hashed    chan struct{} // closed when the leftover has been hashed
	hashError error         // valid once hashed

	lost  atomic.Bool  // its file was removed by hand: readers that have the file open read on, later ones do not find the file
	wrote atomic.Int64 // have, for the timer
	armed atomic.Bool  // the timer runs
	flush *time.Timer  // announces bytes that are too few to be announced at once
}

// begin opens the partial file and starts to hash what is in it.
func (f *fill) begin() (*round, error) {
	r := &round{
		path: f.s.dir.partial(f.name), size: -1, md5: f.want.MD5,
		have: f.leftover, leftover: f.leftover,
		hash: verify.NewWriter(), hashed: make(chan struct{}),
	}
	if f.want.Size > 0 {
		r.size = f.want.Size
	}
	file, err := f.s.openPartial(r.path, f.leftover)
	if err != nil {
		return nil, disk.Error(err)
	}
	r.file = file
	if sizeOf(file) < r.leftover { // it was removed, or cut, by hand
		f.s.space.removedPartial(r.leftover)
		f.leftover, r.have, r.leftover = 0, 0, 0
		if err := file.Truncate(0); err != nil {
			file.Close() // unread
			return nil, disk.Error(err)
		}
	}
	if _, err := file.Seek(r.leftover, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	if r.leftover > 0 {
		go r.hashLeftover(f.ctx)
	} else {
		close(r.hashed)
	}
	r.wrote.Store(r.have)
	r.flush = time.AfterFunc(time.Hour, func() {
		r.armed.Store(false)
		f.announce(r)
	})
	r.flush.Stop()
	f.mu.Lock()
	f.round = r
	f.mu.Unlock()
	return r, nil
}

// hashLeftover hashes what an earlier fill left in the file.
func (r *round) hashLeftover(ctx context.Context) {
	defer close(r.hashed)
	err := verify.HashFrom(ctx, r.hash, io.NewSectionReader(r.file, 0, r.leftover))
	switch {
	case ctx.Err() != nil:
		r.hashError = context.Cause(ctx)
	case err != nil: // as good as wrong
		r.hashError = fmt.Errorf("%w: what is left of an earlier download cannot be read: %w", verify.ErrMismatch, err)
	}
}

// waitHashed waits until r.hash is this goroutine's to use.
func (r *round) waitHashed() error {
	<-r.hashed
	return r.hashError
}

// close ends what the round has running and frees what it holds.
func (r *round) close() {
	<-r.hashed
	r.flush.Stop()
	r.hash.Close()
	r.file.Close() // synced by publish; a partial file is hashed again anyway
}

// limit is how far a reader may read that reads to end: a part has to wait for
// its last byte. fill.mu is held.
func (r *round) limit(end int64) int64 {
	if r.verified {
		return end
	}
	return min(r.seen, end-1, r.size-holdBack)
}

// names says where the round's bytes are from.
func (r *round) names() string {
	var names []string
	if r.leftover > 0 {
		names = append(names, "an earlier download")
	}
	for _, c := range r.from {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

// credit notes that some of the round's bytes are from c, or what it left out.
func (r *round) credit(c *candidate) {
	if !slices.Contains(r.from, c) {
		r.from = append(r.from, c)
	}
}

// brought notes that n more bytes, from c, are in the file and on their way to
// be hashed. Readers are told in batches: there may be many of them.
func (f *fill) brought(r *round, c *candidate, n int) {
	r.have += int64(n)
	r.wrote.Store(r.have)
	r.lead, c.stalled = c, false
	r.credit(c)
	if r.told == 0 || r.have-r.told >= announceBytes {
		r.told = r.have
		f.announce(r)
	} else if !r.armed.Swap(true) {
		r.flush.Reset(announceAfter)
	}
}

// announce lets readers have what is in the file.
func (f *fill) announce(r *round) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have := r.wrote.Load(); have > r.seen {
		f.speed.add(have-max(r.seen, r.leftover), time.Now())
		r.seen = have
		f.changed()
	}
}
