package zfsimport

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"
)

// inputBuffer is read of a file at a time.
const inputBuffer = 256 << 10

// formats are the compressions by their first bytes. What begins with none of them
// is "none".
var formats = []struct {
	name  string
	magic string
}{
	{"gzip", "\x1f\x8b"},
	{"bzip2", "BZh"},
	{"xz", "\xfd7zXZ\x00"},
}

// sniff tells a file's compression by its first bytes.
func sniff(file *bufio.Reader) (string, error) {
	head, err := file.Peek(len("\xfd7zXZ\x00"))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	for _, f := range formats {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.name, nil
		}
	}
	return "none", nil
}

// decoder gives what a file holds. Close ends what it runs, and returns when it
// has; reads of the file must not block for ever by then.
type decoder interface {
	io.Reader
	io.Closer
}

// newDecoder undoes a compression: by what BenchmarkDecode finds to be fastest for
// it, of what gets every file right.
//
//	gzip   klauspost/compress, about twice as fast as gzip(1).
//	bzip2  bzip2(1); compress/bzip2 where there is no such program.
//	xz     xz(1), with threads for files of several blocks; ulikunitz/xz where there
//	       is no such program.
//
// Wider pipes, and a goroutine more between decoder and pipe, made no difference.
func newDecoder(ctx context.Context, format string, file *bufio.Reader) (decoder, error) {
	switch format {
	case "none":
		return io.NopCloser(file), nil
	case "gzip":
		return newGzipDecoder(file)
	case "bzip2":
		if program, err := exec.LookPath("bzip2"); err == nil {
			return newProgramDecoder(ctx, file, program, "-dcq")
		}
		return io.NopCloser(bzip2.NewReader(file)), nil
	case "xz":
		if program, err := exec.LookPath("xz"); err == nil {
			return newProgramDecoder(ctx, file, program, "-dcq", "-T0")
		}
		r, err := xz.NewReader(file)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(r), nil
	default:
		return nil, fmt.Errorf("%w: %q is none of gzip, bzip2, xz, none", ErrCompression, format)
	}
}

// gzipDecoder reads one gzip member after another. Like gzip(1) it ends where
// something else follows them.
type gzipDecoder struct {
	file *bufio.Reader
	r    *gzip.Reader
}

func newGzipDecoder(file *bufio.Reader) (decoder, error) {
	r, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	r.Multistream(false)
	return &gzipDecoder{file: file, r: r}, nil
}

func (d *gzipDecoder) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if n > 0 {
		return n, nil
	}
	head, err := d.file.Peek(len(formats[0].magic))
	if err != nil || string(head) != formats[0].magic {
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		return 0, io.EOF
	}
	if err := d.r.Reset(d.file); err != nil {
		return 0, err
	}
	d.r.Multistream(false)
	return 0, nil
}

// Close has nothing to do.
func (d *gzipDecoder) Close() error { return nil }

// programDecoder has a program decompress: it writes the file to its stdin, and
// its stdout is read.
type programDecoder struct {
	ctx    context.Context
	stop   context.CancelFunc
	child  *child
	out    *os.File
	fed    chan struct{} // closed when feed has ended and fedErr is set
	fedErr error
}

func newProgramDecoder(ctx context.Context, file io.Reader, program string, args ...string) (decoder, error) {
	ctx, stop := context.WithCancel(ctx)
	d := &programDecoder{ctx: ctx, stop: stop, child: newChild(ctx, program, args...), fed: make(chan struct{})}
	in, feed, err := os.Pipe()
	if err != nil {
		stop()
		return nil, err
	}
	out, result, err := os.Pipe()
	if err != nil {
		in.Close()
		feed.Close() //nolint:errcheck // nothing was written
		stop()
		return nil, err
	}
	d.out, d.child.cmd.Stdin, d.child.cmd.Stdout = out, in, result
	err = d.child.start()
	in.Close()
	result.Close()
	if err != nil {
		feed.Close()
		out.Close()
		stop()
		return nil, err
	}
	go d.feed(feed, file)
	return d, nil
}

// feed gives the program its input. That the program wants no more is for the
// program to explain.
func (d *programDecoder) feed(in *os.File, file io.Reader) {
	defer in.Close()
	defer close(d.fed) // before the program can know of the end
	defer context.AfterFunc(d.ctx, func() { in.Close() })()
	_, err := io.Copy(in, file)
	if !errors.Is(err, errNoReader) {
		d.fedErr = err
	}
}

func (d *programDecoder) Read(p []byte) (int, error) {
	n, err := d.out.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	if err := d.child.wait(d.ctx); err != nil {
		select {
		case <-d.fed: // if the file broke off, that is why the program failed
			return 0, cmp.Or(d.fedErr, err)
		default:
			return 0, err
		}
	}
	<-d.fed
	if d.fedErr != nil {
		return 0, d.fedErr
	}
	return 0, io.EOF
}

func (d *programDecoder) Close() error {
	d.stop()
	<-d.child.done
	<-d.fed
	return d.out.Close()
}
