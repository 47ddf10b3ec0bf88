package zfsimport

import (
	"bufio"
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

	"imgmirror/verify"
)

const (
	inputBuffer = 256 << 10  // bytes of a file that are read at a time
	headLen     = 2 << 10    // bytes that tell the compression of a file
	gzipMagic   = "\x1f\x8b" // the begin of each gzip member
)

// sniff tells a file's compression by its first bytes.
func sniff(file *bufio.Reader) (string, error) {
	head, err := file.Peek(headLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return verify.CompressionOf(verify.KindOf(head)), nil
}

// newDecoder undoes a compression, by the program or library that BenchmarkDecode finds to be the
// fastest of those that get every file right. Close ends all that the decoder runs and returns
// afterwards; reads of the file must end by then.
//
//	gzip   klauspost/compress, about twice as fast as gzip(1).
//	bzip2  bzip2(1), or compress/bzip2 on a machine without the program.
//	xz     xz(1), with threads for files of several blocks, or ulikunitz/xz on a machine without the
//	       program.
//
// Wider pipes, and one more goroutine between decoder and pipe, make no difference.
func newDecoder(ctx context.Context, format string, file *bufio.Reader) (io.ReadCloser, error) {
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

// gzipDecoder reads one gzip member after another. Like gzip(1), it ends where other bytes follow.
type gzipDecoder struct {
	file *bufio.Reader
	r    *gzip.Reader
}

func newGzipDecoder(file *bufio.Reader) (io.ReadCloser, error) {
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
	head, err := d.file.Peek(len(gzipMagic))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return 0, err
	case string(head) != gzipMagic:
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

// programDecoder decompresses by a program: the file goes to the program's stdin, and reads come from
// its stdout.
type programDecoder struct {
	ctx    context.Context
	stop   context.CancelFunc
	child  *child
	out    *os.File
	fed    chan struct{} // closed when feed has ended and fedErr is set
	fedErr error
}

func newProgramDecoder(ctx context.Context, file io.Reader, program string, args ...string) (io.ReadCloser, error) {
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

// feed gives the program its input. A program that wants no more input explains this itself.
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
		case <-d.fed: // a file that broke off is the cause of the program's failure
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
