package catalog

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"

	"imgmirror/manifest"
)

// Text is the prepared text of a list of images: one JSON array, with the places of its elements,
// so that a part of the list can be sent without a copy. A Text is immutable, and has an element
// for each image of its View; the element of an image that the Text does not show is empty.
type Text struct {
	// JSON is the whole array. In DSAPI's form a zero byte, which no JSON contains, stands for the
	// base of the URLs. Must not be modified.
	JSON []byte
	// ETag is a strong validator of JSON, unquoted.
	ETag string
	// Account is that of JSON.
	Account *Account

	ends []int // of the elements in JSON
	gaps []int // how many bases JSON needs up to the end of each element; nil: none
	sums [][sha1.Size]byte
}

// newText divides whole into n elements, of which size gives the lengths; 0: not shown.
func newText(whole *Reply, n int, size func(i int) int) *Text {
	list := whole.Body
	t := &Text{JSON: list, ETag: whole.ETag, Account: whole.Account, ends: make([]int, n), sums: make([][sha1.Size]byte, n)}
	end := 0
	for i := range n {
		if length := size(i); length > 0 {
			start := startAfter(end)
			end = start + length
			t.sums[i] = sha1.Sum(list[start:end])
		}
		t.ends[i] = end
	}
	return t
}

// startAfter is where an element begins after an element that ends at end; 0 stands for none.
func startAfter(end int) int {
	if end == 0 {
		return len("[")
	}
	return end + len(",\n")
}

// before gives the value of ends or gaps up to element i, without element i.
func before(values []int, i int) int {
	if i == 0 || len(values) == 0 {
		return 0
	}
	return values[i-1]
}

// Run is the text of the elements from start up to but without end, with the separators between
// the elements. All of the elements are shown. Must not be modified.
func (t *Text) Run(start, end int) []byte {
	return t.JSON[startAfter(before(t.ends, start)):t.ends[end-1]]
}

// Bases is the number of bases in the Run of the same elements.
func (t *Text) Bases(start, end int) int { return before(t.gaps, end) - before(t.gaps, start) }

// AllBases is the number of bases in JSON.
func (t *Text) AllBases() int { return before(t.gaps, len(t.gaps)) }

// Sum is a digest of element i, without its bases.
func (t *Text) Sum(i int) []byte { return t.sums[i][:] }

// Size is the memory that t takes, in bytes.
func (t *Text) Size() int { return len(t.JSON) + len(t.ends)*(2*8+sha1.Size) }

// newDatasets builds the DSAPI form (spec 3.2) of images: an element for each image that DSAPI
// shows. The URLs in the form lead to channel; "" names none. newDatasets builds the form by way of
// a random base, which no manifest can contain.
func newDatasets(images []manifest.Manifest, channel string) *Text {
	base := []byte("http://" + rand.Text())
	forms, gaps := make([][]byte, len(images)), make([]int, len(images))
	size, bases := len("[]"), 0
	for i := range images {
		if images[i].DSAPIVisible() {
			form := images[i].V1(string(base), channel)
			bases += bytes.Count(form, base)
			forms[i] = bytes.ReplaceAll(form, base, []byte{0})
			size += len(forms[i]) + len(",\n")
		}
		gaps[i] = bases
	}
	list := append(make([]byte, 0, size), '[')
	for _, form := range forms {
		if len(form) == 0 {
			continue
		}
		if len(list) > len("[") {
			list = append(list, ",\n"...)
		}
		list = append(list, form...)
	}
	list = append(list, ']')
	sum := sha1.Sum(list)
	t := newText(&Reply{Body: list, ETag: hex.EncodeToString(sum[:]), Account: new(Account)}, len(images), func(i int) int { return len(forms[i]) })
	t.gaps = gaps
	return t
}

// PathsText is Paths as JSON. It has no elements.
func (l *List) PathsText() *Text { return l.paths() }

func (l *List) pathsText() *Text {
	// Paths are strings and lists of strings, which always have a JSON form.
	list, _ := json.Marshal(l.Paths())
	sum := sha1.Sum(list)
	return &Text{JSON: list, ETag: hex.EncodeToString(sum[:]), Account: new(Account)}
}
