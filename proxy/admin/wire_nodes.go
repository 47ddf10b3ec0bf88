package admin

import (
	"net/url"
	"strconv"
	"time"
)

// NodeQuery is a question for a NodePage: the query of GET /api/v1/nodes. The zero value is the
// first page of all nodes, the one that was seen last first.
type NodeQuery struct {
	Address string // address: a node, or a network such as 10.1.0.0/16; "" = any
	Words   string // q: a part of the address or of the user agent; "" = any
	Image   string // image: the nodes that have had all of the image with this uuid; "" = any
	Lacks   string // lacks: the nodes that have not; "" = any
	Sort    string // sort: address, client, first, last, requests, errors, bytes, saved, images, rate; "" = last
	Order   string // order: asc or desc; "" = asc for address and client, desc for the others
	Offset  int
	Limit   int // 1 to 1000; 0 = 50
}

// Query is the query string of q.
func (q NodeQuery) Query() url.Values {
	v := url.Values{}
	for _, p := range [][2]string{
		{"address", q.Address}, {"q", q.Words}, {"image", q.Image}, {"lacks", q.Lacks}, {"sort", q.Sort}, {"order", q.Order},
	} {
		if p[1] != "" {
			v.Set(p[0], p[1])
		}
	}
	for name, n := range map[string]int{"offset": q.Offset, "limit": q.Limit} {
		if n != 0 {
			v.Set(name, strconv.Itoa(n))
		}
	}
	return v
}

// NodePage is some nodes of the journal.
type NodePage struct {
	On     bool   `json:"on"`    // there is a journal
	Total  int    `json:"total"` // nodes of all pages
	Offset int    `json:"offset"`
	Rows   []Node `json:"rows"`
}

// Node is what the journal knows of one address. Agent, Client, ClientVersion and Platform are a
// stranger's text.
type Node struct {
	Address       string    `json:"address"`
	FirstSeen     time.Time `json:"first_seen"`
	LastSeen      time.Time `json:"last_seen"`
	Agent         string    `json:"agent"`  // the user agent that came last, at most 200 bytes
	Client        string    `json:"client"` // imgadm, curl, …
	ClientVersion string    `json:"client_version"`
	Platform      string    `json:"platform"` // of SmartOS, if the user agent has it

	Requests  int64            `json:"requests"`
	Lists     int64            `json:"lists"` // of Requests
	Manifests int64            `json:"manifests"`
	Files     int64            `json:"files"`
	Errors    int64            `json:"errors"`  // replies of 500 and above, and bodies that ended early
	Results   map[string]int64 `json:"results"` // files by hit, miss, join
	Served    map[string]int64 `json:"served"`  // bytes of files by hit, miss, join
	Saved     int64            `json:"saved"`   // bytes that no source was asked for: hit and join
	Rate      int64            `json:"rate"`    // bytes per second, over all files

	Images    int         `json:"images"`            // that are known of the node, at most 48
	Forgotten int64       `json:"forgotten"`         // images that were dropped for newer ones: whether the node has them is not known
	Fetch     *NodeFetch  `json:"fetch,omitempty"`   // of the image that was asked for
	Fetches   []NodeFetch `json:"fetches,omitempty"` // the last one first; in replies to GET /api/v1/nodes/ADDRESS only
}

// NodeFetch is what a node has had of an image.
type NodeFetch struct {
	UUID    string    `json:"uuid"`
	Name    string    `json:"name,omitempty"` // if the catalogue has the image
	Version string    `json:"version,omitempty"`
	When    time.Time `json:"when"`    // the end of the last request
	Result  string    `json:"result"`  // of the last request: hit, miss, join
	Bytes   int64     `json:"bytes"`   // by the last request
	Took    int64     `json:"took_ms"` // the last request
	Rate    int64     `json:"rate"`    // of the last request, bytes per second
	Fetches int64     `json:"fetches"` // requests
	Whole   bool      `json:"whole"`   // the node has had all bytes, in one request or several
	Cut     bool      `json:"cut"`     // the last body ended early
}

// ImageNodes are the nodes that have had an image, the one that had the image last first, and the
// other nodes of the journal, the one that was seen last first. Offset and limit of the question
// are for both lists.
type ImageNodes struct {
	UUID      string `json:"uuid"`
	On        bool   `json:"on"` // there is a journal
	Offset    int    `json:"offset"`
	HaveTotal int    `json:"have_total"`
	Have      []Node `json:"have"`
	LackTotal int    `json:"lack_total"`
	Lack      []Node `json:"lack"`
}

// Forgotten tells how many nodes were deleted from the journal.
type Forgotten struct {
	Removed int `json:"removed"`
}
