package manifest

import (
	"fmt"
	"slices"
	"strconv"

	"imgmirror/verify"
)

// Facts are findings on the bytes of a file, learned by a download or by a look at the beginning.
type Facts struct {
	SHA1 verify.Sum
	Size int64
	// Compression is gzip, bzip2, xz or none; for a file that clients cannot use, the kind of its
	// bytes; "" before any look. See CompressionBy.
	Compression string
}

// dataKind stands for bytes of no known kind where a ZFS stream must be.
const dataKind = "data"

// CompressionBy is the Facts.Compression of file i whose bytes look like kind (verify.KindOf).
// Where a ZFS stream must be (see HoldsStream), bytes of another kind give that kind. Bytes of no
// known kind give dataKind only for a file of which nothing is known; else they count as a stream
// of the compression in the file's name.
func (m Manifest) CompressionBy(i int, kind string) string {
	compression := verify.CompressionOf(kind)
	switch {
	case compression != "none", kind == verify.KindZFS, !m.HoldsStream():
		return compression
	case kind != "":
		return kind
	case i < len(m.Files) && m.Files[i].Compression == "":
		return dataKind
	}
	return compression
}

// Complete tells that everything that clients need of the file is known, or that no node can
// receive the file.
func (f *File) Complete() bool { return f.looks != "" || f.Size > 0 && f.Compression != "" }

// Unusable tells that no node can receive the file: a ZFS stream must be there, and is not.
func (f *File) Unusable() bool { return f.looks != "" }

// Incomplete says what clients need and the mirror does not know of the image's files, the size or
// the compression; "" when all files are Complete.
func (m Manifest) Incomplete() string {
	for i := range m.Files {
		switch f := &m.Files[i]; {
		case f.Complete():
		case f.Size == 0:
			return "its size is not known yet"
		case f.stated != "":
			return fmt.Sprintf("its compression is not known yet: the source says %q", shorten(f.stated))
		default:
			return "its compression is not known yet"
		}
	}
	return ""
}

// Unusable says what the first file that no node can receive looks like; "" when there is none.
func (m Manifest) Unusable() string {
	for i := range m.Files {
		if f := &m.Files[i]; f.Unusable() {
			return fmt.Sprintf("compression %s: no node can receive it (the file is %s, not a ZFS stream)", f.looks, verify.DescribeKind(f.looks))
		}
	}
	return ""
}

// WithFacts returns m with the missing values of file i filled in: sha1, size, and a compression
// that the source did not state (spec 1.4, 5.6). A value that the source stated stays. changed is
// false when nothing was missing. Raw stays the source's text.
func (m Manifest) WithFacts(i int, f Facts) (_ Manifest, changed bool) {
	if i < 0 || i >= len(m.Files) {
		return m, false
	}
	old := m.Files[i]
	file := old
	if file.SHA1.IsZero() {
		file.SHA1 = f.SHA1
	}
	if file.Size == 0 && f.Size > 0 {
		file.Size = f.Size
	}
	if file.Inferred && f.Compression != "" {
		file.looks = ""
		if isCompression(f.Compression) {
			file.Compression = f.Compression
		} else {
			file.looks = f.Compression
		}
	}
	if file.SHA1 == old.SHA1 && file.Size == old.Size && file.Compression == old.Compression && file.looks == old.looks {
		return m, false
	}

	for _, mb := range members(nil, m.v2, 0) {
		if string(mb.name) != "files" {
			continue
		}
		at := elements(nil, m.v2, mb.start)[i].start
		var edits []edit
		o := objectEditor{edits: &edits, text: m.v2, at: at, ms: members(nil, m.v2, at)}
		stated := slices.IndexFunc(o.ms, func(mb member) bool { return string(mb.name) == "compression" })
		switch {
		case file.Compression == "":
		case stated >= 0:
			o.setString(stated, file.Compression)
		default:
			o.add(`"compression":` + quote(file.Compression))
		}
		if old.SHA1.IsZero() && !file.SHA1.IsZero() {
			o.add(`"sha1":` + quote(file.SHA1.String()))
		}
		if old.Size != file.Size {
			o.add(`"size":` + strconv.FormatInt(file.Size, 10))
		}
		m.v2 = apply(m.v2, edits)
		break
	}
	m.Files = slices.Clone(m.Files)
	m.Files[i] = file
	return m, true
}
