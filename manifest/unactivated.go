package manifest

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// Unactivated is an image between its import and its activation (spec 2.8: the write side of image
// servers). The image is judged as one to be published; what is known of its file may be lacking.
type Unactivated struct {
	image Manifest // as the image would be published
	text  []byte   // what the writer sent, with what WithFile has added
}

// ParseUnactivated reads the manifest of an image to be imported. The rules are those of
// ParsePublished, except that the file, or a part of what is known of the file, may be missing. text
// is copied. Errors match ErrInvalid.
func ParseUnactivated(text []byte) (Unactivated, error) {
	u := Unactivated{text: bytes.Clone(trim(text))}
	m, err := Parse(u.text, ParseOptions{ServePrivate: true})
	if err == nil {
		m, err = m.Activated(time.Now())
	}
	if err != nil {
		return Unactivated{}, err
	}
	whole := m
	switch {
	case len(m.Files) > 1:
		return Unactivated{}, &ParseError{Image: m.UUID, Field: "files", Reason: fmt.Sprintf("there are %d, must be one", len(m.Files))}
	case len(m.Files) == 0:
		whole.Files = []File{{}}
	default:
		whole.Files = []File{m.Files[0]}
		if stated := m.Files[0].stated; stated != "" && !isCompression(stated) {
			return Unactivated{}, &ParseError{Image: m.UUID, Field: "files[0].compression", Reason: "must be gzip, bzip2, xz or none"}
		}
	}
	whole.Files[0].complete()
	if field, reason := fault(whole); field != "" {
		return Unactivated{}, &ParseError{Image: m.UUID, Field: field, Reason: reason}
	}
	u.image = m
	return u, nil
}

// WithUUID gives the manifest text, which has no uuid, a uuid. Errors match ErrInvalid.
func WithUUID(text []byte, id uuid.UUID) ([]byte, error) {
	text = bytes.Clone(trim(text))
	if err := new(parser).check(text); err != nil {
		return nil, err
	}
	if len(text) == 0 || text[0] != '{' {
		return nil, &ParseError{Reason: "is no JSON object"}
	}
	if lookup(text, "uuid") != nil {
		return nil, &ParseError{Field: "uuid", Reason: "is for images to be imported: this server gives a new image its uuid"}
	}
	var edits []edit
	o := objectEditor{edits: &edits, text: text, ms: members(nil, text, 0)}
	o.add(`"uuid":` + quote(id.String()))
	return apply(text, edits), nil
}

// complete gives f a value for everything that fault asks for.
func (f *File) complete() {
	f.SHA1, f.Size, f.Compression = verify.Sum{1}, 1, "none"
}

// Manifest is the image as Activate would publish it, with today's date if the writer gave none.
func (u Unactivated) Manifest() Manifest { return u.image }

// WithFile is u with its file, as the upload tells of the file. What the manifest and the upload both
// tell must be the same; guid, the stream's dataset GUID, may be "". The image of the result can be
// published. Errors match ErrInvalid, and name the parameter of the upload that is wrong.
func (u Unactivated) WithFile(sum verify.Sum, size int64, compression, guid string) (Unactivated, error) {
	var f File
	if len(u.image.Files) == 1 {
		f = u.image.Files[0]
	}
	wrong := func(field, format string, args ...any) (Unactivated, error) {
		return Unactivated{}, &ParseError{Image: u.image.UUID, Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	if !isCompression(compression) {
		return wrong("compression", "%.20q: must be gzip, bzip2, xz or none", compression)
	}
	if f.stated != "" && f.stated != compression {
		return wrong("compression", "the upload says %s, the manifest %s", compression, f.stated)
	}
	if sum.IsZero() {
		sum = f.SHA1
	}
	switch {
	case sum.IsZero():
		return wrong("sha1", "is missing in the upload and in the manifest")
	case !f.SHA1.IsZero() && f.SHA1 != sum:
		return wrong("sha1", "the upload says %s, the manifest %s", sum, f.SHA1)
	}
	if size <= 0 {
		size = f.Size
	}
	switch {
	case size <= 0:
		return wrong("size", "is missing: neither the manifest nor Content-Length tells how many bytes come")
	case f.Size > 0 && f.Size != size:
		return wrong("size", "the upload has %d bytes, the manifest says %d", size, f.Size)
	}
	members := map[string]string{"sha1": quote(sum.String()), "size": strconv.FormatInt(size, 10), "compression": quote(compression)}
	if guid != "" {
		members["dataset_guid"] = quote(guid)
	}
	text := withFile(u.text, members)
	m, err := ParsePublished(text)
	if err != nil {
		return Unactivated{}, err
	}
	return Unactivated{image: m, text: text}, nil
}

// withFile gives the first file of the manifest text the members that it lacks.
func withFile(text []byte, lacks map[string]string) []byte {
	order := []string{"sha1", "size", "compression", "dataset_guid"}
	var edits []edit
	for _, mb := range members(nil, text, 0) {
		if string(mb.name) != "files" || text[mb.start] != '[' {
			continue
		}
		for _, e := range elements(nil, text, mb.start) {
			if text[e.start] != '{' {
				break
			}
			o := objectEditor{edits: &edits, text: text, at: e.start, ms: members(nil, text, e.start)}
			for _, there := range o.ms {
				delete(lacks, string(there.name))
			}
			for _, name := range order {
				if value, ok := lacks[name]; ok {
					o.add(quote(name) + ":" + value)
				}
			}
			return apply(text, edits)
		}
	}
	var file []byte
	for _, name := range order {
		if value, ok := lacks[name]; ok {
			file = append(append(append(append(file, ','), quote(name)...), ':'), value...)
		}
	}
	file[0] = '{'
	return setMembers(text, map[string]string{"files": "[" + string(file) + "}]"})
}

// JSON is the manifest for the writer: V2 of the image, with the state unactivated.
func (u Unactivated) JSON() []byte {
	return setMembers(u.image.V2(), map[string]string{"state": quote(stateUnactivated)})
}

// Activate gives the image, which has its file, as published now.
func (u Unactivated) Activate() (Manifest, error) { return ParsePublished(u.text) }
