package cache

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imgmirror/verify"
)

// A miss, from the request to the file on disk. Three types share the work, each with one rule for
// the access to its fields:
//
//	fill      the requests, and what Readers see   guarded by its mutex   fill.go, fills.go
//	download  sources, waits, slot and room        its one goroutine      download.go, sources.go, seat.go, tempo.go, verdict.go
//	round     one partial file and its digests     the same goroutine     round.go
//
//	File         a request joins the fill for these bytes; the first one begins it
//	 run         the download has a goroutine of its own
//	 bring       it checks that the file may fit, and waits for a slot; then, round after round:
//	  begin      the partial file is opened, and what it has is hashed
//	  collect    the sources are asked, pass after pass; the first answer lets Readers in
//	   race      sources are asked side by side until one has answered well
//	   receive   its body is written, hashed, and shown to Readers
//	  judge      the digests that decide are held against what is wanted; the slot is given back
//	  publish    the other digests come (follow.go), the file gets its final name and its record (publish.go)
//	 run         ends the fill; what is left of a failure waits for the next request
//	Reader       follows the partial file; the last block comes once the digests hold (reader.go)
//
// The states of a fill, as Fills tells them: FillWaiting until the round has an answer, FillFilling
// while bytes come or are waited for, FillVerifying from the last byte to the end. A round that
// fails leads back to FillWaiting.

// fill is one blob that is not on disk, with the requests for it. mu guards the fields below mu;
// the fields above never change.
type fill struct {
	s      *Store
	blob   Blob   // of the request that began the fill
	key    string // in Store.fills
	name   string // of the partial file
	ticket *ticket
	hold   *hold // of requests and Readers; it goes over to the file
	began  time.Time
	ctx    context.Context // of the download
	stop   context.CancelCauseFunc

	mu      sync.Mutex     // never held over I/O; may be taken with Store.mu held, not the other way round
	wake    chan struct{}  // closed, and replaced, whenever a field that Readers wait for has changed
	blobs   []Blob         // of the requests, one of each image's file
	sources []*candidate   // that the requests name; it only grows, and what is in it belongs to the download
	waiting [Ahead + 1]int // requests and Readers by their Why
	lasting bool           // a request wants the blob also after it has left
	closed  bool           // the fill is about to end, or the file is published: no request joins any more
	view    *view          // of the last round that began; nil before the first
	urged   bool           // the record is waited for
	queued  bool           // the download waits for a slot
	from    string         // the source whose body is being received; "" between two
	speed   speed
	over    bool  // nothing changes any more
	err     error // why the fill failed; valid once over
}

// view is what Readers see of one round. The fill's mu guards it; the download, which alone writes
// it, reads it without.
type view struct {
	path        string    // of the file, partial or final
	size        int64     // of the whole body; -1 while no source has told
	seen        int64     // bytes that Readers know to be in the file
	open        bool      // a source has answered well
	verified    bool      // the digests that decide hold
	judged      time.Time // since then
	digested    bool      // digests has all of them
	err         error     // why the round ended without that
	digests     verify.Digests
	md5         []byte // what the source claims, or the manifest says
	modTime     time.Time
	contentType string
	lost        atomic.Bool // the file was removed by hand: only Readers that have it open read it
}

// errDropped ends a fill that no request wants any more.
var errDropped = errors.New("no request wants it any more")

// File gives a Reader on the blob: of the verified file when it is on disk, else of the one fill
// for these bytes, which it starts if there is none. It returns when the first bytes are known to
// come (a source has answered) or nothing can be had: errors match ErrNoSpace, ErrDisk,
// verify.ErrUnavailable, ErrClosed, fs.ErrNotExist (every source says so), verify.ErrMismatch,
// ctx.Err(). The fill belongs to the store: it outlives ctx and the Reader, unless only jobs want
// it.
func (s *Store) File(ctx context.Context, b Blob, sources []Source) (*Reader, error) {
	r, err := s.open(ctx, b, sources)
	s.suspectDisk(err)
	return r, err
}

func (s *Store) open(ctx context.Context, b Blob, sources []Source) (*Reader, error) {
	if b.Want.SHA1.IsZero() && b.Key == "" {
		return nil, errors.New("cache: a blob needs a sha1 or a key")
	}
	for {
		r, err := s.openStored(ctx, b)
		if r != nil || err != nil {
			return r, err
		}
		f, result, err := s.fill(b, sources)
		switch {
		case err != nil:
			return nil, err
		case f == nil: // the file is on disk by now
			continue
		case result == "": // the next fill goes on from where this one ends
			if err := f.ended(ctx); err != nil {
				return nil, err
			}
			continue
		}
		r, err = f.admit(ctx, result, b)
		if err != nil {
			f.leave(b.Why)
			if b.Why != Ahead && errors.Is(err, errNoRoomAhead) { // the fill failed before it knew of this request
				continue
			}
		}
		s.metrics.traffic.tally(b.By, result).requests.Add(1)
		return r, err
	}
}

// openStored gives a Reader on the blob's file; nil and no error: the file is not on disk.
func (s *Store) openStored(ctx context.Context, b Blob) (*Reader, error) {
	for {
		s.mu.RLock()
		closed := s.closed
		found := s.find(b)
		if found.file != nil && found.wrong == nil && !closed {
			found.file.hold.n.Add(1) // openFile lets it go
		}
		s.mu.RUnlock()
		switch {
		case closed:
			return nil, ErrClosed
		case found.wrong != nil:
			return nil, found.wrong
		case found.orphan:
			if err := s.adopt(ctx, found.sum); err != nil {
				return nil, err
			}
			continue
		case found.file == nil:
			return nil, nil
		}
		r, err := s.openFile(ctx, found.sum, found.file, b.By)
		if err != nil {
			return nil, err
		}
		if r == nil { // the file is gone: the tables are asked anew
			continue
		}
		if found.unnoted && s.enter() == nil {
			s.noteImage(b, found.sum, false)
			s.work.Done()
		}
		if b.Want.SHA1.IsZero() && s.o.OnPublish != nil { // the process may have ended before this was heard
			s.o.OnPublish(b, found.file.Info)
		}
		s.metrics.traffic.tally(b.By, Hit).requests.Add(1)
		return r, nil
	}
}

// fill joins the fill for b, or begins it; the request is counted in its hold. No fill and no
// error: b is on disk by now. A fill without a Result is one that is about to end, and counts no
// request.
func (s *Store) fill(b Blob, sources []Source) (*fill, Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, "", ErrClosed
	}
	if found := s.find(b); found.file != nil || found.orphan {
		return nil, "", nil
	}
	if f := s.joinable(b); f != nil {
		if !f.join(b, sources) {
			return f, "", nil
		}
		return f, Join, nil
	}
	if b.Why != Job {
		if err := s.liars.allLied(b.fillKey(), sources); err != nil {
			return nil, "", err
		}
	}
	f := &fill{
		s: s, blob: b, key: b.fillKey(), name: b.partialName(), hold: new(hold),
		began: time.Now(), wake: make(chan struct{}),
	}
	f.ctx, f.stop = context.WithCancelCause(s.ctx)
	sources = s.liars.trusted(f.key, sources)
	f.ticket = newTicket(firstName(sources))
	f.join(b, sources)
	var have int64
	if name := s.leftoverFor(b); name != "" {
		f.name, have = name, s.partials[name].Have
		delete(s.partials, name)
	}
	s.touchOrigin(b)
	s.fills[f.key] = f
	s.work.Go(newDownload(f, have).run)
	return f, Miss, nil
}

// joinable gives the fill that brings what b wants; nil: there is none. s.mu is held.
func (s *Store) joinable(b Blob) *fill {
	if f := s.fills[b.fillKey()]; f != nil {
		return f
	}
	for _, f := range s.fills {
		if f.suits(b) {
			return f
		}
	}
	return nil
}

// suits tells whether a request for b may join, although the first request wanted less: the fill
// must want nothing that b does not want, and bring a file of b's size as far as its source tells.
func (f *fill) suits(b Blob) bool {
	want := f.blob.Want
	if b.Want.SHA1.IsZero() || want.SHA1 != b.Want.SHA1 || len(want.MD5) > 0 && !bytes.Equal(want.MD5, b.Want.MD5) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	size := want.Size
	if size == 0 && b.Want.Size > 0 && f.view != nil {
		size = f.view.size
	}
	return !f.closed && size == b.Want.Size
}

// join counts a request for the blob, and takes in the sources that only this request names. It
// fails when the fill is closed. Store.mu is held.
func (f *fill) join(b Blob, sources []Source) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.hold.n.Add(1)
	f.waiting[b.Why]++
	f.lasting = f.lasting || b.Why != Job
	f.rank()
	if !slices.ContainsFunc(f.blobs, func(o Blob) bool { return o.Image == b.Image && o.Key == b.Key && o.Index == b.Index }) {
		f.blobs = append(f.blobs, b)
	}
	for _, src := range sources {
		if slices.ContainsFunc(f.sources, func(c *candidate) bool { return c.Name == src.Name }) {
			continue
		}
		c := &candidate{Source: src}
		if b.Why != Job {
			c.out = f.s.liars.justLied(f.key, src)
		}
		f.sources = append(f.sources, c)
	}
	return true
}

// admit waits until a source has answered, and gives a Reader.
func (f *fill) admit(ctx context.Context, result Result, b Blob) (reader *Reader, err error) {
	var failed error
	err = f.await(ctx, func() bool {
		if v := f.view; v != nil && v.err == nil && (v.verified || v.open && v.size >= 0) {
			reader = newReader(f, result, b)
			return true
		}
		failed = f.err
		return f.over
	})
	if err == nil && reader == nil {
		err = failed
	}
	return reader, err
}

// rank tells the slots how urgent the fill is. f.mu is held.
func (f *fill) rank() {
	r := f.ticket.is()
	switch {
	case f.waiting[Client] > 0:
		r = rankClient
	case f.waiting[Job] > 0:
		r = rankJob
	case r != rankAhead:
		r = rankLeft
	}
	f.s.slots.rerank(f.ticket, r)
}

// leave counts out one request of that Why, or its Reader. The last one of jobs ends the fill, and
// so does the last one of a fill that waits in a crowded queue. Then no source is asked any more
// when leave returns.
func (f *fill) leave(why Why) {
	f.mu.Lock()
	f.waiting[why]--
	f.rank()
	dropped := f.hold.n.Add(-1) == 0 && !f.closed && !f.judged() && (!f.lasting || f.s.slots.crowded(f.ticket))
	if dropped {
		f.closed = true
		f.stop(errDropped)
	}
	f.mu.Unlock()
	if dropped {
		_ = f.ended(context.Background()) // never fails: this context does not end
	}
}

// giveUp ends a fill without readers that waits in a crowded queue.
func (f *fill) giveUp() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.judged() || f.hold.n.Load() > 0 || !f.s.slots.crowded(f.ticket) {
		return false
	}
	f.closed = true
	f.stop(errDropped)
	return true
}

// yield ends a fill ahead of need, whose room a client needs; false: a client waits for the fill,
// or it ends anyway.
func (f *fill) yield() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.judged() || !f.ahead() {
		return false
	}
	f.closed = true
	f.stop(errNoRoomAhead)
	return true
}

// judged tells whether the bytes have been found right: from then on no one ends the fill. f.mu is held.
func (f *fill) judged() bool { return f.view != nil && f.view.verified }

// ahead tells whether neither a client nor a job has asked for the fill.
func (f *fill) ahead() bool { return f.ticket.is() == rankAhead }

// update changes fields that Readers wait for.
func (f *fill) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.wake)
	f.wake = make(chan struct{})
}

// ended waits until the fill is over, well or not. The error is ctx's.
func (f *fill) ended(ctx context.Context) error { return f.await(ctx, func() bool { return f.over }) }

// await waits until is, which is asked with f.mu held, says yes. The error is ctx's.
func (f *fill) await(ctx context.Context, is func() bool) error {
	for {
		f.mu.Lock()
		wake, yes := f.wake, is()
		f.mu.Unlock()
		if yes {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// requests lists the blobs of the requests so far, one of each image's file.
func (f *fill) requests() []Blob {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.blobs)
}

// candidates lists the sources that requests have named so far.
func (f *fill) candidates() []*candidate {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sources
}
