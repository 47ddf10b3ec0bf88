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

// judge ends the round's hashing and gives the verdict on its bytes.
func (f *fill) judge(r *round) error {
	if err := r.waitHashed(); err != nil {
		return err
	}
	got := r.hash.Digests()
	want := f.want
	if !want.Checkable() {
		want.MD5 = r.md5
	}
	err := want.Check(got)
	if err == nil {
		if r.md5 != nil && string(r.md5) != string(got.MD5[:]) {
			f.s.log.Warn("Content-MD5 is wrong, the file is right", "sum", got.SHA1, "source", r.names())
		}
		f.mu.Lock()
		r.verified, r.digests, r.size = true, got, got.Size
		f.changed()
		f.mu.Unlock()
		return nil
	}
	f.blame(r, err)
	return fmt.Errorf("from %s: %w", r.names(), err)
}

// blame says who the wrong bytes of a round are from, and why. Bytes of an earlier
// process are the first suspect; of several sources none is, but from now on
// one at a time has to answer for a whole round.
func (f *fill) blame(r *round, why error) {
	m := f.s.metrics
	switch {
	case r.leftover > 0:
		m.failure(sourceDisk, whereDigest)
	case len(r.from) == 1:
		f.refuse(r.from[0], whereDigest, why)
	default:
		f.solo = true
		for _, c := range r.from {
			m.failure(c.Name, whereMixed)
		}
	}
}

// refuse puts a source that is wrong out of this fill, and remembers it.
func (f *fill) refuse(c *candidate, where string, why error) {
	c.out = fmt.Errorf("source %s: %w", c.Name, why)
	f.s.metrics.failure(c.Name, where)
	f.s.distrust(c, f.key, slices.Contains(f.round.from, c))
	f.s.log.Warn("a source gives wrong bytes", "sum", f.first.title(), "source", c.Name, "where", where, "error", why)
}

// unverified notes that nothing of c is taken because no digest of the file is known. The source is not to blame.
func (f *fill) unverified(c *candidate) {
	c.out = fmt.Errorf("source %s: %w", c.Name, ErrUnverified)
	f.s.metrics.failure(c.Name, whereUnchecked)
	f.s.log.Warn("a file is not fetched", "image", f.first.Image, "file", f.key, "source", c.Name, "error", ErrUnverified)
}

// publish gives the round's file its final name: sync file, rename, sync
// folder, record. After an error the round is the caller's to abandon. Readers go on meanwhile: the bytes are right.
func (f *fill) publish(r *round) error {
	s := f.s
	sum := r.digests.SHA1
	info := Info{Digests: r.digests, ModTime: index.CleanTime(r.modTime), ContentType: r.contentType, Added: time.Now().UTC()}
	err := r.file.Sync()
	if err == nil {
		s.step("sync")
		err = f.record(r, info)
	}
	if err != nil {
		return fmt.Errorf("publish: %w", disk.Error(err))
	}
	r.close()
	f.leftover = 0
	s.removeUseless(sum)
	for _, b := range f.wanted() {
		s.noteImage(b, sum, false)
	}
	s.step("copy")
	s.log.Info("file stored", "sum", sum, "uuid", f.first.Image, "size", info.Digests.Size, "source", r.names())
	if s.o.OnPublish != nil {
		for _, b := range f.wanted() {
			s.o.OnPublish(b, info)
		}
	}
	return nil
}

// wanted lists who wants the blob.
func (f *fill) wanted() []Blob {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.blobs)
}

// record moves the round's file in and makes it known. Whose it is goes first:
// there must be no file of a pinned image of which that is not known.
func (f *fill) record(r *round, info Info) error {
	s, sum := f.s, info.Digests.SHA1
	door := s.fileDoors.of(sum[0])
	door.Lock()
	defer door.Unlock()
	var images []uuid.UUID
	for _, b := range f.wanted() {
		s.noteImage(b, sum, true)
		if b.ofImage() && !slices.Contains(images, b.Image) {
			images = append(images, b.Image)
		}
	}
	if err := f.moveIn(r); err != nil {
		for _, id := range images {
			err = errors.Join(err, s.unnoteImage(id, sum))
		}
		return err
	}
	mark := markOf(r.file) // after the rename, which changes it
	changes := []index.Change{index.PutFile(index.File{Info: info, Stamp: mark})}
	if f.want.SHA1.IsZero() {
		changes = append(changes, index.PutAlias(f.first.Key, sum))
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
	if f.low() {
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
	if f.want.SHA1.IsZero() {
		s.aliases[f.first.Key] = sum
	}
	delete(s.fills, f.key) // nobody joins from here on
	s.endLies(info.Digests)
	s.mu.Unlock()
	s.space.published(info.Digests.Size)
	switch {
	case old != nil: // under another key
		s.space.removedFile(old.Digests.Size)
	case wasOrphan:
		s.space.removedFile(orphan)
	}
	return nil
}

// endLies ends the fills that want a file with got's sha1 and something else that is not got's: there is none. s.mu is
// held.
func (s *Store) endLies(got verify.Digests) {
	for _, f := range s.fills {
		if f.want.SHA1 != got.SHA1 {
			continue
		}
		if err := f.want.Check(got); err != nil {
			f.stop(err)
		}
	}
}

// moveIn gives the round's file its final name, and makes that last.
func (f *fill) moveIn(r *round) error {
	s, final := f.s, f.s.dir.file(r.digests.SHA1)
	if err := s.present(); err != nil {
		return err
	}
	if err := s.dir.makeParent(final); err != nil {
		return err
	}
	if err := s.clearWay(r.digests.SHA1); err != nil {
		return err
	}
	if err := os.Rename(r.path, final); err != nil {
		if _, lost := os.Lstat(r.path); errors.Is(lost, fs.ErrNotExist) {
			r.lost.Store(true)
			return errPartialLost
		}
		return err
	}
	f.mu.Lock()
	r.path = final
	f.mu.Unlock()
	s.step("rename")
	return disk.SyncFolder(filepath.Dir(final))
}
