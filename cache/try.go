package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"imgmirror/cache/disk"
	"imgmirror/verify"
)

// bookAhead is how many bytes are booked at a time when the size is not known.
const bookAhead = 64 << 20

// try takes what comes of the body that a has got, from the first missing byte
// on. over: the round has ended, with err, or with all its bytes if that is nil;
// else another try may follow.
func (f *fill) try(r *round, a *attempt) (over bool, err error) {
	defer a.end()
	c, body, offset := a.c, a.body, r.have
	if over, err := f.accept(r, c, body); err != nil {
		return over, err
	}
	defer f.parted()
	if offset > 0 {
		f.s.metrics.resumes.WithLabelValues(c.Name).Inc()
	}
	if err := r.waitHashed(); err != nil {
		return true, err
	}
	a.stall.Reset(a.limit)
	for {
		buf := r.hash.Buffer()
		n, err := body.Read(buf)
		if n > 0 {
			a.stall.Stop() // a slow disk is not the source's fault
			if over, err := f.take(r, c, buf[:n]); err != nil {
				return over, err
			}
			if err := f.makeRoom(); err != nil {
				return true, err
			}
		}
		if err == nil { // no byte is a sign of life too: the source skips forward
			a.stall.Reset(a.limit)
		}
		end := err == io.EOF //nolint:errorlint // a Reader says it that way
		switch {
		case err == nil:
			continue
		case r.have == r.size, r.size < 0 && end: // all of it, and nothing after it
			r.credit(c)
			return true, nil
		case !end && !errors.Is(err, io.ErrUnexpectedEOF):
			return false, a.why(err)
		case r.have == offset && body.Size < 0 && end: // and it calls that complete
			return f.wrongSize(r, c, fmt.Sprintf("the body ends after %d bytes, want %d", r.have, r.size))
		default:
			c.ended = r.have == offset
			return false, a.why(fmt.Errorf("the body broke off after %d of %d bytes: %w", r.have, r.size, io.ErrUnexpectedEOF))
		}
	}
}

// parted notes that no source brings bytes just now.
func (f *fill) parted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = ""
}

// wrongSize ends a try of a source whose body has another size than it should.
// If some of it is in the file, the round is over.
func (f *fill) wrongSize(r *round, c *candidate, what string) (over bool, err error) {
	err = fmt.Errorf("%w: %s", verify.ErrMismatch, what)
	f.refuse(c, whereSize, err)
	return slices.Contains(r.from, c), err
}

// accept looks at what a source claims of its body before any of it is taken.
func (f *fill) accept(r *round, c *candidate, body *verify.Stream) (over bool, err error) {
	size := body.Size
	switch {
	case size > f.max:
		return f.wrongSize(r, c, fmt.Sprintf("the body is said to have %d bytes, at most %d are taken", size, f.max))
	case size < 0:
	case r.size >= 0 && size != r.size && (f.want.Size > 0 || r.have > 0):
		return f.wrongSize(r, c, fmt.Sprintf("the body is said to have %d bytes, want %d", size, r.size))
	case size < r.have: // then it is the leftover that is wrong
		return true, fmt.Errorf("%w: %d bytes of an earlier download, want %d", verify.ErrMismatch, r.have, size)
	}
	if r.have == 0 && !f.want.Checkable() && body.MD5 == nil && !f.loose {
		f.unverified(c)
		return false, ErrUnverified
	}
	if why := f.unchecked(r, body); why != "" {
		err := fmt.Errorf("%w: %s", verify.ErrMismatch, why)
		f.refuse(c, whereUnchecked, err)
		return r.have > 0, err
	}
	// Not earlier: others must not be evicted for what no source will bring.
	if total := max(size, f.want.Size); total > 0 {
		if err := f.book(total - r.have - f.booked); err != nil {
			return true, err
		}
	}
	f.accepted, c.accepted = true, true
	f.mu.Lock()
	defer f.mu.Unlock()
	if size >= 0 {
		r.size = size
	}
	if r.have == r.leftover { // the first body of the round speaks for it
		r.modTime, r.contentType = body.ModTime, body.ContentType
		if f.want.MD5 == nil {
			r.md5 = body.MD5
		}
	}
	if r.leftover > 0 && r.seen == 0 {
		r.seen = r.leftover
	}
	r.open = true
	f.from = c.Name
	f.changed()
	return false, nil
}

// unchecked says why bytes of body must not be taken when the manifest has no
// digest to hold them against; "" if they may.
func (f *fill) unchecked(r *round, body *verify.Stream) string {
	switch {
	case f.want.Checkable():
		return ""
	case r.have == 0: // the claim of the first body is what the file will be held against
	case r.md5 != nil: // a body that starts in mid-file need not repeat the claim
		if body.MD5 != nil && !bytes.Equal(body.MD5, r.md5) {
			return "the file at the source has changed"
		}
	case !body.ModTime.Equal(r.modTime):
		return "the file at the source has changed"
	}
	return ""
}

// take writes and hashes bytes that c brought.
func (f *fill) take(r *round, c *candidate, p []byte) (over bool, err error) {
	n := int64(len(p))
	if r.lost.Load() {
		return true, errPartialLost
	}
	switch {
	case r.size >= 0 && r.have+n > r.size:
		r.credit(c) // whatever it brought is not to be trusted
		return f.wrongSize(r, c, fmt.Sprintf("the body has more than %d bytes", r.size))
	case r.have+n > f.max:
		r.credit(c)
		return f.wrongSize(r, c, fmt.Sprintf("the body has more than %d bytes, which is the limit", f.max))
	}
	if f.booked < n { // of unknown size
		if err := f.book(min(max(n, bookAhead), f.max-r.have-f.booked)); err != nil {
			return true, err
		}
	}
	if _, err := r.file.Write(p); err != nil {
		return true, disk.Error(err)
	}
	f.booked -= n
	f.s.space.wrote(n)
	r.hash.Commit(len(p))
	f.brought(r, c, len(p))
	return false, nil
}
