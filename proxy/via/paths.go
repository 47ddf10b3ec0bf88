package via

import (
	"errors"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// Paths tell the mirrors that each listed image came through: none for an image of a source that is
// no mirror, or of the mirror itself. In JSON Paths are the answer of GET /paths.
type Paths struct {
	// Rest is the way of all images that are in none of Others.
	Rest   []string `json:"rest"`
	Others []Group  `json:"others"`
}

// Group is images that came the same way: the nearest mirror is the first.
type Group struct {
	Through []string    `json:"through"`
	Images  []uuid.UUID `json:"images"`
}

// maxWay bounds a way. Mirrors in longer chains list their images as usual, but no ring is that
// long.
const maxWay = maxIDs

// maxGroups bounds the different ways of one mirror's images: one a mirror and source, in truth.
const maxGroups = 100_000

// NewPaths groups the ways of images.
func NewPaths(images []uuid.UUID, way func(uuid.UUID) []string) Paths {
	groups := make(map[string]*Group)
	for _, id := range images {
		through := way(id)
		key := strings.Join(through, " ")
		g := groups[key]
		if g == nil {
			g = &Group{Through: append([]string{}, through...)}
			groups[key] = g
		}
		g.Images = append(g.Images, id)
	}
	p := Paths{Rest: []string{}, Others: []Group{}}
	for _, g := range groups {
		p.Others = append(p.Others, *g)
	}
	slices.SortFunc(p.Others, func(a, b Group) int {
		if n := len(b.Images) - len(a.Images); n != 0 {
			return n
		}
		return slices.Compare(a.Through, b.Through)
	})
	if len(p.Others) > 0 {
		p.Rest, p.Others = p.Others[0].Through, p.Others[1:]
	}
	return p
}

// ParsePaths reads the answer of a mirror.
func ParsePaths(doc []byte) (Paths, error) {
	var p Paths
	err := json.Unmarshal(doc, &p, json.WithUnmarshalers(json.JoinUnmarshalers(
		atMost[string](maxWay, "a way through too many mirrors"), atMost[Group](maxGroups, "too many ways"))))
	if err != nil {
		return Paths{}, err
	}
	return p, nil
}

// atMost reads a list of at most that many elements: {} takes less JSON than memory.
func atMost[T any](most int, fault string) *json.Unmarshalers {
	return json.UnmarshalFromFunc(func(d *jsontext.Decoder, list *[]T) error {
		*list = nil
		kind := d.PeekKind()
		if kind != '[' && kind != 'n' {
			return errors.New("a list is wanted")
		}
		if _, err := d.ReadToken(); err != nil || kind == 'n' {
			return err
		}
		for d.PeekKind() != ']' {
			if len(*list) == most {
				return errors.New(fault)
			}
			var element T
			if err := json.UnmarshalDecode(d, &element); err != nil {
				return err
			}
			*list = append(*list, element)
		}
		_, err := d.ReadToken()
		return err
	})
}

// Ways gives the way of each image for a mirror that has asked the mirror peer. Images of one group
// share their way.
func (p Paths) Ways(peer string, images []uuid.UUID) map[uuid.UUID][]string {
	rest := append([]string{peer}, p.Rest...)
	ways := make(map[uuid.UUID][]string, len(images))
	for _, id := range images {
		ways[id] = rest
	}
	for _, g := range p.Others {
		way := append([]string{peer}, g.Through...)
		for _, id := range g.Images {
			if _, listed := ways[id]; listed {
				ways[id] = way
			}
		}
	}
	return ways
}
