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
	// blockLen holds the first block of a bzip2 file: 900 kB, packed or hard to pack. A block decompresses as a whole.
	blockLen = 1 << 20
)

// ErrNoStream is matched by the verdict on a file that holds no ZFS stream.
var ErrNoStream = errors.New("not a ZFS stream")

// errFiltered is the end of a look into an xz file with other filters.
var errFiltered = errors.New("xz: filters besides LZMA2")

// Head is the knowledge that the first bytes of a file give.
type Head struct {
	Kind   string // as KindOf names it
	Inside string // kind of the content of a gzip, bzip2 or xz file; "" when unknown
	Broken error  // why the first bytes of a compressed file do not decompress
}

// HeadSize is the size of the buffer that ReadHead needs.
const HeadSize = blockLen

// ReadHead looks at the next bytes of in without taking them. ReadHead decompresses 2 KiB at most,
// in little memory whatever the file claims. The buffer of in must have HeadSize. The error is that
// of the reader.
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

// headOf is ReadHead of bytes; more tells that the file goes on behind head.
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
	cut := more && errors.Is(err, io.ErrUnexpectedEOF) // the end of head, not of the file
	if err != nil && !errors.Is(err, io.EOF) && !cut && !errors.Is(err, errFiltered) {
		h.Broken = err
	}
	if n > 0 || errors.Is(err, io.EOF) {
		h.Inside = KindOf(inside[:n])
	}
	return h
}

// unpacker decompresses head. The reader ends with io.EOF at the end of the compressed data, and
// with io.ErrUnexpectedEOF where head ends earlier.
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

// xzUnpacker gives the first block of an xz file, in the memory that a few bytes need; xz.Reader
// takes as much as the file claims, up to 4 GiB. A block with other filters, which are unusual for
// ZFS streams, tells nothing.
func xzUnpacker(head []byte) (io.Reader, error) {
	const streamHeader, lzma2 = 12, 0x21
	if len(head) < streamHeader+4 {
		return nil, io.ErrUnexpectedEOF
	}
	if !hasCRC(head[6:streamHeader]) {
		return nil, errors.New("xz: the file's header is damaged")
	}
	block := head[streamHeader:]
	if block[0] == 0 { // the index comes first: no block
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
	for _, flag := range []byte{0x40, 0x80} { // the optional sizes of the block
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

// hasCRC tells that b ends with the checksum of the bytes before it.
func hasCRC(b []byte) bool {
	at := len(b) - 4
	return crc32.ChecksumIEEE(b[:at]) == binary.LittleEndian.Uint32(b[at:])
}

// Compression is the file's compression, of the four that clients know.
func (h Head) Compression() string { return CompressionOf(h.Kind) }

// CheckStream tells whether the file holds a ZFS stream, plain or compressed by gzip, bzip2 or xz.
// The error matches ErrNoStream and names the kind of the file. For a compressed file of unknown
// content the error is nil, and Known is false.
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

// Known tells that the first bytes show a ZFS stream.
func (h Head) Known() bool { return h.Kind == KindZFS || h.Inside == KindZFS }
