package admin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/imported"
	"imgmirror/proxy/published"
	"imgmirror/verify"
)

// Bundles: what one is made of goes out here, image by image; whoever asks makes
// the bundle of it, and signs it with a key that the mirror never sees. What comes
// in is in bundle_import.go.

// Importer keeps the images that bundles brought; *imported.Source is one. Its
// methods may be called concurrently.
type Importer interface {
	// Provenance tells where an image came from; false: not from a bundle.
	Provenance(id uuid.UUID) (imported.Provenance, bool)
	// Expect keeps the files of images that are about to be added, until done.
	Expect(ids []uuid.UUID) (done func())
	// Release gives up that protection, until done, for images whose files are
	// about to be removed.
	Release(ids []uuid.UUID) (done func())
	// Add notes an image whose files are on disk; it lasts when Add returns nil.
	Add(m manifest.Manifest, from imported.Provenance) error
	// Publish brings what was added into the catalogue.
	Publish(ctx context.Context) error
	// Forget gives up those of the images that were imported, and tells which.
	Forget(ctx context.Context, ids ...uuid.UUID) ([]uuid.UUID, error)
}

// planBundle is POST /bundle/plan: the images that are wanted with their origins,
// an origin before what needs it.
func (s *Server) planBundle(w http.ResponseWriter, r *http.Request) error {
	var want BundleWanted
	if err := readJSON(r, &want); err != nil {
		return err
	}
	if want.Newest < 0 {
		return refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "newest is %d: must be 0 or more", want.Newest)
	}
	sel, err := Wanted{UUIDs: want.UUIDs, Filters: want.Filters}.selection()
	if err == nil {
		err = sel.some()
	}
	if err != nil {
		return err
	}
	entries, err := s.entries(r.Context(), sel)
	if err != nil {
		return err
	}
	if matching := entries[len(sel.ids):]; want.Newest > 0 && len(matching) > want.Newest { // in order of their age
		entries = slices.Delete(entries, len(sel.ids), len(entries)-want.Newest)
	}
	wanted := make(map[uuid.UUID]bool, len(entries))
	for _, e := range entries {
		wanted[e.Manifest.UUID] = true
	}
	seen := make(map[uuid.UUID]bool, len(entries))
	var all []catalog.Entry
	for _, e := range entries {
		chain, err := s.chain(r.Context(), e)
		if err != nil {
			return err
		}
		for _, link := range slices.Backward(chain) {
			if !seen[link.Manifest.UUID] {
				seen[link.Manifest.UUID] = true
				all = append(all, link)
			}
		}
	}
	for _, e := range all {
		if why := e.Manifest.Unusable(); why != "" {
			return refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "image %s cannot be in a bundle: %s", e.Manifest.UUID, why)
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
		blob, _ := s.o.Blob(e, i)
		info, ok := s.o.Store.Peek(blob)
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
	rest, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	return withManifest(raw, rest)
}

// file is GET /files/SHA1: the bytes of a verified file, from where a Range of the
// form "bytes=N-" begins.
func (s *Server) file(w http.ResponseWriter, r *http.Request) error {
	sum, err := verify.ParseSum(r.PathValue("sha1"))
	if err != nil {
		return refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "%v", err)
	}
	blob := cache.Blob{Want: verify.Want{SHA1: sum}}
	if _, ok := s.o.Store.Peek(blob); !ok {
		return refuse(http.StatusNotFound, codeNotFound, "file %s is not cached", sum)
	}
	reader, err := s.o.Store.File(r.Context(), blob, nil)
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
	if _, err := io.CopyBuffer(onlyWriter{w}, reader, make([]byte, fileBuffer)); err != nil {
		panic(http.ErrAbortHandler) // cut short, or nobody is there any more
	}
	return nil
}

// fileBuffer is how much of a file is sent at a time.
const fileBuffer = 256 << 10

// onlyWriter hides all else that a writer can do.
type onlyWriter struct{ io.Writer }

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
		return 0, refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "the file has %d bytes, none from %d on", size, from)
	}
	return from, nil
}

// hasFile tells whether a file of a bundle is on disk, verified: by its sha256, too.
func (s *Server) hasFile(f bundle.File) bool {
	_, ok := s.o.Store.Peek(cache.Blob{Want: f.Want()})
	return ok
}

// knows tells whether the mirror has the image, from wherever.
func (s *Server) knows(id uuid.UUID) bool {
	if _, ok := s.o.Importer.Provenance(id); ok {
		return true
	}
	_, ok := s.o.Catalog.Current().Entry(id)
	return ok
}

// checkBase is an error unless all is here that a delta leaves out.
func (s *Server) checkBase(x bundle.Index) error {
	var missing []string
next:
	for _, held := range x.Requires {
		for _, sum := range held.Files {
			if _, ok := s.o.Store.Peek(cache.Blob{Want: verify.Want{SHA1: sum}}); !ok || !s.knows(held.UUID) {
				missing = append(missing, held.UUID.String())
				continue next
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	const most = 5
	text := strings.Join(missing[:min(len(missing), most)], ", ")
	if len(missing) > most {
		text += fmt.Sprintf(" and %d more", len(missing)-most)
	}
	return refuse(http.StatusConflict, codeBundleBase, "bundle %s leaves out %d images that it takes for granted (%s), and %d of them are not here: %s",
		x.ID, len(x.Requires), x.Since, len(missing), text)
}

// checkConflict is an error if the mirror has the image with other files.
func (s *Server) checkConflict(m bundle.Image) error {
	e, ok := s.o.Catalog.Current().Entry(m.UUID)
	if !ok {
		return nil
	}
	same := len(e.Manifest.Files) == len(m.Files)
	for i := 0; same && i < len(m.Files); i++ {
		is := e.Manifest.Files[i].SHA1
		same = is == m.Files[i].SHA1 || is.IsZero()
	}
	if same {
		return nil
	}
	return fmt.Errorf("image %s: %w: source %s has it with other files", m.UUID, published.ErrExists, e.Source)
}

// explainBundle is explain for what befell a bundle: what is a source's fault
// elsewhere is the bundle's here.
func explainBundle(err error) *Error {
	if errors.Is(err, verify.ErrMismatch) {
		return &Error{codeChecksum, err.Error()}
	}
	return explain(err)
}
