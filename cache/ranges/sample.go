package ranges

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"imgmirror/verify"
)

// ErrDiffers is matched when a source has sent other bytes than the first source.
var ErrDiffers = errors.New("the bytes are not those of the first source")

// sampleSize is how many bytes, from the beginning of the body on, each source but the first one has to send, too,
// before its pieces are used: a source with another file cannot spoil the body.
const sampleSize = 64 << 10

// sampled takes in bytes that the reader was given: the first ones are the sample. b.mu is held.
func (b *Body) sampled(p []byte) {
	if n := b.sampleEnd - len(b.sample); n > 0 {
		b.sample = append(b.sample, p[:min(n, len(p))]...)
	}
}

// admit waits until pieces of the source are used. One of its streams brings the sample, the others wait for the
// outcome; where the request fails, the next one tries. false: the stream has to end.
func (b *Body) admit(source int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.sources[source]
	for !s.admitted {
		switch {
		case s.out || !b.sampling():
			return false
		case s.trying:
			b.work.Wait()
			continue
		}
		s.trying = true
		err := b.try(source)
		s.trying = false
		b.work.Broadcast()
		if err == nil {
			s.admitted = true
			break
		}
		if b.ctx.Err() == nil {
			b.tell(Lost{source, err}, true)
		}
		s.out = s.out || errors.Is(err, verify.ErrMismatch) || errors.Is(err, ErrWhole) || errors.Is(err, ErrDiffers)
		return false
	}
	b.leading++
	return true
}

// sampling tells whether the sample is there, or may come. b.mu is held.
func (b *Body) sampling() bool {
	return b.ctx.Err() == nil && (b.leading > 0 || len(b.sample) == b.sampleEnd)
}

// try brings the sample from the source, and waits for that of the first source. b.mu is held, but not meanwhile.
func (b *Body) try(source int) error {
	b.mu.Unlock()
	got, err := b.bringSample(source)
	b.mu.Lock()
	for err == nil && len(b.sample) < b.sampleEnd {
		if !b.sampling() {
			return context.Canceled
		}
		b.work.Wait()
	}
	if err == nil && !bytes.Equal(got, b.sample) {
		err = fmt.Errorf("%w: from %d on", ErrDiffers, b.o.Offset)
	}
	return err
}

func (b *Body) bringSample(source int) ([]byte, error) {
	got := make([]byte, b.sampleEnd)
	answer, err := b.open(b.ctx, source, b.o.Offset, int64(len(got)))
	if err != nil {
		return nil, err
	}
	defer answer.Close() // read only
	if n, err := io.ReadFull(answer, got); err != nil {
		return nil, fmt.Errorf("the range from %d on broke off after %d of %d bytes: %w", b.o.Offset, n, len(got), err)
	}
	return got, b.end(answer, b.o.Offset+int64(len(got)))
}
