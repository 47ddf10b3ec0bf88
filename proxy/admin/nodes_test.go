package admin

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"imgmirror/proxy/mirror"
	"imgmirror/proxy/nodes"
	"imgmirror/proxy/upstream/upstreamtest"
)

// withNodes has a journal of nodes, of which the nth has had the images 1 to n, one after the other
// each second.
func withNodes(t *testing.T, n int) *fixture {
	t.Helper()
	f := newFixture(t, func(o *mirror.Options) { o.Rules.Nodes = nodes.Limits{Keep: time.Hour, Max: 1000} })
	j := f.mirror.Nodes()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	began := time.Now().Truncate(time.Second)
	for node := range n {
		agent := "imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u) joyent_20260101T010203Z"
		if node%2 == 1 {
			agent = "\x1b]0;<b>\u202e"
		}
		j.Note(nodes.Request{Address: nodeAddress(node), Agent: agent, Ended: began.Add(time.Duration(node) * time.Second), Kind: nodes.List})
		for i := range node {
			j.Note(nodes.Request{
				Address: nodeAddress(node), Agent: agent, Ended: began.Add(time.Duration(node) * time.Second), Took: time.Second,
				Kind: nodes.File, Result: "HIT", Image: upstreamtest.ID(i + 1), Sent: 1000, Size: 1000,
			})
		}
	}
	stop() // takes in what waits
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return f
}

func nodeAddress(n int) netip.Addr {
	if n%2 == 1 {
		return netip.AddrFrom16([16]byte{0xfd, 15: byte(n)})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
}

func addresses(rows []Node) string {
	var all []netip.Addr
	for _, r := range rows {
		all = append(all, netip.MustParseAddr(r.Address))
	}
	return fmt.Sprint(all)
}

func wantAddresses(t *testing.T, what string, rows []Node, numbers ...int) {
	t.Helper()
	var want []netip.Addr
	for _, n := range numbers {
		want = append(want, nodeAddress(n))
	}
	if got := addresses(rows); got != fmt.Sprint(want) {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// The journal in pages, by network, text, image, order; one node; who has an image; the status
// counts the nodes.
func TestNodes(t *testing.T) {
	f := withNodes(t, 5)
	c, ctx := f.client(), t.Context()
	image := upstreamtest.ID(2).String()
	list := func(q NodeQuery, total int, numbers ...int) []Node {
		t.Helper()
		page, err := c.Nodes(ctx, q)
		if err != nil || page.Total != total || !page.On || page.Offset != q.Offset {
			t.Errorf("%+v: %d of %d, on %t, %v", q, len(page.Rows), page.Total, page.On, err)
		}
		wantAddresses(t, fmt.Sprint(q), page.Rows, numbers...)
		return page.Rows
	}
	list(NodeQuery{}, 5, 4, 3, 2, 1, 0)
	list(NodeQuery{Offset: 3, Limit: 1}, 5, 1)
	list(NodeQuery{Sort: "address"}, 5, 0, 2, 4, 1, 3)
	list(NodeQuery{Sort: "saved", Order: "asc"}, 5, 0, 1, 2, 3, 4)
	list(NodeQuery{Address: "10.0.0.3/30"}, 2, 2, 0)
	list(NodeQuery{Address: "::ffff:10.0.0.4"}, 1, 4)
	list(NodeQuery{Words: "IMGADM"}, 3, 4, 2, 0)
	list(NodeQuery{Lacks: image}, 2, 1, 0)
	rows := list(NodeQuery{Image: image}, 3, 4, 3, 2)
	want := NodeFetch{
		UUID: image, Name: "image2", Version: "1.0", When: rows[0].LastSeen, Result: "hit", Bytes: 1000, Took: 1000, Rate: 1000, Fetches: 1, Whole: true,
	}
	if d := cmp.Diff(want, *rows[0].Fetch); d != "" {
		t.Error(d)
	}

	n, err := c.Node(ctx, nodeAddress(3).String())
	if err != nil || len(n.Fetches) != 3 || n.Fetches[0].UUID != upstreamtest.ID(3).String() || n.Agent != "\x1b]0;<b>\u202e" ||
		n.Saved != 3000 || n.Served["hit"] != 3000 || n.Results["hit"] != 3 || n.Lists != 1 || n.Requests != 4 || n.Images != 3 {
		t.Errorf("%+v, %v", n, err)
	}
	if n, err = c.Node(ctx, "10.0.0.4"); err != nil || n.Client != "imgadm" || n.ClientVersion != "3.9.5" || n.Platform != "20260101T010203Z" {
		t.Errorf("%+v, %v", n, err)
	}
	both, err := c.ImageNodes(ctx, uuid.MustParse(image), 1, 1)
	if err != nil || both.HaveTotal != 3 || both.LackTotal != 2 || both.UUID != image || !both.On {
		t.Errorf("%+v, %v", both, err)
	}
	wantAddresses(t, "have", both.Have, 3)
	wantAddresses(t, "lack", both.Lack, 0)
	if st, err := c.Status(ctx); err != nil || st.Nodes != 5 {
		t.Errorf("the status counts %d nodes, %v", st.Nodes, err)
	}

	f.refused(404, "ResourceNotFound", "GET", "/nodes/10.1.1.1", nil)
	for _, path := range []string{
		"/nodes/x", "/nodes?address=10.0.0.0/33", "/nodes?image=x", "/nodes?lacks=1", "/nodes?sort=fetched", "/nodes?order=up",
		"/nodes?limit=0", "/nodes?limit=1001", "/nodes?offset=-1", "/nodes?q=" + fmt.Sprintf("%0300d", 1), "/images/x/nodes", "/images/" + image + "/nodes?limit=x",
	} {
		f.refused(422, "InvalidParameter", "GET", path, nil)
	}
}

// Deleting one node and all of them; a wrong address deletes nothing.
func TestForgetNodes(t *testing.T) {
	f := withNodes(t, 4)
	c, ctx := f.client(), t.Context()
	f.refused(422, "InvalidParameter", "DELETE", "/nodes?address=", nil)
	f.refused(422, "InvalidParameter", "DELETE", "/nodes?address=10.0.0.0/8", nil)
	f.refused(422, "InvalidParameter", "DELETE", "/nodes?adress=10.0.0.3", nil)
	for _, removed := range []int{1, 0} {
		if got, err := c.ForgetNode(ctx, nodeAddress(3).String()); err != nil || got.Removed != removed {
			t.Errorf("%+v, %v, want %d", got, err, removed)
		}
	}
	if got, err := c.ForgetNodes(ctx); err != nil || got.Removed != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if page, err := c.Nodes(ctx, NodeQuery{}); err != nil || page.Total != 0 || len(page.Rows) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
}

// Without a journal the answers say so.
func TestNodesOff(t *testing.T) {
	f := newFixture(t)
	var page NodePage
	f.want(200, "GET", "/nodes", nil, &page)
	var image ImageNodes
	f.want(200, "GET", "/images/"+upstreamtest.ID(1).String()+"/nodes", nil, &image)
	if page.On || image.On || page.Total+image.HaveTotal+image.LackTotal != 0 {
		t.Errorf("%+v, %+v", page, image)
	}
}
