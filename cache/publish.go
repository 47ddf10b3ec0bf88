package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/disk"
	"imgmirror/cache/index"
	"imgmirror/verify"
)

// publish gives the file of a round with a good verdict its final name: sync file, wait for the
// digests that did not decide, note the images, rename, sync folder, record. After an error the
// round is the caller's to abandon. Readers go on meanwhile: the bytes are right.
func (s *Store) publish(f *fill, r *round) error {
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("publish: %w", disk.Error(err))
	}
	s.step("sync")
	if err := r.digest(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	s.step("digests")
	v := r.view
	sum := v.digests.SHA1
	info := Info{Digests: v.digests, ModTime: index.CleanTime(v.modTime), ContentType: v.contentType, Added: time.Now().UTC()}
	if err := s.record(f, r, info); err != nil {
		return fmt.Errorf("publish: %w", disk.Error(err))
	}
	s.removePartials(func(_ string, left Partial) bool { return left.Sum == sum })
	for _, b := range f.requests() {
		s.noteImage(b, sum, false)
	}
	s.step("copy")
	s.log.Info("file stored", "sum", sum, "uuid", f.blob.Image, "size", info.Digests.Size, "source", r.names())
	if s.o.OnPublish != nil {
		for _, b := range f.requests() {
			s.o.OnPublish(b, info)
		}
	}
	s.tellStored(f, r)
	return nil
}

// record moves the round's file in and makes it known. The owning images are noted before the
// rename, so that eviction never meets a pinned image's file without its owner.
func (s *Store) record(f *fill, r *round, info Info) error {
	sum := info.Digests.SHA1
	door := s.fileDoors.of(sum[0])
	door.Lock()
	defer door.Unlock()
	var images []uuid.UUID
	for _, b := range f.requests() {
		s.noteImage(b, sum, true)
		if b.ofImage() && !slices.Contains(images, b.Image) {
			images = append(images, b.Image)
		}
	}
	if err := s.moveIn(f, r.view); err != nil {
		for _, id := range images {
			err = errors.Join(err, s.unnoteImage(id, sum, false))
		}
		return err
	}
	mark := stampOfFile(r.file) // after the rename, which changes it
	changes := []index.Change{index.PutFile(index.File{Info: info, Stamp: mark})}
	if f.blob.Want.SHA1.IsZero() {
		changes = append(changes, index.PutAlias(f.blob.Key, sum))
	}
	if err := s.index.Write(changes...); err != nil { // the file is there: the next start adopts it
		s.log.Error("a file cannot be recorded", "sum", sum, "error", err)
	}
	s.step("record")

	s.mu.Lock()
	old := s.files[sum]
	orphan, wasOrphan := s.orphans[sum]
	delete(s.orphans, sum)
	now := newStored(info, f.hold, info.Added)
	now.stamp.Store(mark)
	now.images = images
	if f.ahead() {
		now.idle.Store(true)
		now.dirty.Store(true)
	}
	if old != nil {
		f.hold.follow(old.hold)
		for _, id := range old.images {
			if !slices.Contains(now.images, id) {
				now.images = append(now.images, id)
			}
		}
	}
	s.files[sum] = now
	s.changes.Add(1)
	if f.blob.Want.SHA1.IsZero() {
		s.aliases.put(f.blob.Key, sum)
	}
	delete(s.fills, f.key)
	f.update(func() { f.closed = true })
	s.endLies(info.Digests)
	s.mu.Unlock()
	s.space.published(info.Digests.Size)
	switch {
	case old != nil: // under another key
		s.space.addFile(-old.Digests.Size)
	case wasOrphan:
		s.space.addFile(-orphan)
	}
	return nil
}

// endLies ends the fills that want a file with got's sha1 and something else that is not got's:
// there is none. s.mu is held.
func (s *Store) endLies(got verify.Digests) {
	for _, f := range s.fills {
		if f.blob.Want.SHA1 != got.SHA1 {
			continue
		}
		if err := f.blob.Want.Check(got); err != nil {
			f.stop(err)
		}
	}
}

// moveIn gives the round's file its final name, and makes that last.
func (s *Store) moveIn(f *fill, v *view) error {
	final := s.dir.file(v.digests.SHA1)
	if err := s.present(); err != nil {
		return err
	}
	if err := s.dir.makeParent(final); err != nil {
		return err
	}
	if err := s.clearWay(v.digests.SHA1); err != nil {
		return err
	}
	if err := os.Rename(v.path, final); err != nil {
		if _, lost := os.Lstat(v.path); errors.Is(lost, fs.ErrNotExist) {
			v.lost.Store(true)
			return errPartialLost
		}
		return err
	}
	f.update(func() { v.path = final })
	s.step("rename")
	return disk.SyncFolder(filepath.Dir(final))
}
