package zfsimport

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"imgmirror/manifest"
	"imgmirror/verify"
)

const (
	// chunk is the number of bytes that zfs is given at a time. A chunk is less than a pipe holds, so
	// that zfs is busy while the next chunk is being decompressed.
	chunk = 32 << 10
	// reportEvery is the number of bytes of file and stream between two reports.
	reportEvery = 256 << 10
	// streamHead is the number of bytes that tell a ZFS stream.
	streamHead = 16
)

// errNoReader is the error of a write to a program that has ended, or wants no more.
const errNoReader = syscall.EPIPE

// reception is an image's file on its way into the pool.
type reception struct {
	im       *Importer
	image    manifest.Manifest
	dataset  string // POOL/UUID-partial
	progress func(Progress)

	file    *fileReader
	format  string // the file's compression
	written int64  // bytes of the stream
	told    int64  // bytes of file and stream when progress was last called
}

// run receives the image into r.dataset and reads its file to the end. Without an error all of the
// dataset is there, and the file was right. Nothing of run goes on after its return. The caller
// destroys what an error leaves of the dataset.
func (r *reception) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // the other errors follow from this one
		}
	}()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	file, err := r.im.o.Open(reading, r.image)
	if err != nil {
		return fmt.Errorf("open the file: %w", err)
	}
	defer file.Close()
	r.file = &fileReader{file: file}
	err = r.transfer(reading, stop)
	if err == nil || byteFault(err) {
		// zfs may want no more before the file's end, and only the end tells whether the bytes were
		// right. Of two faults the file's is the cause.
		if fileErr := r.rest(); fileErr != nil {
			return fmt.Errorf("read the file: %w", fileErr)
		}
	}
	return err
}

// byteFault tells that wrong bytes may be the cause of an error.
func byteFault(err error) bool {
	return !errors.Is(err, ErrNoRoom) && !errors.Is(err, ErrNoOrigin) && !errors.Is(err, ErrNoZFS)
}

// transfer decompresses the file into zfs receive. Nothing reads the file after its return, for which
// transfer may have to call stop, the end of the file's context.
func (r *reception) transfer(ctx context.Context, stop context.CancelFunc) (err error) {
	in := bufio.NewReaderSize(r.file, inputBuffer)
	if r.format, err = compression(r.image.Files[0], in); err != nil {
		return err
	}
	programs, kill := context.WithCancel(ctx)
	defer kill()
	decoded, err := newDecoder(programs, r.format, in)
	if err != nil {
		return r.undecodable(err)
	}
	defer func() {
		kill()
		if err != nil && !byteFault(err) {
			stop() // the rest of the file is not waited for
		}
		decoded.Close() //nolint:errcheck // Read has told the errors
	}()
	stream := bufio.NewReaderSize(decoded, streamHead)
	head, err := stream.Peek(streamHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return r.undecodable(err)
	}
	if verify.KindOf(head) != verify.KindZFS {
		return fmt.Errorf("%w: it begins with %q", ErrNotZFS, head)
	}
	return r.receive(ctx, stream)
}

// compression is the file's compression, which must be as the manifest states. A manifest that only
// guesses may be wrong.
func compression(file manifest.File, in *bufio.Reader) (string, error) {
	has, err := sniff(in)
	if err != nil {
		return "", err
	}
	if file.Compression != has && !file.Inferred {
		return "", fmt.Errorf("%w: it says %s, the file begins as with %s", ErrCompression, file.Compression, has)
	}
	return has, nil
}

// receive feeds the stream to zfs receive. The input of zfs ends only after the end of the file, when
// the file was right.
func (r *reception) receive(ctx context.Context, stream *bufio.Reader) error {
	program, err := r.im.program("zfs")
	if err != nil {
		return err
	}
	zfs, kill := context.WithCancel(ctx)
	defer kill()
	receive := newChild(zfs, program, "receive", "-u", r.dataset)
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	receive.cmd.Stdin = out
	err = receive.start()
	out.Close()
	if err != nil {
		in.Close()
		return fmt.Errorf("start zfs receive: %w", err)
	}
	// A write must end with zfs, although others may have the pipe's other end open, such as the
	// daemon of zfs-fuse.
	go func() {
		<-receive.done
		in.Close()
	}()
	fed := r.feed(in, stream)
	if fed == nil {
		fed = r.rest()
	}
	if fed != nil && !errors.Is(fed, errNoReader) {
		kill()
		<-receive.done // zfs must not see the end of its input
	}
	in.Close()
	ended := receive.wait(zfs)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case fed != nil && !errors.Is(fed, errNoReader):
		return fed
	case ended != nil:
		return refusal(ended)
	}
	return nil
}

// feed copies the stream to zfs. Its error is errNoReader when zfs has ended.
func (r *reception) feed(in io.Writer, stream *bufio.Reader) error {
	buf := make([]byte, chunk)
	for {
		n, err := stream.Read(buf)
		if n > 0 {
			if _, err := in.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
				return errNoReader
			} else if err != nil {
				return err
			}
			r.written += int64(n)
			r.moved()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.undecodable(err)
		}
	}
}

func (r *reception) undecodable(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrDecompress, r.format, err)
}

// rest reads the file to its end and gives the fault of the file.
func (r *reception) rest() error {
	buf := make([]byte, chunk)
	for !r.file.ended {
		r.file.Read(buf) //nolint:errcheck // r.file keeps the error
		r.moved()
	}
	return r.file.err
}

// moved reports the progress, if it is large enough.
func (r *reception) moved() {
	if now := r.file.n.Load() + r.written; now-r.told >= reportEvery || r.told == 0 {
		r.told = now
		r.report()
	}
}

// report reports the progress.
func (r *reception) report() {
	if r.progress == nil {
		return
	}
	p := Progress{Written: r.written}
	if r.file != nil {
		p.Read = r.file.n.Load()
	}
	r.progress(p)
}

// refusal gives the error of zfs receive its meaning.
func refusal(err error) error {
	meaning := ErrReceive
	switch {
	case saidBy(err, "out of space", "No space left", "quota exceeded"):
		meaning = ErrNoRoom
	case saidBy(err, "local origin", "destination"):
		meaning = ErrNoOrigin
	}
	return fmt.Errorf("%w: %w", meaning, err)
}

// fileReader reads an image's file and keeps its end. Reads come one at a time; n may be read at any
// time.
type fileReader struct {
	file  io.Reader
	n     atomic.Int64
	ended bool
	err   error // the error at the end, nil for io.EOF
}

func (f *fileReader) Read(p []byte) (int, error) {
	if f.ended {
		return 0, cmp.Or(f.err, io.EOF)
	}
	n, err := f.file.Read(p)
	f.n.Add(int64(n))
	if err != nil {
		f.ended = true
		if !errors.Is(err, io.EOF) {
			f.err = err
		}
	}
	return n, err
}
