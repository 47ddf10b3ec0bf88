package manifest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// ParseOptions steer ingestion of one source's manifests.
type ParseOptions struct {
	ServePrivate bool // the source's private images may be served; keep acl in V2
	// Date is the published_at of an activated image whose manifest gives none: the time when its
	// file, or the answer with the manifest, was modified last. Raw then has the date. Zero: such
	// images have no date, and V2 shows 1970 (spec 1.5).
	Date time.Time
}

// Parse reads one manifest, v1 or v2 by spec section 1; a BOM and white space around the text are
// tolerated. The error is a *ParseError. data is kept, not copied, and must not change afterwards.
func Parse(data []byte, o ParseOptions) (Manifest, error) {
	var members [32]member
	var inner [8]member
	p := parser{options: o, ms: members[:0], inner: inner[:0]}
	return p.parse(trim(data))
}

// ParseList is ReadList of data, which is not kept. Refused elements are reported in skipped, the
// first hundred with the reason. The error matches ErrInvalid; there are neither images nor skipped
// then.
func ParseList(data []byte, o ParseOptions) (images []Manifest, skipped []error, err error) {
	err = ReadList(bytes.NewReader(data), ListOptions{ParseOptions: o}, func(m Manifest, refused error) (bool, error) {
		if refused != nil {
			if pe, ok := errors.AsType[*ParseError](refused); ok && len(skipped) >= maxRefusals {
				same := *pe
				refused = &same
			}
			skipped = append(skipped, refused)
			return false, nil
		}
		images = append(images, m)
		return true, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return images, skipped, nil
}

// trim drops a BOM and the white space around the text.
func trim(data []byte) []byte {
	const space = " \t\r\n"
	return bytes.TrimRight(bytes.TrimLeft(data, "\ufeff"+space), space)
}

// parser reads manifests one after another; its slices are reused.
type parser struct {
	options ParseOptions
	seen    map[string]string // strings met before in the same list; nil: share none
	terse   bool              // errors are plain, which gives no reason
	plain   ParseError

	dec   *jsontext.Decoder
	ms    []member
	inner []member
	spans []span
	edits []edit
	doc   doc
	room  []File
}

// newFiles makes room for the files of one manifest. The manifests of a list share blocks.
func (p *parser) newFiles(n int) []File {
	const block = 64
	switch {
	case n == 0:
		return nil
	case p.seen == nil || n > block:
		return make([]File, n)
	case n > len(p.room):
		p.room = make([]File, block)
	}
	files := p.room[:n:n]
	p.room = p.room[n:]
	return files
}

// check tells whether text is one JSON value by the strict rules of RFC 7493: names unique, UTF-8.
func (p *parser) check(text []byte) error {
	if jsontext.Value(text).IsValid() { // the quick way, which does not name the fault
		return nil
	}
	if p.terse {
		return p.refuse(uuid.Nil, false)
	}
	dec := p.decoder(text)
	_, err := dec.ReadValue()
	if err == nil {
		err = atEnd(dec)
	}
	return syntaxError(err)
}

// decoder gives the one decoder, set to text. The decoder reads a bytes.Buffer in place.
func (p *parser) decoder(text []byte, options ...jsontext.Options) *jsontext.Decoder {
	if p.dec == nil {
		p.dec = jsontext.NewDecoder(bytes.NewBuffer(text), options...)
	} else {
		p.dec.Reset(bytes.NewBuffer(text), options...)
	}
	return p.dec
}

func atEnd(dec *jsontext.Decoder) error {
	_, err := dec.ReadToken()
	switch {
	case err == nil:
		return errors.New("something follows the value")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

func syntaxError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return &ParseError{Reason: "JSON ends too early"}
	}
	return &ParseError{Reason: "not valid JSON: " + shorten(strings.TrimPrefix(err.Error(), "jsontext: "))}
}

// shorten bounds a stranger's text for a log line.
func shorten(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// parse reads one manifest from unchecked text.
func (p *parser) parse(text []byte) (Manifest, error) {
	if err := p.check(text); err != nil {
		if pe, ok := errors.AsType[*ParseError](err); ok {
			pe.Image = guessUUID(text)
		}
		return Manifest{}, err
	}
	return p.accepted(text)
}

// refuse gives the error of a refusal that nothing is told of but the image. The next one replaces it.
func (p *parser) refuse(id uuid.UUID, skip bool) error {
	p.plain = ParseError{Image: id, skip: skip}
	return &p.plain
}

// guessUUID finds the uuid in invalid text, so that the error can name the image.
func guessUUID(text []byte) uuid.UUID {
	_, rest, _ := bytes.Cut(text, []byte(`"uuid"`))
	rest = bytes.TrimLeft(rest, ": \t\r\n\"")
	if len(rest) < 36 {
		return uuid.Nil
	}
	id, _ := readUUID(rest[:36], true)
	return id
}

// maxSeen bounds the strings that one list shares: nearly all of a real list are among the first.
const maxSeen = 10_000

// wellKnown are strings that nearly every manifest repeats.
var wellKnown = func() map[string]string {
	m := make(map[string]string)
	for _, s := range []string{
		stateActive, stateDisabled, stateUnactivated, stateCreating, stateFailed,
		"zone-dataset", "lx-dataset", "zvol", "docker", "lxd", "other",
		"smartos", "linux", "windows", "bsd", "illumos",
		"gzip", "bzip2", "xz", "none", unsetOwner, "",
	} {
		m[s] = s
	}
	return m
}()

// intern makes a string that does not keep b alive, and shares equal strings where possible.
func (p *parser) intern(b []byte) string {
	if s, ok := wellKnown[string(b)]; ok {
		return s
	}
	if s, ok := p.seen[string(b)]; ok {
		return s
	}
	s := string(b)
	if p.seen != nil && len(s) <= 64 && len(p.seen) < maxSeen {
		p.seen[s] = s
	}
	return s
}
