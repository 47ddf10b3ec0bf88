package index

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// The keys of the index. Names that come from outside end with a zero byte where something follows.
const (
	keyComplete = "v"  // present: what disk alone can tell has been taken in
	keyFile     = "f/" // + sum: fileRecord as JSON
	keyUse      = "u/" // + sum: see PutUse
	keyImage    = "i/" // + uuid: Image as JSON
	keyAlias    = "a/" // + the file's key: sum
	keyFacts    = "c/" // + uuid + index, 4 bytes: manifest.Facts as JSON
	keyListing  = "l/" // + source: listingMeta as JSON
	keyPack     = "p/" // + source + 0 + kind of entry, one byte, + uuid: see pack
	keyManifest = "m/" // + source + 0 + uuid: kind of entry, one byte, then the manifest as its source sent it; newer than any pack
	keyNote     = "n/" // + kind + 0 + key: a note of another part of the mirror, see PutNote
)

// Change is one change of the index: a Put or a Drop. Dropping what is not there does no harm.
type Change struct {
	key   string
	value []byte // nil: the key goes
}

// Info is what is known of a file's bytes and of their origin.
type Info struct {
	Digests     verify.Digests
	ModTime     time.Time // the source's Last-Modified; zero when it sent none
	ContentType string
	Added       time.Time
}

// Stamp is what the file system tells of a file beside its bytes. Whatever
// program writes to a file, or puts another in its place, changes the stamp; so do
// chmod, a hard link and a restore from backup, which leave the bytes as they are.
// Bits that the disk itself turns do not show in the stamp.
type Stamp struct {
	Modified int64  `json:"mtime"` // Unix nanoseconds
	Changed  int64  `json:"ctime"`
	Inode    uint64 `json:"inode"`
}

// File is the record of a file.
type File struct {
	Info
	Stamp *Stamp // of the file when its bytes were hashed; nil: not known
}

// Use is when a file was used.
type Use struct {
	Used    time.Time // last opened, or left by a reader
	Checked time.Time // last found right
	Idle    bool      // brought ahead of need, and not asked for since
}

// Image is what is known of an image that has a file on disk.
type Image struct {
	Origin uuid.UUID    `json:"origin,omitzero"`
	Source string       `json:"source,omitempty"` // of its manifest
	Sums   []verify.Sum `json:"sums"`             // of its files that are on disk
}

// fileRecord is the JSON of a File; its sum is in the key.
type fileRecord struct {
	MD5         []byte    `json:"md5"`
	SHA256      []byte    `json:"sha256"`
	Size        int64     `json:"size"`
	Format      string    `json:"format,omitempty"`
	ModTime     time.Time `json:"mod_time,omitzero"`
	ContentType string    `json:"content_type,omitempty"`
	Added       time.Time `json:"added"`
	Stamp       *Stamp    `json:"stamp,omitempty"`
}

func put(key string, value any) Change {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // structs of plain values, years within range: see CleanTime
	}
	return Change{key, text}
}

// PutFile records a file; the times of its Info are clean.
func PutFile(f File) Change {
	d := &f.Digests
	return put(keyFile+string(d.SHA1[:]), fileRecord{
		MD5: d.MD5[:], SHA256: d.SHA256[:], Size: d.Size, Format: d.Format,
		ModTime: f.ModTime, ContentType: f.ContentType, Added: f.Added, Stamp: f.Stamp,
	})
}

// CleanTime gives the zero time for one that JSON cannot write.
func CleanTime(t time.Time) time.Time {
	if t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC()
}

// readFile is the opposite of PutFile; key comes without its prefix.
func readFile(key, value []byte) (f File, err error) {
	var r fileRecord
	if err := jsonv2.Unmarshal(value, &r); err != nil {
		return f, fmt.Errorf("%w: record %x: %w", ErrCorrupt, key, err)
	}
	f.Info = Info{ModTime: CleanTime(r.ModTime), ContentType: r.ContentType, Added: CleanTime(r.Added)}
	f.Digests = verify.Digests{Size: r.Size, Format: r.Format}
	f.Stamp = r.Stamp
	d := &f.Digests
	if copy(d.SHA1[:], key) != len(key) || len(key) != len(d.SHA1) ||
		len(r.MD5) != len(d.MD5) || len(r.SHA256) != len(d.SHA256) || r.Size < 0 {
		return f, fmt.Errorf("%w: record %x", ErrCorrupt, key)
	}
	copy(d.MD5[:], r.MD5)
	copy(d.SHA256[:], r.SHA256)
	return f, nil
}

// Files calls f with the record of each file. An error that matches ErrCorrupt says that the index is broken.
func (ix *Index) Files(f func(File)) error {
	return judged(ix.each(keyFile, func(key, value []byte) error {
		file, err := readFile(key, value)
		if err == nil {
			f(file)
		}
		return err
	}))
}

// DropFile drops the record of a file. The file's use has a record of its own.
func DropFile(sum verify.Sum) Change { return Change{key: keyFile + string(sum[:])} }

// useLen is the length of the record of a use: two times as Unix nanoseconds, 8 bytes each, then 1 if the file is
// idle. Older records lack the last byte.
const useLen = 17

// PutUse records when a file was used.
func PutUse(sum verify.Sum, u Use) Change {
	v := make([]byte, useLen)
	binary.BigEndian.PutUint64(v[:8], uint64(u.Used.UnixNano()))
	binary.BigEndian.PutUint64(v[8:16], uint64(u.Checked.UnixNano()))
	if u.Idle {
		v[16] = 1
	}
	return Change{keyUse + string(sum[:]), v}
}

// Uses calls f with each record of a use, whether the file is there or not.
func (ix *Index) Uses(f func(verify.Sum, Use)) error {
	return judged(ix.each(keyUse, func(key, value []byte) error {
		if len(key) != len(verify.Sum{}) || len(value) != useLen && len(value) != useLen-1 {
			ix.log.Warn("the record of a file's use cannot be read", "key", fmt.Sprintf("%x", key))
			return nil
		}
		f(verify.Sum(key), Use{
			Used:    time.Unix(0, int64(binary.BigEndian.Uint64(value[:8]))),
			Checked: time.Unix(0, int64(binary.BigEndian.Uint64(value[8:16]))),
			Idle:    len(value) == useLen && value[16] == 1,
		})
		return nil
	}))
}

// DropUse drops the record of a file's use.
func DropUse(sum verify.Sum) Change { return Change{key: keyUse + string(sum[:])} }

// PutAlias records the sum of the bytes of a file that its manifest tells no sum of, by the file's key.
func PutAlias(key string, sum verify.Sum) Change { return Change{keyAlias + key, sum[:]} }

// Aliases calls f with each alias. An error that matches ErrCorrupt says that the index is broken.
func (ix *Index) Aliases(f func(key string, sum verify.Sum)) error {
	return judged(ix.each(keyAlias, func(key, value []byte) error {
		if len(value) < len(verify.Sum{}) {
			return fmt.Errorf("%w: alias %q", ErrCorrupt, key)
		}
		f(string(key), verify.Sum(value[:len(verify.Sum{})]))
		return nil
	}))
}

// DropAlias drops an alias.
func DropAlias(key string) Change { return Change{key: keyAlias + key} }

// PutImage records an image.
func PutImage(id uuid.UUID, im *Image) Change { return put(keyImage+string(id[:]), im) }

// Images gives the records of all images. One that cannot be read is left out, and logged.
func (ix *Index) Images() (map[uuid.UUID]*Image, error) {
	all := make(map[uuid.UUID]*Image)
	err := ix.each(keyImage, func(key, value []byte) error {
		id, err := uuid.FromBytes(key)
		im := new(Image)
		if err == nil {
			err = jsonv2.Unmarshal(value, im)
		}
		if err != nil {
			ix.log.Warn("what is known of an image cannot be read", "key", fmt.Sprintf("%x", key), "error", err)
			return nil
		}
		all[id] = im
		return nil
	})
	return all, err
}

// DropImage drops the record of an image.
func DropImage(id uuid.UUID) Change { return Change{key: keyImage + string(id[:])} }

// PutFacts records what was learned of a file whose manifest lacks it.
func PutFacts(id manifest.FileID, f manifest.Facts) Change {
	return put(keyFacts+string(binary.BigEndian.AppendUint32(id.Image[:], uint32(id.Index))), f)
}

// Facts gives what PutFacts recorded. Facts that cannot be read are left out, and logged.
func (ix *Index) Facts() (map[manifest.FileID]manifest.Facts, error) {
	all := make(map[manifest.FileID]manifest.Facts)
	err := ix.each(keyFacts, func(key, value []byte) error {
		var f manifest.Facts
		if err := json.Unmarshal(value, &f); err != nil || len(key) != len(uuid.UUID{})+4 {
			ix.log.Warn("saved facts cannot be read", "key", fmt.Sprintf("%x", key), "error", err)
			return nil
		}
		id := manifest.FileID{Index: int(binary.BigEndian.Uint32(key[16:]))}
		copy(id.Image[:], key)
		all[id] = f
		return nil
	})
	return all, err
}

// PutComplete records that the index has all that disk alone can tell.
func PutComplete() Change { return Change{keyComplete, []byte("1")} }

// Complete tells whether PutComplete was recorded: without that the index is new.
func (ix *Index) Complete() (bool, error) { return ix.has(keyComplete) }
