package admin

import (
	"encoding/json"
	"time"
)

// What follows is the JSON of the API: requests and replies. The server, the
// client and the verbs share it; openapi.json describes it.

// Source is one row of GET /api/v1/sources.
type Source struct {
	Name        string         `json:"name"`
	URL         string         `json:"url"` // without its password
	Kind        string         `json:"kind"`
	State       string         `json:"state"` // up, down, unknown
	Images      int            `json:"images"`
	Hidden      map[string]int `json:"hidden"` // by reason: what its list has and clients are not shown
	LastTry     time.Time      `json:"last_try,omitzero"`
	LastSuccess time.Time      `json:"last_success,omitzero"`
	LastError   string         `json:"last_error,omitempty"`
	AskedFrom   time.Time      `json:"asked_from,omitzero"`      // of a source that fails again and again: until then it is asked for little
	Resting     int            `json:"resting_images"`           // which the source fails to give again and again
	Reason      string         `json:"reason,omitempty"`         // why these, or all questions, rest
	Certificate time.Time      `json:"certificate_end,omitzero"` // of the source's own, as the last TLS handshake showed; zero: there is none
	Check       *Check         `json:"check,omitempty"`          // in replies to POST /api/v1/sources/check only
}

// Check is the outcome of asking a source just now.
type Check struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	Took  int64  `json:"took_ms"`
	// In images, against the list before.
	Added   int `json:"added"`
	Removed int `json:"removed"`
	Changed int `json:"changed"`
}

// Which is the body of POST /api/v1/sources/check.
type Which struct {
	Sources []string `json:"sources,omitempty"`      // names; none: all
	Wait    int64    `json:"wait_seconds,omitempty"` // for the answer of each source; absent: 20
}

// Image is one image of the catalogue.
type Image struct {
	Manifest json.RawMessage `json:"manifest"` // as clients get it
	Source   string          `json:"source"`   // where the manifest is from
	Sources  []string        `json:"sources"`  // who holds its files
	Listed   bool            `json:"listed"`   // clients see it in lists
	Retired  bool            `json:"retired"`  // no source lists it any more
	Cached   bool            `json:"cached"`   // all its files are on disk, verified
	Pinned   bool            `json:"pinned"`
	Imported *Provenance     `json:"imported,omitempty"` // the bundle that brought it, if one did

	// In replies to GET /api/v1/images/UUID only.
	Hidden []Hidden    `json:"hidden,omitempty"` // why clients are not shown it
	Files  []ImageFile `json:"files,omitempty"`
	Offers []Offer     `json:"offers,omitempty"` // the image as each source has it, in order of priority
}

// Hidden is why an image that a source has is not shown to clients.
type Hidden struct {
	Source string `json:"source"`
	Reason string `json:"reason"` // the key in Source.Hidden
	Detail string `json:"detail"`
}

// Cached is one image with a file on disk.
type Cached struct {
	UUID     string    `json:"uuid"`
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Type     string    `json:"type"`
	OS       string    `json:"os"`
	Origin   string    `json:"origin,omitempty"`
	Source   string    `json:"source"`
	SHA1     string    `json:"sha1"`
	Size     int64     `json:"size"`
	Added    time.Time `json:"added"`
	LastUsed time.Time `json:"last_used"`
	Pinned   bool      `json:"pinned"`
	InUse    bool      `json:"in_use"`
	Retired  bool      `json:"retired"` // no source has it any more
}

// Fill is one download under way.
type Fill struct {
	UUID    string `json:"uuid"`
	Name    string `json:"name"` // this and the next: empty for an image that is not known yet
	Version string `json:"version"`
	SHA1    string `json:"sha1"`
	Size    int64  `json:"size"` // -1: not known yet
	Have    int64  `json:"have"`
	Rate    int64  `json:"rate"`        // bytes per second, lately
	ETA     int64  `json:"eta_seconds"` // -1: cannot tell
	Readers int    `json:"readers"`
	Source  string `json:"source"` // who brings the bytes just now
	State   string `json:"state"`  // waiting (for a slot), filling, verifying
}

// Wanted names images: all of UUIDs, and those that match every one of Filters when there are any.
type Wanted struct {
	UUIDs   []string `json:"uuids,omitempty"`
	Filters []string `json:"filters,omitempty"` // field=value, field=~substring, field!=value
	DryRun  bool     `json:"dry_run,omitempty"`
}

// Job is work that outlives its request.
type Job struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"`  // fetch, verify, refresh, install, stage
	State   string    `json:"state"` // running, done, failed, cancelled
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Error   *Error    `json:"error,omitempty"`
	Items   []Item    `json:"items"` // one an image, in the order of the work; empty in GET /api/v1/jobs
	Done    int64     `json:"done_bytes"`
	Total   int64     `json:"total_bytes"`
}

// Values of Job.State and, but for JobRunning, of Item.State.
const (
	JobRunning   = "running"
	JobDone      = "done"
	JobFailed    = "failed" // at least one item failed, or the work as a whole
	JobCancelled = "cancelled"
)

// Values of Item.State beside those of Job.State.
const (
	ItemWaiting     = "waiting"
	ItemPresent     = "present"  // nothing had to be done
	ItemHealed      = "healed"   // its file was wrong, and was brought anew
	ItemRestored    = "restored" // its file was gone, and was brought anew
	ItemQuarantined = "quarantined"
	ItemRepaired    = "repaired" // the image was in the pool, imgadm's record of it was not
	ItemSkipped     = "skipped"  // this machine cannot run the image
)

// Over tells that nothing more will happen to the job.
func (j Job) Over() bool { return j.State != JobRunning }

// Item is one image of a job.
type Item struct {
	UUID    string `json:"uuid"`
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"` // waiting, running, done, present, failed, healed, restored, quarantined, repaired, skipped, cancelled
	Done    int64  `json:"done_bytes"`
	Total   int64  `json:"total_bytes"`
	Error   *Error `json:"error,omitempty"`

	// Of an install, whose done_bytes are those that the pool has taken in.
	Fetched  int64 `json:"fetched_bytes,omitempty"`  // of total_bytes, that are on this machine
	Received int64 `json:"received_bytes,omitempty"` // of the decompressed stream, given to zfs receive
}

// Install is the body of POST /api/v1/install: images, and where they are to go.
type Install struct {
	Wanted
	Pool  string `json:"pool,omitempty"`  // "" = the configured one
	Stage bool   `json:"stage,omitempty"` // put the files where imgadm looks for them; no pool is touched
}

// Installed is one image in a zpool.
type Installed struct {
	UUID     string          `json:"uuid"`
	Pool     string          `json:"zpool"`
	Dataset  string          `json:"dataset"`
	Snapshot string          `json:"snapshot,omitempty"` // by which it is cloned
	Origin   string          `json:"origin,omitempty"`
	Used     int64           `json:"used"` // bytes, as far as zfs tells exactly
	Clones   int             `json:"clones"`
	Record   bool            `json:"record"`             // imgadm has a record of it
	Source   string          `json:"source,omitempty"`   // URL in the record
	Manifest json.RawMessage `json:"manifest,omitempty"` // in the record
}

// Removed is one file that eviction took, or would take.
type Removed struct {
	SHA1   string   `json:"sha1"`
	UUIDs  []string `json:"uuids"`
	Size   int64    `json:"size"`
	Reason string   `json:"reason"`
}

// Finding is what one check of GET /api/v1/doctor found.
type Finding struct {
	Check   string `json:"check"`
	State   string `json:"state"` // ok, warning, failed
	Message string `json:"message"`
}

// Dry is the body of POST /api/v1/vacuum.
type Dry struct {
	DryRun bool `json:"dry_run"`
}

// Error is an error with its code, in the form of IMGAPI's bodies.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error makes it an error.
func (e *Error) Error() string { return e.Message }
