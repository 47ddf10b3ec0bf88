package nodes

import "net/netip"

// network is the nodes of one IPv6 network of /64, all of whose addresses one machine may use. Where one
// network has more than half of the room, its own nodes make room for newcomers, so that no machine takes
// what the journal knows of all others.
type network struct {
	ring  node // ring.sibling[next] was seen last, ring.sibling[previous] longest ago
	count int
}

// The neighbours in node.sibling.
const (
	next = iota
	previous
)

// networkOf is the network of an address; the zero value: an address of IPv4.
func networkOf(a netip.Addr) netip.Prefix {
	if !a.Is6() {
		return netip.Prefix{}
	}
	p, _ := a.Prefix(64) // the number of bits fits
	return p
}

// attach makes n the node that was seen last. mu is held.
func (j *Journal) attach(n *node) {
	n.linkAfter(&j.seen)
	at := networkOf(n.address)
	if !at.IsValid() {
		return
	}
	w := j.networks[at]
	if w == nil {
		w = new(network)
		w.ring.sibling = [2]*node{&w.ring, &w.ring}
		j.networks[at] = w
	}
	first := w.ring.sibling[next]
	n.sibling = [2]*node{first, &w.ring}
	first.sibling[previous], w.ring.sibling[next] = n, n
	if w.count++; j.crowded(w) {
		j.crowd = w
	}
}

// detach takes n out of its places. mu is held.
func (j *Journal) detach(n *node) {
	n.unlink()
	at := networkOf(n.address)
	if !at.IsValid() {
		return
	}
	w := j.networks[at]
	n.sibling[previous].sibling[next], n.sibling[next].sibling[previous] = n.sibling[next], n.sibling[previous]
	if w.count--; w.count == 0 {
		delete(j.networks, at)
	}
}

// last is the node that makes room. mu is held.
func (j *Journal) last() *node {
	if j.crowd != nil && j.crowded(j.crowd) {
		return j.crowd.ring.sibling[previous]
	}
	return j.seen.previous
}

// crowded tells whether w has more than half of the room, and a node beside a newcomer. mu is held.
func (j *Journal) crowded(w *network) bool { return w.count > max(1, j.limits.Max/2) }

// findCrowd is for other limits. mu is held.
func (j *Journal) findCrowd() {
	j.crowd = nil
	for _, w := range j.networks {
		if j.crowded(w) {
			j.crowd = w
		}
	}
}
