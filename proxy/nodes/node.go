package nodes

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// results are the ways that bytes came, by their numbers in an image.
var results = [...]string{"", "hit", "miss", "join"}

// numberOf is the number of a result, in any case; another text has 0.
func numberOf(result string) uint8 {
	for i, r := range results {
		if strings.EqualFold(r, result) {
			return uint8(i)
		}
	}
	return 0
}

// node is one address. With all its images it takes about 2.8 KB.
type node struct {
	address     netip.Addr
	agent       string
	first, last int64 // Unix seconds
	requests    [kinds]int64
	errors      int64
	results     [len(results)]int64 // requests for files
	served      [len(results)]int64 // bytes of files
	millis      int64               // that files took
	images      []image             // the one that was asked for last comes last
	forgotten   int64               // images that were dropped for newer ones

	changed        time.Time // when the node began to differ from its note; zero: it does not
	stored         bool      // there may be a note
	previous, next *node
	sibling        [2]*node // in the ring of its network; nil: an address of IPv4
}

// image is what a node has had of the first file of an image. It has no pointers.
type image struct {
	id      uuid.UUID
	have    int64  // bytes from the start that the node has had, in one request or several
	sent    int64  // by the last request
	when    uint32 // the last request: its end, in Unix seconds
	millis  uint32 // it took
	result  uint8  // of the last request
	whole   bool   // the node has had all bytes once
	cut     bool   // the last body ended early
	fetches uint32 // requests
}

func (n *node) key() string { return string(n.address.AsSlice()) }

func (n *node) unlink() { n.previous.next, n.next.previous = n.next, n.previous }

func (n *node) linkAfter(at *node) {
	n.previous, n.next = at, at.next
	at.next.previous, at.next = n, n
}

// Cut is what is kept of a user agent: the first 200 bytes, as valid UTF-8. A longer text is
// copied, so that it is not held by its beginning.
func Cut(agent string) string {
	if len(agent) > MaxAgent {
		end := MaxAgent
		for end > MaxAgent-utf8.UTFMax && !utf8.RuneStart(agent[end]) {
			end--
		}
		agent = strings.Clone(agent[:end])
	}
	if !utf8.ValidString(agent) {
		agent = strings.ToValidUTF8(agent, "?")
	}
	return agent
}

// change notes that the node differs from its note.
func (n *node) change(now time.Time) {
	if n.changed.IsZero() {
		n.changed = now
	}
}

// take counts a request.
func (n *node) take(r *Request) {
	n.change(r.Ended)
	n.last = max(n.last, r.Ended.Unix())
	n.requests[r.Kind%kinds]++
	if r.Failed {
		n.errors++
	}
	if r.Agent != "" && r.Agent != n.agent {
		n.agent = r.Agent
	}
	if r.Kind != File {
		return
	}
	result := numberOf(r.Result)
	n.results[result]++
	n.served[result] += r.Sent
	n.millis += r.Took.Milliseconds()
	if r.Image != uuid.Nil {
		n.image(r.Image).take(r, result)
	}
}

// image gives the entry of an image, which becomes the last one.
func (n *node) image(id uuid.UUID) *image {
	last := len(n.images) - 1
	for i := last; i >= 0; i-- {
		if n.images[i].id == id {
			found := n.images[i]
			copy(n.images[i:], n.images[i+1:])
			n.images[last] = found
			return &n.images[last]
		}
	}
	if len(n.images) == MaxImages {
		copy(n.images, n.images[1:])
		n.images[last] = image{id: id}
		n.forgotten++
		return &n.images[last]
	}
	if len(n.images) == cap(n.images) {
		larger := make([]image, len(n.images), min(max(4, 2*cap(n.images)), MaxImages))
		copy(larger, n.images)
		n.images = larger
	}
	n.images = append(n.images, image{id: id})
	return &n.images[last+1]
}

func (i *image) take(r *Request, result uint8) {
	if r.Start <= i.have {
		i.have = max(i.have, r.Start+r.Sent)
	}
	i.whole = i.whole || r.Size > 0 && i.have >= r.Size
	i.sent, i.result, i.cut = r.Sent, result, r.Failed
	i.when = uint32(min(max(r.Ended.Unix(), 0), math.MaxUint32))
	i.millis = uint32(min(max(r.Took.Milliseconds(), 0), math.MaxUint32))
	if i.fetches < math.MaxUint32 {
		i.fetches++
	}
}

// version begins the note of a node.
const version = 1

var errNote = errors.New("not the note of a node")

// encode writes the node as its note: at most 3 KiB.
func (n *node) encode() []byte {
	b := make([]byte, 0, 128+len(n.agent)+len(n.images)*44)
	b = append(b, version)
	number := func(v int64) { b = binary.AppendUvarint(b, uint64(max(v, 0))) }
	number(int64(len(n.agent)))
	b = append(b, n.agent...)
	for _, v := range n.numbers() {
		number(*v)
	}
	for _, i := range n.images {
		b = append(b, i.id[:]...)
		flags := i.result
		if i.whole {
			flags |= 4
		}
		if i.cut {
			flags |= 8
		}
		b = append(b, flags)
		for _, v := range [...]int64{i.have, i.sent, int64(i.when), int64(i.millis), int64(i.fetches)} {
			number(v)
		}
	}
	return b
}

// numbers are the numbers of a node in the order of its note.
func (n *node) numbers() []*int64 {
	all := []*int64{&n.first, &n.last, &n.errors, &n.millis, &n.forgotten}
	for _, some := range [][]int64{n.requests[:], n.results[:], n.served[:]} {
		for i := range some {
			all = append(all, &some[i])
		}
	}
	return all
}

// decode is the opposite of encode. key is the key of the note.
func decode(key string, b []byte) (*node, error) {
	address, ok := netip.AddrFromSlice([]byte(key))
	if !ok || address != address.Unmap() || len(b) == 0 || b[0] != version {
		return nil, errNote
	}
	b = b[1:]
	good := true
	number := func() int64 {
		v, size := binary.Uvarint(b)
		if size <= 0 || v > math.MaxInt64 {
			good = false
			return 0
		}
		b = b[size:]
		return int64(v)
	}
	n := &node{address: address, stored: true}
	length := number()
	if !good || length > MaxAgent || length > int64(len(b)) {
		return nil, errNote
	}
	n.agent, b = strings.ToValidUTF8(string(b[:length]), "?"), b[length:]
	for _, v := range n.numbers() {
		*v = number()
	}
	for good && len(b) > 0 && len(n.images) < MaxImages {
		if len(b) <= len(uuid.UUID{}) {
			return nil, errNote
		}
		i := n.image(uuid.UUID(b[:16]))
		flags := b[16]
		b = b[17:]
		i.result, i.whole, i.cut = flags&3, flags&4 != 0, flags&8 != 0
		i.have, i.sent = number(), number()
		i.when, i.millis, i.fetches = uint32(number()), uint32(number()), uint32(number())
	}
	if !good || len(b) > 0 {
		return nil, errNote
	}
	return n, nil
}

// rate is bytes a second.
func rate(bytes, millis int64) int64 {
	if millis <= 0 {
		return 0
	}
	return int64(float64(bytes) / float64(millis) * 1000)
}

func unix(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
