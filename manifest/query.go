package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// QueryError says which query parameter is wrong (spec 2.4, 2.8). The error matches ErrInvalid.
type QueryError struct {
	Field   string // "limit"
	Code    string // inner code: "Invalid", "NotAllowed", …
	Message string
	Outer   string // the reply's code: "InvalidParameter" or, when the client would have to sign in, "UnauthorizedError"
}

// Error is Message.
func (e *QueryError) Error() string { return e.Message }

// Unwrap makes the error match ErrInvalid.
func (e *QueryError) Unwrap() error { return ErrInvalid }

// maxLimit is the largest number of images on one page (spec 2.4).
const maxLimit = 1000

// Query is a parsed ListImages query string (spec 2.4), or a DSAPI search (spec 3.2). The zero
// Query is the plain GET /images. A Query is immutable and may be used concurrently.
type Query struct {
	datasets bool // DSAPI: V1 visibility instead of V2's
	nothing  bool // asks for hidden images only
	match    []func(*Manifest) bool
	marker   marker
	desc     bool
	limit    int // 0: none
}

// marker is where a page begins.
type marker struct {
	kind  markerKind
	image uuid.UUID
	milli int64
}

type markerKind uint8

const (
	noMarker markerKind = iota
	markerImage
	markerDate
)

// ParseQuery reads the parameters of GET /images in their given order, decoded; the error is a
// *QueryError. Unknown parameters are ignored. The first of a repeated parameter counts (tag.KEY
// and billing_tag add up). An empty parameter counts as absent, unless the spec gives it a meaning.
// channel is ignored: the caller has selected the channel's images before.
func ParseQuery(params [][2]string) (Query, error) {
	var q Query
	for i, kv := range params {
		key, tag := strings.CutPrefix(kv[0], "tag.")
		switch {
		case !tag && kv[0] != "billing_tag", slices.Contains(params[:i], kv): // a repetition is expensive for each image
		case tag:
			q.where(hasTag(key, kv[1]))
		default:
			q.where(func(m *Manifest) bool { return m.hasBillingTag(kv[1]) })
		}
	}
	err := q.read(params, imageParams)
	return q, err
}

// read reads the single-valued parameters, each by its reader.
func (q *Query) read(params [][2]string, readers map[string]func(q *Query, value string) error) error {
	var seen []string
	for _, kv := range params {
		name, value := kv[0], kv[1]
		reader, ok := readers[name]
		if !ok || slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		if value == "" && name != "public" && name != "inclAdminFields" {
			continue
		}
		if err := reader(q, value); err != nil {
			return err
		}
	}
	return nil
}

// imageParams are the single-valued parameters of GET /images.
var imageParams = map[string]func(q *Query, value string) error{
	"state":           (*Query).readState,
	"public":          (*Query).readPublic,
	"account":         (*Query).readAccount,
	"limit":           (*Query).readLimit,
	"marker":          (*Query).readMarker,
	"sort":            (*Query).readSort,
	"inclAdminFields": (*Query).readInclAdminFields,
	"name":            like(func(m *Manifest) string { return m.Name }),
	"version":         like(func(m *Manifest) string { return m.Version }),
	"os":              equal(func(m *Manifest) string { return m.OS }),
	"owner":           equal(func(m *Manifest) string { return m.Owner }),
	"type": func(q *Query, value string) error {
		unwanted, not := strings.CutPrefix(value, "!")
		q.where(func(m *Manifest) bool {
			return not && m.Type != unwanted || !not && m.Type == value
		})
		return nil
	},
	"uuid": func(q *Query, value string) error {
		id, ok := ParseUUID(value)
		q.where(func(m *Manifest) bool { return ok && m.UUID == id })
		return nil
	},
	"origin": func(q *Query, value string) error {
		id, ok := ParseUUID(value)
		q.where(func(m *Manifest) bool { return ok && m.HasOrigin() && m.Origin == id })
		return nil
	},
}

// ParseDatasetsQuery reads the parameters of GET /datasets (spec 3.2). Unknown parameters are
// ignored, and so are limit and marker; there is no error at present.
func ParseDatasetsQuery(params [][2]string) (Query, error) {
	q := Query{datasets: true}
	err := q.read(params, datasetParams)
	return q, err
}

var datasetParams = map[string]func(q *Query, value string) error{
	"name":         like(func(m *Manifest) string { return m.Name }),
	"version":      like(func(m *Manifest) string { return m.Version }),
	"os":           equal(func(m *Manifest) string { return m.OS }),
	"type":         equal(func(m *Manifest) string { return m.Type }),
	"creator_uuid": equal(creator),
	"owner_uuid":   equal(creator),
	"restricted_to_uuid": func(q *Query, _ string) error {
		q.nothing = true // DSAPI serves no private images
		return nil
	},
}

// creator is the creator_uuid of V1.
func creator(m *Manifest) string { return cmp.Or(m.Owner, unsetOwner) }

func (q *Query) where(f func(*Manifest) bool) { q.match = append(q.match, f) }

// equal makes the reader of an exact parameter.
func equal(field func(*Manifest) string) func(*Query, string) error {
	return func(q *Query, value string) error {
		q.where(func(m *Manifest) bool { return field(m) == value })
		return nil
	}
}

// like makes the reader of an exact parameter with which ~ means a substring.
func like(field func(*Manifest) string) func(*Query, string) error {
	return func(q *Query, value string) error {
		part, substring := strings.CutPrefix(value, "~")
		q.where(func(m *Manifest) bool {
			return field(m) == value || substring && strings.Contains(field(m), part)
		})
		return nil
	}
}

// hasTag compares as the reference indexes tags: a value that is no string, number or boolean, or
// is longer than 100 characters, equals nothing. An empty want asks whether the tag is there.
func hasTag(key, want string) func(*Manifest) bool {
	return func(m *Manifest) bool {
		v := m.tag(key)
		if v == nil || want == "" {
			return v != nil
		}
		text, ok := tagText(v)
		if !ok || utf8.RuneCountInString(text) > 100 {
			return false
		}
		if text != want && v.Kind() == '0' { // 1.0 is 1
			canonical := v.Clone()
			if canonical.Canonicalize() == nil {
				text = string(canonical)
			}
		}
		return text == want
	}
}

func invalid(field, value string) error {
	return &QueryError{
		Field:   field,
		Code:    "Invalid",
		Message: fmt.Sprintf("invalid %s: %q", field, shorten(value)),
		Outer:   "InvalidParameter",
	}
}

func (q *Query) readState(value string) error {
	switch value {
	case stateActive, "all": // an unauthenticated client may see active images only
	case stateDisabled, stateUnactivated, stateCreating, stateFailed:
		q.nothing = true
	default:
		return invalid("state", value)
	}
	return nil
}

func (q *Query) readPublic(value string) error {
	if value != "true" && value != "false" {
		return invalid("public", value)
	}
	q.where(func(m *Manifest) bool { return m.Public == (value == "true") })
	return nil
}

func (q *Query) readAccount(value string) error {
	if _, ok := ParseUUID(value); !ok {
		return invalid("account", value)
	}
	q.where(func(m *Manifest) bool {
		return m.Public || m.Owner == value || slices.Contains(m.ACL, value)
	})
	return nil
}

func (q *Query) readLimit(value string) error {
	n, err := strconv.ParseUint(value, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return invalid("limit", value)
	}
	q.limit = int(min(n, maxLimit)) // n is the largest number where the value has too many digits
	return nil
}

func (q *Query) readMarker(value string) error {
	if id, ok := ParseUUID(value); ok {
		q.marker = marker{kind: markerImage, image: id}
		return nil
	}
	_, t, ok := parseTime(value)
	if !ok {
		return invalid("marker", value)
	}
	q.marker = marker{kind: markerDate, milli: milli(t)}
	return nil
}

func (q *Query) readSort(value string) error {
	attribute, direction, given := strings.Cut(value, ".")
	q.desc = strings.EqualFold(direction, "desc")
	if attribute != "published_at" || given && !q.desc && !strings.EqualFold(direction, "asc") {
		return invalid("sort", value)
	}
	return nil
}

func (q *Query) readInclAdminFields(value string) error {
	switch value {
	case "false":
		return nil
	case "true":
		return &QueryError{
			Field:   "inclAdminFields",
			Code:    "NotAllowed",
			Message: "inclAdminFields needs authentication",
			Outer:   "UnauthorizedError",
		}
	}
	return invalid("inclAdminFields", value)
}

// IsDefault tells that the query selects the whole plain list: all active images, published_at ascending, no limit.
func (q Query) IsDefault() bool {
	return !q.nothing && len(q.match) == 0 && q.marker.kind == noMarker && !q.desc && q.limit == 0
}

// Select applies filters, marker, sort and limit, in this order, to images in the order of Merge.
// An image that is not Listable (for DSAPI: not DSAPIVisible) is never selected. images is not
// changed. lookup finds the image of the marker among all stored images, and is called for no
// other; the error on an unknown marker matches fs.ErrNotExist.
func (q Query) Select(images []Manifest, lookup func(uuid.UUID) (Manifest, bool)) (Selection, error) {
	if q.nothing {
		return Selection{}, nil
	}
	from, to := 0, len(images)
	if q.marker.kind != noMarker {
		key := orderKey{milli: q.marker.milli}
		if q.marker.kind == markerImage {
			m, ok := lookup(q.marker.image)
			if !ok {
				return Selection{}, fmt.Errorf("marker: image %s: %w", q.marker.image, fs.ErrNotExist)
			}
			key = m.orderKey()
		}
		from, to = q.from(images, key)
	}

	out := newSelection(len(images), q.desc)
	for n := range to - from {
		i := from + n
		if q.desc {
			i = to - 1 - n
		}
		if q.wants(&images[i]) {
			if out.add(i); out.Len() == q.limit {
				break
			}
		}
	}
	return out, nil
}

// from gives the images, by their places, at and after the marker in the query's direction. A date
// stands before all images of that date ascending, and after them descending.
func (q Query) from(images []Manifest, k orderKey) (from, to int) {
	if q.desc && q.marker.kind == markerDate {
		k.id = uuid.Max
	}
	i := sort.Search(len(images), func(i int) bool {
		c := images[i].orderKey().compare(k)
		return c > 0 || c == 0 && !q.desc
	})
	if q.desc {
		return 0, i
	}
	return i, len(images)
}

// wants tells whether the filters let m pass.
func (q Query) wants(m *Manifest) bool {
	if q.datasets && !m.DSAPIVisible() || !q.datasets && !m.Listable() {
		return false
	}
	for _, f := range q.match {
		if !f(m) {
			return false
		}
	}
	return true
}
