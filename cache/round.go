package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
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

// round is one attempt to have all bytes of a blob in one partial file. Its fields are for the
// download's goroutine, which lends hash to another one until hashed is closed; the atomic ones are
// shared with the timer.
type round struct {
	f    *fill
	view *view // what Readers see of the round; its own rule is with the fill

	file      *os.File
	have      int64          // bytes in the file
	leftover  int64          // of which were there before; never changes
	announced int64          // of which Readers were told by this goroutine
	hash      *verify.Writer // of the digests that decide
	follower  *follower      // of the others; nil: there are none
	hashed    chan struct{}  // closed when the leftover has been hashed
	hashError error          // valid once hashed

	from    []*candidate // sources that brought bytes
	current *candidate   // the source that brought the last bytes; nil when it is not to be asked first
	differ  []*candidate // sources that have sent other bytes than the round's
	only    *candidate   // the one source that must bring all; nil: any may bring some

	wrote atomic.Int64 // have, for the timer
	armed atomic.Bool  // the timer runs
	flush *time.Timer  // announces bytes that are too few to be announced at once
}

// begin opens the partial file, which has that many bytes, and starts to hash these.
func begin(f *fill, leftover int64) (*round, error) {
	path := f.s.dir.partial(f.name)
	file, err := f.s.openPartial(path, leftover)
	if err != nil {
		return nil, disk.Error(err)
	}
	if info, lost := file.Stat(); lost != nil || info.Size() < leftover { // it was removed, or cut, by hand
		leftover, err = 0, file.Truncate(0)
	}
	if err == nil {
		_, err = file.Seek(leftover, io.SeekStart)
	}
	if err != nil {
		file.Close() // unread
		return nil, disk.Error(err)
	}
	want := f.blob.Want
	decide := want.Deciding()
	r := &round{
		f: f, view: &view{path: path, size: -1, seen: leftover, md5: want.MD5},
		file: file, have: leftover, leftover: leftover, hash: verify.NewWriterOf(decide), hashed: make(chan struct{}),
	}
	if want.Size > 0 {
		r.view.size = want.Size
	}
	if leftover > 0 {
		go r.hashLeftover(f.ctx)
	} else {
		close(r.hashed)
	}
	r.wrote.Store(leftover)
	r.flush = time.AfterFunc(time.Hour, func() {
		r.armed.Store(false)
		r.announce()
	})
	r.flush.Stop()
	if rest := verify.All &^ decide; rest != 0 {
		r.follower = r.follow(rest)
	}
	f.update(func() { f.view = r.view })
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
	if r.follower != nil {
		r.follower.close()
	}
	r.flush.Stop()
	r.hash.Close()
	r.file.Close() // synced by publish; a partial file is hashed again anyway
}

// complete tells whether all bytes of the body are in the file.
func (r *round) complete() bool { return r.have == r.view.size }

// write adds bytes that c brought. Readers are told in batches: there may be many of them.
func (r *round) write(c *candidate, p []byte) error {
	if _, err := r.file.Write(p); err != nil {
		return disk.Error(err)
	}
	r.hash.Commit(len(p))
	r.have += int64(len(p))
	r.wrote.Store(r.have)
	r.current, c.stalled = c, false
	r.credit(c)
	if r.announced == 0 || r.have-r.announced >= announceBytes {
		r.announced = r.have
		r.announce()
	} else if !r.armed.Swap(true) {
		r.flush.Reset(announceAfter)
	}
	return nil
}

// announce lets Readers have what is in the file.
func (r *round) announce() {
	r.f.update(func() {
		have := r.wrote.Load()
		r.f.speed.add(have-r.view.seen, time.Now())
		r.view.seen = have
	})
}

// credit notes that some of the round's bytes are from c, or what it left out.
func (r *round) credit(c *candidate) {
	if !slices.Contains(r.from, c) {
		r.from = append(r.from, c)
	}
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

// judge ends the hashing that decides, and holds the digests against what is wanted.
func (r *round) judge() (verify.Digests, error) {
	if err := r.waitHashed(); err != nil {
		return verify.Digests{}, err
	}
	got, want := r.hash.Digests(), r.f.blob.Want
	if !want.Checkable() {
		want.MD5 = r.view.md5
	}
	if err := want.Check(got); err != nil {
		return got, fmt.Errorf("from %s: %w", r.names(), err)
	}
	return got, nil
}

// confirm lets Readers read to the end: the digests hold. Those that did not decide are still zero.
func (r *round) confirm(got verify.Digests) {
	r.f.update(func() {
		v := r.view
		v.verified, v.judged, v.digests, v.size = true, time.Now(), got, got.Size
	})
	runtime.Gosched() // readers come before the sync, a system call that holds the processor
}

// digest waits for the digests that did not decide.
func (r *round) digest() error {
	v := r.view
	all := v.digests
	if w := r.follower; w != nil {
		var err error
		if all, err = w.digests(all); err != nil {
			return err
		}
	}
	r.f.update(func() { v.digests, v.digested = all, true })
	if v.md5 != nil && string(v.md5) != string(all.MD5[:]) {
		r.f.s.log.Warn("Content-MD5 is wrong, the file is right", "sum", all.SHA1, "source", r.names())
	}
	return nil
}

// fail ends the round without its file. Readers that have been given bytes of it end with err, too,
// unless the bytes are right.
func (r *round) fail(err error) {
	r.f.update(func() {
		if !r.view.verified {
			r.view.err = err
		}
	})
}

// limit is how far a Reader may read that reads to end: a part has to wait for its last byte.
// fill.mu is held.
func (v *view) limit(end int64) int64 {
	if v.verified {
		return end
	}
	return min(v.seen, end-1, v.size-holdBack)
}
