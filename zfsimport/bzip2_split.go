package zfsimport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// bzip2Splitter finds the blocks in a bzip2 file.
type bzip2Splitter struct {
	file *bufio.Reader
	emit func(*bzip2Block) bool // false: stop

	window uint64 // the last bits that were read
	n      int    // bits read of this stream
	block  *bitWriter
	crc    uint32 // of the blocks of this stream
}

// bzip2Header tells whether a stream begins with head.
func bzip2Header(head []byte) bool {
	return len(head) >= 4 && string(head[:3]) == "BZh" && '1' <= head[3] && head[3] <= '9'
}

// split emits the blocks of all streams of the file. Its error is why it could not
// go on; nil at the end, and when emit wanted no more.
func (s *bzip2Splitter) split() error {
	for first := true; ; first = false {
		head, err := s.file.Peek(4)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case !bzip2Header(head) && first:
			return fmt.Errorf("%w: no bzip2 file", errBzip2)
		case !bzip2Header(head):
			return nil // whatever it is that follows
		}
		level := head[3]
		s.file.Discard(4) //nolint:errcheck // they were peeked at
		if more, err := s.stream(level); err != nil || !more {
			return err
		}
	}
}

// stream emits the blocks of one stream and leaves the file behind it.
func (s *bzip2Splitter) stream(level byte) (more bool, err error) {
	s.n, s.block, s.crc = 0, nil, 0
	for {
		c, err := s.file.ReadByte()
		if err != nil {
			return false, tooEarly(err)
		}
		s.window = s.window<<8 | uint64(c)
		s.n += 8
		if s.block != nil {
			s.block.write(uint64(c), 8)
		}
		for after := min(7, s.n-magicBits); after >= 0; after-- { // bits of c behind the magic
			m := s.window >> after & (1<<magicBits - 1)
			if m != blockMagic && m != endMagic {
				continue
			}
			if m == endMagic {
				crc, ok, err := s.isEnd(after)
				if err != nil {
					return false, err
				}
				if !ok {
					continue
				}
				if s.block == nil {
					return true, nil // a stream of nothing
				}
				b := s.cut(level, after)
				b.last, b.crc = true, crc
				return s.emit(b), nil
			}
			if s.block != nil && !s.emit(s.cut(level, after)) {
				return false, nil
			}
			s.block = &bitWriter{buf: make([]byte, 0, 300<<10)}
			s.block.write(blockMagic, magicBits)
			s.block.write(s.window, after)
			break
		}
		switch {
		case s.block == nil && s.n >= magicBits:
			return false, fmt.Errorf("%w: a stream that begins with no block", errBzip2)
		case s.block != nil && len(s.block.buf) > 2*maxBzip2Block:
			return false, fmt.Errorf("%w: a block without an end", errBzip2)
		}
	}
}

// cut makes a block of what was read before the magic that was just found.
func (s *bzip2Splitter) cut(level byte, after int) *bzip2Block {
	n := len(s.block.buf)*8 + s.block.held - magicBits - after
	b := &bzip2Block{level: level, bits: s.block.bytes(), n: n, done: make(chan struct{})}
	if n >= magicBits+crcBits {
		s.crc = combine(s.crc, b.sum())
	}
	return b
}

// isEnd reads what follows the magic of an end, which may have come about by
// chance: after a true one comes the stream's checksum, and then nothing, another
// stream, or, if the checksum is right, anything. It consumes a true one.
func (s *bzip2Splitter) isEnd(after int) (crc uint32, ok bool, err error) {
	next, err := s.file.Peek(8)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, false, err
	}
	if len(next) < 4 {
		return 0, false, tooEarly(io.EOF)
	}
	crc = uint32((s.window<<crcBits | uint64(binary.BigEndian.Uint32(next))) >> after)
	want := s.crc
	if s.block != nil && len(s.block.buf) >= (magicBits+crcBits)/8 {
		want = combine(want, binary.BigEndian.Uint32(s.block.buf[magicBits/8:]))
	}
	if len(next) > 4 && !bzip2Header(next[4:]) && crc != want {
		return 0, false, nil
	}
	s.file.Discard(4) //nolint:errcheck // they were peeked at
	return crc, true, nil
}

// combine adds the checksum of a block to that of its stream.
func combine(stream, block uint32) uint32 { return (stream<<1 | stream>>31) ^ block }

func tooEarly(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the file ends too early", errBzip2)
	}
	return err
}
