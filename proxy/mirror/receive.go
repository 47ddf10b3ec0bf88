package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/own"
	"imgmirror/verify"
)

// checkHead is Manifest.CheckHead, but for compressed files whose first bytes cannot be
// decompressed: these bytes tell nothing, and pass. The verb, which has the whole file at hand,
// refuses such a file.
func checkHead(image manifest.Manifest, h verify.Head) error {
	if h.Broken != nil {
		h.Broken, h.Inside = nil, ""
	}
	if err := image.CheckHead(h); err != nil {
		return fmt.Errorf("%w: %w", verify.ErrMismatch, err)
	}
	return nil
}

// receive brings the file of an image to disk and notes the image as its owner.
func (m *Mirror) receive(ctx context.Context, image manifest.Manifest, file io.Reader) error {
	r, err := m.take(ctx, image, file)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was read
	return m.own(image)
}

// take brings the file of an image to disk, of no image yet; the file stays at least until the Reader
// is closed. The file is hashed here in addition, so that a wrong file is refused whatever the store
// makes of it: the bytes of the manifest may have been on disk before.
func (m *Mirror) take(ctx context.Context, image manifest.Manifest, file io.Reader) (r *cache.Reader, err error) {
	in := bufio.NewReaderSize(file, verify.HeadSize)
	head, err := verify.ReadHead(in)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBroke, err)
	}
	if err := checkHead(image, head); err != nil {
		return nil, err
	}
	want := verify.Want{SHA1: image.Files[0].SHA1, Size: image.Files[0].Size}
	hash := verify.NewWriter()
	defer hash.Close()
	body := io.TeeReader(in, hash)
	// The blob's manifest tells the origin, which must stay meanwhile, and no more: own notes the
	// image once the bytes are known to be right.
	blob := ownBlob(image)
	blob.Manifest = manifest.Manifest{Origin: image.Origin}
	d := newDelivery("the upload", 0, want.Size, want.Size)
	d.whole, d.check = true, func() error {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		return verify.ErrMismatch // the verdict below says more
	}
	r, err = m.deliver(ctx, blob, own.Published, d, body)
	if err != nil && !errors.Is(err, verify.ErrMismatch) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if _, broke := io.Copy(io.Discard, body); broke != nil {
		err = fmt.Errorf("%w: %w", ErrBroke, broke)
	} else if wrong := want.Check(hash.Digests()); wrong != nil {
		err = fmt.Errorf("the file is not the manifest's: %w", wrong)
	}
	if err != nil {
		if r != nil {
			r.Close() //nolint:errcheck // nothing was read
		}
		return nil, err
	}
	return r, nil
}
