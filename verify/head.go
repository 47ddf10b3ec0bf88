package verify

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz/lzma"
)

const (
	headLen = 64 << 10
	// blockLen holds the first block of a bzip2 file, which is undone as a whole: 900 kB, packed or hard to pack.
	blockLen = 1 << 20
)

// ErrNoStream is matched by what is said of a file that holds no ZFS stream.
var ErrNoStream = errors.New("not a ZFS stream")

// errFiltered stands for an xz file that tells nothing.
var errFiltered = errors.New("xz: filters besides LZMA2")

// Head is what the first bytes of a file tell of it.
type Head struct {
	Kind   string // as KindOf names it
	Inside string // likewise, of what a file of kind gzip, bzip2 or xz holds; "" when that tells nothing
	Broken error  // why such a file's first bytes do not decompress
}

// HeadSize is the size of the buffer that ReadHead needs.
const HeadSize = blockLen

// ReadHead looks at what in is about to give, without taking it. It decompresses 2 KiB at most, in little memory
// whatever the file claims. The buffer of in must have HeadSize. The error is that of the reader.
func ReadHead(in *bufio.Reader) (Head, error) {
	n := headLen
	head, err := in.Peek(n)
	if KindOf(head) == "bzip2" && err == nil {
		n = blockLen
		head, err = in.Peek(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return Head{}, err
	}
	return headOf(head, err == nil), nil
}

// headOf is ReadHead of bytes; more: they are not all of the file.
func headOf(head []byte, more bool) Head {
	h := Head{Kind: KindOf(head)}
	if h.Compression() == "none" {
		return h
	}
	inside := make([]byte, kindLen)
	n := 0
	unpacked, err := unpacker(h.Kind, head)
	for err == nil && n < len(inside) {
		var got int
		got, err = unpacked.Read(inside[n:])
		n += got
	}
	cut := more && errors.Is(err, io.ErrUnexpectedEOF) // by us
	if err != nil && !errors.Is(err, io.EOF) && !cut && !errors.Is(err, errFiltered) {
		h.Broken = err
	}
	if n > 0 || errors.Is(err, io.EOF) {
		h.Inside = KindOf(inside[:n])
	}
	return h
}

// unpacker undoes a compression. It gives io.EOF at the end of what was compressed, and io.ErrUnexpectedEOF where head
// ends before that.
func unpacker(kind string, head []byte) (io.Reader, error) {
	in := bytes.NewReader(head)
	switch kind {
	case "gzip":
		r, err := gzip.NewReader(in)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return r, err
	case "bzip2":
		return bzip2.NewReader(in), nil
	}
	return xzUnpacker(head)
}

// xzUnpacker gives the first block of an xz file. It takes as much memory as is needed for a few bytes; xz.Reader takes
// as much as the file says, up to 4 GiB. What went through other filters, which nobody uses for ZFS streams, tells
// nothing.
func xzUnpacker(head []byte) (io.Reader, error) {
	const streamHeader, lzma2 = 12, 0x21
	if len(head) < streamHeader+4 {
		return nil, io.ErrUnexpectedEOF
	}
	if !hasCRC(head[6:streamHeader]) {
		return nil, errors.New("xz: the file's header is damaged")
	}
	block := head[streamHeader:]
	if block[0] == 0 { // the index: there is no block
		return bytes.NewReader(nil), nil
	}
	size := (int(block[0]) + 1) * 4
	if len(block) < size {
		return nil, io.ErrUnexpectedEOF
	}
	if !hasCRC(block[:size]) {
		return nil, errors.New("xz: the header of a block is damaged")
	}
	filter := block[2 : size-4]
	for _, flag := range []byte{0x40, 0x80} { // the sizes of the block, when they are given
		if block[1]&flag == 0 {
			continue
		}
		_, n := binary.Uvarint(filter)
		if n <= 0 {
			return nil, errors.New("xz: the header of a block makes no sense")
		}
		filter = filter[n:]
	}
	if block[1]&3 != 0 || len(filter) == 0 || filter[0] != lzma2 {
		return nil, errFiltered
	}
	return lzma.Reader2Config{DictCap: lzma.MinDictCap}.NewReader2(bytes.NewReader(block[size:]))
}

// hasCRC tells that b ends with the checksum of what comes before it.
func hasCRC(b []byte) bool {
	at := len(b) - 4
	return crc32.ChecksumIEEE(b[:at]) == binary.LittleEndian.Uint32(b[at:])
}

// Compression is the one that the file is compressed by, of the four that clients know.
func (h Head) Compression() string { return CompressionOf(h.Kind) }

// CheckStream tells whether the file holds a ZFS stream, as it is or compressed by gzip, bzip2 or xz. The error matches
// ErrNoStream and says what the file looks like. What a compressed file holds may be of no known kind: then the error
// is nil, and Known false.
func (h Head) CheckStream() error {
	packed := h.Compression() != "none"
	what := DescribeKind(h.Kind)
	switch {
	case h.Broken != nil:
		what = fmt.Sprintf("%s that does not decompress (%v)", what, h.Broken)
	case h.Known(), packed && h.Inside == "":
		return nil
	case packed && h.Inside == KindEmpty:
		what = h.Kind + " of nothing"
	case packed:
		what = h.Kind + " of " + DescribeKind(h.Inside)
	}
	return fmt.Errorf("the file is %s, %w", what, ErrNoStream)
}

// Known tells that the file was seen to hold a ZFS stream.
func (h Head) Known() bool { return h.Kind == KindZFS || h.Inside == KindZFS }
