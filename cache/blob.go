package cache

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"imgmirror/cache/index"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// maxFileSize is the largest image file there may be (spec 0).
const maxFileSize = 20 << 30

// Blob says which bytes are wanted, by which image and why.
type Blob struct {
	Want    verify.Want
	Key     string // names the bytes when Want.SHA1 is zero: "file/UUID/INDEX", "icon/UUID/…"; else ignored
	MaxSize int64  // refuse more bytes than that; 0 = 20 GiB
	Why     Why
	By      By // who reads; zero: a client
	// Unverified: bytes are taken although no digest is known, as Options.AllowUnverified does. Icons need that.
	// Content-MD5 and Content-Length are checked where the source sends these.
	Unverified bool
	Image      uuid.UUID         // the image it belongs to; copied to DATA/manifests when it is published
	Index      int               // which of the image's files it is
	Source     string            // the source that Manifest came from
	Manifest   manifest.Manifest // zero: no copy is kept (icons)
}

// Why tells on whose behalf bytes are wanted. A download that several requests share serves the
// most demanding of them: the download lasts as long as one request needs, and is ahead of need
// only while all its requests are.
type Why int

const (
	// Client waits now. The download evicts what it needs to, and goes on when the client has left.
	Client Why = iota
	// Job is work of an operator that can be cancelled. The download evicts what it needs to, and ends, to be resumed
	// later, once no Reader of the jobs is left. Sources that have just sent wrong bytes are asked all the same.
	Job
	// Ahead of need: the download takes free room only, and a slot after all others. The download goes on without a
	// Reader.
	Ahead
)

// fillKey is the same for all requests for the same bytes. Two manifests may name one sha1 with
// different sizes or md5s, and one of them is wrong: the key has both, so each has its own fill.
func (b Blob) fillKey() string {
	key := fmt.Sprintf("%s-%d", b.title(), b.Want.Size)
	if len(b.Want.MD5) > 0 {
		key += fmt.Sprintf("-%x", b.Want.MD5)
	}
	return key
}

// title is how logs and errors call the bytes.
func (b Blob) title() string {
	if b.Want.SHA1.IsZero() {
		return "key " + b.Key
	}
	return b.Want.SHA1.String()
}

// ofImage tells whether the bytes belong to an image whose manifest is known: an icon does not.
func (b Blob) ofImage() bool { return b.Image != uuid.Nil && b.Manifest.Raw() != nil }

// Source is one place where the bytes of a blob may be had. Open starts at offset; it makes one try
// and does not retry, gives up at once when ctx ends, as do reads of its stream, and within 2 s
// when no connection comes about. A Read that gives no byte and no error says that the source is
// alive. As long as none has accepted, several sources are asked side by side; the first to answer
// is taken, the others are called off. Errors: fs.ErrNotExist or fs.ErrPermission = this source
// will not give it (no retry, but of one that has answered well for the blob before: a signed
// address may have run out); anything else = may be retried. A stream that starts at 0 although
// offset > 0 is not allowed (the client skips forward itself). The store closes the stream.
type Source struct {
	Name string
	Open func(ctx context.Context, offset int64) (*verify.Stream, error)
	// OpenRange is Open for length bytes, with the same contract; nil: the source gives no ranges. A
	// source that answers with all from the offset on leaves Stream.Part at 0.
	OpenRange func(ctx context.Context, offset, length int64) (*verify.Stream, error)
	// FromStart: it sends the whole body in any case, so that what an earlier
	// download left saves nothing, and is thrown away if all sources are so.
	FromStart bool
	// Once: its bytes can be had only once, so that what it refuses is refused for good although it has answered well
	// before: an upload, a bundle.
	Once bool
	// Said is the manifest of the source. After a change of the manifest, the store forgets the wrong
	// bytes that the source sent before. The store does not change Said.
	Said []byte
}

// Info is what is known of a file on disk.
type Info = index.Info

// Result tells how a request was met: the X-Cache header.
type Result string

// The three results.
const (
	Hit  Result = "HIT"
	Miss Result = "MISS"
	Join Result = "JOIN"
)
