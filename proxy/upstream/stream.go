package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"imgmirror/verify"
)

// skipPause is after how long a Read that skips comes back with nothing.
const skipPause = time.Second

// whole is a body from some offset to the end of a file. It skips what comes before the
// offset, and knows an end that comes too early for one.
type whole struct {
	io.ReadCloser
	name string // for errors
	skip int64  // bytes still to be thrown away
	pos  int64  // in the file
	size int64  // of the file; -1 unknown
	err  error  // what ended it

	skipped int64 // bytes thrown away so far
}

// pace implements verify.Stream.Pace.
func (w *whole) pace() verify.Pace { return verify.Pace{Skipped: w.skipped, Held: held(w.ReadCloser)} }

func (w *whole) Read(p []byte) (int, error) {
	if w.err == nil && w.skip > 0 {
		w.err = w.skipAhead()
	}
	if w.err != nil || w.skip > 0 {
		return 0, w.err
	}
	n, err := w.ReadCloser.Read(p)
	w.pos += int64(n)
	w.err = w.ended(err)
	return n, w.err
}

// skipAhead skips until it is there, or skipPause has passed.
func (w *whole) skipAhead() error {
	buf := make([]byte, min(w.skip, 128<<10))
	for pause := time.Now().Add(skipPause); w.skip > 0 && time.Now().Before(pause); {
		n, err := w.ReadCloser.Read(buf[:min(w.skip, int64(len(buf)))])
		w.skip -= int64(n)
		w.skipped += int64(n)
		w.pos += int64(n)
		if err != nil && (err != io.EOF || w.skip > 0) {
			return w.ended(err)
		}
	}
	return nil
}

// ended judges the end of the body.
func (w *whole) ended(err error) error {
	if errors.Is(err, io.EOF) && (w.skip > 0 || (w.size >= 0 && w.pos < w.size)) {
		return fmt.Errorf("%s: %w: %w at %d of %d", w.name, verify.ErrUnavailable, io.ErrUnexpectedEOF, w.pos, w.size)
	}
	return err
}

// local is a file of this machine, read as if it came from a source.
type local struct {
	io.ReadCloser
	ctx      context.Context
	received prometheus.Counter
}

func (l *local) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := l.ReadCloser.Read(p)
	l.received.Add(float64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
	}
	return n, err
}

// throttle keeps the reading of a body within a limit that it shares with others.
type throttle struct {
	io.ReadCloser
	ctx     context.Context
	cancel  context.CancelFunc
	limiter *rate.Limiter
	held    time.Duration // that Reads have waited for the limiter
}

// held tells how long Reads of body have waited for the limit of the source.
func held(body io.Reader) time.Duration {
	if t, ok := body.(*throttle); ok {
		return t.held
	}
	return 0
}

// throttled keeps body within the limit of the source, if it has one.
func (c *Client) throttled(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	if c.limiter == nil {
		return body
	}
	ctx, cancel := context.WithCancel(ctx)
	return &throttle{ReadCloser: body, ctx: ctx, cancel: cancel, limiter: c.limiter}
}

// limiterChunk is how much is read at once under a limit of that many bytes per
// second: a twentieth of a second's worth, so that the flow is smooth.
func limiterChunk(limit int64) int {
	return int(min(max(limit/20, 512), 128<<10))
}

func (t *throttle) Read(p []byte) (int, error) {
	if chunk := t.limiter.Burst(); len(p) > chunk {
		p = p[:chunk]
	}
	n, err := t.ReadCloser.Read(p)
	if n == 0 {
		return n, err
	}
	began := time.Now()
	limited := t.limiter.WaitN(t.ctx, n)
	t.held += time.Since(began)
	if limited != nil && (err == nil || errors.Is(err, io.EOF)) {
		err = t.ctx.Err()
		if err == nil || errors.Is(err, context.DeadlineExceeded) { // it has passed, or is foreseen to
			err = fmt.Errorf("%w: %w", verify.ErrUnavailable, context.DeadlineExceeded)
		}
	}
	return n, err
}

// Close ends the body, and a Read that waits.
func (t *throttle) Close() error {
	t.cancel()
	return t.ReadCloser.Close()
}
