package cache

import (
	"fmt"
	"sync"

	"imgmirror/cache/disk"
)

// space keeps account of bytes: what is stored, and what running fills have
// booked and not yet written. Bytes are booked before they flow.
type space struct {
	free func() (int64, error) // of the file system

	mu      sync.Mutex // guards what follows
	max     int64      // bytes that may be stored; 0: as many as minFree allows
	minFree int64      // bytes that stay free on the file system
	files   int64      // bytes of verified files
	partial int64      // bytes of partial files
	booked  int64      // bytes that fills have yet to write
	written int64      // bytes that fills have written since the start
	lent    int64      // bytes of running fills that are not held against max: see lend
}

func newSpace(limit, minFree int64, free func() (int64, error)) *space {
	return &space{max: limit, minFree: minFree, free: free}
}

// lockFree locks the books and tells what is free on the file system, in step with the books. The
// file system is asked without the lock; bytes that fills write during the question may count as
// free in the answer and are no longer booked, so lockFree subtracts these bytes.
func (s *space) lockFree() (free int64, unlock func(), err error) {
	s.mu.Lock()
	written := s.written
	s.mu.Unlock()
	free, err = s.free()
	if err != nil {
		return 0, nil, disk.Error(err)
	}
	s.mu.Lock()
	return free - (s.written - written), s.mu.Unlock, nil
}

// book sets n bytes aside, or fails with ErrNoSpace. They leave the books by wrote or release.
func (s *space) book(n int64) error {
	free, unlock, err := s.lockFree()
	if err != nil {
		return err
	}
	defer unlock()
	if used := s.counted(); s.max > 0 && used+n > s.max {
		return fmt.Errorf("%w: %d bytes wanted, %d of %d in use", ErrNoSpace, n, used, s.max)
	}
	if free-s.booked-n < s.minFree {
		return fmt.Errorf("%w: %d bytes wanted, %d free, %d of them booked and %d to stay free", ErrNoSpace, n, free, s.booked, s.minFree)
	}
	s.booked += n
	return nil
}

// counted is the number of bytes that are held against max. s.mu is held.
func (s *space) counted() int64 { return s.files + s.partial + s.booked - s.lent }

// lend is book for bytes that are not verified yet: where max leaves no room, the bytes are lent, up
// to max in all, and only minFree bounds them. It tells how many are lent. repay must follow.
func (s *space) lend(n int64) (loan int64, err error) {
	free, unlock, err := s.lockFree()
	if err != nil {
		return 0, err
	}
	defer unlock()
	if s.max > 0 {
		loan = min(n, max(0, s.counted()+n-s.max))
	}
	if loan > 0 && s.lent+loan > s.max {
		return 0, fmt.Errorf("%w: %d bytes wanted, and %d beyond the %d that may be stored are in use by other downloads", ErrNoSpace, n, s.lent, s.max)
	}
	if free-s.booked-n < s.minFree {
		return 0, fmt.Errorf("%w: %d bytes wanted, %d free, %d of them booked and %d to stay free", ErrNoSpace, n, free, s.booked, s.minFree)
	}
	s.booked += n
	s.lent += loan
	return loan, nil
}

// repay ends a loan.
func (s *space) repay(loan int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent -= loan
}

// beyondLoans tells how many of n bytes that do not fit cannot be lent either.
func (s *space) beyondLoans(n int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, s.lent+n-s.max)
}

// loans is the number of bytes that are lent.
func (s *space) loans() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lent
}

// lowWater is the part of max_size, and of min_free, that is made free beyond
// what is needed just now: one in that many.
const lowWater = 20

// need is what has to go so that something fits.
type need struct {
	must   int64  // bytes, or it does not fit; 0: it does
	should int64  // bytes down to the low water; at least must
	reason Reason // the limit that asks for more
}

// needs tells for each limit what has to go before n more bytes can be booked.
func (s *space) needs(n int64) (size, room need, err error) {
	size.reason, room.reason = ReasonMaxSize, ReasonMinFree
	free, unlock, err := s.lockFree()
	if err != nil {
		return size, room, err
	}
	defer unlock()
	if s.max > 0 {
		size.must = max(0, s.counted()+n-s.max)
		size.should = max(0, s.counted()+n-s.max+s.max/lowWater)
	}
	room.must = max(0, s.minFree+s.booked+n-free)
	room.should = max(0, s.minFree+s.booked+n-free+s.minFree/lowWater)
	return size, room, nil
}

// need is the greater of the needs.
func (s *space) need(n int64) (need, error) {
	size, room, err := s.needs(n)
	return size.or(room), err
}

// or gives the greater need.
func (d need) or(room need) need {
	if room.must > d.must || room.must == d.must && room.should > d.should {
		return room
	}
	return d
}

// never tells that n bytes would not fit if nothing else were there.
func (s *space) never(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.max > 0 && n > s.max {
		return fmt.Errorf("%w: %d bytes wanted, %d may be stored in all", ErrNoSpace, n, s.max)
	}
	return nil
}

// setLimits changes the limits.
func (s *space) setLimits(limit, minFree int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.max, s.minFree = limit, minFree
}

// release gives back n booked bytes that will not be written.
func (s *space) release(n int64) { s.add(-n, 0, 0) }

// wrote turns n booked bytes into bytes of a partial file.
func (s *space) wrote(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.booked -= n
	s.partial += n
	s.written += n
}

// published turns a partial file of n bytes into a verified one.
func (s *space) published(n int64) { s.add(0, -n, n) }

// addFile and addPartial follow what is on disk: n is below zero for what went.
func (s *space) addFile(n int64)    { s.add(0, 0, n) }
func (s *space) addPartial(n int64) { s.add(0, n, 0) }

func (s *space) add(booked, partial, files int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.booked += booked
	s.partial += partial
	s.files += files
}

// Stats is the store's account.
type Stats struct {
	Files      int   // on disk, those included that are still to be checked
	Stored     int64 // bytes of these files
	Unfinished int64 // bytes of unfinished downloads
	Booked     int64 // bytes that downloads have yet to write
}

// Bytes is how many bytes are stored, unfinished downloads included.
func (s Stats) Bytes() int64 { return s.Stored + s.Unfinished }

// Stats gives the account as it is now.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	files := len(s.files) + len(s.orphans)
	s.mu.RUnlock()
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return Stats{Files: files, Stored: s.space.files, Unfinished: s.space.partial, Booked: s.space.booked}
}

// limit is the number of bytes that may be stored: what max and minFree allow
// now. 0 when the file system does not tell.
func (s *space) limit() int64 {
	free, err := s.free()
	if err != nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	room := max(0, s.files+s.partial+free-s.minFree)
	if s.max > 0 {
		return min(s.max, room)
	}
	return room
}
