package catalog

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog/browse"
)

// browseMemory is how long tables are made ahead of need after the last question for one.
const browseMemory = time.Hour

// Table is Images as a table for people. The first caller makes the table, unless a table of the catalogue was asked
// for within an hour: then the list came with its table. Must not be modified.
func (l *List) Table() *browse.Table {
	if l.browsed != nil {
		l.browsed.Store(time.Now().UnixNano())
	}
	return l.table()
}

// makeTables makes the tables of the list being served, if people look at tables: a new list of 100,000 images
// would keep the next of them waiting.
func (c *Catalog) makeTables() {
	if at := c.browsed.Load(); at > 0 && time.Since(time.Unix(0, at)) < browseMemory {
		c.Current().table()
		c.HiddenTable()
	}
}

// setTable prepares Table. The table refers to what lists with the same images share.
func (l *List) setTable() {
	images, records, byUUID := l.images, l.records, l.byUUID
	l.table = sync.OnceValue(func() *browse.Table {
		rows := make([]browse.Row, len(images))
		for i := range images {
			r := &records[byUUID[images[i].UUID]]
			rows[i] = browse.Row{Image: &images[i], Source: r.source.name, Retired: r.retired}
		}
		return browse.New(rows)
	})
}

// HiddenTable is what the sources have and clients are not shown: a row for each image of each
// source. Of refused images it has those that are known, see Catalog.Hidden.
type HiddenTable struct {
	*browse.Table
	list    *List
	looks   *looks
	byName  map[string]*source
	refused map[*manifest.Manifest]string // why
}

// Why tells why row i is not shown.
func (t *HiddenTable) Why(i int) Hidden {
	row := t.Row(i)
	if why, ok := t.refused[row.Image]; ok {
		return Hidden{Source: row.Source, Reason: row.Reason, Detail: why}
	}
	return t.looks.explain(t.list.hiddenAt(t.byName[row.Source], row.Image), row.Image)
}

// explain is h, of m, with what looks in vain have told.
func (l *looks) explain(h Hidden, m *manifest.Manifest) Hidden {
	if h.Reason == ReasonIncomplete || h.Reason == ReasonNoFiles {
		if why := l.why(m); why != "" {
			h.Detail += " (" + why + ")"
		}
	}
	return h
}

// hiddenTable is the HiddenTable of one list, which its first caller makes.
type hiddenTable struct {
	list *List
	make func() *HiddenTable
}

// HiddenTable gives what is hidden at present. The table is kept until the list changes.
func (c *Catalog) HiddenTable() *HiddenTable {
	list := c.Current()
	t := c.hidden.Load()
	if t == nil || t.list != list {
		t = &hiddenTable{list: list, make: sync.OnceValue(func() *HiddenTable { return c.newHiddenTable(list) })}
		c.hidden.Store(t)
		if c.Current() != list { // a table keeps its list in memory
			c.hidden.CompareAndSwap(t, nil)
		}
	}
	return t.make()
}

// newHiddenTable looks at every image of every source.
func (c *Catalog) newHiddenTable(list *List) *HiddenTable {
	c.state.Lock()
	in := c.inputs()
	refusals := make([]manifest.Refusals, len(c.sources))
	for i, s := range c.sources {
		refusals[i] = s.list.Refusals
	}
	c.state.Unlock()

	t := &HiddenTable{list: list, looks: &c.looks, byName: c.byName, refused: make(map[*manifest.Manifest]string)}
	var rows []browse.Row
	for i, src := range in.sources {
		for _, images := range [][]manifest.Manifest{src.images, src.unlisted, src.retired} {
			for j := range images {
				m := &images[j]
				if h := list.hiddenAt(src.source, m); h.Reason != "" {
					rows = append(rows, browse.Row{Image: m, Source: h.Source, Reason: h.Reason, Retired: h.Reason == ReasonRetired})
				}
			}
		}
		for _, f := range refusals[i].First {
			m, reason := &manifest.Manifest{UUID: f.UUID}, ReasonRefused
			if f.Skip {
				reason = ReasonSkipped
			}
			t.refused[m] = f.Reason
			rows = append(rows, browse.Row{Image: m, Source: src.source.name, Reason: reason})
		}
	}
	t.Table = browse.New(rows)
	return t
}

// Offer is an image as one source has it.
type Offer struct {
	Source   string
	Manifest manifest.Manifest // the source's own
	Listed   bool              // on the list of the source; else the source gave the image by its uuid
	Holds    bool              // the source has the files that the mirror serves
	Hidden   Hidden            // why clients are not shown the image; an empty Reason: clients are shown the image
}

// Offers gives, in order of priority, the image id as each source has the image: the sources that hold
// its files, and the sources that have the image and do not show it to clients.
func (c *Catalog) Offers(id uuid.UUID) []Offer {
	hidden := c.HiddenTable()
	holders := hidden.list.holdersOf(id)
	var out []Offer
	for _, s := range c.sources {
		if held, ok := holders[s]; ok {
			h := c.looks.explain(hidden.list.hiddenAt(s, held), held)
			out = append(out, Offer{Source: s.name, Manifest: *held, Listed: c.lists(s, id), Holds: true, Hidden: h})
			continue
		}
		for _, i := range hidden.Rows(id) {
			if row := hidden.Row(int(i)); row.Source == s.name {
				out = append(out, Offer{Source: s.name, Manifest: *row.Image, Listed: c.lists(s, id), Hidden: hidden.Why(int(i))})
				break
			}
		}
	}
	return out
}

// lists tells whether s, which has the image id, has it on its list.
func (c *Catalog) lists(s *source, id uuid.UUID) bool {
	c.state.Lock()
	defer c.state.Unlock()
	_, unlisted := s.unlisted[id]
	_, retired := s.retired[id]
	return !unlisted && !retired
}

// holdersOf gives the sources that hold the files of the image id, each with its manifest and what is
// known of its files.
func (l *List) holdersOf(id uuid.UUID) map[*source]*manifest.Manifest {
	r, ok := l.record(id)
	if !ok {
		return nil
	}
	out := map[*source]*manifest.Manifest{r.source: r.manifest}
	for i := range r.holders {
		out[r.holders[i].source] = &r.holders[i].manifest
	}
	return out
}
