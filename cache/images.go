package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// images is which image has which files on disk. It is guarded by Store.mu.
type images struct {
	known    map[uuid.UUID]*index.Image // that have a file on disk; the values are immutable
	children map[uuid.UUID]int          // of an image, known or not: how many known images have the image as their origin
	having   map[verify.Sum][]uuid.UUID // of a file, on disk or coming: the known images that have the file
}

func newImages() images {
	return images{make(map[uuid.UUID]*index.Image), make(map[uuid.UUID]int), make(map[verify.Sum][]uuid.UUID)}
}

// set puts im (nil: no file of the image is left) in the place of what is known of id.
func (all *images) set(id uuid.UUID, im *index.Image) {
	if old := all.known[id]; old != nil {
		if old.Origin != uuid.Nil {
			if all.children[old.Origin]--; all.children[old.Origin] == 0 {
				delete(all.children, old.Origin)
			}
		}
		for _, sum := range old.Sums {
			left := slices.DeleteFunc(all.having[sum], func(of uuid.UUID) bool { return of == id })
			if all.having[sum] = left; len(left) == 0 {
				delete(all.having, sum)
			}
		}
	}
	if im == nil {
		delete(all.known, id)
		return
	}
	all.known[id] = im
	if im.Origin != uuid.Nil {
		all.children[im.Origin]++
	}
	for _, sum := range im.Sums {
		all.having[sum] = append(all.having[sum], id)
	}
}

// childrenOf is how many images have one of these as their origin.
func (all *images) childrenOf(ids []uuid.UUID) (n int) {
	for _, id := range ids {
		n += all.children[id]
	}
	return n
}

// has tells whether file sum is known to belong to image id.
func (all *images) has(id uuid.UUID, sum verify.Sum) bool {
	im := all.known[id]
	return im != nil && slices.Contains(im.Sums, sum)
}

// noteImage records that b's image has file sum, and keeps a copy of its
// manifest; coming: also if the file is not there yet. Icons belong to no image:
// they come and go alone. A failure does no harm today: the failure is logged.
func (s *Store) noteImage(b Blob, sum verify.Sum, coming bool) {
	if err := s.note(b, sum, coming); err != nil {
		s.log.Warn("an image cannot be recorded", "uuid", b.Image, "error", err)
	}
}

// note is noteImage for those who must know whether it worked.
func (s *Store) note(b Blob, sum verify.Sum, coming bool) error {
	if !b.ofImage() {
		return nil
	}
	door := s.imageDoors.of(b.Image[0])
	door.Lock()
	defer door.Unlock()
	s.mu.Lock()
	f := s.files[sum]
	if f == nil && !coming { // it was removed meanwhile
		s.mu.Unlock()
		return nil
	}
	if f != nil && !slices.Contains(f.images, b.Image) {
		f.images = append(slices.Clip(f.images), b.Image)
	}
	old := s.images.known[b.Image]
	news := !s.images.has(b.Image, sum) || old.Source != b.Source
	im := &index.Image{Origin: originOf(b.Manifest), Source: b.Source, Sums: []verify.Sum{sum}}
	if news {
		if old != nil {
			im.Sums = append(im.Sums, slices.DeleteFunc(slices.Clone(old.Sums), func(o verify.Sum) bool { return o == sum })...)
		}
		s.images.set(b.Image, im)
	}
	s.mu.Unlock()
	var err error
	if news {
		changes := []index.Change{index.PutImage(b.Image, im)}
		if b.Want.SHA1.IsZero() { // else a start that knows the image may not know what its file is called
			changes = append(changes, index.PutAlias(b.Key, sum))
		}
		err = s.index.Write(changes...)
	}
	if news || !s.copies.has(b.Image) {
		err = errors.Join(err, s.copies.write(b, sum))
	}
	return err
}

// Disown records that image id has file sum no more, although the file stays for
// others; with the image's last file its copy in DATA/manifests goes too. It lasts
// when Disown returns nil; a failure leaves, if it can, all as it was.
func (s *Store) Disown(id uuid.UUID, sum verify.Sum) error {
	if err := s.enterIndex(); err != nil {
		return err
	}
	defer s.calls.Done()
	s.mu.RLock()
	im := s.images.known[id]
	s.mu.RUnlock()
	var err error
	if im == nil || len(im.Sums) == 1 && im.Sums[0] == sum { // first, for this is what may be refused
		if err = s.copies.remove(id); err == nil {
			err = disk.Error(disk.SyncFolder(s.dir.manifests()))
		}
	}
	if err == nil {
		err = s.unnoteImage(id, sum, true)
	}
	if err == nil {
		err = s.index.Sync()
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", id, err)
	}
	return nil
}

// unnoteImage records that id has file sum no more; with its last file its copy
// in DATA/manifests goes too. present: also if the file is on disk.
func (s *Store) unnoteImage(id uuid.UUID, sum verify.Sum, present bool) error {
	door := s.imageDoors.of(id[0])
	door.Lock()
	defer door.Unlock()
	s.mu.Lock()
	old := s.images.known[id]
	f := s.files[sum]
	if old == nil || f != nil && !present { // it is there again
		s.mu.Unlock()
		return nil
	}
	if f != nil {
		f.images = slices.DeleteFunc(slices.Clone(f.images), func(o uuid.UUID) bool { return o == id })
	}
	var im *index.Image
	if left := slices.DeleteFunc(slices.Clone(old.Sums), func(o verify.Sum) bool { return o == sum }); len(left) > 0 {
		im = &index.Image{Origin: old.Origin, Source: old.Source, Sums: left}
	} else {
		s.copies.forget(id)
	}
	s.images.set(id, im)
	s.mu.Unlock()
	if im != nil {
		return s.index.Write(index.PutImage(id, im))
	}
	return errors.Join(s.index.Write(index.DropImage(id)), s.copies.remove(id))
}

// Own records that b's image has the file, which is on disk, and keeps a copy of its manifest. File
// does that too, but for blobs without a manifest, and does not fail if it cannot. What Own has
// recorded lasts; a failure leaves all as it was. The error matches fs.ErrNotExist when the file is
// not there. A file that Run has yet to adopt is there.
func (s *Store) Own(b Blob) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	sum := b.Want.SHA1
	s.mu.RLock()
	had := s.images.has(b.Image, sum)
	_, orphan := s.orphans[sum]
	s.mu.RUnlock()
	err := s.note(b, sum, orphan)
	if err == nil {
		err = s.index.Sync()
	}
	if err != nil && !had {
		err = errors.Join(err, s.unnoteImage(b.Image, sum, true))
	}
	if err != nil {
		return fmt.Errorf("image %s cannot be recorded: %w", b.Image, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, orphan = s.orphans[sum]
	if s.files[sum] == nil && !orphan || !s.images.has(b.Image, sum) {
		return fmt.Errorf("file %s: %w", sum, fs.ErrNotExist)
	}
	return nil
}

// From gives the images with a file on disk whose manifest is from the source.
func (s *Store) From(source string) []uuid.UUID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []uuid.UUID
	for id, im := range s.images.known {
		if im.Source == source {
			all = append(all, id)
		}
	}
	return all
}

// originOf is m's origin, unless m claims to be its own.
func originOf(m manifest.Manifest) uuid.UUID {
	if m.Origin == m.UUID {
		return uuid.Nil
	}
	return m.Origin
}

// touchOrigin makes the origin of an image that is about to come the most
// recently used: it must not go for its child's sake. s.mu is held.
func (s *Store) touchOrigin(b Blob) {
	if im := s.images.known[b.Manifest.Origin]; im != nil {
		for _, sum := range im.Sums {
			if f := s.files[sum]; f != nil {
				idle := b.Why == Ahead && f.idle.Load()
				f.touch()
				f.idle.Store(idle)
			}
		}
	}
}

// loadImages reads which image has which files, and learns it from the copies
// of manifests where the index does not tell; a new index is given the lists of
// these images, too. What is there of images without a file goes: a removal, or
// a fill, was cut short. there tells of a sum whether its file is on disk, or may be.
func (s *Store) loadImages(ctx context.Context, there func(verify.Sum) bool) error {
	complete, err := s.index.Complete()
	if err != nil {
		return err
	}
	known, err := s.index.Images()
	if err != nil {
		return err
	}
	lists := make(map[string]*manifest.Listing)
	learned := make(map[uuid.UUID]bool)
	var changes []index.Change
	for id := range s.copies.known {
		if complete && known[id] != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		c, m, err := s.copies.read(id)
		if err != nil {
			s.log.Warn("the copy of a manifest cannot be read", "uuid", id, "error", err)
			s.copies.forget(id)
			continue
		}
		im := c.image(m)
		if !slices.ContainsFunc(im.Sums, there) {
			s.copies.drop(id, im.Sums)
			continue
		}
		if lists[c.Source] == nil {
			lists[c.Source] = &manifest.Listing{Source: c.Source}
		}
		lists[c.Source].Images = append(lists[c.Source].Images, m)
		for key, sum := range c.Sums {
			s.aliases.put(key, sum)
			changes = append(changes, index.PutAlias(key, sum))
		}
		for i, f := range c.Facts {
			changes = append(changes, index.PutFacts(manifest.FileID{Image: id, Index: i}, f))
		}
		if known[id] == nil {
			known[id], learned[id] = im, true
		}
	}
	for id, im := range known {
		had := im.Sums
		im.Sums = slices.DeleteFunc(slices.Clone(had), func(sum verify.Sum) bool { return !there(sum) })
		if len(im.Sums) == 0 {
			changes = append(changes, index.DropImage(id))
			s.copies.drop(id, had)
			continue
		}
		if learned[id] || len(im.Sums) != len(had) {
			changes = append(changes, index.PutImage(id, im))
		}
		s.images.set(id, im)
		for _, sum := range im.Sums {
			if f := s.files[sum]; f != nil {
				f.images = append(f.images, id)
			}
		}
	}
	if !complete {
		for _, l := range lists {
			if err := s.later(s.index.SaveListing(*l)); err != nil {
				return err
			}
		}
		changes = append(changes, index.PutComplete())
	}
	return s.later(s.index.Write(changes...))
}

// image tells which files the image of a copy has, whose manifest is m.
func (c manifestCopy) image(m manifest.Manifest) *index.Image {
	im := &index.Image{Origin: originOf(m), Source: c.Source}
	for _, f := range m.Files {
		if !f.SHA1.IsZero() && !slices.Contains(im.Sums, f.SHA1) {
			im.Sums = append(im.Sums, f.SHA1)
		}
	}
	for _, sum := range c.Sums {
		if !slices.Contains(im.Sums, sum) {
			im.Sums = append(im.Sums, sum)
		}
	}
	return im
}

// Manifest gives the manifest of an image that has a file on disk, as it was
// when that was stored; it is read as from a source whose private images are not
// served. The error matches fs.ErrNotExist when no copy is kept.
func (s *Store) Manifest(id uuid.UUID) (manifest.Manifest, error) {
	_, m, err := s.copies.read(id)
	return m, err
}
