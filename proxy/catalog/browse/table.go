// Package browse holds tables of images for people who look for an image: words are searched,
// columns are sorted, values are counted. A table is made once for a list of images, and answers
// from memory; the package does no I/O and logs nothing.
package browse

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"sync"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Row is what a table is made of.
type Row struct {
	Image   *manifest.Manifest // never changed
	Source  string
	Reason  string // why clients are not shown the image; "" = they are
	Retired bool   // no source lists the image any more
}

// Table is rows in the order of their dates. It is immutable but for what it remembers, and may be
// used concurrently.
type Table struct {
	images  []*manifest.Manifest
	cells   []cell
	columns [columns]column
	texts   texts
	byUUID  []int32 // rows in the order of their uuids
	retired Set
	orders  map[string]func() []int32 // by Fields; each is made by its first caller

	mu       sync.Mutex // guards filtered
	filtered []filtered // the last ones first

	making sync.Mutex // guards noted, also while a set is made
	noted  map[string]noted
}

// noted is a set that Note has made.
type noted struct {
	version any
	rows    Set
}

// cell is what a table has of a row to find and count it: places in texts, and in columns.
type cell struct {
	name, version, description uint32
	values                     [columns]uint32
}

// The columns with counted values.
const (
	colOS = iota
	colType
	colSource
	colReason
	columns
)

// columnNames are the columns as Result.Facets names them.
var columnNames = [columns]string{"os", "type", "source", "reason"}

// column is the distinct values of one column.
type column struct {
	values []string
	places map[string]uint32
}

func (c *column) add(value string) uint32 {
	at, ok := c.places[value]
	if !ok {
		at = uint32(len(c.values))
		c.values, c.places[value] = append(c.values, value), at
	}
	return at
}

// New makes a table of rows, and sorts them by date and uuid.
func New(rows []Row) *Table {
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(a.Image.Published.Compare(b.Image.Published), bytes.Compare(a.Image.UUID[:], b.Image.UUID[:]))
	})
	t := &Table{
		images: make([]*manifest.Manifest, len(rows)), cells: make([]cell, len(rows)), byUUID: make([]int32, len(rows)), retired: NewSet(len(rows)),
		noted: make(map[string]noted),
	}
	for c := range t.columns {
		t.columns[c].places = make(map[string]uint32)
	}
	in := newIntake()
	for i := range rows {
		r := &rows[i]
		t.images[i] = r.Image
		t.cells[i] = cell{
			name: in.add(r.Image.Name), version: in.add(r.Image.Version), description: in.describe(r.Image.Description()),
			values: [columns]uint32{
				t.columns[colOS].add(cut(r.Image.OS)), t.columns[colType].add(cut(r.Image.Type)),
				t.columns[colSource].add(r.Source), t.columns[colReason].add(r.Reason),
			},
		}
		t.byUUID[i] = int32(i)
		if r.Retired {
			t.retired.Add(i)
		}
	}
	t.texts = in.texts()
	slices.SortFunc(t.byUUID, func(a, b int32) int {
		return cmp.Or(bytes.Compare(t.images[a].UUID[:], t.images[b].UUID[:]), cmp.Compare(a, b))
	})
	t.setOrders()
	return t
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.images) }

// Row gives row i.
func (t *Table) Row(i int) Row {
	values := &t.cells[i].values
	return Row{
		Image: t.images[i], Source: t.columns[colSource].values[values[colSource]], Reason: t.columns[colReason].values[values[colReason]],
		Retired: t.retired.Has(i),
	}
}

// Image gives the image of row i.
func (t *Table) Image(i int) *manifest.Manifest { return t.images[i] }

// Retired is the rows of retired images. Must not be modified.
func (t *Table) Retired() Set { return t.retired }

// Rows gives the rows of the image id, of each source one.
func (t *Table) Rows(id uuid.UUID) []int32 {
	from := t.search(func(at uuid.UUID) bool { return bytes.Compare(at[:], id[:]) >= 0 })
	to := from
	for to < len(t.byUUID) && t.images[t.byUUID[to]].UUID == id {
		to++
	}
	return t.byUUID[from:to]
}

// Note gives the set that make has made for that name and version, which is comparable: the table
// keeps the last set of each name. The set must not be modified.
func (t *Table) Note(name string, version any, make func() Set) Set {
	t.making.Lock()
	defer t.making.Unlock()
	if n, ok := t.noted[name]; ok && n.version == version {
		return n.rows
	}
	rows := make()
	t.noted[name] = noted{version, rows}
	return rows
}

// search gives the first place in byUUID with a later uuid.
func (t *Table) search(after func(uuid.UUID) bool) int {
	return sort.Search(len(t.byUUID), func(i int) bool { return after(t.images[t.byUUID[i]].UUID) })
}
