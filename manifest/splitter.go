package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// readSize is how much of a list is read at once.
const readSize = 64 << 10

// element is the text of one element of a list, or why the element is refused unread.
type element struct {
	text    []byte
	refused error
}

// tooLarge refuses an element by its bounds; head is its beginning.
func tooLarge(head []byte, values int) *ParseError {
	e := &ParseError{Image: guessUUID(head), Reason: fmt.Sprintf("more than %d bytes", MaxText)}
	if values > maxValues {
		e.Reason = fmt.Sprintf("more than %d values", maxValues)
	}
	return e
}

// splitter cuts the text of a JSON array into the texts of its elements, as the text comes. It
// looks at brackets, commas and strings only; whether an element is JSON is for others to judge.
type splitter struct {
	src      io.Reader
	room     []byte
	from, to int   // of what is read and not yet given, in room
	err      error // what src ended with

	// Where the scan is in the element.
	depth   int
	values  int
	quoted  bool
	escaped bool
	last    bool // the bracket that ends the array has been met
	begun   bool // an element has been met
}

// fill reads more of the text.
func (s *splitter) fill() error {
	if s.from == s.to {
		s.from, s.to = 0, 0
	}
	switch {
	case s.to < len(s.room):
	case s.from > 0:
		s.to = copy(s.room, s.room[s.from:s.to])
		s.from = 0
	default:
		room := make([]byte, min(2*len(s.room), MaxText+readSize))
		s.to = copy(room, s.room)
		s.room = room
	}
	for range 100 {
		if s.err != nil {
			return s.err
		}
		var n int
		n, s.err = s.src.Read(s.room[s.to:])
		if s.to += n; n > 0 {
			return nil
		}
	}
	return io.ErrNoProgress
}

// more is fill where the text must go on.
func (s *splitter) more() error {
	err := s.fill()
	if errors.Is(err, io.EOF) {
		return &ParseError{Reason: "JSON ends too early"}
	}
	return err
}

// first gives the first byte that is neither a BOM nor white space, unread.
func (s *splitter) first() (byte, error) {
	for {
		rest := bytes.TrimLeft(s.room[s.from:s.to], "\ufeff \t\r\n")
		if len(rest) > 0 && (rest[0] != 0xef || len(rest) > 2) { // else it may be the beginning of a BOM
			s.from = s.to - len(rest)
			return rest[0], nil
		}
		s.from = s.to - len(rest)
		if err := s.fill(); errors.Is(err, io.EOF) && len(rest) > 0 {
			return rest[0], nil
		} else if err != nil {
			return 0, err
		}
	}
}

// rest gives all that is left of the text, of at most MaxText bytes.
func (s *splitter) rest() ([]byte, error) {
	for {
		if s.to-s.from > MaxText {
			return nil, tooLarge(s.room[s.from:s.to], 0)
		}
		if err := s.fill(); errors.Is(err, io.EOF) {
			return s.room[s.from:s.to], nil
		} else if err != nil {
			return nil, err
		}
	}
}

// space skips white space.
func (s *splitter) space(more func() error) error {
	for {
		if s.from = skipSpace(s.room[:s.to], s.from); s.from < s.to {
			return nil
		}
		if err := more(); err != nil {
			return err
		}
	}
}

// next gives the next element; io.EOF after the last, when nothing follows the array. The text
// holds until the next call.
func (s *splitter) next() (element, error) {
	if s.last {
		return element{}, s.end()
	}
	if err := s.space(s.more); err != nil {
		return element{}, err
	}
	if !s.begun && s.room[s.from] == ']' {
		s.from++
		return element{}, s.end()
	}
	s.begun, s.depth, s.values, s.quoted, s.escaped = true, 0, 0, false, false
	var e element
	at := s.from
	for {
		at += s.scan(s.room[at:s.to])
		if e.refused == nil && (at-s.from > MaxText || s.values > maxValues) {
			e.refused = tooLarge(s.room[s.from:at], s.values)
		}
		if at < s.to {
			break
		}
		if e.refused != nil {
			s.from = at
		}
		done := at - s.from
		if err := s.more(); err != nil {
			return element{}, err
		}
		at = s.from + done
	}
	e.text = bytes.TrimRight(s.room[s.from:at], " \t\r\n")
	s.last = s.room[at] == ']'
	s.from = at + 1
	return e, nil
}

// end tells whether nothing but white space follows the array.
func (s *splitter) end() error {
	if err := s.space(s.fill); err != nil {
		return err
	}
	return &ParseError{Reason: "not valid JSON: something follows the value"}
}

// scan gives the place in b of the comma or bracket after the element, or all of b.
func (s *splitter) scan(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch {
		case s.escaped:
			s.escaped = false
			continue
		case s.quoted:
			i += s.inString(b[i:])
			continue
		}
		switch b[i] {
		case '"':
			s.quoted = true
		case '{', '[':
			s.depth++
			s.values++
		case ',':
			if s.depth == 0 {
				return i
			}
			s.values++
		case '}', ']':
			switch {
			case s.depth > 0:
				s.depth--
			case b[i] == ']':
				return i
			}
		}
	}
	return len(b)
}

// inString gives the place in b, the inside of a string, of the quote that may end the string, or
// of the last byte of b.
func (s *splitter) inString(b []byte) int {
	i := bytes.IndexByte(b, '"')
	before := b
	if i >= 0 {
		before = b[:i]
	}
	slashes := len(before) - len(bytes.TrimRight(before, `\`))
	if i < 0 {
		s.escaped = slashes%2 == 1
		return len(b) - 1
	}
	s.quoted = slashes%2 == 1
	return i
}
