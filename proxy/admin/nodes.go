package admin

import (
	"cmp"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"imgmirror/proxy/meaning"
	"imgmirror/proxy/nodes"
)

// The journal of nodes.

const (
	defaultNodes = 50
	maxNodes     = 1000
)

// listNodes is GET /nodes.
func (s *Server) listNodes(r *http.Request) (any, error) {
	q, err := readNodeQuery(r.URL.Query())
	if err != nil {
		return nil, err
	}
	rows, total := s.mirror.Nodes().List(q)
	return NodePage{On: s.mirror.Nodes().On(), Total: total, Offset: q.Offset, Rows: s.nodesOf(rows)}, nil
}

// getNode is GET /nodes/ADDRESS.
func (s *Server) getNode(r *http.Request) (any, error) {
	address, err := addressOf(r.PathValue("address"))
	if err != nil {
		return nil, err
	}
	n, fetches, known := s.mirror.Nodes().Node(address)
	if !known {
		return nil, refuse(http.StatusNotFound, meaning.NotFound, "the journal does not know %s", address)
	}
	row := s.nodeOf(n)
	row.Fetches = make([]NodeFetch, len(fetches))
	for i, f := range fetches {
		row.Fetches[i] = s.fetchOf(f)
	}
	return row, nil
}

// imageNodes is GET /images/UUID/nodes.
func (s *Server) imageNodes(r *http.Request) (any, error) {
	id, err := uuidOf(r.PathValue("uuid"))
	if err != nil {
		return nil, err
	}
	q, err := readPaging(r.URL.Query())
	if err != nil {
		return nil, err
	}
	reply := ImageNodes{UUID: id.String(), On: s.mirror.Nodes().On(), Offset: q.Offset}
	var rows []nodes.Node
	have, lack := q, q
	have.Image, have.Sort, lack.Lacks = id, nodes.SortFetched, id
	rows, reply.HaveTotal = s.mirror.Nodes().List(have)
	reply.Have = s.nodesOf(rows)
	rows, reply.LackTotal = s.mirror.Nodes().List(lack)
	reply.Lack = s.nodesOf(rows)
	return reply, nil
}

// forgetNodes is DELETE /nodes: of one address, or of all.
func (s *Server) forgetNodes(r *http.Request) (any, error) {
	params := r.URL.Query()
	for name := range params {
		if name != "address" { // a misspelt address must not delete the whole journal
			return nil, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "%s is no parameter here: want address, or none", shorten(name))
		}
	}
	text, one := params["address"]
	if !one {
		n, err := s.mirror.Nodes().ForgetAll()
		return Forgotten{n}, err
	}
	address, err := addressOf(text[0])
	if err != nil {
		return nil, err
	}
	known, err := s.mirror.Nodes().Forget(address)
	if known {
		return Forgotten{1}, err
	}
	return Forgotten{}, err
}

// readNodeQuery reads the query of GET /nodes. Parameters that it does not have are ignored.
func readNodeQuery(params url.Values) (q nodes.Query, err error) {
	if q, err = readPaging(params); err != nil {
		return q, err
	}
	if text := params.Get("address"); text != "" {
		if q.Network, err = networkOf(text); err != nil {
			return q, err
		}
	}
	if q.Text = params.Get("q"); len(q.Text) > maxSearch {
		return q, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "q has more than %d bytes", maxSearch)
	}
	for name, to := range map[string]*uuid.UUID{"image": &q.Image, "lacks": &q.Lacks} {
		if text := params.Get(name); text != "" {
			if *to, err = uuidOf(text); err != nil {
				return q, err
			}
		}
	}
	q.Sort, q.Order = params.Get("sort"), params.Get("order")
	for _, p := range []struct {
		name, value string
		all         []string
	}{{"sort", q.Sort, nodes.Sorts()}, {"order", q.Order, []string{"asc", "desc"}}} {
		if p.value != "" && !slices.Contains(p.all, p.value) {
			return q, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "%s is one of %s, and not %q",
				p.name, strings.Join(p.all, ", "), shorten(p.value))
		}
	}
	return q, nil
}

// readPaging reads offset and limit.
func readPaging(params url.Values) (q nodes.Query, err error) {
	for _, p := range []struct {
		name            string
		least, is, most int
		to              *int
	}{{"offset", 0, 0, 1 << 30, &q.Offset}, {"limit", 1, defaultNodes, maxNodes, &q.Limit}} {
		n, err := strconv.Atoi(cmp.Or(params.Get(p.name), strconv.Itoa(p.is)))
		if err != nil || n < p.least || n > p.most {
			return q, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "%s is a number from %d to %d", p.name, p.least, p.most)
		}
		*p.to = n
	}
	return q, nil
}

// addressOf reads an address as the journal has it.
func addressOf(text string) (netip.Addr, error) {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return address, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "%q is not an IP address", shorten(text))
	}
	return address.Unmap().WithZone(""), nil
}

// networkOf reads a network, or an address, which is a network of one.
func networkOf(text string) (netip.Prefix, error) {
	if network, err := netip.ParsePrefix(text); err == nil {
		return network.Masked(), nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter,
			"%q is neither an IP address nor a network such as 10.1.0.0/16", shorten(text))
	}
	address = address.Unmap().WithZone("")
	return netip.PrefixFrom(address, address.BitLen()), nil
}

func (s *Server) nodesOf(all []nodes.Node) []Node {
	out := make([]Node, len(all))
	for i, n := range all {
		out[i] = s.nodeOf(n)
	}
	return out
}

func (s *Server) nodeOf(n nodes.Node) Node {
	out := Node{
		Address: n.Address.String(), FirstSeen: n.First, LastSeen: n.Last,
		Agent: n.Agent, Client: n.Client.Name, ClientVersion: n.Client.Version, Platform: n.Client.Platform,
		Requests: n.Requests, Lists: n.Lists, Manifests: n.Manifests, Files: n.Files, Errors: n.Errors,
		Results: map[string]int64{"hit": n.Hits, "miss": n.Misses, "join": n.Joins},
		Served:  map[string]int64{"hit": n.HitBytes, "miss": n.MissBytes, "join": n.JoinBytes},
		Saved:   n.Saved, Rate: n.Rate, Images: n.Images, Forgotten: n.Forgotten,
	}
	if n.Fetch != nil {
		f := s.fetchOf(*n.Fetch)
		out.Fetch = &f
	}
	return out
}

func (s *Server) fetchOf(f nodes.Fetch) NodeFetch {
	out := NodeFetch{
		UUID: f.Image.String(), When: f.When, Result: f.Result, Bytes: f.Bytes, Took: f.Took.Milliseconds(), Rate: f.Rate,
		Fetches: f.Fetches, Whole: f.Whole, Cut: f.Cut,
	}
	if e, ok := s.mirror.Current().Entry(f.Image); ok {
		out.Name, out.Version = brief(e.Manifest.Name), brief(e.Manifest.Version)
	}
	return out
}
