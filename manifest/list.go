package manifest

import (
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxText and maxValues bound one manifest of a list. A longer one, or one of more values, is left
// out without being held in memory.
const (
	MaxText   = 4 << 20 // bytes
	maxValues = 50_000  // members of objects, elements of arrays, and nested objects and arrays
)

// ListOptions steer ReadList.
type ListOptions struct {
	ParseOptions
	// Array: one manifest in place of an array is an error.
	Array bool
}

// ReadList reads an array of manifests (or one object, spec 4.1), v1 and v2 mixed, as the text
// comes from r; a BOM and white space around the text are tolerated. The memory that ReadList takes
// beside that of the kept manifests is bounded, whatever the text: a manifest of more than MaxText
// bytes, or of more than 50,000 values, is refused.
//
// take gets each element in turn: a manifest, or why the element is refused, a *ParseError. The
// first hundred refusals say why; the others have Image alone, and hold only until take returns. A
// manifest that take does not keep must not be used after take. An error of take ends ReadList.
//
// Errors: that of take, or of r; a *ParseError for a body that is not JSON, or neither a list nor a
// manifest. What take has got before is then of no list.
func ReadList(r io.Reader, o ListOptions, take func(m Manifest, refused error) (keep bool, err error)) error {
	l := listReader{
		splitter: splitter{src: r, room: make([]byte, readSize)},
		parser:   parser{options: o.ParseOptions, seen: make(map[string]string)},
		take:     take,
	}
	first, err := l.splitter.first()
	switch {
	case errors.Is(err, io.EOF):
		return &ParseError{Reason: "the list is empty text"}
	case err != nil:
		return err
	case first == '[':
		return l.array()
	case first == '{' && !o.Array:
		return l.single()
	case o.Array:
		return &ParseError{Reason: "not a list of manifests"}
	}
	return &ParseError{Reason: "neither a list of manifests nor one manifest"}
}

// EachElement gives take the text of each element of an array, or of one object, as the text comes
// from r. Whether an element is JSON is for take to judge; the text holds until take returns.
// Elements that ReadList refuses unread are left out. An error of take ends EachElement. Errors are
// those of ReadList.
func EachElement(r io.Reader, take func(text []byte, single bool) error) error {
	s := splitter{src: r, room: make([]byte, readSize)}
	first, err := s.first()
	switch {
	case errors.Is(err, io.EOF):
		return &ParseError{Reason: "the list is empty text"}
	case err != nil:
		return err
	case first == '{':
		text, err := s.rest()
		if err != nil {
			return err
		}
		return take(trim(text), true)
	case first != '[':
		return &ParseError{Reason: "neither a list of manifests nor one manifest"}
	}
	s.from++ // past the bracket
	for {
		e, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if e.refused != nil {
			continue
		}
		if err := take(e.text, false); err != nil {
			return err
		}
	}
}

// listReader is a ReadList under way.
type listReader struct {
	splitter splitter
	parser   parser
	texts    texts
	refused  int
	take     func(Manifest, error) (bool, error)
}

// array reads the elements of an array.
func (l *listReader) array() error {
	l.splitter.from++ // past the bracket
	for {
		e, err := l.splitter.next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := l.element(e); err != nil {
			return err
		}
	}
}

// single reads a text that is one object.
func (l *listReader) single() error {
	text, err := l.splitter.rest()
	if err != nil {
		return err
	}
	var m Manifest
	if m, err = l.parser.parse(l.texts.add(trim(text))); err != nil && !errors.Is(err, ErrSkip) {
		return err
	}
	_, err = l.take(m, err)
	return err
}

// element reads one element and hands the result on. The text of an element that is not kept makes
// room for the next.
func (l *listReader) element(e element) error {
	m, err := Manifest{}, e.refused
	var text []byte
	if err == nil {
		read := l.parser.accepted
		if !jsontext.Value(e.text).IsValid() {
			read = l.parser.parse
			if err := l.parser.wellFormed(e.text); err != nil {
				return err
			}
		}
		text = l.texts.add(e.text)
		m, err = read(text)
	}
	if err != nil {
		l.refused++
		l.parser.terse = l.refused >= maxRefusals
	}
	keep, takeErr := l.take(m, err)
	if err != nil || !keep || !inPlace(m.raw, text) {
		l.texts.drop(text)
	}
	return takeErr
}

// wellFormed judges text by the lenient rules, by which names may be twice and strings may be no
// UTF-8: a list with an element that breaks these is no list.
func (p *parser) wellFormed(text []byte) error {
	dec := p.decoder(text, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := dec.ReadValue(); err != nil {
		return syntaxError(err)
	}
	return syntaxError(atEnd(dec))
}

// texts is memory for the texts of one list. They share blocks.
type texts struct{ block []byte }

// The sizes of blocks. A list of few images does not hold a large block.
const (
	firstBlock   = 4 << 10
	largestBlock = 256 << 10
)

// add copies text.
func (t *texts) add(text []byte) []byte {
	if len(text) > largestBlock/4 {
		return append(make([]byte, 0, len(text)), text...)
	}
	if free := cap(t.block) - len(t.block); free < len(text) {
		size := min(max(2*cap(t.block), firstBlock), largestBlock)
		t.block = make([]byte, 0, max(size, len(text)))
	}
	begin := len(t.block)
	t.block = append(t.block, text...)
	return t.block[begin:len(t.block):len(t.block)]
}

// drop forgets the text that was added last.
func (t *texts) drop(text []byte) {
	if begin := len(t.block) - len(text); len(text) > 0 && begin >= 0 && inPlace(t.block[begin:], text) {
		t.block = t.block[:begin]
	}
}

// Memory is about how many bytes the manifest takes in memory, its texts included.
func (m *Manifest) Memory() int64 {
	const (
		bare  = 304 // of a Manifest
		file  = 144 // of a File
		word  = 40  // of a string, and its place in a slice that has grown
		index = 64  // of an image in a map
	)
	n := bare + index + len(m.raw) + len(m.Name) + len(m.Version) + file*len(m.Files)
	if !m.oneText() {
		n += len(m.v2)
	}
	for _, s := range [][]string{m.ACL, m.Channels} {
		for i := range s {
			n += word + len(s[i])
		}
	}
	for i := range m.Files {
		n += len(m.Files[i].Path) + len(m.Files[i].URL)
	}
	return int64(n)
}
