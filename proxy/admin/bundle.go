package admin

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/meaning"
	"imgmirror/verify"
)

// Bundles: what one is made of goes out here, image by image; whoever asks makes the bundle of it,
// and signs it with a key that the mirror never sees. What comes in is in bundle_import.go.

// planBundle is POST /bundle/plan: the images that are wanted with their origins,
// an origin before what needs it.
func (s *Server) planBundle(w http.ResponseWriter, r *http.Request) error {
	var want BundleWanted
	if err := readJSON(r, &want); err != nil {
		return err
	}
	if want.Newest < 0 {
		return refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "newest is %d: must be 0 or more", want.Newest)
	}
	sel, err := Wanted{UUIDs: want.UUIDs, Filters: want.Filters}.some()
	if err != nil {
		return err
	}
	sel.Newest = want.Newest
	entries, err := s.mirror.Select(r.Context(), sel)
	if err != nil {
		return err
	}
	wanted := make(map[uuid.UUID]bool, len(entries))
	for _, e := range entries {
		wanted[e.Manifest.UUID] = true
	}
	all, err := s.mirror.WithOrigins(r.Context(), entries)
	if err != nil {
		return err
	}
	for _, e := range all {
		if why := e.Manifest.Unusable(); why != "" {
			return refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "image %s cannot be in a bundle: %s", e.Manifest.UUID, why)
		}
	}
	return replyAll(w, func(yield func(Bundled) bool) {
		for _, e := range all {
			if !yield(s.bundledOf(e, wanted[e.Manifest.UUID])) {
				return
			}
		}
	}, encodeBundled)
}

// bundledOf tells what a bundle of the image is made of. The manifest says of cached files what these turned out to be, where
// the source does not.
func (s *Server) bundledOf(e catalog.Entry, wanted bool) Bundled {
	m := e.Manifest
	b := Bundled{Manifest: m.V2Channels(), Wanted: wanted, Files: []BundledFile{}}
	for i := range e.Manifest.Files {
		info, ok := s.mirror.Stored(e, i)
		if !ok {
			b.Files = []BundledFile{}
			return b
		}
		d := info.Digests
		b.Files = append(b.Files, BundledFile{SHA1: d.SHA1.String(), SHA256: hex.EncodeToString(d.SHA256[:]), Size: d.Size})
		m, _ = m.WithFacts(i, manifest.Facts{SHA1: d.SHA1, Size: d.Size, Compression: m.CompressionBy(i, d.Format)})
	}
	b.Manifest = m.V2Channels()
	b.Cached = len(b.Files) > 0
	return b
}

// encodeBundled keeps the manifest as it is, as encodeImage does.
func encodeBundled(b Bundled) ([]byte, error) {
	raw := b.Manifest
	b.Manifest = json.RawMessage("0")
	return withManifest(raw, b)
}

// file is GET /files/SHA1: the bytes of a verified file, from where a Range of the
// form "bytes=N-" begins.
func (s *Server) file(w http.ResponseWriter, r *http.Request) error {
	sum, err := verify.ParseSum(r.PathValue("sha1"))
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "%v", err)
	}
	reader, err := s.mirror.Read(r.Context(), sum)
	if err != nil {
		return err
	}
	defer reader.Close() //nolint:errcheck // read only
	from, err := rangeFrom(r.Header.Get("Range"), reader.Size())
	if err != nil {
		return err
	}
	reader.SeekTo(from)
	status := http.StatusOK
	if from > 0 {
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", "bytes "+strconv.FormatInt(from, 10)+"-"+strconv.FormatInt(reader.Size()-1, 10)+"/"+strconv.FormatInt(reader.Size(), 10))
	}
	w.Header().Set("Content-Type", typeBytes)
	w.Header().Set("Content-Length", strconv.FormatInt(reader.Size()-from, 10))
	w.WriteHeader(status)
	if _, err := io.CopyBuffer(&leaving{w, http.NewResponseController(w)}, reader, make([]byte, fileBuffer)); err != nil {
		panic(http.ErrAbortHandler) // cut short: the client may have left
	}
	return nil
}

// fileBuffer is how much of a file is sent at a time, by io.CopyBuffer, which uses its buffer where a
// Writer can do no more than write.
const fileBuffer = 256 << 10

// leaving is a reply with a time limit for each Write, where the listener has deadlines.
type leaving struct {
	w    io.Writer
	conn *http.ResponseController
}

func (l *leaving) Write(p []byte) (int, error) {
	_ = l.conn.SetWriteDeadline(time.Now().Add(uploadStall))
	return l.w.Write(p)
}

// rangeFrom gives the first byte that a Range asks for; 0 for one of another form,
// which may be ignored.
func rangeFrom(header string, size int64) (int64, error) {
	text, ok := strings.CutPrefix(header, "bytes=")
	text, open := strings.CutSuffix(text, "-")
	from, err := strconv.ParseInt(text, 10, 64)
	if !ok || !open || err != nil || from < 0 {
		return 0, nil
	}
	if from >= size {
		return 0, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "the file has %d bytes, none from %d on", size, from)
	}
	return from, nil
}
