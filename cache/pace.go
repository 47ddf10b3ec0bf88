package cache

import "golang.org/x/time/rate"

// pace is how a file is read to be checked. All checks share one turn, so that one file at a time is
// read and hashed: whole by Check, piece by piece by the scrub, which so gives way to each Check. The
// zero pace is as fast as the disk, and without a turn: a client waits.
type pace struct {
	turn      turn          // nil: the reader waits for no other
	piecewise bool          // the turn is taken for each piece, else for the file
	limit     *rate.Limiter // nil: as fast as it goes
}

const (
	// paceBytes is how much is read at a time, at most, when the rate is limited.
	paceBytes = 256 << 10
	// checkRate is how many times faster than the scrub Check reads: an operator waits for it.
	checkRate = 4
)

// newPace is the pace of Check beside a scrub of that rate; 0 = no limit.
func newPace(scrubRate int64) pace {
	return pace{turn: newTurn(), limit: limitTo(scrubRate * checkRate)}
}

// pieces is the pace of the scrub.
func (p pace) pieces(scrubRate int64) pace {
	return pace{turn: p.turn, piecewise: true, limit: limitTo(scrubRate)}
}

func limitTo(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(min(bytes, paceBytes)))
}
