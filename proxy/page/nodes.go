package page

import (
	"cmp"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"imgmirror/proxy/admin"
)

// The journal of nodes. All of it is for operators only.

// nodeRows is how many nodes one page shows.
const nodeRows = 50

// nodeList is the value of nodes.html.
type nodeList struct {
	admin.NodePage
	Asked    admin.NodeQuery
	Words    string // of the form: an address, a network, or a part of an address or a user agent
	Image    string // the image that the nodes have or lack, in words; "" = none
	Fetched  bool   // the rows tell of an image
	Choices  []choices
	Columns  []column
	Narrowed bool
	Clear    string
	At, Of   int // pages; the first one is 1
	Links    []pageLink
}

// First and Last are the places of the rows on the page, from 1.
func (l *nodeList) First() int { return l.Offset + 1 }

// Last is the place of the last row.
func (l *nodeList) Last() int { return l.Offset + len(l.Rows) }

// nodeSorts are the fields to sort by, with the heads of their columns; down is the order at first.
var nodeSorts = []struct {
	sort, text string
	num, down  bool
}{
	{"address", "Node", false, false}, {"client", "Client", false, false}, {"last", "Last seen", false, true},
	{"requests", "Requests", true, true}, {"images", "Images", true, true}, {"bytes", "Bytes", true, true},
	{"saved", "Saved", true, true}, {"rate", "Rate", true, true}, {"errors", "Errors", true, true},
}

// usualNodes is the order of nodes.html that is used when none is asked for.
const usualNodes = "last"

func (p *Page) nodes(v *visit) (any, error) {
	q := v.URL.Query()
	asked := admin.NodeQuery{Sort: cmp.Or(q.Get("sort"), usualNodes), Order: q.Get("order"), Image: q.Get("image"), Lacks: q.Get("lacks"), Limit: nodeRows}
	words := strings.TrimSpace(q.Get("q"))
	if isNetwork(words) {
		asked.Address = words
	} else {
		asked.Words = words
	}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 1 && n < 1<<20 {
		asked.Offset = (n - 1) * nodeRows
	}
	for _, s := range nodeSorts {
		if s.sort == asked.Sort && asked.Order == "" {
			asked.Order = map[bool]string{true: "desc", false: ascending}[s.down]
		}
	}
	found, err := v.api().Nodes(v.Context(), asked)
	if err != nil {
		return nil, err
	}
	l := &nodeList{
		NodePage: found, Asked: asked, Words: words, Fetched: asked.Image != "", Clear: root + "nodes",
		Narrowed: words != "" || asked.Image != "" || asked.Lacks != "",
		At:       asked.Offset/nodeRows + 1, Of: max(1, (found.Total+nodeRows-1)/nodeRows),
	}
	if id, err := uuid.Parse(cmp.Or(asked.Image, asked.Lacks)); err == nil {
		l.Image = v.nameOf(id)
	}
	l.arrange()
	return l, nil
}

// isNetwork tells an address, or a network, from a part of one.
func isNetwork(text string) bool {
	_, noAddress := netip.ParseAddr(text)
	_, noNetwork := netip.ParsePrefix(text)
	return noAddress == nil || noNetwork == nil
}

// nameOf is an image in words.
func (v *visit) nameOf(id uuid.UUID) string {
	image, err := v.api().Image(v.Context(), id)
	if err != nil {
		return id.String()
	}
	f := readFacts(image.Manifest)
	return cmp.Or(strings.TrimSpace(f.Name+" "+f.Version), id.String())
}

// arrange makes the heads of the columns, the choices of the form, and the links to other pages.
func (l *nodeList) arrange() {
	sorts := choices{Name: "sort", Label: "Sort by"}
	for _, s := range nodeSorts {
		head := column{Text: s.text, Num: s.num}
		order := map[bool]string{true: "desc", false: ascending}[s.down]
		if l.Asked.Sort == s.sort {
			head.Sort, order = "ascending", "desc"
			if l.Asked.Order == "desc" {
				head.Sort, order = "descending", ascending
			}
		}
		head.Href = l.address(s.sort, order, 1)
		l.Columns = append(l.Columns, head)
		sorts.Options = append(sorts.Options, choice{s.sort, s.text, s.sort == l.Asked.Sort})
	}
	l.Choices = []choices{sorts, {Name: "order", Label: "Order", Options: []choice{
		{"desc", "Descending", l.Asked.Order == "desc"}, {ascending, "Ascending", l.Asked.Order != "desc"},
	}}}
	for _, link := range []struct {
		text, rel string
		at        int
	}{{"First", "", 1}, {"Previous", "prev", l.At - 1}, {"Next", "next", l.At + 1}, {"Last", "", l.Of}} {
		pl := pageLink{Text: link.text, Rel: link.rel}
		if link.at >= 1 && link.at <= l.Of && link.at != l.At {
			pl.Href = l.address(l.Asked.Sort, l.Asked.Order, link.at)
		}
		l.Links = append(l.Links, pl)
	}
}

// address is the address of nodes.html for another order, or another page.
func (l *nodeList) address(sort, order string, page int) string {
	q := url.Values{}
	for _, p := range [][2]string{{"q", l.Words}, {"image", l.Asked.Image}, {"lacks", l.Asked.Lacks}, {"sort", sort}, {"order", order}} {
		if p[1] != "" {
			q.Set(p[0], p[1])
		}
	}
	if page > 1 {
		q.Set("page", strconv.Itoa(page))
	}
	return root + "nodes?" + q.Encode()
}

// actNodes deletes the journal.
func (p *Page) actNodes(v *visit) (string, error) {
	if v.PostForm.Get("do") != "forget" {
		return "", unknownAction
	}
	gone, err := v.api().ForgetNodes(v.Context())
	if err == nil {
		v.say("The journal is deleted: " + counted(gone.Removed, "node") + ".")
	}
	return root + "nodes", err
}

// nodeView is the value of node.html and node-forget.html.
type nodeView struct {
	admin.Node
	Bytes  int64
	Doomed bool // the page asks whether the node is to be deleted
}

func (n *nodeView) title() string {
	if n.Doomed {
		return "Delete " + n.Address
	}
	return "Node " + n.Address
}

// errNoNode answers for an address that the journal does not know.
var errNoNode = &fault{http.StatusNotFound, "No such node", "The journal knows nothing of this address. What it knew may have been deleted, or be too old."}

func (p *Page) node(v *visit) (any, error) {
	n, err := v.node()
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (v *visit) node() (*nodeView, error) {
	address, err := netip.ParseAddr(v.PathValue("address"))
	if err != nil {
		return nil, errNoNode
	}
	n, err := v.api().Node(v.Context(), address.String())
	if gone(err) {
		return nil, errNoNode
	}
	if err != nil {
		return nil, err
	}
	return &nodeView{Node: n, Bytes: bytesOf(n)}, nil
}

// bytesOf is what a node was given.
func bytesOf(n admin.Node) (sum int64) {
	for _, bytes := range n.Served {
		sum += bytes
	}
	return sum
}

// actNode deletes what is known of one node.
func (p *Page) actNode(v *visit) (string, error) {
	if v.PostForm.Get("do") != "forget" {
		return "", unknownAction
	}
	address, err := netip.ParseAddr(v.PathValue("address"))
	if err != nil {
		return "", errNoNode
	}
	if _, err = v.api().ForgetNode(v.Context(), address.String()); err == nil {
		v.say("What the journal knew of " + address.String() + " is deleted.")
	}
	return root + "nodes", err
}

// forgetNodes asks once more before the journal is deleted.
func (p *Page) forgetNodes(v *visit) (any, error) {
	found, err := v.api().Nodes(v.Context(), admin.NodeQuery{Limit: 1})
	if err != nil {
		return nil, err
	}
	if found.Total == 0 {
		return nil, &fault{http.StatusNotFound, "Nothing to delete", "The journal has no node."}
	}
	return &doomedJournal{found.Total}, nil
}

// doomedJournal is the value of nodes-forget.html.
type doomedJournal struct{ All int }

// forgetNode asks once more before a node is deleted.
func (p *Page) forgetNode(v *visit) (any, error) {
	n, err := v.node()
	if err != nil {
		return nil, err
	}
	n.Doomed = true
	return n, nil
}

// fewNodes is how many nodes the page of an image shows of those that have the image, and of those
// that lack it.
const fewNodes = 8

// imageNodes are the nodes that have an image, and those that lack the image: the value of the
// template image-nodes in parts.html, for operators.
func (l *look) imageNodes(text string) (*admin.ImageNodes, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return nil, errNoImage
	}
	both, err := l.page.o.API.ImageNodes(l, id, 0, fewNodes)
	if err != nil {
		return nil, err
	}
	return &both, nil
}
