package browse

import (
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

const (
	maxFiltered = 16  // answers to filters that a table remembers
	maxValues   = 100 // values of a column that Facets counts: the most frequent ones
	minPrefix   = 4   // letters and digits of a word that is looked for at the beginning of uuids
)

// Query asks for some rows of a table.
type Query struct {
	// Words must all occur in the name, the version, the os, the type or the description of an image,
	// case-insensitive, or be the beginning of its uuid.
	Words   []string
	Filters []manifest.Filter // all must match
	// The rows with exactly these values, of which only the first 256 bytes count; "" = any.
	OS, Type, Source, Reason string
	// State is the name of one of States; "" = any.
	State  string
	States []State

	Sort   string // one of Fields; "" = ByPublished
	Desc   bool
	Offset int
	Limit  int
}

// State is the rows in one state. The states of a query may overlap.
type State struct {
	Name string
	Rows Set
}

// Result is a page of rows.
type Result struct {
	Total int   // of all pages
	Rows  []int // of this page
	// Facets counts rows by "os", "type", "source", "reason" and "state": those that match all of the
	// query but for the facet's own condition, so that a facet tells what another choice would give.
	Facets map[string]map[string]int
}

// Find answers a query.
func (t *Table) Find(q Query) Result {
	base := t.matching(q.Words, q.Filters)
	wants := [columns]string{cut(q.OS), cut(q.Type), q.Source, q.Reason}
	var asked [columns]bool
	var only [columns]uint32
	for c, want := range wants {
		if asked[c] = want != ""; asked[c] {
			place, ok := t.columns[c].places[want]
			only[c] = place
			if !ok {
				only[c] = math.MaxUint32 // no row has it
			}
		}
	}
	state := t.stateOf(q)

	selected := NewSet(len(t.images))
	total := 0
	var counts [columns][]int
	for c := range counts {
		counts[c] = make([]int, len(t.columns[c].values))
	}
	states := make([]int, len(q.States))
	for i := range t.cells {
		if !base.Has(i) {
			continue
		}
		values := &t.cells[i].values
		missed, misses := 0, 0 // the last condition that the row does not meet, and how many these are
		for c := range values {
			if asked[c] && values[c] != only[c] {
				missed, misses = c, misses+1
			}
		}
		if !state.Has(i) {
			missed, misses = columns, misses+1
		}
		switch {
		case misses == 0:
			selected.Add(i)
			total++
			for c := range values {
				counts[c][values[c]]++
			}
		case misses == 1 && missed < columns:
			counts[missed][values[missed]]++
		}
		if misses == 0 || misses == 1 && missed == columns {
			for n := range q.States {
				if q.States[n].Rows.Has(i) {
					states[n]++
				}
			}
		}
	}

	out := Result{Total: total, Rows: t.page(q, selected), Facets: make(map[string]map[string]int, columns+1)}
	for c := range counts {
		out.Facets[columnNames[c]] = t.columns[c].most(counts[c])
	}
	named := make(map[string]int, len(states))
	for n, s := range q.States {
		named[s.Name] = states[n]
	}
	out.Facets["state"] = named
	return out
}

// stateOf gives the rows in the state that q asks for; nil: all.
func (t *Table) stateOf(q Query) Set {
	if q.State == "" {
		return nil
	}
	for _, s := range q.States {
		if s.Name == q.State {
			return s.Rows
		}
	}
	return NewSet(len(t.images))
}

// most gives the counts of the most frequent values; those without a row, and the value "", are left
// out.
func (c *column) most(counts []int) map[string]int {
	var order []int
	for i, n := range counts {
		if n > 0 && c.values[i] != "" {
			order = append(order, i)
		}
	}
	if len(order) > maxValues {
		slices.SortStableFunc(order, func(a, b int) int { return counts[b] - counts[a] })
		order = order[:maxValues]
	}
	out := make(map[string]int, len(order))
	for _, i := range order {
		out[c.values[i]] = counts[i]
	}
	return out
}

// page gives the rows of a page in the order of q.
func (t *Table) page(q Query, selected Set) []int {
	rows := make([]int, 0, min(q.Limit, len(t.images)))
	skip := q.Offset
	take := func(i int) (more bool) {
		if !selected.Has(i) {
			return true
		}
		if skip > 0 {
			skip--
			return true
		}
		if len(rows) < q.Limit {
			rows = append(rows, i)
		}
		return len(rows) < q.Limit
	}
	at := func(i int) int { return i }
	switch order := t.orders[q.Sort]; {
	case q.Sort == ByState:
		rows := t.byState(q)
		at = func(i int) int { return int(rows[i]) }
	case order != nil:
		rows := order()
		at = func(i int) int { return int(rows[i]) }
	}
	for i := range t.images {
		if q.Desc {
			i = len(t.images) - 1 - i
		}
		if !take(at(i)) {
			break
		}
	}
	return rows
}

// byState orders the rows by their states: a bucket for each state, and one for each reason after
// these.
func (t *Table) byState(q Query) []int32 {
	reasons := t.columns[colReason].rank()
	buckets := make([][]int32, len(q.States)+len(reasons))
	for i := range t.images {
		at := slices.IndexFunc(q.States, func(s State) bool { return s.Rows.Has(i) })
		if at < 0 {
			at = len(q.States) + int(reasons[t.cells[i].values[colReason]])
		}
		buckets[at] = append(buckets[at], int32(i))
	}
	return slices.Concat(buckets...)
}

// matching gives the rows that have all words, and match all filters.
func (t *Table) matching(words []string, filters []manifest.Filter) Set {
	all := NewSet(len(t.images))
	for i := range t.images {
		all.Add(i)
	}
	for _, word := range words {
		all.meet(t.having(strings.ToLower(word)))
	}
	for _, f := range filters {
		all.meet(t.Match(f))
	}
	return all
}

// having gives the rows with a word, in lower case.
func (t *Table) having(word string) Set {
	rows := NewSet(len(t.images))
	if word == "" || strings.IndexByte(word, 0) >= 0 {
		return rows
	}
	texts := t.texts.containing(word)
	oses, types := t.columns[colOS].containing(word), t.columns[colType].containing(word)
	for i := range t.cells {
		c := &t.cells[i]
		if texts.Has(int(c.name)) || texts.Has(int(c.version)) || texts.Has(int(c.description)) ||
			oses.Has(int(c.values[colOS])) || types.Has(int(c.values[colType])) {
			rows.Add(i)
		}
	}
	for _, i := range t.begin(word) {
		rows.Add(int(i))
	}
	return rows
}

// containing gives the places of the values that contain word.
func (c *column) containing(word string) Set {
	found := NewSet(len(c.values))
	for i, value := range c.values {
		if strings.Contains(strings.ToLower(value), word) {
			found.Add(i)
		}
	}
	return found
}

// begin gives the rows whose uuid begins with text; none if text is too short to tell.
func (t *Table) begin(text string) []int32 {
	if len(text) < minPrefix || len(text) > len(uuid.Nil.String()) || strings.Trim(text, "0123456789abcdef-") != "" {
		return nil
	}
	from := t.search(func(id uuid.UUID) bool { return id.String() >= text })
	to := t.search(func(id uuid.UUID) bool { s := id.String(); return s > text && !strings.HasPrefix(s, text) })
	return t.byUUID[from:to]
}

// filtered is the answer to a filter.
type filtered struct {
	filter string
	rows   Set
}

// Match gives the rows that match a filter. Must not be modified. A filter may read all manifests:
// the last answers are remembered.
func (t *Table) Match(f manifest.Filter) Set {
	name := f.String()
	if rows, ok := t.remembered(name); ok {
		return rows
	}
	rows := NewSet(len(t.images))
	for i := range t.images {
		if f.Match(*t.images[i]) {
			rows.Add(i)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.filtered = slices.Insert(t.filtered, 0, filtered{name, rows})
	if len(t.filtered) > maxFiltered {
		t.filtered = slices.Delete(t.filtered, maxFiltered, len(t.filtered))
	}
	return rows
}

// remembered gives the answer to a filter that was asked for lately.
func (t *Table) remembered(name string) (Set, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.IndexFunc(t.filtered, func(f filtered) bool { return f.filter == name })
	if at < 0 {
		return nil, false
	}
	f := t.filtered[at]
	t.filtered = slices.Insert(slices.Delete(t.filtered, at, at+1), 0, f)
	return f.rows, true
}
