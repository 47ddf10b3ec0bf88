package admin

import "time"

// Status is GET /api/v1/status: what the mirror does and saves, at a glance.
type Status struct {
	Version     string       `json:"version"`
	Started     time.Time    `json:"started"`
	Now         time.Time    `json:"now"`
	Ready       bool         `json:"ready"`
	Offline     bool         `json:"offline"`
	Trouble     []string     `json:"trouble"` // what is wrong with the data folder; none: all is well
	Traffic     Traffic      `json:"traffic"`
	Fills       []Fill       `json:"fills"`
	Jobs        []Job        `json:"jobs"` // those that run, without their items
	Sources     []Source     `json:"sources"`
	Disk        Disk         `json:"disk"`
	Scrub       Scrub        `json:"scrub"`
	Catalog     Counts       `json:"catalog"`
	Bounds      []Bound      `json:"bounds"`
	Events      []Event      `json:"events"` // the last 50, newest first
	Nodes       int          `json:"nodes"`  // addresses in the journal; 0 when it is off
	Certificate *Certificate `json:"certificate,omitempty"`
}

// Traffic is what clients were given since the mirror began to remember, which outlives restarts. The
// keys of its maps are hit, miss and join.
type Traffic struct {
	Since    time.Time        `json:"since"`
	Requests map[string]int64 `json:"requests"`
	Served   map[string]int64 `json:"served"`  // bytes
	Fetched  int64            `json:"fetched"` // bytes of files that sources sent
	// Saved is what clients were given from the disk, or from a download that another request began:
	// hit and join of Served.
	Saved int64 `json:"saved"`
	// SavedSeconds is the time that Saved bytes would have taken from the sources, at the mean rate of
	// this mirror's complete downloads: bytes by seconds of all of them. 0 before the first one.
	SavedSeconds int64 `json:"saved_seconds"`
}

// Disk is the room of the cache, in bytes.
type Disk struct {
	Size    int64 `json:"size"`     // stored, unfinished downloads included
	Limit   int64 `json:"limit"`    // that may be stored as things are
	Free    int64 `json:"free"`     // on the file system
	MinFree int64 `json:"min_free"` // that stays free
	Files   int   `json:"files"`
}

// Scrub is the reading again of all files; all zero: there is none.
type Scrub struct {
	LastComplete time.Time `json:"last_complete,omitzero"` // of a round
	Checked      int       `json:"checked"`                // files, in the round under way
	Total        int       `json:"total"`
}

// Counts are numbers of images.
type Counts struct {
	Listed    int            `json:"listed"` // that clients see
	Cached    int            `json:"cached"` // with a file on disk
	Pinned    int            `json:"pinned"` // kept from eviction, by hand or by rule
	Conflicts int            `json:"conflicts"`
	Hidden    map[string]int `json:"hidden"` // by reason, over all sources
}

// Bound is one thing that is bounded.
type Bound struct {
	Name    string `json:"name"`
	Key     string `json:"key"` // of the configuration, by which the bound is set; "" = fixed
	Used    int64  `json:"used"`
	Limit   int64  `json:"limit"`   // 0 = none
	Refused int64  `json:"refused"` // since the start
}

// Event is something of note that has happened.
type Event struct {
	Time    time.Time `json:"time"` // of the last one
	Kind    string    `json:"kind"` // brought, evicted, deleted, wrong_bytes, quarantined, healed, conflict, refused, source_down, source_up, published, unpublished
	UUID    string    `json:"uuid,omitempty"`
	Source  string    `json:"source,omitempty"`
	Node    string    `json:"node,omitempty"`
	Text    string    `json:"text"`              // one line, which may hold names that sources gave
	Private bool      `json:"private,omitempty"` // about an image that is not public
	Count   int       `json:"count"`             // of equal ones in a row
}

// Certificate is that of the mirror's own listener.
type Certificate struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after"`
}

// Series is GET /api/v1/traffic?span=hour|day|week: what went over the wire, in steps.
type Series struct {
	Span   string  `json:"span"`
	Step   int64   `json:"step_seconds"`
	Points []Point `json:"points"` // oldest first, the whole span; zeroes where nothing is known
}

// Point is one step of a Series.
type Point struct {
	Time    time.Time `json:"time"`    // when the step began
	Served  int64     `json:"served"`  // bytes given to clients
	Fetched int64     `json:"fetched"` // bytes that sources sent
}
