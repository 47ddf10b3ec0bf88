package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

// CheckResult is what looking at a file's bytes again has shown.
type CheckResult string

// The results of a check.
const (
	CheckOK          CheckResult = "ok"          // every digest is what it was
	CheckHealed      CheckResult = "healed"      // it was wrong, and has been brought anew
	CheckRestored    CheckResult = "restored"    // it was gone, and has been brought anew
	CheckQuarantined CheckResult = "quarantined" // it was wrong, and no source could heal it
	CheckAbsent      CheckResult = "absent"      // it was gone, and no source could heal it
	CheckUnreadable  CheckResult = "unreadable"  // the disk does not tell, or does not let a wrong file go: it stays in the cache, a wrong one is not served
)

// Check reads a stored file again, now, and holds it against all digests taken when it was stored.
// A wrong one goes to DATA/quarantine, those who read it are cut short, and Options.Heal is asked
// to bring it anew. progress, unless nil, is told from this goroutine how many bytes have been
// read. The error says why the file is not as it should be after all; without a result it matches
// fs.ErrNotExist when nothing is known of such a file, ErrClosed or ctx.Err().
func (s *Store) Check(ctx context.Context, sum verify.Sum, progress func(done int64)) (CheckResult, error) {
	if err := s.enter(); err != nil {
		return "", err
	}
	defer s.work.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrClosed) })()

	s.mu.RLock()
	f := s.files[sum]
	_, orphan := s.orphans[sum]
	s.mu.RUnlock()
	if f == nil && orphan {
		if err := s.adopt(ctx, sum); err != nil {
			return "", err
		}
		s.mu.RLock()
		f = s.files[sum]
		s.mu.RUnlock()
	}
	if f == nil {
		return "", fmt.Errorf("file %s: %w", sum, fs.ErrNotExist)
	}
	return s.check(ctx, sum, f, s.checking, progress)
}

// check is Check of a file that is known.
func (s *Store) check(ctx context.Context, sum verify.Sum, f *stored, by pace, progress func(int64)) (CheckResult, error) {
	result, err := s.look(ctx, sum, f, by, progress)
	if result == "" {
		return "", err
	}
	if result == CheckQuarantined || result == CheckAbsent {
		lost := errors.New("there is no source to ask")
		if s.o.Heal != nil {
			lost = s.o.Heal(ctx, sum, f.Digests.Size)
		}
		if lost == nil {
			s.log.Info("a lost file was brought anew", "sum", sum)
			if result == CheckAbsent {
				result = CheckRestored
			} else {
				result = CheckHealed
			}
			err = nil
		} else {
			err = fmt.Errorf("%w; heal: %w", err, lost)
		}
	}
	s.metrics.scrubbed[result].Inc()
	switch {
	case err != nil:
		s.log.Error("a file of the cache has failed its check", "sum", sum, "result", string(result), "error", err)
		s.tellOf(f, EventLost, err)
	case result != CheckOK:
		s.tellOf(f, EventHealed, nil)
	}
	return result, err
}

// look reads f's bytes and does what follows from them, but does not heal.
func (s *Store) look(ctx context.Context, sum verify.Sum, f *stored, by pace, progress func(int64)) (CheckResult, error) {
	got, mark, err := s.hashFile(ctx, sum, by, progress)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err == nil && got == f.Digests:
		if mark != nil {
			f.stamped(*mark)
		}
		f.checked.Store(time.Now().UnixNano())
		f.dirty.Store(true)
		return CheckOK, nil
	case err == nil:
		s.metrics.failure(sourceDisk, whereDigest)
		wrong := fmt.Errorf("%w: on disk there are %d bytes with sha256 %x, it was %d with %x", verify.ErrMismatch, got.Size, got.SHA256, f.Digests.Size, f.Digests.SHA256)
		if err := s.putAway(sum, f); err != nil {
			return CheckUnreadable, errors.Join(wrong, err)
		}
		return CheckQuarantined, wrong
	case errors.Is(err, fs.ErrNotExist) && s.present() == nil:
		lost, err := s.forget(sum, f)
		if err != nil {
			return "", err
		}
		if !lost { // it was removed, or replaced, meanwhile: nothing is to be healed
			return "", fmt.Errorf("file %s: %w", sum, fs.ErrNotExist)
		}
		return CheckAbsent, errors.New("it is gone from the disk")
	case damaged(err):
		if err := s.lose(sum, f, whereUnreadable, err); err != nil {
			return CheckUnreadable, err
		}
		return CheckQuarantined, disk.Error(err)
	}
	// Not again at once: a disk that fails gets no better from being asked.
	f.checked.Store(time.Now().UnixNano())
	f.dirty.Store(true)
	return CheckUnreadable, disk.Error(err)
}

// hashFile takes the digests of a stored file, and its stamp: nil if that has changed meanwhile.
func (s *Store) hashFile(ctx context.Context, sum verify.Sum, by pace, progress func(int64)) (verify.Digests, *index.Stamp, error) {
	if by.turn != nil && !by.piecewise {
		if err := by.turn.take(ctx); err != nil {
			return verify.Digests{}, nil, err
		}
		defer by.turn.leave()
	}
	file, _, before, err := openRegular(s.dir.file(sum))
	if err != nil {
		return verify.Digests{}, nil, err
	}
	defer file.Close() // read only
	w := verify.NewWriter()
	defer w.Close()
	if err := verify.HashFrom(ctx, w, &pacedReader{ctx: ctx, file: file, by: by, progress: progress}); err != nil {
		return verify.Digests{}, nil, err
	}
	after := stampOfFile(file)
	if after != nil && *after != before {
		after = nil
	}
	return w.Digests(), after, nil
}

// pacedReader reads a file at its pace and tells how far it is.
type pacedReader struct {
	ctx      context.Context
	file     *os.File
	by       pace
	progress func(int64) // may be nil
	done     int64
}

func (r *pacedReader) Read(p []byte) (int, error) {
	if r.by.limit != nil {
		p = p[:min(len(p), r.by.limit.Burst())]
	}
	if r.by.piecewise {
		if err := r.by.turn.take(r.ctx); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(p)
	if r.by.piecewise {
		r.by.turn.leave()
	}
	if r.by.limit != nil {
		if err := r.by.limit.WaitN(r.ctx, n); err != nil {
			return 0, err
		}
	}
	r.done += int64(n)
	if r.progress != nil && n > 0 {
		r.progress(r.done)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // a Reader says it that way
		return n, fmt.Errorf("read: %w", err)
	}
	return n, err //nolint:wrapcheck // io.EOF must come as it is
}

// putAway takes the file with wrong bytes out of the cache, for people to
// look at; f is nil for a file without a record. Nothing happens if f has been replaced or removed meanwhile.
func (s *Store) putAway(sum verify.Sum, f *stored) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	wrong := func() bool {
		if f != nil {
			f.wrong.Store(true)
		}
		return true
	}
	_, err := s.discard(sum, f, wrong, s.quarantine.take)
	wrong() // also for those who read one that has been replaced
	if err != nil {
		return err
	}
	return s.quarantine.limit(quarantineFiles, quarantineBytes)
}

// scrub checks every file once in Options.ScrubEvery, until ctx ends. Each file's turn comes that
// long after it was last found right, so that it goes on after a restart where it was.
func (s *Store) scrub(ctx context.Context) {
	if s.o.ScrubEvery <= 0 {
		return
	}
	by := s.checking.pieces(s.o.ScrubRate)
	for {
		s.endRound()
		sum, f, left := s.nextCheck(time.Now())
		if left > 0 {
			select {
			case <-time.After(left):
				continue
			case <-ctx.Done():
				return
			}
		}
		_, err := s.check(ctx, sum, f, by, nil)
		if ctx.Err() != nil {
			return
		}
		if err != nil { // logged; the next turn comes as for any other
			f.checked.Store(time.Now().UnixNano())
		}
	}
}

// nextCheck gives the file that has been unchecked longest, and how long it is until its turn.
func (s *Store) nextCheck(now time.Time) (next verify.Sum, f *stored, left time.Duration) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	oldest := now.UnixNano() // no file that comes later is due earlier
	for sum, other := range s.files {
		if checked := other.checked.Load(); f == nil || checked < oldest {
			next, f, oldest = sum, other, min(checked, now.UnixNano())
		}
	}
	return next, f, time.Unix(0, oldest).Add(s.o.ScrubEvery).Sub(now)
}
