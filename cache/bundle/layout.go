package bundle

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Head is all that the bytes of one volume follow from, but for the content that its index names.
type Head struct {
	Index  Index
	Volume int    // 1 for the first
	Sig    []byte // the signature's text, of all volumes; nil: unsigned

	// loose: the signature was added by hand, and is not in the list of sums.
	loose bool
}

// Entry is one file of a volume's tar.
type Entry struct {
	Path  string
	Size  int64 // of its bytes
	At    int64 // where its header begins, in the tar
	Data  int64 // where its bytes begin, in the tar
	Image int   // of Index.Images; -1: what belongs to no image
	File  int   // of the image's Files; -1: the manifest
	Part  int   // of the file's Parts; -1: the whole file
	Begin int64 // where in the file the part begins

	sum SHA256
}

// end is where the next entry begins.
func (e Entry) end() int64 { return e.Data + e.Size + padding(e.Size) }

// Entries are the files of the volume's tar, in their order: the index, the list of sums, the
// signature if there is one, the list of manifests, the manifests, the images' files.
func (h Head) Entries() []Entry {
	x := h.Index
	l := layout{entries: make([]Entry, 0, 4+2*len(x.Images))}
	plain := func(path string, b []byte) {
		l.add(Entry{Path: path, Size: int64(len(b)), Image: -1, File: -1, Part: -1, sum: sha256.Sum256(b)})
	}
	plain(IndexName, x.raw)
	plain(sumsName(h.Volume, x.Volumes), h.sums())
	if h.Sig != nil {
		plain(SignatureName, h.Sig)
	}
	return l.rest(x, h.Volume)
}

// Size is how many bytes the volume's tar has.
func (h Head) Size() int64 {
	entries := h.Entries()
	return entries[len(entries)-1].end() + trailer
}

// cursor is a place in the tar of a volume.
type cursor struct {
	head    Head
	entries []Entry // the one at hand, and those behind it
	at      int64
	end     int64 // where the last entry ends
}

func newCursor(h Head) cursor {
	entries := h.Entries()
	return cursor{head: h, entries: entries, end: entries[len(entries)-1].end()}
}

// next goes on behind the entry at hand.
func (c *cursor) next() {
	c.at = max(c.at, c.entries[0].end())
	c.entries = c.entries[1:]
}

// fixed gives the bytes from here on that follow from the head, and what they belong to: the rest of a header, of a
// padding, or of the end of the tar. It is empty among the bytes of an entry, and behind the end.
func (c *cursor) fixed() (rest []byte, of string) {
	if len(c.entries) == 0 {
		return zeros[min(c.at-c.end, trailer):], "the end of the tar"
	}
	switch e := c.entries[0]; {
	case c.at < e.Data:
		return header(e.Path, e.Size, c.head.Index.Created)[c.at-e.At:], e.Path
	case c.at >= e.Data+e.Size:
		return zeros[c.at-e.Data-e.Size : padding(e.Size)], e.Path
	default:
		return nil, e.Path
	}
}

// layout puts entries one behind the other.
type layout struct{ entries []Entry }

func (l *layout) add(e Entry) {
	if n := len(l.entries); n > 0 {
		e.At = l.entries[n-1].end()
	}
	e.Data = e.At + headerSize(e.Size)
	l.entries = append(l.entries, e)
}

// rest adds what follows from the index alone.
func (l *layout) rest(x Index, volume int) []Entry {
	item := func(it Item, image int) {
		l.add(Entry{Path: it.Path, Size: it.Size, Image: image, File: -1, Part: -1, sum: it.SHA256})
	}
	item(x.Web, -1)
	for i, m := range x.Images {
		item(m.Manifest, i)
	}
	for i, m := range x.Images {
		for j, f := range m.Files {
			if f.Volume == volume {
				l.add(Entry{Path: f.Path, Size: f.Size, Image: i, File: j, Part: -1, sum: f.SHA256})
			}
			var begin int64
			for k, p := range f.Parts {
				if p.Volume == volume {
					l.add(Entry{Path: p.Path, Size: p.Size, Image: i, File: j, Part: k, Begin: begin, sum: p.SHA256})
				}
				begin += p.Size
			}
		}
	}
	return l.entries
}

// sumsName is what the list of sums is called: by it a volume is known.
func sumsName(volume, of int) string {
	if of == 1 {
		return "imgmirror-bundle.sha256"
	}
	return fmt.Sprintf("imgmirror-bundle.%03d.sha256", volume)
}

// parseSumsName gives the volume whose list of sums is called so.
func parseSumsName(name string, of int) (volume int, ok bool) {
	if name == sumsName(1, 1) {
		return 1, of == 1
	}
	digits := strings.TrimSuffix(strings.TrimPrefix(name, "imgmirror-bundle."), ".sha256")
	volume, err := strconv.Atoi(digits)
	return volume, err == nil && 1 <= volume && volume <= of && of > 1 && name == sumsName(volume, of)
}

// IsHeadName tells that a file is called so that stands before all manifests: the
// index, a list of sums, the signature.
func IsHeadName(name string) bool {
	_, sums := parseSumsName(name, 1)
	_, ofSome := parseSumsName(name, maxVolumes)
	return name == IndexName || name == SignatureName || sums || ofSome
}

// sums is the list of sums as sha256sum(1) reads it, of everything in the volume but itself.
func (h Head) sums() []byte {
	var b []byte
	line := func(sum SHA256, path string) {
		b = append(append(append(append(b, sum.String()...), "  "...), path...), '\n')
	}
	line(sha256.Sum256(h.Index.raw), IndexName)
	if h.Sig != nil && !h.loose {
		line(sha256.Sum256(h.Sig), SignatureName)
	}
	var l layout
	for _, e := range l.rest(h.Index, h.Volume) {
		line(e.sum, e.Path)
	}
	return b
}

// sumsDiffer names the first thing of which two lists of sums say different things.
func sumsDiffer(is, want []byte) string {
	a, b := slices.Collect(strings.Lines(string(is))), slices.Collect(strings.Lines(string(want)))
	for i, line := range b {
		sum, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if i >= len(a) {
			return path + ": is not in it"
		}
		if a[i] != line {
			return fmt.Sprintf("%s: the sum should be %s, line %d is %s", path, sum, i+1, quoteName(strings.TrimSuffix(a[i], "\n")))
		}
	}
	return "it has more lines than it should"
}
