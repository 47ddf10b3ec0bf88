package manifest

import (
	"slices"
	"strconv"

	"imgmirror/verify"
)

// Facts is what the bytes of a file turned out to be, learned by downloading it.
type Facts struct {
	SHA1        verify.Sum
	Size        int64
	Compression string // by magic number: gzip, bzip2, xz, none; "" when nobody looked
}

// WithFacts returns m with what its file i lacked filled in: sha1, size, and an inferred
// compression corrected (spec 1.4, 5.6). A value that the source stated is never overridden.
// changed is false when there was nothing to add. Raw stays what the source sent.
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
	if file.Inferred && isCompression(f.Compression) {
		file.Compression = f.Compression
	}
	if file.SHA1 == old.SHA1 && file.Size == old.Size && file.Compression == old.Compression {
		return m, false
	}

	for _, mb := range members(nil, m.v2, 0) {
		if string(mb.name) != "files" {
			continue
		}
		at := elements(nil, m.v2, mb.start)[i].start
		var edits []edit
		o := objectEditor{edits: &edits, text: m.v2, at: at, ms: members(nil, m.v2, at)}
		for n, fm := range o.ms {
			if string(fm.name) == "compression" {
				o.setString(n, file.Compression)
			} else {
				o.keep(n)
			}
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
