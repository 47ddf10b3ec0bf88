package admin

import (
	"encoding/json"
	"time"

	"imgmirror/proxy/mirror"
)

// The data of the API's bundle operations.

// BundleWanted is the body of POST /api/v1/bundle/plan: images as in Wanted. Of
// those that match the filters only the newest ones when Newest is above 0.
type BundleWanted struct {
	UUIDs   []string `json:"uuids,omitempty"`
	Filters []string `json:"filters,omitempty"`
	Newest  int      `json:"newest,omitempty"`
}

// Bundled is an image with what a bundle of it is made of.
type Bundled struct {
	Manifest json.RawMessage `json:"manifest"` // as clients get it, with its channels
	Wanted   bool            `json:"wanted"`   // false: it is here as another one's origin
	Cached   bool            `json:"cached"`   // all its files are on disk, verified
	Files    []BundledFile   `json:"files"`    // empty unless it is cached
}

// BundledFile is one file of an image, as it was found to be.
type BundledFile struct {
	SHA1   string `json:"sha1"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// BundleHead is the body of POST /api/v1/bundle: what a bundle holds besides the images' files, as
// it lies in the bundle.
type BundleHead struct {
	Index     []byte   `json:"index"`
	Signature []byte   `json:"signature,omitempty"` // nil: unsigned
	Manifests [][]byte `json:"manifests"`           // UUID/manifest.json of all images
	Volume    int      `json:"volume"`              // of which files will come
	DryRun    bool     `json:"dry_run,omitempty"`   // only tell what is here already
}

// BundleImport is what became of a bundle, or of one volume of it.
type BundleImport struct {
	ID      string          `json:"id,omitempty"` // of the import; without one nothing is taken
	Bundle  string          `json:"bundle"`       // its id
	Created time.Time       `json:"created"`
	Mirror  string          `json:"mirror"`        // that made it
	Key     string          `json:"key,omitempty"` // that signed it and is trusted; without one it was not checked
	Volume  int             `json:"volume"`
	Volumes int             `json:"volumes"`
	Images  []ImportedImage `json:"images"`          // all of the bundle, in its order
	Error   *Error          `json:"error,omitempty"` // why not all images that are here are listed
}

// KeepRefusals takes over why files were refused before: a later answer knows only that the files
// are missing.
func (b *BundleImport) KeepRefusals(before BundleImport) {
	for i := range min(len(before.Images), len(b.Images)) {
		was, now := before.Images[i], &b.Images[i]
		if was.State == ImageRefused && now.State == ImageWaiting {
			now.State, now.Error = was.State, was.Error
		}
	}
}

// ImportedFile is a file of a bundle after some of its bytes came.
type ImportedFile struct {
	SHA1 string `json:"sha1"`
	Have int64  `json:"have_bytes"`
}

// ImportedImage is one image of a bundle.
type ImportedImage struct {
	UUID    string  `json:"uuid"`
	Name    string  `json:"name"`
	Version string  `json:"version"`
	State   string  `json:"state"` // added, present, refused, waiting
	Size    int64   `json:"size"`
	Have    []int64 `json:"have_bytes"`      // of each file: what the mirror has of it
	Error   *Error  `json:"error,omitempty"` // why it is refused, or what it waits for
}

// Values of ImportedImage.State.
const (
	ImageAdded   = mirror.ImageAdded
	ImagePresent = mirror.ImagePresent // it was here before
	ImageRefused = mirror.ImageRefused
	ImageWaiting = mirror.ImageWaiting // for another volume
)

// Provenance tells which bundle brought an image.
type Provenance struct {
	Bundle   string    `json:"bundle"`
	Created  time.Time `json:"created"`
	Mirror   string    `json:"mirror"`
	Key      string    `json:"key,omitempty"`
	Imported time.Time `json:"imported"`
}
