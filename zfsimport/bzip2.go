package zfsimport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"runtime"

	"github.com/cosnicolaou/pbzip2"
)

// maxBzip2Workers bounds the memory: a block of nothing but zeros becomes 46 MB.
const maxBzip2Workers = 16

// bzip2Decoder decompresses the blocks of a file side by side. Other than bzip2(1)
// it takes it for an error when something else follows the last stream.
type bzip2Decoder struct {
	io.Reader
	stop context.CancelFunc
}

func newBzip2Decoder(ctx context.Context, file *bufio.Reader) (decoder, error) {
	// pbzip2 reads the header at one go, and tells what is wrong with it.
	if _, err := file.Peek(4); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	workers := pbzip2.BZConcurrency(min(runtime.GOMAXPROCS(0), maxBzip2Workers))
	return &bzip2Decoder{pbzip2.NewReader(ctx, file, pbzip2.DecompressionOptions(workers)), stop}, nil
}

// Close stops the workers: a Read that fails returns when they have ended.
func (d *bzip2Decoder) Close() error {
	d.stop()
	for buf := make([]byte, chunk); ; {
		if _, err := d.Read(buf); err != nil {
			return nil
		}
	}
}
