package cache

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// FillState is what a fill is doing.
type FillState string

// The states of a fill.
const (
	FillWaiting   FillState = "waiting"   // for a slot, or for the first source to answer
	FillFilling   FillState = "filling"   // bytes come, or are waited for
	FillVerifying FillState = "verifying" // all bytes are there, the verdict or a digest is not
)

// FillInfo is what is known of one download under way.
type FillInfo struct {
	Image   uuid.UUID  // of the first request
	Sum     verify.Sum // zero: not known before its end
	Size    int64      // -1: not known yet
	Have    int64
	Rate    int64         // bytes per second, lately; 0 when nothing came for some seconds
	ETA     time.Duration // -1: cannot tell
	Readers int           // requests that read it, or wait for its first bytes
	Source  string        // the one that brings bytes just now, or several with commas; "" when none does
	State   FillState
	Began   time.Time
	Ahead   bool // no client and no job waits for it
}

// Fills lists the downloads under way, the oldest first.
func (s *Store) Fills() []FillInfo {
	s.mu.RLock()
	all := make([]FillInfo, 0, len(s.fills))
	for _, f := range s.fills {
		i := f.describe()
		i.Readers = int(f.hold.readers())
		all = append(all, i)
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b FillInfo) int {
		return cmp.Or(a.Began.Compare(b.Began), bytes.Compare(a.Sum[:], b.Sum[:]))
	})
	return all
}

// Settle waits until the fills that have all their bytes by now are over: what clients have been
// given whole is then on disk, or known not to be. The error is ctx's.
func (s *Store) Settle(ctx context.Context) error {
	var ending []*fill
	s.mu.RLock()
	for _, f := range s.fills {
		if f.describe().State == FillVerifying {
			ending = append(ending, f)
		}
	}
	s.mu.RUnlock()
	for _, f := range ending {
		f.urge()
	}
	for _, f := range ending {
		if err := f.ended(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *fill) describe() FillInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := FillInfo{
		Image: f.blob.Image, Sum: f.blob.Want.SHA1, Size: -1, ETA: -1, Ahead: f.ahead(),
		State: FillWaiting, Began: f.began, Source: f.from,
	}
	if f.blob.Want.Size > 0 {
		i.Size = f.blob.Want.Size
	}
	v := f.view
	if v == nil || v.err != nil {
		return i
	}
	i.Have = v.seen
	if v.size >= 0 {
		i.Size = v.size
	}
	switch {
	case v.verified || i.Have > 0 && i.Have == i.Size:
		i.State = FillVerifying
	case v.open && !f.queued:
		i.State = FillFilling
		i.Rate = f.speed.now(time.Now())
	}
	if i.Rate > 0 && i.Size >= 0 {
		i.ETA = time.Duration(float64(i.Size-i.Have) / float64(i.Rate) * float64(time.Second))
	}
	return i
}

// speed is the rate at which bytes have come lately.
type speed struct {
	since time.Time // when the last period began
	bytes int64     // that have come in it
	rate  float64   // of the periods before, bytes a second, the later the weightier
	known bool      // one period has passed
}

const (
	speedPeriod = time.Second
	speedStale  = 5 * time.Second // after that long without a byte nothing is coming
)

// add notes that n bytes have come by now.
func (s *speed) add(n int64, now time.Time) {
	if s.since.IsZero() {
		s.since = now
	}
	s.bytes += n
	d := now.Sub(s.since)
	if d < speedPeriod {
		return
	}
	rate := float64(s.bytes) / d.Seconds()
	if s.known && d < speedStale {
		rate = s.rate*0.6 + rate*0.4
	}
	*s = speed{since: now, rate: rate, known: true}
}

func (s *speed) now(now time.Time) int64 {
	d := now.Sub(s.since)
	switch {
	case s.since.IsZero() || s.known && d >= speedStale:
		return 0
	case s.known:
		return int64(s.rate)
	case d <= 0:
		return 0
	}
	return int64(float64(s.bytes) / d.Seconds())
}
