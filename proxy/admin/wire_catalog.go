package admin

import (
	"net/url"
	"strconv"
	"time"
)

// Look is a question for a Page of the catalogue: the query of GET /api/v1/catalog. The zero Look is
// the first page of all listed images, the oldest first.
type Look struct {
	Words   string   // q: each word must occur in name, version, os, type or description, or begin the uuid
	Filters []string // filter: field=value, field=~substring, field!=value
	OS      string   // os, type, source: exactly these; "" = any
	Type    string
	Source  string
	State   string // state: listed, cached, uncached, pinned, retired, hidden, unlisted; "" = listed
	Reason  string // reason: of hidden images, a key of Source.Hidden; "" = any
	Sort    string // sort: published, name, version, os, type, size, source, state; "" = published
	Desc    bool   // order=desc
	Offset  int
	Limit   int // 1 to 200; 0 = 50
}

// Query is the query string of l.
func (l Look) Query() url.Values {
	q := url.Values{}
	for _, p := range [][2]string{
		{"q", l.Words}, {"os", l.OS}, {"type", l.Type}, {"source", l.Source}, {"state", l.State}, {"reason", l.Reason}, {"sort", l.Sort},
	} {
		if p[1] != "" {
			q.Set(p[0], p[1])
		}
	}
	if len(l.Filters) > 0 {
		q["filter"] = l.Filters
	}
	if l.Desc {
		q.Set("order", "desc")
	}
	for name, n := range map[string]int{"offset": l.Offset, "limit": l.Limit} {
		if n != 0 {
			q.Set(name, strconv.Itoa(n))
		}
	}
	return q
}

// Page is some rows of the catalogue.
type Page struct {
	Total  int   `json:"total"`  // rows of all pages
	Offset int   `json:"offset"` // of the first one of Rows
	Rows   []Row `json:"rows"`
	// Facets counts the rows by os, type, source, state and reason. A facet leaves its own condition of
	// the question out, so that it tells what another choice would give. The facet reason is of hidden
	// images. A facet has the hundred most frequent values.
	Facets map[string]map[string]int `json:"facets"`
}

// Row is one image of the catalogue, or a hidden image of one source, for people.
type Row struct {
	UUID        string    `json:"uuid"`
	Name        string    `json:"name"` // "": a refused image; little is known of it
	Version     string    `json:"version"`
	OS          string    `json:"os"`
	Type        string    `json:"type"`
	Published   time.Time `json:"published,omitzero"`
	Size        int64     `json:"size"`         // of all its files, as far as sizes are known
	Source      string    `json:"source"`       // where the manifest is from
	Sources     int       `json:"sources"`      // how many hold its files
	Cached      string    `json:"cached"`       // none, part, whole
	CachedBytes int64     `json:"cached_bytes"` // on disk
	Pinned      bool      `json:"pinned"`
	Retired     bool      `json:"retired"`
	Listed      bool      `json:"listed"` // clients see an image with that uuid in lists
	Public      bool      `json:"public"`
	Hidden      []Hidden  `json:"hidden,omitempty"` // why clients are not shown it
}

// Offer is an image as one source has it.
type Offer struct {
	Source   string      `json:"source"`
	State    string      `json:"state"` // of the source: up, down, unknown
	Name     string      `json:"name"`
	Version  string      `json:"version"`
	Public   bool        `json:"public"`
	Listed   bool        `json:"listed"`   // on the list of the source; else the source gave it by uuid
	Holds    bool        `json:"holds"`    // the source has the files that the mirror serves
	Conflict bool        `json:"conflict"` // the source has other files under this uuid, and a source before it counts
	Files    []OfferFile `json:"files"`
	Hidden   *Hidden     `json:"hidden,omitempty"` // why clients are not shown this
}

// OfferFile is one file of an Offer.
type OfferFile struct {
	SHA1        string `json:"sha1,omitempty"` // "": the source gives none
	Size        int64  `json:"size"`           // 0: the source gives none
	Compression string `json:"compression,omitempty"`
}

// ImageFile is one file of an image, with what of it is on disk.
type ImageFile struct {
	SHA1        string    `json:"sha1,omitempty"`
	Size        int64     `json:"size"`
	Compression string    `json:"compression,omitempty"`
	Cached      string    `json:"cached"`       // none, part, whole
	CachedBytes int64     `json:"cached_bytes"` // on disk
	Added       time.Time `json:"added,omitzero"`
	Checked     time.Time `json:"checked,omitzero"` // when its bytes were last found right
	LastUsed    time.Time `json:"last_used,omitzero"`
	Readers     int       `json:"readers"` // who read it now
}
