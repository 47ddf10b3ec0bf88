package cache

import (
	"os"
	"testing"

	"imgmirror/manifest"
)

// blockCopies puts something in the place of the folder of copies, so that none can be written or removed.
func blockCopies(t *testing.T, s *Store) (unblock func()) {
	t.Helper()
	away := s.dir.manifests() + ".away"
	if err := os.Rename(s.dir.manifests(), away); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dir.manifests(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(s.dir.manifests()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(away, s.dir.manifests()); err != nil {
			t.Fatal(err)
		}
	}
}

// An image whose manifest cannot be kept beside the index is not said to be the mirror's
// own, and one whose copy cannot be removed is not said to be so no more.
func TestOwnNeedsItsCopy(t *testing.T) {
	s := openStore(t, Options{})
	one := newSample(t, 1, 1000, nil)
	own := one.blob
	one.blob.Manifest = manifest.Manifest{}
	one.store(t, s)
	s.Idle()

	unblock := blockCopies(t, s)
	wantError(t, s.Own(own), ErrDisk)
	if from := s.From("a"); len(from) > 0 {
		t.Errorf("From = %v after a refusal", from)
	}
	if noted, err := s.index.Images(); noted[own.Image] != nil || err != nil {
		t.Errorf("the index has the image: %v, %v", noted, err)
	}
	unblock()
	if err := s.Own(own); err != nil {
		t.Fatal(err)
	}
	wantCopies(t, s, one)

	unblock = blockCopies(t, s)
	wantError(t, s.Disown(own.Image, one.sum()), ErrDisk)
	unblock()
	if from := s.From("a"); len(from) != 1 {
		t.Errorf("From = %v after a refusal", from)
	}
	wantCopies(t, s, one)
	if err := s.Disown(own.Image, one.sum()); err != nil {
		t.Fatal(err)
	}
	if from := s.From("a"); len(from) > 0 {
		t.Errorf("From = %v", from)
	}
	wantCopies(t, s)
}
