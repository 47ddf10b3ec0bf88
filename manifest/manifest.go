// Package manifest holds image manifests as values: it parses the texts of sources (IMGAPI v2,
// DSAPI v1), keeps the source's JSON byte for byte, merges lists of several sources, filters,
// orders and pages them, and writes the v2 and v1 forms for clients. The package does no I/O, keeps
// no state and logs nothing. All of its values may be read concurrently.
package manifest

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// ErrInvalid is matched by errors about an unintelligible query or filter (see QueryError), and
// about a manifest that ingestion refuses (see ParseError, spec 1.8).
var ErrInvalid = errors.New("invalid")

// ErrSkip is matched by errors about a manifest that is left out in silence: the legacy type
// vmimage and dsapid's state nuked (spec A33, A34). Such an error matches ErrInvalid too.
var ErrSkip = fmt.Errorf("%w: left out on purpose", ErrInvalid)

// ParseError says why a manifest is refused. The error matches ErrInvalid, and ErrSkip when the
// refusal is not worth a log line.
type ParseError struct {
	Image  uuid.UUID // uuid.Nil when the manifest has no readable uuid
	Field  string    // the key that is wrong, "files[0].size" style; "" for the text as a whole
	Reason string
	skip   bool
}

// Error names the image and the field, in one short line whatever the source sent.
func (e *ParseError) Error() string {
	s := "manifest"
	if e.Image != uuid.Nil {
		s = "manifest " + e.Image.String()
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	return s + ": " + e.Reason
}

// Unwrap makes the error match ErrInvalid, or ErrSkip and with it ErrInvalid.
func (e *ParseError) Unwrap() error {
	if e.skip {
		return ErrSkip
	}
	return ErrInvalid
}

// The states of an image (spec 1.1).
const (
	stateActive      = "active"
	stateDisabled    = "disabled"
	stateUnactivated = "unactivated"
	stateCreating    = "creating"
	stateFailed      = "failed"
)

// unsetOwner stands for "no owner" (spec 0).
const unsetOwner = "00000000-0000-0000-0000-000000000000"

// File is one entry of files[].
type File struct {
	SHA1        verify.Sum // zero: the source gave none
	Size        int64      // 0: the source gave none
	MD5         []byte     // dsapid's md5, 16 bytes, or nil
	Compression string     // gzip bzip2 xz none; "" when unknown
	Inferred    bool       // the source stated none of these compressions: guessed from a name, learned, or unknown (spec 1.4)
	Path        string     // v1 path as the source gave it, "" when none (never emitted on /images; for /datasets see FilePath)
	URL         string     // v1 url, "" when none (never emitted on /images)

	stated string // compression as the source stated it, in lower case
	looks  string // the kind of bytes that clients cannot use, as verify.KindOf names it, or dataKind
}

// FileID names one file of one image.
type FileID struct {
	Image uuid.UUID
	Index int
}

// Manifest is one image as one source described it, upgraded to v2. It is
// immutable; copies share memory. The exported fields are a parsed view.
type Manifest struct {
	UUID      uuid.UUID
	Name      string
	Version   string
	OS        string
	Type      string
	State     string // active, disabled, unactivated, creating, failed
	Owner     string // a uuid, except from malformed sources; the unset owner when the source gave none
	Public    bool
	Disabled  bool
	Icon      bool
	Published time.Time // UTC, to the millisecond, as V2 shows it; zero: missing (sorts first)
	Origin    uuid.UUID // uuid.Nil: none
	Files     []File
	ACL       []string
	Channels  []string // as the source gave them, or those of WithChannels

	undated bool   // see Undated
	private bool   // a private image that may be served
	raw     []byte // as the source sent it, byte for byte, and the date of ParseOptions.Date
	v2      []byte // served under /images; the memory of raw when nothing had to change
}

// Raw is the source's JSON object, byte for byte, without white space around it, and with the date
// of ParseOptions.Date if the source gave none. Parse makes the same manifest of Raw again (without
// the values of WithFacts). Raw must not be modified. Only the zero Manifest has none.
func (m Manifest) Raw() []byte { return m.raw }

// V2 is the JSON for IMGAPI clients (spec 1.1, 1.4, 1.5): the source's own bytes wherever nothing
// had to change, unknown keys included. channels, acl, billing_tags, traits and the never-emitted
// keys are left out (acl stays when Parse was told ServePrivate). imgadm can live with the values:
// size is a number, sha1 lower case, compression one of four, state and dates are strings; images
// that are Incomplete are the exception. V2 must not be modified.
func (m Manifest) V2() []byte { return m.v2 }

// Active tells that the image's state is active.
func (m Manifest) Active() bool { return m.State == stateActive }

// Servable tells that clients may learn of the image at all: the image is public, or its source is
// trusted with private images (ParseOptions.ServePrivate).
func (m Manifest) Servable() bool { return m.Public || m.private }

// Listable tells that the image belongs on GET /images (spec 1.8, 2.4): active,
// servable, with at least one file.
func (m Manifest) Listable() bool { return m.Active() && m.Servable() && len(m.Files) > 0 }

// DSAPIVisible tells that the image belongs on GET /datasets (spec 1.6): active,
// public, with at least one file, of a type that DSAPI knows.
func (m Manifest) DSAPIVisible() bool {
	return (m.HoldsStream() || m.Type == "other") && m.Active() && m.Public && len(m.Files) > 0
}

// HoldsStream tells that the image's file must be a ZFS stream, plain or compressed. Files of the
// other types (docker, lxd, other) may be anything.
func (m Manifest) HoldsStream() bool {
	return m.Type == "zone-dataset" || m.Type == "lx-dataset" || m.Type == "zvol"
}

// HasOrigin tells that the image is incremental: a stream on top of image m.Origin.
func (m Manifest) HasOrigin() bool { return m.Origin != uuid.Nil }

// Size is the size of all files together, as far as the source gave sizes.
func (m Manifest) Size() int64 {
	var size int64
	for i := range m.Files {
		size += m.Files[i].Size
	}
	return size
}

// Description is the source's text for people, nil when there is none. The description is read from the
// manifest's text each time, and must not be modified.
func (m Manifest) Description() []byte {
	text, _ := unquote(lookup(m.v2, "description"))
	return text
}

// ParseUUID accepts lower-case 8-4-4-4-12 hex only, of any version and variant (spec 0).
func ParseUUID(s string) (uuid.UUID, bool) { return readUUID(s, false) }

// ReadUUID is ParseUUID for bytes.
func ReadUUID(b []byte) (uuid.UUID, bool) { return readUUID(b, false) }

// readUUID is ParseUUID for strings and bytes; fold lets upper case pass.
func readUUID[T string | []byte](s T, fold bool) (id uuid.UUID, ok bool) {
	if len(s) != 36 {
		return uuid.Nil, false
	}
	n := 0 // hex digits read
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return uuid.Nil, false
			}
			continue
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F' && fold:
			c -= 'A' - 10
		default:
			return uuid.Nil, false
		}
		id[n/2] = id[n/2]<<4 | c
		n++
	}
	return id, true
}
