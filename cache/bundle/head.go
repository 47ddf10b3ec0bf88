package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	"imgmirror/verify"
)

// readHead reads the index, the list of sums and the signature, which show
// among themselves that each of them is whole.
func readHead(in *source) (Head, error) {
	index, first, err := in.index()
	if err != nil {
		return Head{}, err
	}
	if err := in.checkIndex(index); err != nil {
		return Head{}, err
	}
	x, err := ParseIndex(index)
	if err != nil {
		return Head{}, err
	}
	if want := header(IndexName, int64(len(index)), x.Created); !bytes.Equal(first, want) {
		return Head{}, in.wrongHeader(first, Entry{Path: IndexName, Size: int64(len(index))})
	}
	h := Head{Index: x}
	sums, err := in.sums(&h)
	if err != nil {
		return Head{}, err
	}
	signed := bytes.Contains(sums, []byte("  "+SignatureName+"\n"))
	if h.Sig, err = in.signature(h, signed); err != nil {
		return Head{}, err
	}
	h.loose = h.Sig != nil && !signed
	return h, checkSums(h, sums)
}

// checkSums holds the list of sums against what it is about.
func checkSums(h Head, sums []byte) error {
	if want := h.sums(); !bytes.Equal(sums, want) {
		return fmt.Errorf("%w: %w: by %s: %s", ErrInvalid, verify.ErrMismatch, sumsName(h.Volume, h.Index.Volumes), sumsDiffer(sums, want))
	}
	return nil
}

// index reads the first entry. Its header is judged once the index is known.
func (in *source) index() (b, first []byte, err error) {
	first = make([]byte, blockSize)
	if _, err := io.ReadFull(in, first); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, nil, fmt.Errorf("%w: it is shorter than a tar header", ErrInvalid)
		}
		return nil, nil, err
	}
	f := parseHeader(first)
	switch {
	case !f.ok && isPacked(first):
		return nil, nil, fmt.Errorf("%w: it is compressed: unpack it first", ErrInvalid)
	case !f.ok && (f.name == IndexName || bytes.HasPrefix(first[atMagic:], []byte("ustar"))):
		return nil, nil, invalid(IndexName, "its header is damaged")
	case !f.ok:
		return nil, nil, fmt.Errorf("%w: it does not begin as a tar does", ErrInvalid)
	case f.name != IndexName || f.kind != '0':
		next, _ := in.buf.Peek(blockSize) //nolint:errcheck // whatever is there: it is for the message
		return nil, nil, fmt.Errorf("%w: %s: stands where %s must be, first of all", ErrInvalid, f.describe(next), IndexName)
	case f.size < 2 || f.size > maxIndex:
		return nil, nil, invalid(IndexName, "%d bytes: must be 2 to %d", f.size, maxIndex)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, in, f.size); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", IndexName, broken(err))
	}
	return body.Bytes(), first, in.padding(Entry{Path: IndexName, Size: f.size})
}

// checkIndex holds the index against the first line of the list of sums behind
// it, so that damage is called damage, whatever the index says by it.
func (in *source) checkIndex(index []byte) error {
	sum := SHA256(sha256.Sum256(index)).String()
	want := sum + "  " + IndexName + "\n"
	b, err := in.buf.Peek(blockSize + len(want))
	if err != nil {
		return nil // the reading of the list tells why
	}
	f, line := parseHeader(b), string(b[blockSize:])
	if f.ok && line != want && strings.HasSuffix(line, want[len(sum):]) {
		return fmt.Errorf("%w: %s: %w: sha256 is %s, %s has %s",
			ErrInvalid, IndexName, verify.ErrMismatch, sum, quoteName(f.name), quoteName(line[:len(sum)]))
	}
	return nil
}

// sums reads the list of sums, by whose name h's volume is known.
func (in *source) sums(h *Head) ([]byte, error) {
	peeked, err := in.buf.Peek(blockSize)
	if err != nil {
		return nil, fmt.Errorf("header of %s: %w", sumsName(1, h.Index.Volumes), broken(err))
	}
	f := parseHeader(peeked)
	volume, ok := parseSumsName(f.name, h.Index.Volumes)
	h.Volume = max(volume, 1)
	plain := h.sums()
	e := Entry{Path: sumsName(h.Volume, h.Index.Volumes), Size: int64(len(plain))}
	if ok && f.size > e.Size { // with a line for the signature
		e.Size += int64(len(SHA256{}.String()) + len("  "+SignatureName+"\n"))
	}
	if err := in.header(e, *h); err != nil {
		return nil, err
	}
	b := make([]byte, e.Size)
	if err := in.fill(b, e.Path); err != nil {
		return nil, err
	}
	return b, in.padding(e)
}

// signature reads the signature if there is one: there must be if it is in the list of sums.
func (in *source) signature(h Head, listed bool) ([]byte, error) {
	peeked, err := in.buf.Peek(blockSize)
	if err != nil {
		return nil, fmt.Errorf("header of %s: %w", SignatureName, broken(err))
	}
	f := parseHeader(peeked)
	if !listed && f.name != SignatureName {
		return nil, nil
	}
	e := Entry{Path: SignatureName, Size: f.size}
	if f.size < 1 || f.size > maxSignature {
		if f.name == SignatureName {
			return nil, invalid(SignatureName, "%d bytes: must be 1 to %d", f.size, maxSignature)
		}
		e.Size = 1
	}
	if err := in.header(e, h); err != nil {
		return nil, err
	}
	b := make([]byte, e.Size)
	if err := in.fill(b, SignatureName); err != nil {
		return nil, err
	}
	return b, in.padding(e)
}

// isPacked knows what tars are often compressed by.
func isPacked(b []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(b, []byte(magic)) {
			return true
		}
	}
	return false
}
