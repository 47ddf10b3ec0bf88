package verify

import (
	"context"
	"fmt"
	"io"
	"os"
)

// File hashes the file at path and judges it against want. The digests are valid also when the
// error matches ErrMismatch. Every other error (a missing or unreadable file, an ended ctx) leaves
// the bytes unjudged.
func File(ctx context.Context, path string, want Want) (Digests, error) {
	f, err := os.Open(path)
	if err != nil {
		return Digests{}, err
	}
	defer f.Close() // read only
	w := NewWriter()
	defer w.Close()
	if err := HashFrom(ctx, w, f); err != nil {
		return Digests{}, fmt.Errorf("hash %s: %w", path, err)
	}
	got := w.Digests()
	return got, want.Check(got)
}

// HashFrom feeds all of r to w, until r ends, fails or ctx ends.
func HashFrom(ctx context.Context, w *Writer, r io.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(w.Buffer())
		w.Commit(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
