package bundle

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// ErrChanged is matched when a manifest is not what it was when the bundle was
// planned. Another plan is needed.
var ErrChanged = errors.New("has changed since the bundle was planned")

// Content is where Plan and Write take manifests and files from.
type Content interface {
	// Manifest gives the manifest as it was planned, its facts filled in.
	Manifest(ctx context.Context, id uuid.UUID) (manifest.Manifest, error)
	// File opens the file with that sum at its beginning; it is closed by the
	// caller. If it is an io.Seeker, what comes before a part is not read.
	File(ctx context.Context, sum verify.Sum) (io.ReadCloser, error)
}

const (
	smallBuffer = 64 << 10  // for headers and manifests; what is larger goes past it
	largeBuffer = 256 << 10 // for files
)

// Write writes the tar of volume h from offset from on, where an earlier Write of the same Head
// broke off. Every byte is checked as it is read: a file that is not what the index says, even
// where its beginning was written earlier, is an error that names it and matches
// verify.ErrMismatch, and its last byte is not written. progress, unless nil, is told now and then
// which offset has been reached, from this goroutine.
func Write(ctx context.Context, w io.Writer, h Head, from int64, c Content, progress func(at int64)) error {
	entries := h.Entries()
	size := entries[len(entries)-1].end() + trailer
	if from < 0 || from > size {
		return fmt.Errorf("bundle %s, volume %d: offset %d is outside its %d bytes", h.Index.ID, h.Volume, from, size)
	}
	if progress == nil {
		progress = func(int64) {}
	}
	o := &output{w: bufio.NewWriterSize(w, smallBuffer), from: from}
	t := &writer{head: h, content: c, out: o, progress: progress}
	for _, e := range entries {
		if e.end() <= from {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		o.at = e.At
		if err := o.write(header(e.Path, e.Size, h.Index.Created)); err != nil {
			return err
		}
		if err := t.body(ctx, e); err != nil {
			return err
		}
		if err := o.write(zeros[:padding(e.Size)]); err != nil {
			return err
		}
		progress(o.at)
	}
	o.at = size - trailer
	if err := o.write(zeros[:]); err != nil {
		return err
	}
	if err := o.w.Flush(); err != nil {
		return err
	}
	progress(size)
	return nil
}

var zeros [trailer]byte

// output drops what comes before from.
type output struct {
	w    *bufio.Writer
	from int64
	at   int64 // offset of the next byte
}

func (o *output) write(p []byte) error {
	skip := min(max(o.from-o.at, 0), int64(len(p)))
	o.at += int64(len(p))
	if skip == int64(len(p)) {
		return nil
	}
	_, err := o.w.Write(p[skip:])
	return err
}

type writer struct {
	head     Head
	content  Content
	out      *output
	progress func(int64)
}

func (t *writer) body(ctx context.Context, e Entry) error {
	var b []byte
	var err error
	switch {
	case e.File >= 0:
		return t.file(ctx, e)
	case e.Image >= 0:
		_, b, err = t.planned(ctx, e.Image)
	case e.Path == IndexName:
		b = t.head.Index.raw
	case e.Path == SignatureName:
		b = t.head.Sig
	case e.Path == WebName:
		b, err = t.web(ctx)
	default:
		b = t.head.sums()
	}
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != e.sum {
		return fmt.Errorf("%s: %w", e.Path, ErrChanged)
	}
	return t.out.write(b)
}

// planned gives a manifest of the index and its text, which are still what was planned.
func (t *writer) planned(ctx context.Context, image int) (m manifest.Manifest, text []byte, err error) {
	im := t.head.Index.Images[image]
	if m, err = t.content.Manifest(ctx, im.UUID); err != nil {
		return m, nil, fmt.Errorf("manifest of image %s: %w", im.UUID, err)
	}
	text, original := manifestTexts(m)
	if sha256.Sum256(text) != im.Manifest.SHA256 || original != im.Original {
		return m, nil, fmt.Errorf("%s: %w", im.Manifest.Path, ErrChanged)
	}
	return m, text, nil
}

func (t *writer) web(ctx context.Context) ([]byte, error) {
	var list webList
	for i, im := range t.head.Index.Images {
		m, _, err := t.planned(ctx, i)
		if err != nil {
			return nil, err
		}
		if err := list.add(m, im.Files); err != nil {
			return nil, err
		}
	}
	return list.bytes(), nil
}

// file writes a file or a part of it.
func (t *writer) file(ctx context.Context, e Entry) error {
	f := t.head.Index.Images[e.Image].Files[e.File]
	r, err := t.content.File(ctx, f.SHA1)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	err = t.copy(ctx, r, e, f)
	return errors.Join(err, r.Close())
}

// copy passes the bytes of e on as they are read and hashed. The last one waits
// for the verdict, so that a writer that goes on after a break finds a wrong file unfinished.
func (t *writer) copy(ctx context.Context, r io.Reader, e Entry, f File) error {
	if err := skip(ctx, r, e.Begin); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	hash := verify.NewWriter()
	defer hash.Close()
	for rest := e.Size; rest > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := hash.Buffer()
		n, err := r.Read(b[:min(int64(len(b)), rest)])
		b = b[:n]
		rest -= int64(n)
		if err != nil && (!errors.Is(err, io.EOF) || rest > 0) {
			return fmt.Errorf("%s, at byte %d of %d: %w", e.Path, e.Size-rest, e.Size, shorter(err))
		}
		if rest > 0 {
			if err := t.out.write(b); err != nil {
				return err
			}
			hash.Commit(n)
			t.progress(t.out.at)
			continue
		}
		last := b[n-1]
		if err := t.out.write(b[:n-1]); err != nil {
			return err
		}
		hash.Commit(n)
		if err := judge(hash.Digests(), e, f); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		return t.out.write([]byte{last})
	}
	return nil
}

// judge holds the digests of an entry's bytes against what the index says.
func judge(got verify.Digests, e Entry, f File) error {
	if e.Part < 0 {
		return f.Want().Check(got)
	}
	return verify.Want{Size: e.Size, SHA256: e.sum[:]}.Check(got)
}

// shorter makes an end that comes too early what it is: wrong bytes.
func shorter(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends there", verify.ErrMismatch)
	}
	return err
}

// skip goes over n bytes of r.
func skip(ctx context.Context, r io.Reader, n int64) error {
	if s, ok := r.(io.Seeker); ok && n > 0 {
		_, err := s.Seek(n, io.SeekCurrent)
		return err
	}
	_, err := io.CopyN(io.Discard, untilDone{ctx, r}, n)
	return shorter(err)
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(b)
}
