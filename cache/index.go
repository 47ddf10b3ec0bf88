package cache

import (
	"encoding/json"
	"fmt"
	"time"

	"imgmirror/verify"
)

// The keys of the index. Names that come from outside end with a zero byte
// where something follows.
const (
	keyComplete = "v"  // present: what disk alone can tell has been taken in
	keyFile     = "f/" // + sum: record
	keyUse      = "u/" // + sum: when it was last used, and last found right; Unix nanoseconds, 8 bytes each
	keyImage    = "i/" // + uuid: image as JSON
	keyAlias    = "a/" // + Blob.Key: sum
	keyFacts    = "c/" // + uuid + index, 4 bytes: manifest.Facts as JSON
	keyListing  = "l/" // + source: listingMeta
	keyPack     = "p/" // + source + 0 + kind of entry, one byte, + uuid: see pack
	keyManifest = "m/" // + source + 0 + uuid: kind of entry, one byte, then the manifest as its source sent it; newer than any pack
)

// record is what the index holds of a file.
type record struct {
	MD5         []byte    `json:"md5"`
	SHA256      []byte    `json:"sha256"`
	Size        int64     `json:"size"`
	Format      string    `json:"format,omitempty"`
	ModTime     time.Time `json:"mod_time,omitzero"`
	ContentType string    `json:"content_type,omitempty"`
	Added       time.Time `json:"added"`
	Stamp       *stamp    `json:"stamp,omitempty"`
}

// pair is a change of the index.
type pair struct {
	key   string
	value []byte // nil: the key goes
}

// filePair is the record of a file; mark is nil when its stamp is not known.
func filePair(info *Info, mark *stamp) pair {
	d := info.Digests
	v, err := json.Marshal(record{
		MD5: d.MD5[:], SHA256: d.SHA256[:], Size: d.Size, Format: d.Format,
		ModTime: info.ModTime, ContentType: info.ContentType, Added: info.Added, Stamp: mark,
	})
	if err != nil {
		panic(err) // a struct of plain values, years within range: see cleanTime
	}
	return pair{keyFile + string(d.SHA1[:]), v}
}

// cleanTime gives the zero time for one that JSON cannot write.
func cleanTime(t time.Time) time.Time {
	if t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t.UTC()
}

func aliasPair(key string, sum verify.Sum) pair { return pair{keyAlias + key, sum[:]} }

// readFile is the opposite of filePair; key comes without its prefix.
func readFile(key, value []byte) (*Info, *stamp, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, nil, fmt.Errorf("%w: record %x: %w", errCorrupt, key, err)
	}
	info := &Info{ModTime: cleanTime(r.ModTime), ContentType: r.ContentType, Added: cleanTime(r.Added)}
	info.Digests = verify.Digests{Size: r.Size, Format: r.Format}
	d := &info.Digests
	if copy(d.SHA1[:], key) != len(key) || len(key) != len(d.SHA1) ||
		len(r.MD5) != len(d.MD5) || len(r.SHA256) != len(d.SHA256) || r.Size < 0 {
		return nil, nil, fmt.Errorf("%w: record %x", errCorrupt, key)
	}
	copy(d.MD5[:], r.MD5)
	copy(d.SHA256[:], r.SHA256)
	return info, r.Stamp, nil
}
