package catalog

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"imgmirror/manifest"
	"imgmirror/race"
)

// reachWait bounds the wait of a client for sources to show that they are there.
const reachWait = time.Second

// remote is a Source that is a server elsewhere, and judges by its answers how that is.
type remote interface {
	// Peer is the id of the mirror that answered last; "" for another server, or without an answer.
	Peer() string
	// AskedFrom is zero while the source is asked as usual. A source that fails again and again is
	// asked less and less until an answer, and before AskedFrom for its list and the rest of a file
	// only.
	AskedFrom() time.Time
	// Resting tells how many images the source fails to give while it gives others, and why these, or
	// all questions, rest; "" when none do.
	Resting() (images int, why string)
	// CertificateEnd is when the certificate ends that the source has shown; zero: the source has shown none.
	CertificateEnd() time.Time
	// Suspect holds a token when the source's list is due soon, to see how the source is.
	Suspect() <-chan struct{}
	// Reachable tells whether the source answers just now, by something small of m, which the
	// source has. All callers share the answer, which takes about a second at most; ctx should
	// outlive each of them.
	Reachable(ctx context.Context, m manifest.Manifest) bool
}

// here is the remote of a source within this process, which has no opinion of its health.
type here struct{ Source }

func (here) Peer() string              { return "" }
func (here) AskedFrom() time.Time      { return time.Time{} }
func (here) Resting() (int, string)    { return 0, "" }
func (here) CertificateEnd() time.Time { return time.Time{} }
func (here) Suspect() <-chan struct{}  { return nil }

func (h here) Reachable(ctx context.Context, m manifest.Manifest) bool {
	_, err := h.Get(ctx, m.UUID)
	return answered(err)
}

// answered tells whether err, of a question to a source, shows that the source is there.
func answered(err error) bool {
	return err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// Reachable tells whether a source that holds e's files answers just now, or one of the others
// turns out to hold them. The wait is about a second at most.
func (c *Catalog) Reachable(ctx context.Context, e Entry) bool {
	return c.any(ctx, e.Holders, func(_ context.Context, h Holder) bool {
		s := c.byName[h.Source.Name()]
		return s != nil && s.remote.Reachable(c.life, h.Manifest)
	}) || c.any(ctx, e.Others, func(ctx context.Context, h Holder) bool {
		other, ok := h.Source.(seeker)
		if !ok {
			return false
		}
		_, err := other.seek(ctx)
		return err == nil
	})
}

// any tells whether is holds for one of holders, all asked side by side, within reachWait.
func (c *Catalog) any(ctx context.Context, holders []Holder, is func(context.Context, Holder) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	_, _, ok := race.First(ctx, len(holders), 0, func(i int, answers chan<- bool) {
		c.spawn(func(context.Context) { answers <- is(ctx, holders[i]) })
	}, func(yes bool) bool { return yes })
	return ok
}
