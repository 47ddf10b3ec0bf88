package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// What can be seen: sources, the catalogue, what is on disk, what comes in.

// checkTimeout bounds the asking of one source.
const checkTimeout = 20 * time.Second

// sources is GET /sources.
func (s *Server) sources(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, sourcesOf(s.o.Catalog.Status()))
}

func sourcesOf(all []catalog.Status) []Source {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	out := make([]Source, len(all))
	for i, st := range all {
		out[i] = Source{
			Name: st.Name, URL: st.URL, Kind: st.Kind, State: st.State, Images: st.Images, Hidden: st.Hidden,
			LastTry: at(st.LastTry), LastSuccess: at(st.LastSuccess), LastError: st.LastError,
			AskedFrom: at(st.AskedFrom),
		}
	}
	return out
}

// checkSources is POST /sources/check: all sources are asked side by side, and
// what they say is taken over. The reply tells how they are after that.
func (s *Server) checkSources(w http.ResponseWriter, r *http.Request) error {
	names := s.o.Catalog.Status()
	checks := make([]*Check, len(names))
	var asked sync.WaitGroup
	for i := range names {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
			defer cancel()
			begun := time.Now()
			err := s.o.Catalog.Check(ctx, names[i].Name)
			checks[i] = &Check{OK: err == nil, Took: time.Since(begun).Milliseconds()}
			if err != nil {
				checks[i].Error = err.Error()
			}
		})
	}
	asked.Wait()
	out := sourcesOf(s.o.Catalog.Status())
	for i := range out {
		if at := slices.IndexFunc(names, func(st catalog.Status) bool { return st.Name == out[i].Name }); at >= 0 {
			out[i].Check = checks[at]
		}
	}
	return reply(w, http.StatusOK, out)
}

// images is GET /images.
func (s *Server) images(w http.ResponseWriter, r *http.Request) error {
	want, err := filtersOf(r.URL.Query()["filter"])
	if err != nil {
		return err
	}
	list := s.o.Catalog.Current()
	return replyAll(w, func(yield func(Image) bool) {
		for _, m := range list.Images() {
			if !matches(m, want) {
				continue
			}
			e, ok := list.Entry(m.UUID)
			if ok && !yield(s.imageOf(e)) {
				return
			}
		}
	}, encodeImage)
}

// encodeImage is json.Marshal but for the manifest: it is JSON, and long, and
// need not be read once more.
func encodeImage(i Image) ([]byte, error) {
	raw := i.Manifest
	i.Manifest = json.RawMessage("0")
	rest, err := json.Marshal(i)
	if err != nil {
		return nil, err
	}
	return withManifest(raw, rest)
}

// withManifest puts a manifest back into an object that begins with a 0 in its
// place.
func withManifest(raw, object []byte) ([]byte, error) {
	const head = `{"manifest":`
	rest, ok := bytes.CutPrefix(object, []byte(head+"0"))
	if !ok {
		return nil, errors.New("what is to hold a manifest begins with it")
	}
	return slices.Concat([]byte(head), raw, rest), nil
}

// image is GET /images/UUID.
func (s *Server) image(w http.ResponseWriter, r *http.Request) error {
	e, err := s.entry(r.Context(), r.PathValue("uuid"))
	if err != nil {
		return err
	}
	image := s.imageOf(e)
	for _, h := range s.o.Catalog.Hidden(e.Manifest.UUID) {
		image.Hidden = append(image.Hidden, Hidden(h))
	}
	return reply(w, http.StatusOK, image)
}

// ancestry is GET /images/UUID/ancestry.
func (s *Server) ancestry(w http.ResponseWriter, r *http.Request) error {
	e, err := s.entry(r.Context(), r.PathValue("uuid"))
	if err != nil {
		return err
	}
	chain, err := s.chain(r.Context(), e)
	if err != nil {
		return err
	}
	out := make([]Image, len(chain))
	for i, e := range chain {
		out[i] = s.imageOf(e)
	}
	return reply(w, http.StatusOK, out)
}

// entry finds an image by the text of its uuid.
func (s *Server) entry(ctx context.Context, text string) (catalog.Entry, error) {
	id, err := uuidOf(text)
	if err != nil {
		return catalog.Entry{}, err
	}
	return s.lookup(ctx, id)
}

func (s *Server) lookup(ctx context.Context, id uuid.UUID) (catalog.Entry, error) {
	e, err := s.o.Catalog.Get(ctx, id)
	if err == nil {
		return e, nil
	}
	why := ""
	for _, h := range s.o.Catalog.Hidden(id) {
		why += fmt.Sprintf("; source %s has it, and clients are not shown it: %s (%s)", h.Source, h.Detail, h.Reason)
	}
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, verify.ErrUnavailable) {
		return e, refuse(http.StatusNotFound, codeNotFound, "image %s was not found%s", id, why)
	}
	return e, fmt.Errorf("%w%s", err, why)
}

// maxChain is far above the length of real chains of origins.
const maxChain = 256

// chain gives e and its origins, e first, the root last.
func (s *Server) chain(ctx context.Context, e catalog.Entry) ([]catalog.Entry, error) {
	chain := []catalog.Entry{e}
	for e.Manifest.HasOrigin() {
		origin, err := s.lookup(ctx, e.Manifest.Origin)
		if err != nil {
			var refused *refusal
			if errors.As(err, &refused) {
				return nil, refuse(refused.status, codeOriginMissing, "origin %s of image %s was not found", e.Manifest.Origin, e.Manifest.UUID)
			}
			return nil, fmt.Errorf("origin %s of image %s: %w", e.Manifest.Origin, e.Manifest.UUID, err)
		}
		same := func(c catalog.Entry) bool { return c.Manifest.UUID == origin.Manifest.UUID }
		if at := slices.IndexFunc(chain, same); at >= 0 {
			return nil, refuse(http.StatusNotFound, codeOriginMissing, "the origins of image %s form a ring: %s", chain[0].Manifest.UUID, uuidsOf(append(chain[at:], origin)))
		}
		if len(chain) == maxChain {
			return nil, refuse(http.StatusNotFound, codeOriginMissing, "image %s has more than %d origins", chain[0].Manifest.UUID, maxChain-1)
		}
		chain = append(chain, origin)
		e = origin
	}
	return chain, nil
}

// uuidsOf names images, in their order.
func uuidsOf(all []catalog.Entry) string {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.Manifest.UUID.String()
	}
	return strings.Join(names, ", ")
}

// imageOf is one row of the catalogue.
func (s *Server) imageOf(e catalog.Entry) Image {
	sources := make([]string, len(e.Holders))
	for i, h := range e.Holders {
		sources[i] = h.Source.Name()
	}
	image := Image{
		Manifest: e.Manifest.V2(),
		Source:   e.Source,
		Sources:  sources,
		Listed:   s.o.Catalog.Current().Shows(e.Manifest.UUID),
		Retired:  e.Retired,
		Cached:   s.isCached(e),
		Pinned:   s.o.Store.Kept(e.Manifest.UUID),
	}
	if from, ok := s.o.Importer.Provenance(e.Manifest.UUID); ok {
		p := Provenance(from)
		image.Imported = &p
	}
	return image
}

// isCached tells whether all files of an image are on disk.
func (s *Server) isCached(e catalog.Entry) bool {
	for i := range e.Manifest.Files {
		blob, _ := s.o.Blob(e, i)
		if _, ok := s.o.Store.Peek(blob); !ok {
			return false
		}
	}
	return len(e.Manifest.Files) > 0
}

// cached is GET /cached.
func (s *Server) cached(w http.ResponseWriter, r *http.Request) error {
	want, err := filtersOf(r.URL.Query()["filter"])
	if err != nil {
		return err
	}
	return replyAll(w, func(yield func(Cached) bool) {
		for _, h := range s.holdings(want) {
			m := h.manifest
			row := Cached{
				UUID: h.id.String(), Name: m.Name, Version: m.Version, Type: m.Type, OS: m.OS, Source: h.source,
				SHA1: h.file.Sum.String(), Size: h.file.Size, Added: h.file.Added.UTC(), LastUsed: h.file.LastUsed.UTC(),
				Pinned: s.o.Store.Kept(h.id), InUse: h.file.Readers > 0, Retired: h.retired,
			}
			if m.HasOrigin() {
				row.Origin = m.Origin.String()
			}
			if !yield(row) {
				return
			}
		}
	}, func(c Cached) ([]byte, error) { return json.Marshal(c) })
}

// holding is one image with one file of it that is on disk.
type holding struct {
	id       uuid.UUID
	file     cache.File
	manifest manifest.Manifest // zero: the catalogue does not know it, and its copy cannot be read
	source   string            // "": the catalogue does not know it
	retired  bool              // no source has it any more
}

// matches tells whether the image satisfies all filters. One of which nothing is
// known satisfies none.
func (h holding) matches(all []manifest.Filter) bool {
	return len(all) == 0 || h.manifest.Raw() != nil && matches(h.manifest, all)
}

// holdings gives what is on disk of the images that match all filters, ordered
// as the catalogue is.
func (s *Server) holdings(want []manifest.Filter) []holding {
	list := s.o.Catalog.Current()
	var out []holding
	for _, f := range s.o.Store.Files() {
		for _, id := range f.Images {
			h := holding{id: id, file: f, retired: true}
			if e, ok := list.Entry(id); ok {
				h.manifest, h.source, h.retired = e.Manifest, e.Source, e.Retired
			} else if m, err := s.o.Store.Manifest(id); err == nil { // its source is configured no more
				h.manifest = m
			}
			if h.matches(want) {
				out = append(out, h)
			}
		}
	}
	slices.SortFunc(out, func(a, b holding) int {
		return cmp.Or(a.manifest.Published.Compare(b.manifest.Published), bytes.Compare(a.id[:], b.id[:]),
			bytes.Compare(a.file.Sum[:], b.file.Sum[:]))
	})
	return out
}

// fills is GET /fills.
func (s *Server) fills(w http.ResponseWriter, _ *http.Request) error {
	all := s.o.Store.Fills()
	out := make([]Fill, len(all))
	for i, f := range all {
		out[i] = Fill{
			UUID: f.Image.String(), SHA1: sumText(f.Sum), Size: f.Size, Have: f.Have, Rate: f.Rate,
			ETA: etaOf(f.ETA), Readers: f.Readers, Source: f.Source, State: string(f.State),
		}
	}
	return reply(w, http.StatusOK, out)
}

// etaOf is a time to go in whole seconds, rounded up; -1 stays what it is.
func etaOf(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Second - 1) / time.Second)
}

// sumText is a sum, "" when it is not known.
func sumText(sum verify.Sum) string {
	if sum.IsZero() {
		return ""
	}
	return sum.String()
}

// uuidOf reads the uuid of an image.
func uuidOf(text string) (uuid.UUID, error) {
	id, ok := manifest.ParseUUID(text)
	if !ok {
		return id, refuse(http.StatusUnprocessableEntity, codeInvalidParameter, "%q is not a uuid", shorten(text))
	}
	return id, nil
}

// filtersOf reads filters; the error matches manifest.ErrInvalid.
func filtersOf(texts []string) ([]manifest.Filter, error) {
	all := make([]manifest.Filter, len(texts))
	for i, text := range texts {
		var err error
		if all[i], err = manifest.ParseFilter(text); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// matches tells whether m satisfies all filters.
func matches(m manifest.Manifest, all []manifest.Filter) bool {
	for _, f := range all {
		if !f.Match(m) {
			return false
		}
	}
	return true
}
