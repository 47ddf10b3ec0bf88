package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"imgmirror/cache/bundle"
	"imgmirror/proxy/meaning"
)

const (
	// maxHead bounds what comes of a bundle before its files: the index, 32 MiB, and the manifests,
	// 64 MiB, in base64.
	maxHead = 130 << 20
	// leastHeadRate is the least bytes a second of a head: a head that drips makes room in the end.
	leastHeadRate = 64 << 10
)

// heads is the account of the heads of bundles that are being read or judged, in bytes of bodies.
type heads struct {
	limit int64 // of all heads, and of one

	mu   sync.Mutex
	used int64
}

// take books n bytes until give; false: the heads under way need the memory. A length of -1 is not
// known, and books everything.
func (h *heads) take(n int64) (give func(), ok bool) {
	if n < 0 {
		n = h.limit
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.used+n > h.limit {
		return nil, false
	}
	h.used += n
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.used -= n
	}, true
}

// inUse gives what is booked.
func (h *heads) inUse() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used
}

// takeHead reads the head of a bundle. The caller must call give once the head is not held any more.
// A head that finds no room is refused before its first byte is read.
func (s *Server) takeHead(r *http.Request) (head BundleHead, give func(), err error) {
	give, ok := s.heads.take(r.ContentLength)
	if !ok {
		s.metrics.refused[refusedHeads].Inc()
		return head, nil, refuse(http.StatusServiceUnavailable, meaning.Unavailable,
			"the indexes and manifests of other bundles are being read: ask again later")
	}
	if body, ok := r.Body.(*arriving); ok {
		length := r.ContentLength
		if length < 0 {
			length = s.heads.limit
		}
		body.until = time.Now().Add(bodyTimeout + time.Duration(length/leastHeadRate)*time.Second)
	}
	if head, err = readHead(r.Body); err != nil {
		give()
		return head, nil, err
	}
	return head, give, nil
}

// readHead reads a head as it comes, so that the text is never in memory as a whole. An empty body
// is an empty head.
func readHead(body io.Reader) (head BundleHead, err error) {
	d := jsontext.NewDecoder(body)
	err = json.UnmarshalDecode(d, &head, json.RejectUnknownMembers(true),
		json.WithUnmarshalers(json.UnmarshalFromFunc(unmarshalTexts)))
	if err == nil {
		if _, err = d.ReadToken(); err == nil {
			err = errors.New("more than one value")
		}
	}
	var large *http.MaxBytesError
	switch {
	case err == io.EOF: //nolint:errorlint // as the decoder has it; an end in mid-value is another error
		return head, nil
	case errors.As(err, &large):
		return head, large
	}
	return head, refuse(http.StatusBadRequest, meaning.BadRequest, "the body is not what is expected here: %.300v", err)
}

// unmarshalTexts reads no more manifests than a bundle can have: "" takes less JSON than memory.
func unmarshalTexts(d *jsontext.Decoder, texts *[][]byte) error {
	kind := d.PeekKind()
	if kind != '[' && kind != 'n' {
		return errors.New("manifests: a list is wanted")
	}
	*texts = nil
	if _, err := d.ReadToken(); err != nil || kind == 'n' {
		return err
	}
	for d.PeekKind() != ']' {
		if len(*texts) == bundle.MaxImages {
			return fmt.Errorf("manifests: more than %d", bundle.MaxImages)
		}
		var text []byte
		if err := json.UnmarshalDecode(d, &text); err != nil {
			return err
		}
		*texts = append(*texts, text)
	}
	_, err := d.ReadToken()
	return err
}
