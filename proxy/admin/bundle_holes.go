package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Hole is a stretch of a bundle's volume that a sender leaves out, for the mirror
// has it already.
type Hole struct{ At, Size int64 }

// maxHoles is how many there may be: the request's header has to hold them.
const maxHoles = 500

// errHole is the end of a bundle that leaves out what is needed.
var errHole = errors.New("the sender left out what is needed: send it again")

// writeHoles is the form in which holes are told: AT+SIZE, with commas.
func writeHoles(holes []Hole) string {
	texts := make([]string, len(holes))
	for i, h := range holes {
		texts[i] = fmt.Sprintf("%d+%d", h.At, h.Size)
	}
	return strings.Join(texts, ",")
}

// readHoles reads that form: in order, and apart.
func readHoles(text string) ([]Hole, error) {
	if text == "" {
		return nil, nil
	}
	var holes []Hole
	next := int64(0)
	for part := range strings.SplitSeq(text, ",") {
		at, size, _ := strings.Cut(part, "+")
		h := Hole{}
		var err, err2 error
		h.At, err = strconv.ParseInt(at, 10, 64)
		h.Size, err2 = strconv.ParseInt(size, 10, 64)
		const most = 1 << 60
		if err != nil || err2 != nil || h.At < next || h.At > most || h.Size <= 0 || h.Size > most || len(holes) == maxHoles {
			return nil, refuse(http.StatusUnprocessableEntity, codeInvalidParameter,
				"without: %q: must be AT+SIZE in order, %d at most", shorten(part), maxHoles)
		}
		next = h.At + h.Size
		holes = append(holes, h)
	}
	return holes, nil
}

// perforated is a volume some stretches of which are not sent. They can be sought
// over, and cannot be read.
type perforated struct {
	r     io.Reader
	holes []Hole // that are ahead, or under way
	at    int64
}

// Read gives bytes as far as the next hole.
func (p *perforated) Read(b []byte) (int, error) {
	if len(p.holes) > 0 && len(b) > 0 {
		room := p.holes[0].At - p.at
		if room <= 0 {
			return 0, fmt.Errorf("byte %d of the bundle: %w", p.at, errHole)
		}
		b = b[:min(int64(len(b)), room)]
	}
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}

// Seek goes forward: over bytes that were sent by reading them.
func (p *perforated) Seek(n int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || n < 0 {
		return p.at, errors.ErrUnsupported
	}
	for n > 0 {
		step := n
		if len(p.holes) > 0 {
			h := p.holes[0]
			if p.at >= h.At {
				step = min(n, h.At+h.Size-p.at)
				p.at += step
				n -= step
				if p.at == h.At+h.Size {
					p.holes = p.holes[1:]
				}
				continue
			}
			step = min(n, h.At-p.at)
		}
		done, err := io.CopyN(io.Discard, p.r, step)
		p.at += done
		n -= done
		if err != nil {
			return p.at, err
		}
	}
	return p.at, nil
}
