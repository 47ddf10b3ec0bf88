package nodes

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Node is what the journal knows of one address.
type Node struct {
	Address                        netip.Addr
	First, Last                    time.Time // seen
	Agent                          string    // as the client sent it: a stranger's text
	Client                         Client
	Requests                       int64
	Lists, Manifests, Files        int64 // of Requests
	Errors                         int64 // replies of 500 and above, and bodies that ended early
	Hits, Misses, Joins            int64 // of Files
	HitBytes, MissBytes, JoinBytes int64
	Saved                          int64 // bytes that no source was asked for because of this node
	Rate                           int64 // bytes a second, of all files
	Images                         int   // that are known of the node
	Forgotten                      int64 // images that were dropped for newer ones
	Fetch                          *Fetch
}

// Fetch is what a node has had of an image.
type Fetch struct {
	Image   uuid.UUID
	When    time.Time // the last request: its end
	Result  string    // of it: hit, miss or join
	Bytes   int64     // by it
	Took    time.Duration
	Rate    int64 // bytes a second, of the last request
	Fetches int64 // requests
	Whole   bool  // the node has had all bytes, in one request or several
	Cut     bool  // the last body ended early
}

func (n *node) node() Node {
	out := Node{
		Address: n.address, First: unix(n.first), Last: unix(n.last), Agent: n.agent, Client: ReadAgent(n.agent),
		Lists: n.requests[List], Manifests: n.requests[Manifest], Files: n.requests[File], Errors: n.errors,
		Hits: n.results[1], Misses: n.results[2], Joins: n.results[3],
		HitBytes: n.served[1], MissBytes: n.served[2], JoinBytes: n.served[3],
		Saved: n.saved(), Rate: rate(n.bytes(), n.millis), Images: len(n.images), Forgotten: n.forgotten,
	}
	for _, some := range n.requests {
		out.Requests += some
	}
	return out
}

func (n *node) saved() int64 { return n.served[1] + n.served[3] }

func (n *node) bytes() (sum int64) {
	for _, some := range n.served {
		sum += some
	}
	return sum
}

func (n *node) count() (sum int64) {
	for _, some := range n.requests {
		sum += some
	}
	return sum
}

func (i *image) fetch() Fetch {
	return Fetch{
		Image: i.id, When: unix(int64(i.when)), Result: results[i.result], Bytes: i.sent,
		Took: time.Duration(i.millis) * time.Millisecond, Rate: rate(i.sent, int64(i.millis)),
		Fetches: int64(i.fetches), Whole: i.whole, Cut: i.cut,
	}
}

// find gives the entry of an image; nil without one.
func (n *node) find(id uuid.UUID) *image {
	for i := range n.images {
		if n.images[i].id == id {
			return &n.images[i]
		}
	}
	return nil
}

// has tells whether the node has had all of an image.
func (n *node) has(id uuid.UUID) bool {
	i := n.find(id)
	return i != nil && i.whole
}

// Query picks nodes. The zero value picks all of them.
type Query struct {
	Network netip.Prefix // the address is in it; the zero value: any address
	Text    string       // a part of the address or of the user agent, in any case; "" = any
	Image   uuid.UUID    // the nodes that have had all of the image; zero = any
	Lacks   uuid.UUID    // the nodes that have not; zero = any
	Sort    string       // one of Sorts; "" = last
	Order   string       // asc or desc; "" = asc for address and client, desc for all else
	Offset  int
	Limit   int // nodes; 0 = all
}

// SortFetched is a value of Query.Sort beside Sorts, for a Query of an Image: when the node has
// last asked for the image.
const SortFetched = "fetched"

// orders are the fields to sort by, upwards.
var orders = []struct {
	name  string
	down  bool // without Order
	order func(a, b *node) int
}{
	{"address", false, func(a, b *node) int { return a.address.Compare(b.address) }},
	{"client", false, func(a, b *node) int { return cmp.Compare(a.agent, b.agent) }},
	{"first", true, func(a, b *node) int { return cmp.Compare(a.first, b.first) }},
	{"last", true, func(a, b *node) int { return cmp.Compare(a.last, b.last) }},
	{"requests", true, func(a, b *node) int { return cmp.Compare(a.count(), b.count()) }},
	{"errors", true, func(a, b *node) int { return cmp.Compare(a.errors, b.errors) }},
	{"bytes", true, func(a, b *node) int { return cmp.Compare(a.bytes(), b.bytes()) }},
	{"saved", true, func(a, b *node) int { return cmp.Compare(a.saved(), b.saved()) }},
	{"images", true, func(a, b *node) int { return cmp.Compare(len(a.images), len(b.images)) }},
	{"rate", true, func(a, b *node) int { return cmp.Compare(rate(a.bytes(), a.millis), rate(b.bytes(), b.millis)) }},
}

// Sorts lists the values of Query.Sort.
func Sorts() []string {
	names := make([]string, len(orders))
	for i, o := range orders {
		names[i] = o.name
	}
	return names
}

// List gives a page of the nodes that q picks, and how many there are in all. With Image each node
// has its Fetch.
func (j *Journal) List(q Query) (page []Node, total int) {
	j.load()
	j.catchUp()
	text := strings.ToLower(q.Text)
	j.mu.RLock()
	defer j.mu.RUnlock()
	var picked []*node
	for n := j.seen.next; n != &j.seen; n = n.next {
		if q.picks(n, text) {
			picked = append(picked, n)
		}
	}
	if q.Sort == SortFetched && q.Image == uuid.Nil {
		q.Sort = ""
	}
	q.sort(picked)
	total = len(picked)
	picked = picked[min(max(q.Offset, 0), total):]
	if q.Limit > 0 {
		picked = picked[:min(q.Limit, len(picked))]
	}
	page = make([]Node, len(picked))
	for i, n := range picked {
		page[i] = n.node()
		if q.Image != uuid.Nil {
			fetch := n.find(q.Image).fetch()
			page[i].Fetch = &fetch
		}
	}
	return page, total
}

// picks tells whether q picks the node; text is q.Text in lower case.
func (q *Query) picks(n *node, text string) bool {
	return (!q.Network.IsValid() || q.Network.Contains(n.address)) &&
		(text == "" || strings.Contains(n.address.String(), text) || strings.Contains(strings.ToLower(n.agent), text)) &&
		(q.Image == uuid.Nil || n.has(q.Image)) &&
		(q.Lacks == uuid.Nil || !n.has(q.Lacks))
}

// sort orders nodes; those that are alike are in the order of their addresses.
func (q *Query) sort(picked []*node) {
	name := cmp.Or(q.Sort, "last")
	if name == SortFetched {
		slices.SortFunc(picked, func(a, b *node) int {
			return cmp.Or(cmp.Compare(b.find(q.Image).when, a.find(q.Image).when), a.address.Compare(b.address))
		})
		return
	}
	for _, o := range orders {
		if o.name != name {
			continue
		}
		down := o.down && q.Order == "" || q.Order == "desc"
		slices.SortFunc(picked, func(a, b *node) int {
			order := o.order(a, b)
			if down {
				order = -order
			}
			return cmp.Or(order, a.address.Compare(b.address))
		})
	}
}

// Node gives what is known of one address, and its images, the one that was asked for last first.
func (j *Journal) Node(address netip.Addr) (Node, []Fetch, bool) {
	j.load()
	j.catchUp()
	j.mu.RLock()
	defer j.mu.RUnlock()
	n := j.nodes[address]
	if n == nil {
		return Node{}, nil, false
	}
	fetches := make([]Fetch, 0, len(n.images))
	for i := range slices.Backward(n.images) {
		fetches = append(fetches, n.images[i].fetch())
	}
	return n.node(), fetches, true
}
