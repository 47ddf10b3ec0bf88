package upstream

import "io"

// maxBlank is how much white space between two parts of a JSON text is taken as it
// is; the rest of it is left out.
const maxBlank = 1 << 10

// squeezed is a JSON text without long runs of white space outside of strings, so
// that a body of nothing else takes no memory. read is how many bytes the text had.
type squeezed struct {
	src    io.Reader
	read   int64
	blank  int  // white space since the last other byte
	quoted bool // in a string
	escape bool // after a backslash in it
}

// Read implements io.Reader. It may give no byte and no error.
func (s *squeezed) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	s.read += int64(n)
	kept := 0
	for _, c := range p[:n] {
		switch {
		case s.escape:
			s.escape = false
		case s.quoted:
			s.quoted, s.escape = c != '"', c == '\\'
		case c == ' ' || c == '\n' || c == '\r' || c == '\t':
			if s.blank++; s.blank > maxBlank {
				continue
			}
		default:
			s.blank, s.quoted = 0, c == '"'
		}
		p[kept] = c
		kept++
	}
	return kept, err
}
