package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"

	"imgmirror/verify"
)

const (
	// heldBack is what a download gives out only once all of it is known to be right.
	heldBack = 64 << 10
	// downloadBuffer is what it holds at most.
	downloadBuffer = 512 << 10
	// downloadTries is how often in a row a mirror can not be reached, or gives next
	// to nothing, before the download fails; with the pauses that is a minute.
	downloadTries = 8
	// emptyTries is how often in a row a mirror that can be reached gives no byte
	// before the download fails: each may cost it a whole download of its own.
	emptyTries    = 2
	downloadPause = 500 * time.Millisecond
	maxPause      = 15 * time.Second
)

// download reads a file of another mirror, and keeps nothing. Bytes are given out as they come; the
// last heldBack of them, and io.EOF, are given out only once the digests hold. A connection that
// breaks is taken up where it was. A download is for one goroutine; the caller closes it.
type download struct {
	ctx  context.Context // of all reads
	open func(ctx context.Context, offset int64) (*verify.Stream, error)
	want verify.Want
	size int64         // -1: neither the manifest nor the mirror tells
	out  *bufio.Reader // of what has come

	stream *verify.Stream // nil: to be opened
	sums   *verify.Writer
	taken  int64 // bytes that have come
	tries  int   // in vain, in a row
	since  int64 // taken, when the first of them began
	empty  int   // of the last ones, those that were answered and brought no byte
	before int64 // taken, when the last try ended
	reason error // of the last of those, what the mirror answered instead of the file
	pauses *backoff.ExponentialBackOff
	err    error // what ended it; io.EOF: all has come, and is as it must be
}

// newDownload connects to the mirror. open is upstream.Client's File for one
// file; ctx bounds all reads.
func newDownload(ctx context.Context, want verify.Want, open func(context.Context, int64) (*verify.Stream, error)) (*download, error) {
	if !want.Checkable() {
		return nil, fmt.Errorf("%w: the manifest has no sha1 to hold the file against", verify.ErrMismatch)
	}
	d := &download{ctx: ctx, open: open, want: want, size: -1, sums: verify.NewWriter(), pauses: backoff.NewExponentialBackOff()}
	d.pauses.InitialInterval, d.pauses.MaxInterval = downloadPause, maxPause
	if want.Size > 0 {
		d.size = want.Size
	}
	for d.stream == nil {
		if d.connect(); d.err != nil {
			d.Close() //nolint:errcheck // nothing was read
			return nil, d.err
		}
	}
	d.out = bufio.NewReaderSize((*arriving)(d), downloadBuffer)
	return d, nil
}

// Read gives bytes that have come.
func (d *download) Read(p []byte) (int, error) {
	_, err := d.out.Peek(heldBack + 1)
	give := d.out.Buffered()
	switch {
	case err == nil:
		give -= heldBack
	case !errors.Is(err, io.EOF) || give == 0:
		return 0, err
	}
	return d.out.Read(p[:min(len(p), give)])
}

// Close ends the download.
func (d *download) Close() error {
	d.err = errors.Join(d.err, errors.New("the download is closed"))
	d.drop()
	return d.sums.Close()
}

// arriving is a download as its bytes come.
type arriving download

// Read gives io.EOF once all has come and the digests hold.
func (a *arriving) Read(p []byte) (int, error) {
	d := (*download)(a)
	for d.err == nil {
		if d.stream == nil {
			d.connect()
			continue
		}
		n, err := d.stream.Read(p)
		_, _ = d.sums.Write(p[:n]) // never fails
		d.taken += int64(n)
		switch {
		case d.size >= 0 && d.taken > d.size:
			d.err = fmt.Errorf("%w: more than %d bytes come", verify.ErrMismatch, d.size)
			return 0, d.err
		case err == nil:
		case errors.Is(err, io.EOF) && (d.size < 0 || d.taken == d.size):
			d.err = cmp.Or(d.want.Check(d.sums.Digests()), io.EOF)
			d.drop()
		case errors.Is(err, io.EOF):
			d.failed(fmt.Errorf("%w: %w at %d of %d", verify.ErrUnavailable, io.ErrUnexpectedEOF, d.taken, d.size), false)
		default:
			d.failed(err, false)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, d.err
}

// connect opens the stream where the download stands. Without a stream and
// without an error it may be tried again.
func (d *download) connect() {
	stream, err := d.open(d.ctx, d.taken)
	if err != nil {
		d.failed(err, true)
		return
	}
	d.stream = stream
	switch {
	case stream.Size < 0 || stream.Size == d.size:
	case d.size < 0:
		d.size = stream.Size
	default:
		d.err = fmt.Errorf("%w: size is %d, want %d", verify.ErrMismatch, stream.Size, d.size)
		d.drop()
	}
}

// failed decides whether the mirror is to be asked again, and waits until then.
// unopened: it has not even begun to give the file.
func (d *download) failed(err error, unopened bool) {
	d.drop()
	if d.ctx.Err() != nil {
		d.err = d.ctx.Err()
		return
	}
	if d.tries == 0 || d.taken-d.since > heldBack {
		d.tries, d.since = 0, d.taken
		d.pauses.Reset()
	}
	d.tries++
	switch {
	case d.taken > d.before:
		d.empty, d.reason = 0, nil
	case !unreached(err):
		d.empty++
		if unopened {
			d.reason = err
		}
	}
	d.before = d.taken
	switch {
	case !errors.Is(err, verify.ErrUnavailable):
		d.err = err
	case d.empty >= emptyTries && d.reason != nil:
		d.err = d.reason
	case d.empty >= emptyTries:
		d.err = fmt.Errorf("the mirror gives nothing more after %d of %d bytes, and no reason; its log may tell: %w", d.taken, d.size, err)
	case d.tries >= downloadTries:
		d.err = err
	default:
		select {
		case <-time.After(d.pauses.NextBackOff()):
		case <-d.ctx.Done():
			d.err = d.ctx.Err()
		}
	}
}

// unreached tells whether no connection to the mirror came about.
func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

func (d *download) drop() {
	if d.stream != nil {
		d.stream.Close() //nolint:errcheck // it was only read
		d.stream = nil
	}
}
