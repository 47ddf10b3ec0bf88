package upstream

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

const (
	// imagePatience is how many failures in a row one thing of an image may have before that thing rests: all tries
	// of one download, so that a source with random failures gives its images.
	imagePatience = 10
	// slowFailure is how long a failure takes that counts as imagePatience failures: clients wait, and a download
	// does not ask twice.
	slowFailure      = 1500 * time.Millisecond
	firstImageRest   = time.Second
	maxFailing       = 256              // remembered for each kind of question
	failingMemory    = 10 * time.Minute // of a failure, while no client asks
	manifestOf       = -1               // as part.file
	iconOf           = -2
	keptOffForImage  = "image" // the values of the label "reason"
	keptOffForSource = "source"
)

// part is one thing of an image that a source is asked for.
type part struct {
	image uuid.UUID
	file  int // index of the file; manifestOf, iconOf
}

// failing is what the source fails to give while it gives other things. rest is zero until the
// first imagePatience failures; afterwards the part is known as broken, and is asked for once
// after each rest.
type failing struct {
	failures int // in a row
	rest     time.Duration
	until    time.Time // the end of the rest
	asked    time.Time // when it was last asked for, also if it rested
	last     string    // what the last question ended with
	testing  bool      // the question after a rest is under way
}

// broken tells whether the part of f is known as broken; f may be nil.
func (f *failing) broken() bool { return f != nil && f.rest > 0 }

// admit tells why the source is not asked for the part of f now; nil: the source may be asked. f may
// be nil.
func (f *failing) admit(now time.Time) error {
	if !f.broken() || !f.testing && !now.Before(f.until) {
		return nil
	}
	return fmt.Errorf("%w: not asked for that, which failed %d times: %s", errImageRests, f.failures, f.last)
}

// failingParts are the things that failed since the source last gave them, maxFailing at most.
type failingParts map[part]*failing

// failed notes one more failure of p. began tells whether p starts to rest for the first time.
func (all failingParts) failed(p part, slow bool, err error) (began bool) {
	now := time.Now()
	f := all[p]
	if f == nil {
		all.makeRoom(now)
		f = new(failing)
		all[p] = f
	}
	f.asked, f.last = now, err.Error()
	f.failures++
	if slow {
		f.failures = max(f.failures, imagePatience)
	}
	if f.failures < imagePatience || now.Before(f.until) { // else the question is an old one
		return false
	}
	began = f.rest == 0
	f.rest = min(max(2*f.rest, firstImageRest), longestRest)
	f.until = now.Add(f.rest)
	return began
}

// release notes that the question for p after a rest has ended.
func (all failingParts) release(p part) {
	if f := all[p]; f != nil {
		f.testing = false
	}
}

// makeRoom forgets what is old, and the oldest when all is full.
func (all failingParts) makeRoom(now time.Time) {
	var oldest part
	for p, f := range all {
		if now.Sub(f.asked) >= failingMemory {
			delete(all, p)
		} else if first := all[oldest]; first == nil || f.asked.Before(first.asked) {
			oldest = p
		}
	}
	if len(all) >= maxFailing {
		delete(all, oldest)
	}
}

// broken counts the images that rest, and gives the last failure of these.
func (all failingParts) broken() (images int, last string) {
	seen := make(map[uuid.UUID]bool)
	var when time.Time
	for p, f := range all {
		if f.broken() && time.Since(f.asked) < failingMemory {
			seen[p.image] = true
			if f.asked.After(when) {
				when, last = f.asked, f.last
			}
		}
	}
	return len(seen), last
}

// judged is the body of a file. Its first byte is the answer for the file; a break is a failure.
type judged struct {
	io.ReadCloser
	asked *asked
	began bool
}

func (j *judged) Read(p []byte) (int, error) {
	n, err := j.ReadCloser.Read(p)
	end := errors.Is(err, io.EOF)
	if (n > 0 || end) && !j.began {
		j.began = true
		j.asked.gave()
	}
	if !end && errors.Is(err, verify.ErrUnavailable) {
		j.asked.broke(err, j.began)
	}
	return n, err
}

func (j *judged) Close() error {
	j.asked.left()
	return j.ReadCloser.Close()
}
