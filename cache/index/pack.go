package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/google/uuid"
	"github.com/klauspost/compress/s2"

	"imgmirror/manifest"
)

// A saved list is a few hundred packs rather than a value for each manifest: a
// tenth to a quarter of the size, read in as much less time. A pack holds the
// manifests of one source and one kind of entry between two uuids, in their
// order. Its value is the sha256 of its content, then the content, compressed;
// the content is the manifests as their source sent them, each after its length.
//
// Where a pack ends is decided by the uuids (see ends), so that an image that
// comes or goes changes one pack and leaves the others as they are.
type pack struct {
	key     string // with its prefix
	content []byte
	sum     [sha256.Size]byte
}

// maxPack bounds a pack: what would make it longer begins the next.
const maxPack = 1 << 20

func packPrefix(source string) string { return keyPack + source + "\x00" }

// ends tells that no manifest joins the pack of id after it: one in 128.
func ends(id uuid.UUID) bool { return crc32.ChecksumIEEE(id[:])%128 == 0 }

// packs cuts images, which are in order of their uuids, into packs. Each is valid until the next.
func packs(source string, kind byte, images []*manifest.Manifest) func(yield func(pack) bool) {
	return func(yield func(pack) bool) {
		var p pack
		flush := func() bool {
			if p.key == "" {
				return true
			}
			p.sum = sha256.Sum256(p.content)
			more := yield(p)
			p.key, p.content = "", p.content[:0]
			return more
		}
		for _, m := range images {
			if len(p.content)+len(m.Raw()) > maxPack && !flush() {
				return
			}
			if p.key == "" {
				p.key = packPrefix(source) + string(kind) + string(m.UUID[:])
			}
			p.content = binary.AppendUvarint(p.content, uint64(len(m.Raw())))
			p.content = append(p.content, m.Raw()...)
			if ends(m.UUID) && !flush() {
				return
			}
		}
		flush()
	}
}

// value is p as the index holds it, in no more memory than needed: the values of a whole list are kept until they are
// written, and what compressing needs is ten times as large.
func (p *pack) value() []byte { return slices.Concat(p.sum[:], s2.Encode(nil, p.content)) }

// unpack gives the manifests in a pack's value, in the memory of room if that is large enough; content is all of them.
// unpack checks the sum: what comes out has gone in.
func unpack(value, room []byte) (texts [][]byte, content []byte, err error) {
	sum, packed := value[:min(sha256.Size, len(value))], value[min(sha256.Size, len(value)):]
	content, err = s2.Decode(room[:cap(room)], packed)
	if err != nil {
		return nil, room, err
	}
	if got := sha256.Sum256(content); !bytes.Equal(sum, got[:]) {
		return nil, content, errors.New("its sum is wrong")
	}
	for rest := content; len(rest) > 0; {
		n, at := binary.Uvarint(rest)
		if at <= 0 || n > uint64(len(rest)-at) {
			return nil, content, errors.New("it ends too early")
		}
		end := at + int(n)
		texts = append(texts, rest[at:end:end])
		rest = rest[end:]
	}
	return texts, content, nil
}

// savePacks makes packs of l and removes what the index has of the source besides.
// Only packs that changed are written. Where all that does not fit into one
// transaction a crash may leave some of it undone: hence the order, in which a
// manifest is where it belongs before it leaves the pack that it was in.
func (ix *Index) savePacks(l manifest.Listing) error {
	old := make(map[string][]byte) // sums, by key; nil where the pack is not what it was
	prefix := packPrefix(l.Source)
	var room []byte
	err := ix.each(prefix, func(key, value []byte) error {
		var sum []byte
		if _, content, err := unpack(value, room); err == nil {
			room = content
			sum = bytes.Clone(value[:sha256.Size])
		}
		old[prefix+string(key)] = sum
		return nil
	})
	if err != nil {
		return err
	}
	listed := inOrder(l.Images)
	unlisted := notIn(inOrder(l.Unlisted), listed)
	retired := notIn(notIn(inOrder(l.Retired), listed), unlisted)
	var changed []Change
	for _, part := range []struct {
		kind   byte
		images []*manifest.Manifest
	}{{entryListed, listed}, {entryUnlisted, unlisted}, {entryRetired, retired}, {entryDetail, inOrder(l.Details)}} {
		for p := range packs(l.Source, part.kind, part.images) {
			if !bytes.Equal(p.sum[:], old[p.key]) {
				changed = append(changed, Change{p.key, p.value()})
			}
			delete(old, p.key)
		}
	}
	slices.Reverse(changed) // images that left a pack are in one after it
	for key := range old {
		changed = append(changed, Change{key: key})
	}
	prefix = manifestPrefix(l.Source)
	err = ix.each(prefix, func(key, _ []byte) error {
		changed = append(changed, Change{key: prefix + string(key)})
		return nil
	})
	if err != nil {
		return err
	}
	return ix.Write(changed...)
}

// inOrder gives images in order of their uuids, one of each.
func inOrder(images []manifest.Manifest) []*manifest.Manifest {
	sorted := make([]*manifest.Manifest, len(images))
	for i := range images {
		sorted[i] = &images[i]
	}
	slices.SortFunc(sorted, byUUID)
	return slices.CompactFunc(sorted, func(a, b *manifest.Manifest) bool { return a.UUID == b.UUID })
}

func byUUID(a, b *manifest.Manifest) int { return bytes.Compare(a.UUID[:], b.UUID[:]) }

// notIn gives the images whose uuid is not among others, which are in order; it works in place.
func notIn(images, others []*manifest.Manifest) []*manifest.Manifest {
	return slices.DeleteFunc(images, func(m *manifest.Manifest) bool {
		_, found := slices.BinarySearchFunc(others, m, byUUID)
		return found
	})
}

// restore reads the manifests of packs, as manifest.RestoreList does, but for the images in leave. A pack or a manifest that
// cannot be read is left out, and has an error in faults.
func restore(packs [][]byte, leave map[uuid.UUID]bool) (images []manifest.Manifest, list []byte, faults []error) {
	return manifest.RestoreList(len(packs), func(pack int, room []byte) ([][]byte, []byte, error) {
		texts, content, err := unpack(packs[pack], room)
		if err != nil {
			err = fmt.Errorf("pack of %d bytes: %w", len(packs[pack]), err)
		}
		return texts, content, err
	}, func(id uuid.UUID) bool { return leave[id] }, manifest.ParseOptions{})
}
