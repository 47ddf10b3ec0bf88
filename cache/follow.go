package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// The verdict on a download waits for the digests that decide (verify.Want.Deciding), the record for all. A
// follower takes the others: it reads the partial file behind the download, from the page cache as a rule, and
// leaves the processors to all that is urgent (adr 22).

const (
	followPiece = 64 << 10  // bytes hashed at a time: other goroutines come in between
	followBlock = 256 << 10 // bytes read at a time
	followBurst = 1 << 20   // bytes between two looks at how busy the machine is

	// followRest is the pause after a burst that has shown a busy machine.
	followRest = 100 * time.Millisecond
	// followPatience is how long after the verdict a follower still makes pauses.
	followPatience = 5 * time.Second
	// maxUnrecorded is how many downloads may have a verdict and no record: the next one keeps its slot.
	maxUnrecorded = 16
)

// follower takes the digests of one round that do not decide. Its goroutine owns the fields up to err.
type follower struct {
	f    *fill
	v    *view
	file io.ReaderAt
	sums *verify.Follower
	at   int64
	err  error // why there are no digests; valid once done

	done chan struct{}
	stop context.CancelCauseFunc
}

// follow begins to take the digests of set behind the round.
func (r *round) follow(set verify.Set) *follower {
	ctx, stop := context.WithCancelCause(context.Background()) // the end of the round ends it
	w := &follower{
		f: r.f, v: r.view, file: r.file, sums: verify.NewFollower(set),
		done: make(chan struct{}), stop: stop,
	}
	go w.run(ctx)
	return w
}

// close ends the follower, and waits for that.
func (w *follower) close() {
	w.stop(nil)
	<-w.done
}

// digests waits for the digests, once there is a verdict, and adds them to got. The error is that of the disk, or
// ErrClosed: the store ends, and what is left of a large file is for the next process.
func (w *follower) digests(got verify.Digests) (verify.Digests, error) {
	if got.Size > followBurst {
		forget := context.AfterFunc(w.f.s.ctx, func() { w.stop(ErrClosed) })
		defer forget()
	}
	<-w.done
	if w.err != nil {
		return got, w.err
	}
	return w.sums.Complete(got), nil
}

func (w *follower) run(ctx context.Context) {
	defer close(w.done)
	for {
		left, last, err := w.await(ctx)
		if err == nil && left > 0 {
			err = w.burst(ctx, min(left, followBurst))
		}
		if err != nil || last && left <= followBurst {
			w.err = err
			return
		}
	}
}

// await waits until a burst of bytes is in the file, or all, and tells how many there are; last: there will be no
// more.
func (w *follower) await(ctx context.Context) (left int64, last bool, err error) {
	err = w.f.await(ctx, func() bool {
		left, last = w.v.seen-w.at, w.v.verified
		if last {
			left = w.v.size - w.at
		}
		return last || left >= followBurst
	})
	if err != nil {
		return 0, false, context.Cause(ctx)
	}
	return left, last, nil
}

// burst hashes the next n bytes, and rests if that took long.
func (w *follower) burst(ctx context.Context, n int64) error {
	var took, best time.Duration // best: the shortest time of a piece
	pieces := 0
	for n > 0 {
		buf, err := w.f.s.followers.take(ctx)
		if err != nil {
			return err
		}
		block := buf[:min(n, followBlock)]
		if _, err = w.file.ReadAt(block, w.at); err == nil {
			w.at += int64(len(block))
			n -= int64(len(block))
			for len(block) > 0 {
				piece := block[:min(followPiece, len(block))]
				block = block[len(piece):]
				began := time.Now()
				_, _ = w.sums.Write(piece) // never fails
				runtime.Gosched()          // the time in which others run counts
				each := time.Since(began)
				took += each
				if pieces++; pieces == 1 || each < best {
					best = each
				}
			}
		}
		w.f.s.followers.leave(buf)
		if errors.Is(err, io.EOF) { // cut by hand
			return errPartialLost
		}
		if err != nil {
			return disk.Error(err)
		}
	}
	if pieces == followBurst/followPiece && took > best*time.Duration(pieces)*3/2 {
		return w.rest(ctx)
	}
	return nil
}

// rest is a pause, which ends early once the record is urgent.
func (w *follower) rest(ctx context.Context) error {
	pause, end := context.WithTimeout(ctx, followRest)
	defer end()
	_ = w.f.await(pause, w.f.urgent) // its error is the end of the pause
	return context.Cause(ctx)
}

// urgent tells whether nothing but the digests is waited for. f.mu is held.
func (f *fill) urgent() bool {
	crowded := len(f.s.unrecorded) == cap(f.s.unrecorded)
	return f.judged() && (f.urged || crowded || time.Since(f.view.judged) > followPatience)
}

// urge says that the record is waited for: from the verdict on, the follower makes no pauses.
func (f *fill) urge() { f.update(func() { f.urged = true }) }

// publish is Store.publish, in one of the places for downloads with a verdict and no record: as long as there is none,
// the download keeps its slot. The end of the store ends the wait; all bytes are left to the next process.
func (d *download) publish(r *round) error {
	if err := d.s.awaitRecords(); err != nil {
		return err
	}
	defer func() { <-d.s.unrecorded }()
	d.giveSlot()
	return d.s.publish(d.f, r)
}

// awaitRecords takes one of the places in unrecorded. The error matches ErrClosed: no place was free before the store's end.
func (s *Store) awaitRecords() error {
	select {
	case s.unrecorded <- struct{}{}: // also while the store ends
		return nil
	default:
	}
	select {
	case s.unrecorded <- struct{}{}:
		return nil
	case <-s.ctx.Done():
		return fmt.Errorf("waiting for records: %w", context.Cause(s.ctx))
	}
}

// recordMetrics tell of the places for downloads with a verdict and no record.
func recordMetrics(reg prometheus.Registerer, unrecorded chan struct{}) error {
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return errors.Join(
		reg.Register(gauge("imgmirror_fill_unrecorded", "Downloads whose bytes are known to be right, and whose record is not written yet.",
			func() int { return len(unrecorded) })),
		reg.Register(gauge("imgmirror_fill_unrecorded_limit", "Limit of imgmirror_fill_unrecorded.", func() int { return cap(unrecorded) })),
	)
}

// followers are the buffers of all followers. A follower hashes only while it has one of the buffers.
type followers chan []byte

// newFollowers makes half as many as there are processors.
func newFollowers() followers {
	n := max(1, runtime.GOMAXPROCS(0)/2)
	f := make(followers, n)
	for range n {
		f <- nil // made at its first use
	}
	return f
}

// take waits for a buffer. Unless it fails with ctx's cause, leave must follow.
func (f followers) take(ctx context.Context) ([]byte, error) {
	select {
	case buf := <-f:
		if buf == nil {
			buf = make([]byte, followBlock)
		}
		return buf, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (f followers) leave(buf []byte) { f <- buf }
