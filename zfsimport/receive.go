package zfsimport

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"imgmirror/manifest"
)

const (
	// chunk is given to zfs at a time, in bytes. It is less than a pipe holds, so that
	// zfs has something to do while the next is being decompressed.
	chunk = 32 << 10
	// reportEvery is how many bytes of the file or the stream make a report.
	reportEvery = 256 << 10
)

// A ZFS stream begins with a record of type 0, whose bytes 8 to 15 are this number
// in the sender's byte order.
const (
	streamMagic = 0x2F5bacbac
	streamHead  = 16
)

// errNoReader is what writing to a program gives that has ended, or wants no more.
const errNoReader = syscall.EPIPE

// reception is an image's file on its way into the pool.
type reception struct {
	im       *Importer
	image    manifest.Manifest
	dataset  string // POOL/UUID-partial
	progress func(Progress)

	file    *fileReader
	format  string // the compression that the file has
	written int64  // bytes of the stream
	told    int64  // bytes of file and stream when progress was last called
}

// run receives the image into r.dataset and reads its file to the end. Unless it
// fails, all of the dataset is there and the file was right. Whatever it returns,
// nothing of it runs any more; what there is of the dataset is for the caller to
// destroy.
func (r *reception) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // whatever it showed itself as
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
		// zfs may have all it wants before the file's end, where it is known whether
		// any of it was right; and of two faults the file's is the cause.
		if fileErr := r.rest(); fileErr != nil {
			return fmt.Errorf("read the file: %w", fileErr)
		}
	}
	return err
}

// byteFault tells whether an error may be due to wrong bytes.
func byteFault(err error) bool {
	return !errors.Is(err, ErrNoRoom) && !errors.Is(err, ErrNoOrigin) && !errors.Is(err, ErrNoZFS)
}

// transfer decompresses the file into zfs receive. Nobody reads the file when it
// returns. To that end it may have to stop the file's context.
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
		decoded.Close() //nolint:errcheck // what there was to tell it has told by Read
	}()
	stream := bufio.NewReaderSize(decoded, streamHead)
	head, err := stream.Peek(streamHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return r.undecodable(err)
	}
	if !isStream(head) {
		return fmt.Errorf("%w: it begins with %q", ErrNotZFS, head)
	}
	return r.receive(ctx, stream)
}

// compression is the one that a file has. It must be the one that the manifest
// states; where that is a guess, the file is right.
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

// isStream tells whether a stream begins with head.
func isStream(head []byte) bool {
	if len(head) < streamHead {
		return false
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(head) == 0 && order.Uint64(head[8:]) == streamMagic {
			return true
		}
	}
	return false
}

// receive feeds the stream to zfs receive. zfs sees the end of its input only after
// the file was read to its end and was right.
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
	// A write ends with zfs, wherever the other end of the pipe has got to: the
	// daemon of zfs-fuse has it, too.
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
		<-receive.done // zfs is gone before its input ends
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

// rest reads the file to its end and tells what was wrong with it.
func (r *reception) rest() error {
	buf := make([]byte, chunk)
	for !r.file.ended {
		r.file.Read(buf) //nolint:errcheck // it is kept
		r.moved()
	}
	return r.file.err
}

// moved tells how far it has come if that is worth telling.
func (r *reception) moved() {
	if now := r.file.n.Load() + r.written; now-r.told >= reportEvery || r.told == 0 {
		r.told = now
		r.report(Receiving)
	}
}

// report tells how far it has come.
func (r *reception) report(phase Phase) {
	if r.progress == nil {
		return
	}
	p := Progress{Phase: phase, Written: r.written, Size: r.image.Files[0].Size}
	if r.file != nil {
		p.Read = r.file.n.Load()
		p.Size = r.file.file.Size()
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

// fileReader reads a File, and keeps how it ended. One at a time may read; n may be
// read by anyone.
type fileReader struct {
	file  File
	n     atomic.Int64
	ended bool
	err   error // why it ended, but for io.EOF
}

func (f *fileReader) Read(p []byte) (int, error) {
	if f.ended {
		if f.err != nil {
			return 0, f.err
		}
		return 0, io.EOF
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
