package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"imgmirror/verify"
)

// judge gives the verdict on the round's bytes, and blames the source of wrong bytes. Bytes of an
// earlier process are the first suspect. Of several sources none is to blame, but from now on one
// source at a time has to bring all of a round, and none of them is in a team with others for an hour.
func (d *download) judge(r *round) error {
	got, err := r.judge()
	if err == nil { // the room first, as a client that has all may ask for the next
		d.confirm(r)
		r.confirm(got)
		for _, c := range r.differ {
			d.refuse(r, c, whereDigest, fmt.Errorf("%w: a range has other bytes than the verified file", verify.ErrMismatch))
		}
	}
	if !errors.Is(err, verify.ErrMismatch) {
		return err
	}
	switch {
	case r.leftover > 0:
		d.s.metrics.failure(sourceDisk, whereDigest)
		d.tellWrong(sourceDisk, err)
	case len(r.from) == 1:
		d.refuse(r, r.from[0], whereDigest, err)
	default:
		d.single = true
		d.s.mu.Lock()
		for _, c := range r.from {
			d.s.suspects[c.Name] = time.Now()
		}
		d.s.mu.Unlock()
		for _, c := range r.from {
			d.s.metrics.failure(c.Name, whereMixed)
		}
		d.tellWrong(r.names(), err)
	}
	return fmt.Errorf("from %s: %w", r.names(), err)
}

// mayBeginAgain tells whether a round that ended with err is worth another, after it has put the
// blame where it belongs.
func (d *download) mayBeginAgain(r *round, err error) bool {
	switch {
	case d.f.ctx.Err() != nil:
		return false
	case errors.Is(err, errPartialLost):
		d.lost++
		return d.lost < maxLost
	case errors.Is(err, verify.ErrMismatch):
		if r.leftover > 0 {
			return true // from the start, and from the same sources
		}
	case r.only == nil || !errors.Is(err, verify.ErrUnavailable):
		return false
	default: // alone of all sources the round's one could not go on: the others may still, from the start
		r.only.out = err
	}
	return slices.ContainsFunc(d.f.candidates(), func(c *candidate) bool { return c.out == nil })
}

// abandon ends a round that failed with err. The partial file is kept, as leftover, only if it is
// of use to a later fill.
func (d *download) abandon(r *round, err error) error {
	r.fail(err)
	later := errors.Is(err, verify.ErrUnavailable) || errors.Is(err, ErrClosed) || errors.Is(err, errDropped) ||
		errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoRoomAhead) && r.leftover > 0
	if later && !errors.Is(err, verify.ErrMismatch) && !d.want.SHA1.IsZero() && !d.single && r.have > 0 {
		d.leftover = r.have
		return nil
	}
	return d.s.dropPartial(r.view.path, r.have)
}
