package bundle

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// Sink takes what Read finds. Its methods are called one after the other, from Read's goroutine. An
// error of a method ends Read, which returns the error.
type Sink interface {
	// Begin is told what the bundle says it is, and the texts of the manifests as the
	// index names them, before the first file. The manifests say the same as the index.
	Begin(ctx context.Context, h Head, manifests [][]byte) error
	// File is given a file, or a part of one, of the size that the index tells. The sink
	// judges the bytes. Read goes over those that the sink leaves unread.
	File(ctx context.Context, p *Piece) error
}

// Piece is a file on its way out of a bundle, or the part of it that lies in this volume. A Piece
// is valid during the call of File that it was given to.
type Piece struct {
	Entry
	r    *source
	rest int64
	err  error // of r
}

// Read gives the bytes, which have not been judged.
func (p *Piece) Read(b []byte) (int, error) {
	switch {
	case p.err != nil:
		return 0, p.err
	case p.rest == 0:
		return 0, io.EOF
	}
	n, err := p.r.Read(b[:min(int64(len(b)), p.rest)])
	if p.rest -= int64(n); err != nil && p.rest > 0 {
		p.err = fmt.Errorf("%s, at byte %d of %d: %w", p.Path, p.Size-p.rest, p.Size, broken(err))
	}
	return n, p.err
}

// Skip goes over the next n bytes, without reading them where the bundle can be sought in.
func (p *Piece) Skip(n int64) error {
	if n = min(n, p.rest); n == 0 {
		return nil
	}
	if p.err == nil && p.r.seek(n) {
		p.rest -= n
		return nil
	}
	// The buffer of io.Discard's own ReadFrom is small.
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(p, n), make([]byte, min(n, largeBuffer)))
	return err
}

// broken tells of a bundle that ends too early.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the bundle ends there", ErrInvalid)
	}
	return err
}

// Read reads the tar of one volume to its end, and gives its head. Nothing is handed over before
// what it rests on: index, signature and manifests are held against their sums before Begin, and a
// file has the name, place and size that the index gave it, whatever the tar says. A tar that is not
// byte for byte the one that the index makes is refused with the name of the entry, as ErrInvalid.
// The bytes of files are not judged.
//
// Bytes that the sink leaves are not read if r can seek.
func Read(ctx context.Context, r io.Reader, s Sink) (Head, error) {
	in := newSource(r)
	h, err := readHead(in)
	if err != nil {
		return Head{}, err
	}
	var manifests [][]byte
	begun := false
	begin := func() error {
		if begun {
			return nil
		}
		begun = true
		return s.Begin(ctx, h, manifests)
	}
	for _, e := range h.Entries() {
		if e.At < in.at { // the head
			continue
		}
		if err := ctx.Err(); err != nil {
			return h, err
		}
		if e.File >= 0 {
			if err := begin(); err != nil {
				return h, err
			}
		}
		if err := in.header(e, h); err != nil {
			return h, err
		}
		switch {
		case e.File >= 0:
			err = in.file(ctx, e, s)
		case e.Image >= 0:
			var text []byte
			if text, err = in.small(e); err == nil {
				manifests = append(manifests, text)
				_, err = h.Index.manifest(e.Image, text)
			}
		default:
			_, err = in.small(e)
		}
		if err != nil {
			return h, err
		}
		if err := in.padding(e); err != nil {
			return h, err
		}
	}
	if err := begin(); err != nil {
		return h, err
	}
	return h, in.end()
}

// file hands a file, or a part of one, to the sink.
func (in *source) file(ctx context.Context, e Entry, s Sink) error {
	p := &Piece{Entry: e, r: in, rest: e.Size}
	err := s.File(ctx, p)
	if p.err != nil { // names the file, and is the reason of what the sink says
		return p.err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	return p.Skip(p.rest)
}

// Manifests reads the manifests of all images, in the order of Images: from the bytes that the
// index names by sha256, or from the Original. Errors match ErrInvalid.
func (x Index) Manifests(texts [][]byte) ([]manifest.Manifest, error) {
	if len(texts) != len(x.Images) {
		return nil, fmt.Errorf("%w: %d manifests of %d images", ErrInvalid, len(texts), len(x.Images))
	}
	all := make([]manifest.Manifest, len(texts))
	for i, text := range texts {
		item := x.Images[i].Manifest
		err := checkSum(item.Path, text, item.SHA256)
		if err == nil {
			all[i], err = x.manifest(i, text)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// manifest reads one manifest, whose sum is right.
func (x Index) manifest(image int, text []byte) (manifest.Manifest, error) {
	im := x.Images[image]
	m, err := parseManifest(text, im)
	if err != nil {
		return m, fmt.Errorf("%w: %s: %w", ErrInvalid, im.Manifest.Path, err)
	}
	if im.Original != "" {
		if m, err = parseManifest([]byte(im.Original), im); err != nil {
			return m, fmt.Errorf("%w: %s: original of image %s: %w", ErrInvalid, IndexName, im.UUID, err)
		}
	}
	return m, nil
}

// checkSum holds a text against its sum.
func checkSum(path string, text []byte, want SHA256) error {
	if got := SHA256(sha256.Sum256(text)); got != want {
		return fmt.Errorf("%w: %s: %w: sha256 is %s, want %s", ErrInvalid, path, verify.ErrMismatch, got, want)
	}
	return nil
}

// parseManifest reads a manifest and holds it against what the index says of it.
func parseManifest(b []byte, im Image) (manifest.Manifest, error) {
	m, err := manifest.Parse(b, manifest.ParseOptions{})
	if err != nil {
		return m, err
	}
	switch {
	case m.UUID != im.UUID:
		return m, fmt.Errorf("it is that of image %s", m.UUID)
	case m.Origin != im.Origin:
		return m, fmt.Errorf("its origin is %s, the index says %s", m.Origin, im.Origin)
	case m.Name != im.Name || m.Version != im.Version:
		return m, fmt.Errorf("it is that of %s %s, the index says %s %s",
			quoteName(m.Name), quoteName(m.Version), quoteName(im.Name), quoteName(im.Version))
	case len(m.Files) != len(im.Files):
		return m, fmt.Errorf("it has %d files, the index says %d", len(m.Files), len(im.Files))
	}
	for i, f := range m.Files {
		switch want := im.Files[i]; {
		case !f.SHA1.IsZero() && f.SHA1 != want.SHA1:
			return m, fmt.Errorf("sha1 of file %d is %s, the index says %s", i, f.SHA1, want.SHA1)
		case f.Size > 0 && f.Size != want.Size:
			return m, fmt.Errorf("size of file %d is %d, the index says %d", i, f.Size, want.Size)
		}
	}
	return m, nil
}

// ReadHead reads the head of a volume's tar and no more: of an unfinished one
// too. Errors are those of Read.
func ReadHead(r io.Reader) (Head, error) { return readHead(newSource(r)) }

// source is a tar being read.
type source struct {
	under io.Reader
	buf   *bufio.Reader
	at    int64 // offset of the next byte
}

func newSource(r io.Reader) *source {
	return &source{under: r, buf: bufio.NewReaderSize(r, smallBuffer)}
}

func (in *source) Read(b []byte) (int, error) {
	n, err := in.buf.Read(b)
	in.at += int64(n)
	return n, err
}

// seek goes over n bytes without reading them; false: it cannot.
func (in *source) seek(n int64) bool {
	s, ok := in.under.(io.Seeker)
	buffered := int64(in.buf.Buffered())
	if !ok || n <= buffered {
		return false
	}
	if _, err := s.Seek(n-buffered, io.SeekCurrent); err != nil {
		return false
	}
	in.buf.Reset(in.under)
	in.at += n
	return true
}

// fill reads exactly len(b) bytes, of what is called name.
func (in *source) fill(b []byte, name string) error {
	if _, err := io.ReadFull(in, b); err != nil {
		return fmt.Errorf("%s: %w", name, broken(err))
	}
	return nil
}

// header reads the header that e must have.
func (in *source) header(e Entry, h Head) error {
	want := header(e.Path, e.Size, h.Index.Created)
	is := make([]byte, len(want))
	if err := in.fill(is[:blockSize], "header of "+e.Path); err != nil {
		return err
	}
	if !bytes.Equal(is[:blockSize], want[:blockSize]) {
		return in.wrongHeader(is[:blockSize], e)
	}
	if err := in.fill(is[blockSize:], "header of "+e.Path); err != nil {
		return err
	}
	if !bytes.Equal(is, want) {
		return invalid(e.Path, "its pax header is damaged")
	}
	return nil
}

// wrongHeader says what stands in the place of e.
func (in *source) wrongHeader(is []byte, e Entry) error {
	f := parseHeader(is)
	switch {
	case bytes.Equal(is, zeros[:blockSize]):
		return invalid(e.Path, "the tar ends before it")
	case !f.ok:
		return invalid(e.Path, "its header is damaged")
	case f.name == e.Path && f.kind == '0' && f.size != e.Size:
		return invalid(e.Path, "its header says %d bytes, the index %d", f.size, e.Size)
	case f.name == e.Path && f.kind == '0':
		return invalid(e.Path, "its header is not as a bundle's must be: was it repacked? Unpack it, and import the folder")
	}
	next, _ := in.buf.Peek(blockSize) //nolint:errcheck // whatever is there: it is for the message
	return fmt.Errorf("%w: %s: stands where the index has %s", ErrInvalid, f.describe(next), e.Path)
}

// small reads the bytes of an entry that is held in memory, and checks them.
func (in *source) small(e Entry) ([]byte, error) {
	var b bytes.Buffer // grows as bytes come: a size alone takes no memory
	if _, err := io.CopyN(&b, in, e.Size); err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, broken(err))
	}
	return b.Bytes(), checkSum(e.Path, b.Bytes(), e.sum)
}

// padding reads the zeros behind the bytes of e.
func (in *source) padding(e Entry) error {
	b := make([]byte, padding(e.Size))
	if err := in.fill(b, "end of "+e.Path); err != nil {
		return err
	}
	if !bytes.Equal(b, zeros[:len(b)]) {
		return invalid(e.Path, "damaged behind its end: not all zeros")
	}
	return nil
}

// end reads the end of the tar, and makes sure that it is one.
func (in *source) end() error {
	var b [trailer]byte
	if err := in.fill(b[:blockSize], "end of the bundle"); err != nil {
		return err
	}
	if f := parseHeader(b[:blockSize]); f.ok && f.name != "" {
		next, _ := in.buf.Peek(blockSize) //nolint:errcheck // as above
		return fmt.Errorf("%w: %s: is not in the index", ErrInvalid, f.describe(next))
	}
	if err := in.fill(b[blockSize:], "end of the bundle"); err != nil {
		return err
	}
	if b != zeros {
		return fmt.Errorf("%w: damaged behind its last entry: not all zeros", ErrInvalid)
	}
	if _, err := in.buf.Peek(1); err == nil {
		return fmt.Errorf("%w: there is more behind its end, at byte %d", ErrInvalid, in.at)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
