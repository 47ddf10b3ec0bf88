package page

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imgmirror/proxy/admin"
)

// pageRows is how many images one page shows.
const pageRows = 50

// The order of images.html that is used when none is asked for: the newest first.
const (
	usualSort = "published"
	ascending = "asc"
)

// imageList is the value of images.html.
type imageList struct {
	admin.Page
	Look     admin.Look
	Choices  []choices // of the form
	Columns  []column
	Narrowed bool   // something is asked for: there may be more images
	Clear    string // where nothing is asked for
	At, Of   int    // pages; the first one is 1
	Links    []pageLink
	Operator bool
}

func (l *imageList) title() string {
	if l.Look.Words != "" {
		return "Images: " + l.Look.Words
	}
	return "Images"
}

// First and Last are the places of the rows on the page, from 1.
func (l *imageList) First() int { return l.Offset + 1 }

// Last is the place of the last row.
func (l *imageList) Last() int { return l.Offset + len(l.Rows) }

// choices is one <select>.
type choices struct {
	Name, Label string
	Options     []choice
	Hidden      []choice // in a group of their own
}

// choice is one <option>.
type choice struct {
	Value, Text string
	Selected    bool
}

// column is the head of one column.
type column struct {
	Text, Href string
	Sort       string // "ascending", "descending", ""
	Num        bool
}

// pageLink leads to another page of the list; Href is "" where there is none.
type pageLink struct{ Text, Href, Rel string }

func (p *Page) images(v *visit) (any, error) { return v.look().images(v.URL.Query()) }

func (l *look) images(q url.Values) (*imageList, error) {
	asked := lookOf(q)
	filters := asked.Filters
	if !l.operator {
		asked = publicLook(asked)
		filters = nil
	}
	page, err := l.page.o.API.Catalog(l, asked)
	asked.Filters = filters // of the addresses
	if err != nil {
		return nil, err
	}
	if !l.operator {
		page.Rows = publicRows(page.Rows)
	}
	list := &imageList{
		Page: page, Look: asked, Columns: columnsOf(asked), Clear: root + "images", Operator: l.operator,
		At: asked.Offset/pageRows + 1, Of: max(1, (page.Total+pageRows-1)/pageRows),
	}
	plain := asked
	plain.Sort, plain.Desc, plain.Offset, plain.Limit = "", false, 0, 0
	list.Narrowed = len(plain.Query()) > 0
	list.Choices = list.choices()
	for _, link := range []struct {
		text, rel string
		at        int
	}{{"First", "", 1}, {"Previous", "prev", list.At - 1}, {"Next", "next", list.At + 1}, {"Last", "", list.Of}} {
		pl := pageLink{Text: link.text, Rel: link.rel}
		if link.at >= 1 && link.at <= list.Of && link.at != list.At {
			to := asked
			to.Offset = (link.at - 1) * pageRows
			pl.Href = address(to)
		}
		list.Links = append(list.Links, pl)
	}
	return list, nil
}

// lookOf reads the query of images.html: as that of the API, but for pages in the place of offsets, for
// the newest first, and for reasons in the place of states.
func lookOf(q url.Values) admin.Look {
	l := admin.Look{
		Words: strings.TrimSpace(q.Get("q")), Filters: q["filter"], OS: q.Get("os"), Type: q.Get("type"), Source: q.Get("source"),
		State: q.Get("state"), Sort: cmp.Or(q.Get("sort"), usualSort), Limit: pageRows,
	}
	l.Filters = slices.DeleteFunc(slices.Clone(l.Filters), func(f string) bool { return f == "" })
	l.Desc = q.Get("order") == "desc" || q.Get("order") == "" && l.Sort == usualSort
	if reason, ok := strings.CutPrefix(l.State, hiddenPrefix); ok {
		l.State, l.Reason = "", reason
	}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 1 && n < 1<<30 {
		l.Offset = (n - 1) * pageRows
	}
	return l
}

// hiddenPrefix is before the reason in a state that asks for images that are hidden for a reason.
const hiddenPrefix = "hidden."

// address is the address of images.html for a look.
func address(l admin.Look) string {
	page := l.Offset/pageRows + 1
	l.Offset, l.Limit = 0, 0
	usual := l.Sort == usualSort && l.Desc
	q := l.Query()
	if l.Reason != "" {
		q.Del("reason")
		q.Set("state", hiddenPrefix+l.Reason)
	}
	if usual {
		q.Del("sort")
		q.Del("order")
	} else if !l.Desc {
		q.Set("order", ascending)
	}
	if page > 1 {
		q.Set("page", strconv.Itoa(page))
	}
	if len(q) == 0 {
		return root + "images"
	}
	return root + "images?" + q.Encode()
}

// columnsOf gives the columns; a click on the one that sorts turns the order.
func columnsOf(l admin.Look) []column {
	var all []column
	for _, c := range []struct {
		sort, text string
		num        bool
		desc       bool // at first
	}{
		{"name", "Image", false, false}, {"version", "Version", false, true}, {"os", "OS", false, false}, {"type", "Type", false, false},
		{"size", "Size", true, true}, {"source", "Source", false, false}, {"published", "Published", false, true}, {"state", "On disk", false, false},
	} {
		to := l
		to.Sort, to.Desc, to.Offset = c.sort, c.desc, 0
		head := column{Text: c.text, Num: c.num}
		if l.Sort == c.sort {
			head.Sort, to.Desc = "ascending", true
			if l.Desc {
				head.Sort, to.Desc = "descending", false
			}
		}
		head.Href = address(to)
		all = append(all, head)
	}
	return all
}

// choices are the selects of the form, with what each choice would give.
func (l *imageList) choices() []choices {
	all := []choices{
		{Name: "os", Label: "OS", Options: l.values("os", "Any OS", l.Look.OS)},
		{Name: "type", Label: "Type", Options: l.values("type", "Any type", l.Look.Type)},
		{Name: "source", Label: "Source", Options: l.values("source", "Any source", l.Look.Source)},
	}
	state := choices{Name: "state", Label: "State"}
	states := [][2]string{{"", "All images"}, {"cached", "On disk"}, {"uncached", "Not on disk"}}
	if l.Operator {
		states = append(states, [2]string{"pinned", "Pinned"}, [2]string{"retired", "Retired"})
	}
	for _, s := range states {
		n := l.Facets["state"][cmp.Or(s[0], "listed")]
		state.Options = append(state.Options, choice{s[0], s[1] + " (" + count(n) + ")", s[0] == l.Look.State && l.Look.Reason == ""})
	}
	if l.Operator {
		n := l.Facets["state"]["hidden"]
		state.Hidden = append(state.Hidden, choice{"hidden", "Hidden, for any reason (" + count(n) + ")", l.Look.State == "hidden"})
		reasons := l.Facets["reason"]
		names := slices.Sorted(maps.Keys(reasons))
		if l.Look.Reason != "" && !slices.Contains(names, l.Look.Reason) {
			names = append(names, l.Look.Reason)
		}
		for _, name := range names {
			text := "Hidden: " + reasonText(name) + " (" + count(reasons[name]) + ")"
			state.Hidden = append(state.Hidden, choice{hiddenPrefix + name, text, name == l.Look.Reason})
		}
	}
	all = append(all, state)
	sorts := choices{Name: "sort", Label: "Sort by"}
	for _, s := range [][2]string{
		{"published", "Published"}, {"name", "Name"}, {"version", "Version"}, {"os", "OS"}, {"type", "Type"},
		{"size", "Size"}, {"source", "Source"}, {"state", "State on disk"},
	} {
		sorts.Options = append(sorts.Options, choice{s[0], s[1], s[0] == l.Look.Sort})
	}
	order := choices{Name: "order", Label: "Order", Options: []choice{
		{"desc", "Descending", l.Look.Desc}, {ascending, "Ascending", !l.Look.Desc},
	}}
	return append(all, sorts, order)
}

// values are the choices of a column: the most frequent first, and the selected one in any case.
func (l *imageList) values(facet, anyText, selected string) []choice {
	counts := l.Facets[facet]
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	if selected != "" && !slices.Contains(names, selected) {
		names = append(names, selected)
	}
	all := []choice{{"", anyText, selected == ""}}
	for _, name := range names {
		all = append(all, choice{name, fmt.Sprintf("%s (%s)", name, count(counts[name])), name == selected})
	}
	return all
}

// reasonText is a reason in words.
func reasonText(name string) string {
	return cmp.Or(reasonTexts[name], strings.ReplaceAll(name, "_", " "))
}

// reasonTexts are for the reasons whose names do not tell enough.
var reasonTexts = map[string]string{
	"refused": "manifest refused", "skipped": "of no use to nodes", "incomplete": "size or compression unknown", "unusable": "no node can receive the file",
	"filtered": "left out by filters", "conflict": "another source has other files", "unlisted": "found by uuid only", "no_channel": "in no channel",
}

// publicLook is a look that clients may have: at public images that lists show.
func publicLook(l admin.Look) admin.Look {
	l.Filters = []string{"public=true"}
	l.Reason = ""
	if l.State != "cached" && l.State != "uncached" {
		l.State = ""
	}
	return l
}

// errNoImage answers for an image that is not there, or not for everyone.
var errNoImage = &fault{http.StatusNotFound, "No such image", "The mirror knows of no image with this uuid."}
