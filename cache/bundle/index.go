package bundle

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// SHA256 is a digest as the index has it: 64 hex digits.
type SHA256 [32]byte

// String gives 64 lower-case hex digits.
func (s SHA256) String() string { return hex.EncodeToString(s[:]) }

// MarshalText gives what String gives.
func (s SHA256) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads 64 hex digits.
func (s *SHA256) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(s)) {
		return fmt.Errorf("sha256 %.70q: %d characters, want 64", text, len(text))
	}
	if _, err := hex.Decode(s[:], text); err != nil {
		return fmt.Errorf("sha256 %q: %w", text, err)
	}
	return nil
}

// Index says what a bundle holds, and in which volume each thing lies. It is
// the same in all volumes, and covers all of their bytes by sha256. Plan and
// ParseIndex make it, and from then on it must not be modified.
type Index struct {
	Format   string    `json:"format"`  // indexFormat
	Version  int       `json:"version"` // of the format: 1
	ID       uuid.UUID `json:"id"`
	Created  time.Time `json:"created"` // UTC, to the second
	Mirror   Mirror    `json:"mirror"`
	Since    string    `json:"since,omitzero"` // of a delta: what it was made against, in words
	Volumes  int       `json:"volumes"`        // at least 1
	Web      Item      `json:"web"`
	Images   []Image   `json:"images"`            // an origin comes before what needs it
	Requires []Held    `json:"requires,omitzero"` // left out: the receiver must have them already

	raw []byte // the JSON, as it lies in the bundle and is signed
}

// Mirror tells who made a bundle. Nothing rests on it.
type Mirror struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Item is one small file of a bundle.
type Item struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 SHA256 `json:"sha256"`
}

// Image is one image of a bundle, complete.
type Image struct {
	UUID     uuid.UUID `json:"uuid"`
	Origin   uuid.UUID `json:"origin,omitzero"`
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Manifest Item      `json:"manifest"`          // what `imgadm install -m` takes
	Original string    `json:"original,omitzero"` // the manifest of the mirror that exports, where Manifest lacks some of its members
	Files    []File    `json:"files"`             // as many as its manifest has, in that order
}

// File is one file of an image: whole in one volume, or in parts.
type File struct {
	Path   string     `json:"path"`
	Size   int64      `json:"size"`
	SHA1   verify.Sum `json:"sha1"`
	SHA256 SHA256     `json:"sha256"`
	Volume int        `json:"volume,omitzero"` // 0: it is in parts
	Parts  []Part     `json:"parts,omitzero"`  // two or more; joined in this order they are the file
}

// Part is a piece of a file that is larger than a volume.
type Part struct {
	Item
	Volume int `json:"volume"`
}

// Held is an image that a receiver has: the sums of its files in their order.
type Held struct {
	UUID  uuid.UUID    `json:"uuid"`
	Files []verify.Sum `json:"files"`
}

// Want is what the file must be, for verify and the store.
func (f File) Want() verify.Want {
	return verify.Want{SHA1: f.SHA1, Size: f.Size, SHA256: f.SHA256[:]}
}

// Held is what one who has the image can say of it.
func (m Image) Held() Held {
	h := Held{UUID: m.UUID}
	for _, f := range m.Files {
		h.Files = append(h.Files, f.SHA1)
	}
	return h
}

// Held lists what a receiver has once the bundle is imported, what it had to
// have before included: the base of a next delta.
func (x Index) Held() []Held {
	held := make([]Held, 0, len(x.Images)+len(x.Requires))
	for _, m := range x.Images {
		held = append(held, m.Held())
	}
	return append(held, x.Requires...)
}

// Size is the sum of all images' files, in bytes.
func (x Index) Size() int64 {
	var n int64
	for _, m := range x.Images {
		for _, f := range m.Files {
			n += f.Size
		}
	}
	return n
}

// Bytes is the index's JSON as it lies in the bundle. It must not be modified.
func (x Index) Bytes() []byte { return x.raw }

const (
	indexFormat  = "imgmirror-bundle"
	indexVersion = 1
)

// encode writes JSON for people to read, with a newline at its end.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// decode reads JSON that strangers wrote: unknown and repeated keys, keys in
// another case, values out of range and anything behind it are errors.
func decode(b []byte, v any) error {
	return json.Unmarshal(b, v, json.RejectUnknownMembers(true), json.WithUnmarshalers(json.JoinUnmarshalers(
		json.UnmarshalFunc(unmarshalUUID),
		unmarshalList[Image](MaxImages, uuidDigits+2*sha256Digits+sha1Digits),
		unmarshalList[File](maxFiles, uuidDigits+sha256Digits+sha1Digits),
		unmarshalList[Part](maxVolumes, uuidDigits+sha256Digits),
		unmarshalList[Held](MaxImages, uuidDigits),
		unmarshalList[verify.Sum](maxFiles, sha1Digits),
	)))
}

const (
	uuidDigits   = len(uuid.UUID{}) * 2
	sha1Digits   = len(verify.Sum{}) * 2
	sha256Digits = len(SHA256{}) * 2
)

// unmarshalList reads a list of at most that many elements, none of which is
// written in fewer bytes than one that is whole: what comes out of a few bytes of
// JSON ("{},{},{}") takes no more memory than they do.
func unmarshalList[T any](most, least int) *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(d *jsontext.Decoder, list *[]T) error {
		if kind := d.PeekKind(); kind != '[' {
			return fmt.Errorf("a list is wanted, not %s", kind)
		}
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		*list = []T{}
		for d.PeekKind() != ']' {
			if len(*list) == most {
				return fmt.Errorf("more than %d elements", most)
			}
			var element T
			begin := d.InputOffset()
			if err := json.UnmarshalDecode(d, &element); err != nil {
				return err
			}
			if d.InputOffset()-begin < int64(least) {
				return fmt.Errorf("element %d is not whole", len(*list))
			}
			*list = append(*list, element)
		}
		_, err := d.ReadToken()
		return err
	})
}

func unmarshalUUID(b []byte, id *uuid.UUID) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	parsed, ok := manifest.ParseUUID(s)
	if !ok {
		return fmt.Errorf("%.50q is not a uuid", s)
	}
	*id = parsed
	return nil
}

// ParseIndex reads an index and checks all that can be checked of it alone:
// names, sizes, order, chains. b is kept, not copied, and must not change
// afterwards. Errors match ErrInvalid and name what is wrong.
func ParseIndex(b []byte) (Index, error) {
	if len(b) > maxIndex {
		return Index{}, invalid(IndexName, "%d bytes, at most %d are read", len(b), maxIndex)
	}
	var kind struct {
		Format  string         `json:"format"`
		Version int            `json:"version"`
		Rest    jsontext.Value `json:",embed"`
	}
	if err := decode(b, &kind); err != nil {
		return Index{}, invalid(IndexName, "%.300v", err)
	}
	switch {
	case kind.Format != indexFormat:
		return Index{}, invalid(IndexName, "format is %.50q, not %q", kind.Format, indexFormat)
	case kind.Version != indexVersion:
		return Index{}, invalid(IndexName, "version %d of the format; this program reads version %d", kind.Version, indexVersion)
	}
	x := Index{raw: b}
	if err := decode(b, &x); err != nil {
		return Index{}, invalid(IndexName, "%.300v", err)
	}
	if err := x.check(); err != nil {
		return Index{}, fmt.Errorf("%w: %s: %w", ErrInvalid, IndexName, err)
	}
	return x, nil
}
