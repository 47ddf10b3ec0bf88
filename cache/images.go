package cache

import (
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

// setImage puts im (nil: no file of it is left) in the place of what is known
// of id. s.mu is held.
func (s *Store) setImage(id uuid.UUID, im *index.Image) {
	old := s.images[id]
	if old != nil && old.Origin != uuid.Nil {
		if s.children[old.Origin]--; s.children[old.Origin] == 0 {
			delete(s.children, old.Origin)
		}
	}
	if im == nil {
		delete(s.images, id)
		return
	}
	s.images[id] = im
	if im.Origin != uuid.Nil {
		s.children[im.Origin]++
	}
}

// childrenOf is how many images have one of these as their origin. s.mu is held.
func (s *Store) childrenOf(images []uuid.UUID) (n int) {
	for _, id := range images {
		n += s.children[id]
	}
	return n
}

// belongs tells whether it is known that file sum belongs to image id. s.mu is
// held.
func (s *Store) belongs(sum verify.Sum, id uuid.UUID) bool {
	im := s.images[id]
	return im != nil && slices.Contains(im.Sums, sum)
}

// noteImage records that b's image has file sum, and keeps a copy of its
// manifest; coming: also if the file is not there yet. Icons belong to nobody:
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
	old := s.images[b.Image]
	news := !s.belongs(sum, b.Image) || old.Source != b.Source
	im := &index.Image{Origin: originOf(b.Manifest), Source: b.Source, Sums: []verify.Sum{sum}}
	if news {
		if old != nil {
			im.Sums = append(im.Sums, slices.DeleteFunc(slices.Clone(old.Sums), func(o verify.Sum) bool { return o == sum })...)
		}
		s.setImage(b.Image, im)
	}
	_, copied := s.copies[b.Image]
	s.mu.Unlock()
	var err error
	if news {
		changes := []index.Change{index.PutImage(b.Image, im)}
		if b.Want.SHA1.IsZero() { // else a start that knows the image may not know what its file is called
			changes = append(changes, index.PutAlias(b.Key, sum))
		}
		err = s.index.Write(changes...)
	}
	if news || !copied {
		err = errors.Join(err, s.copyManifest(b, sum))
	}
	return err
}

// unnoteImage records that id has file sum no more; with its last file its copy
// in DATA/manifests goes too.
func (s *Store) unnoteImage(id uuid.UUID, sum verify.Sum) error {
	return s.forgetImage(id, sum, false)
}

// Disown records that image id has file sum no more, although the file stays for
// others; with the image's last file its copy in DATA/manifests goes too. It lasts
// when Disown returns nil; a failure leaves, if it can, all as it was.
func (s *Store) Disown(id uuid.UUID, sum verify.Sum) error {
	if err := s.enterIndex(); err != nil {
		return err
	}
	defer s.calls.Done()
	if err := s.disown(id, sum); err != nil {
		return fmt.Errorf("image %s: %w", id, err)
	}
	return nil
}

func (s *Store) disown(id uuid.UUID, sum verify.Sum) error {
	s.mu.RLock()
	im := s.images[id]
	last := im == nil || len(im.Sums) == 1 && im.Sums[0] == sum
	s.mu.RUnlock()
	if last { // first, for this is what may be refused
		err := s.removeCopy(id)
		if err == nil {
			err = disk.Error(disk.SyncFolder(s.dir.manifests()))
		}
		if err != nil {
			return err
		}
	}
	if err := s.forgetImage(id, sum, true); err != nil {
		return err
	}
	return s.index.Sync()
}

// forgetImage is unnoteImage; present: also if the file is on disk.
func (s *Store) forgetImage(id uuid.UUID, sum verify.Sum, present bool) error {
	door := s.imageDoors.of(id[0])
	door.Lock()
	defer door.Unlock()
	s.mu.Lock()
	old := s.images[id]
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
		delete(s.copies, id)
	}
	s.setImage(id, im)
	s.mu.Unlock()
	if im != nil {
		return s.index.Write(index.PutImage(id, im))
	}
	return errors.Join(s.index.Write(index.DropImage(id)), s.removeCopy(id))
}

// Own records that b's image has the file, which is on disk, and keeps a copy of
// its manifest. File does that too, but for blobs without a manifest, and does not fail
// if it cannot. What Own has recorded lasts; a failure leaves all as it was. The error
// matches fs.ErrNotExist when the file is not there.
func (s *Store) Own(b Blob) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.work.Done()
	sum := b.Want.SHA1
	s.mu.RLock()
	had := s.belongs(sum, b.Image)
	s.mu.RUnlock()
	err := s.note(b, sum, false)
	if err == nil {
		err = s.index.Sync()
	}
	if err != nil && !had {
		err = errors.Join(err, s.forgetImage(b.Image, sum, true))
	}
	if err != nil {
		return fmt.Errorf("image %s cannot be recorded: %w", b.Image, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files[sum] == nil || !s.belongs(sum, b.Image) {
		return fmt.Errorf("file %s: %w", sum, fs.ErrNotExist)
	}
	return nil
}

// From gives the images with a file on disk whose manifest is from the source.
func (s *Store) From(source string) []uuid.UUID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []uuid.UUID
	for id, im := range s.images {
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
	if im := s.images[b.Manifest.Origin]; im != nil {
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
// of manifests where the index does not tell. What is there of images without a
// file goes: a removal, or a fill, was cut short. there tells of a sum whether
// its file is on disk, or may be. It runs after loadCopies.
func (s *Store) loadImages(there func(verify.Sum) bool) error {
	changed := make(map[uuid.UUID]bool)
	var changes []index.Change
	known, err := s.index.Images()
	if err != nil {
		return err
	}
	for id := range s.copies {
		if known[id] == nil {
			c, m, err := s.readCopy(id)
			if err != nil {
				s.log.Warn("the copy of a manifest cannot be read", "uuid", id, "error", err)
				continue
			}
			known[id], changed[id] = c.image(m), true
			changes = append(changes, s.learned(id, c)...)
		}
	}
	for id, im := range known {
		had := im.Sums
		im.Sums = slices.DeleteFunc(slices.Clone(had), func(sum verify.Sum) bool { return !there(sum) })
		if len(im.Sums) == 0 {
			if !changed[id] {
				changes = append(changes, index.DropImage(id))
			}
			s.dropCopy(id, had)
		} else {
			if changed[id] || len(im.Sums) != len(had) {
				changes = append(changes, index.PutImage(id, im))
			}
			s.setImage(id, im)
		}
		for _, sum := range im.Sums {
			if f := s.files[sum]; f != nil {
				f.images = append(f.images, id)
			}
		}
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

// imagesOf gives the images whose file sum is: for one whose bytes have become
// known after the images had been read. s.mu is held.
func (s *Store) imagesOf(sum verify.Sum) (all []uuid.UUID) {
	for id, im := range s.images {
		if slices.Contains(im.Sums, sum) {
			all = append(all, id)
		}
	}
	return all
}

// Manifest gives the manifest of an image that has a file on disk, as it was
// when that was stored; it is read as from a source whose private images are not
// served. The error matches fs.ErrNotExist when no copy is kept.
func (s *Store) Manifest(id uuid.UUID) (manifest.Manifest, error) {
	_, m, err := s.readCopy(id)
	return m, err
}
