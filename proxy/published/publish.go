package published

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// Publish makes an image of a manifest (v2 or v1) and its file, which is read
// to its end: the file is on disk, verified, and the image in the catalogue and
// saved when it returns nil. Before a byte is stored, the manifest must be one
// that clients may be shown, with one file, whose first bytes must not be known
// for something else (see CheckHead; a compressed file that does not decompress
// passes here); its uuid must be new and its origin there.
//
// A failure leaves the list as it was. If it came while the file was already
// complete, that may be in the cache nevertheless, nobody's, where eviction may
// take it. A process that ends before Publish has returned leaves either that, or
// an image that the next start publishes.
func (s *Source) Publish(ctx context.Context, text []byte, file io.Reader) (manifest.Manifest, error) {
	m, err := Check(text)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if err := s.reserve(m); err != nil {
		return manifest.Manifest{}, err
	}
	defer s.unreserve(m)
	if err := s.checkOrigin(ctx, m); err != nil {
		return manifest.Manifest{}, err
	}
	if err := s.receive(ctx, m, file); err != nil {
		return manifest.Manifest{}, fmt.Errorf("image %s: %w", m.UUID, err)
	}
	if err := s.add(ctx, m); err != nil {
		return manifest.Manifest{}, fmt.Errorf("image %s: %w", m.UUID, err)
	}
	s.log.Info("image published", "uuid", m.UUID, "name", m.Name, "version", m.Version, "sum", m.Files[0].SHA1)
	return m, nil
}

// reserve notes that m is being published, unless that cannot be.
func (s *Source) reserve(m manifest.Manifest) error {
	source := s.o.Listed(m.UUID)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, published := s.images[m.UUID]
	_, coming := s.coming[m.UUID]
	switch {
	case published:
		return fmt.Errorf("image %s: %w: it is published", m.UUID, ErrExists)
	case coming, s.leaving[m.UUID]:
		return fmt.Errorf("image %s: %w: it is being published or unpublished just now", m.UUID, ErrExists)
	case source != "":
		return fmt.Errorf("image %s: %w: source %s has it", m.UUID, ErrExists, source)
	case s.leaving[m.Origin]:
		return fmt.Errorf("image %s: %w: %s is being unpublished", m.UUID, ErrOrigin, m.Origin)
	}
	s.coming[m.UUID] = m.Origin
	return nil
}

func (s *Source) unreserve(m manifest.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.coming, m.UUID)
}

func (s *Source) checkOrigin(ctx context.Context, m manifest.Manifest) error {
	if !m.HasOrigin() {
		return nil
	}
	origin, err := s.o.Find(ctx, m.Origin)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("image %s: %w: no source has %s", m.UUID, ErrOrigin, m.Origin)
	case err != nil:
		return fmt.Errorf("image %s: its origin %s cannot be looked up: %w", m.UUID, m.Origin, err)
	case len(origin.Files) == 0:
		return fmt.Errorf("image %s: %w: %s has no file", m.UUID, ErrOrigin, m.Origin)
	}
	return nil
}

// checkHead is CheckHead, but for compressed files whose first bytes cannot be decompressed: these tell nothing, and pass.
// Who has such a file at hand knows it for broken, and need not send it.
func checkHead(m manifest.Manifest, h verify.Head) error {
	if h.Broken != nil {
		h.Broken, h.Inside = nil, ""
	}
	if err := CheckHead(m, h); err != nil {
		return fmt.Errorf("%w: %w", verify.ErrMismatch, err)
	}
	return nil
}

// receive brings the file to disk. It is hashed here in addition, so that a
// wrong one is told from a wrong manifest whatever became of it in the store:
// the bytes may have been on disk before.
func (s *Source) receive(ctx context.Context, m manifest.Manifest, file io.Reader) error {
	in := bufio.NewReaderSize(file, verify.HeadSize)
	head, err := verify.ReadHead(in)
	if err != nil {
		return fmt.Errorf("reading the file: %w", err)
	}
	if err := checkHead(m, head); err != nil {
		return err
	}
	up := newUpload(m.Files[0].Size)
	type stored struct {
		release func()
		err     error
	}
	done := make(chan stored, 1)
	go func() {
		release, err := s.o.Store(ctx, m, up.open)
		up.over(err)
		done <- stored{release, err}
	}()
	hash := verify.NewWriter()
	defer hash.Close()
	_, readErr := io.Copy(io.MultiWriter(hash, up), in)
	up.end(readErr)
	there := <-done
	if there.err == nil {
		defer there.release()
	}
	switch {
	case errors.Is(readErr, errNotStored):
		return there.err
	case readErr != nil:
		return fmt.Errorf("reading the file: %w", readErr)
	}
	if err := (verify.Want{SHA1: m.Files[0].SHA1, Size: m.Files[0].Size}).Check(hash.Digests()); err != nil {
		return fmt.Errorf("the file is not the manifest's: %w", err)
	}
	if there.err != nil {
		return there.err
	}
	return s.o.Own(m)
}

// add puts m into the list, or removes its file again. The request that asked
// for it may be gone by now: its file is here, so the rest is done anyway.
func (s *Source) add(ctx context.Context, m manifest.Manifest) error {
	ctx = context.WithoutCancel(ctx)
	s.mu.Lock()
	s.images[m.UUID] = m
	s.mu.Unlock()
	err := s.o.Changed(ctx)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	delete(s.images, m.UUID)
	s.mu.Unlock()
	err = errors.Join(fmt.Errorf("the list could not be saved: %w", err), s.o.Changed(ctx), s.o.Disown(m))
	return errors.Join(err, s.o.Remove(ctx, m))
}

// Unpublish takes an image back, with its file unless other images have the
// same one, and gives its manifest. When it returns nil, no start finds the image
// again. The error matches fs.ErrNotExist when it is not published, and ErrDependent
// when other published images have it for their origin.
func (s *Source) Unpublish(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	m, err := s.leave(id)
	if err != nil {
		return manifest.Manifest{}, err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.leaving, id)
	}()
	// What has begun is ended, whoever waits for it.
	ctx = context.WithoutCancel(ctx)
	err = s.o.Changed(ctx)
	if err != nil {
		err = fmt.Errorf("the list could not be saved: %w", err)
	} else if err = s.o.Disown(m); err != nil { // a start would find the image
		err = errors.Join(err, s.o.Own(m))
	}
	if err != nil {
		s.mu.Lock()
		s.images[id] = m
		s.mu.Unlock()
		return manifest.Manifest{}, fmt.Errorf("image %s stays published: %w", id, errors.Join(err, s.o.Changed(ctx)))
	}
	if err := s.o.Remove(ctx, m); err != nil {
		return m, fmt.Errorf("image %s is published no more, but its file stays: %w", id, err)
	}
	s.log.Info("image unpublished", "uuid", id, "name", m.Name, "version", m.Version)
	return m, nil
}

// leave takes an image out of the list if nothing depends on it.
func (s *Source) leave(id uuid.UUID) (manifest.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.images[id]
	if !ok {
		return m, &absentError{id}
	}
	var children []string
	for child, c := range s.images {
		if c.Origin == id {
			children = append(children, child.String())
		}
	}
	for child, origin := range s.coming {
		if origin == id {
			children = append(children, child.String())
		}
	}
	if len(children) > 0 {
		slices.Sort(children)
		return m, fmt.Errorf("image %s: %w: %v", id, ErrDependent, slices.Compact(children))
	}
	delete(s.images, id)
	s.leaving[id] = true
	return m, nil
}
