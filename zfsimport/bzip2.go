package zfsimport

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// The 48 bits that a block, and the end of a stream, begin with. They stand at any
// bit, not at bytes only.
const (
	blockMagic = 0x314159265359
	endMagic   = 0x177245385090
	magicBits  = 48
	crcBits    = 32
)

const (
	// maxBzip2Workers bounds the memory: a block of nothing but zeros becomes 46 MB.
	maxBzip2Workers = 16
	// maxBzip2Block is more than any block takes in the file.
	maxBzip2Block = 2 << 20
)

var errBzip2 = errors.New("bzip2 data invalid")

// bzip2Block is a run of bits of the file that is one block, or a piece of one if
// the bits of a magic occur in its midst by chance.
type bzip2Block struct {
	level byte   // of the stream, '1' to '9'
	bits  []byte // from the block's magic on, shifted to begin at a byte
	n     int    // bits in them
	last  bool   // the end of the stream follows
	crc   uint32 // last: of the whole stream

	done chan struct{} // closed when out and err are set
	out  []byte
	err  error
}

// bzip2Decoder decompresses the blocks of a file side by side: each is made a file
// of its own for compress/bzip2. Like bzip2(1) it ends where something else than
// another stream follows.
type bzip2Decoder struct {
	ctx  context.Context
	stop context.CancelFunc
	work sync.WaitGroup

	queue chan *bzip2Block // in the order of the file; closed at its end
	err   error            // why the file could not be split up further; set before queue is closed

	out []byte // decompressed and not read yet
	crc uint32 // of the stream so far
	bad error  // what Read ends with
}

func newBzip2Decoder(ctx context.Context, file *bufio.Reader) *bzip2Decoder {
	workers := min(runtime.GOMAXPROCS(0), maxBzip2Workers)
	ctx, stop := context.WithCancel(ctx)
	d := &bzip2Decoder{ctx: ctx, stop: stop, queue: make(chan *bzip2Block, workers)}
	todo := make(chan *bzip2Block)
	d.work.Go(func() {
		defer close(todo)
		defer close(d.queue)
		s := &bzip2Splitter{file: file, emit: func(b *bzip2Block) bool {
			for _, c := range []chan *bzip2Block{d.queue, todo} {
				select {
				case c <- b:
				case <-ctx.Done():
					return false
				}
			}
			return true
		}}
		d.err = s.split()
	})
	for range workers {
		d.work.Go(func() {
			for b := range todo {
				b.out, b.err = b.decompress()
				close(b.done)
			}
		})
	}
	return d
}

// Close stops the workers.
func (d *bzip2Decoder) Close() error {
	d.stop()
	d.work.Wait()
	return nil
}

func (d *bzip2Decoder) Read(p []byte) (int, error) {
	for len(d.out) == 0 {
		if d.bad == nil {
			d.bad = d.next()
		}
		if d.bad != nil {
			return 0, d.bad
		}
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	return n, nil
}

// next takes the next block.
func (d *bzip2Decoder) next() error {
	b, err := d.take()
	if err != nil {
		return err
	}
	for b.err != nil { // is it the first piece of a block?
		if b.last || len(b.bits) > maxBzip2Block {
			return b.err
		}
		more, err := d.take()
		if errors.Is(err, io.EOF) {
			return b.err
		}
		if err != nil {
			return err
		}
		b = b.join(more)
		b.out, b.err = b.decompress()
	}
	d.out = b.out
	d.crc = combine(d.crc, b.sum())
	if b.last {
		if d.crc != b.crc {
			return fmt.Errorf("%w: checksum mismatch", errBzip2)
		}
		d.crc = 0
	}
	return nil
}

// take waits for the block that comes next in the file.
func (d *bzip2Decoder) take() (*bzip2Block, error) {
	select {
	case b, ok := <-d.queue:
		if !ok {
			if d.err == nil {
				return nil, io.EOF
			}
			return nil, d.err
		}
		select {
		case <-b.done:
			return b, nil
		case <-d.ctx.Done():
		}
	case <-d.ctx.Done():
	}
	return nil, context.Cause(d.ctx)
}

// sum is the checksum that the block says it has. It follows the magic.
func (b *bzip2Block) sum() uint32 { return binary.BigEndian.Uint32(b.bits[magicBits/8:]) }

// decompress reads the block as a stream of its own.
func (b *bzip2Block) decompress() ([]byte, error) {
	if b.n < magicBits+crcBits {
		return nil, fmt.Errorf("%w: a block ends too early", errBzip2)
	}
	w := bitWriter{buf: append(make([]byte, 0, len(b.bits)+16), 'B', 'Z', 'h', b.level)}
	w.buf = append(w.buf, b.bits[:b.n/8]...)
	if rest := b.n % 8; rest > 0 {
		w.write(uint64(b.bits[b.n/8]>>(8-rest)), rest)
	}
	w.write(endMagic, magicBits)
	w.write(uint64(b.sum()), crcBits) // that of one block is that of the stream
	var out bytes.Buffer
	out.Grow(1 << 20)
	if _, err := out.ReadFrom(bzip2.NewReader(bytes.NewReader(w.bytes()))); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// join puts a piece of a block before the piece that follows it.
func (b *bzip2Block) join(more *bzip2Block) *bzip2Block {
	w := bitWriter{buf: append([]byte(nil), b.bits[:b.n/8]...)}
	if rest := b.n % 8; rest > 0 {
		w.write(uint64(b.bits[b.n/8]>>(8-rest)), rest)
	}
	for i := range more.n / 8 {
		w.write(uint64(more.bits[i]), 8)
	}
	if rest := more.n % 8; rest > 0 {
		w.write(uint64(more.bits[more.n/8]>>(8-rest)), rest)
	}
	return &bzip2Block{level: b.level, bits: w.bytes(), n: b.n + more.n, last: more.last, crc: more.crc}
}

// bitWriter appends bits to bytes, the highest first.
type bitWriter struct {
	buf  []byte
	acc  uint64 // the bits not in buf yet, at the low end
	held int    // how many; less than 8 between calls
}

func (w *bitWriter) write(bits uint64, n int) {
	w.acc = w.acc<<n | bits&(1<<n-1)
	for w.held += n; w.held >= 8; w.held -= 8 {
		w.buf = append(w.buf, byte(w.acc>>(w.held-8)))
	}
}

// bytes fills the last byte up with zeros.
func (w *bitWriter) bytes() []byte {
	if w.held > 0 {
		w.write(0, 8-w.held)
	}
	return w.buf
}
