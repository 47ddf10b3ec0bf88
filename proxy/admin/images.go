package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// What can be seen: sources, the catalogue, what is on disk, what comes in.

// checkTimeout bounds the asking of one source.
const checkTimeout = 20 * time.Second

// sources is GET /sources.
func (s *Server) sources(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, sourcesOf(s.mirror.Status()))
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
	names := s.mirror.Status()
	checks := make([]*Check, len(names))
	var asked sync.WaitGroup
	for i := range names {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
			defer cancel()
			begun := time.Now()
			err := s.mirror.Check(ctx, names[i].Name)
			checks[i] = &Check{OK: err == nil, Took: time.Since(begun).Milliseconds()}
			if err != nil {
				checks[i].Error = err.Error()
			}
		})
	}
	asked.Wait()
	out := sourcesOf(s.mirror.Status())
	for i := range out {
		if at := slices.IndexFunc(names, func(st catalog.Status) bool { return st.Name == out[i].Name }); at >= 0 {
			out[i].Check = checks[at]
		}
	}
	return reply(w, http.StatusOK, out)
}

// images is GET /images.
func (s *Server) images(w http.ResponseWriter, r *http.Request) error {
	want, err := manifest.ParseFilters(r.URL.Query()["filter"])
	if err != nil {
		return err
	}
	list := s.mirror.Current()
	return replyAll(w, func(yield func(Image) bool) {
		for _, m := range list.Images() {
			if !manifest.MatchAll(m, want) {
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
	for _, h := range s.mirror.Hidden(e.Manifest.UUID) {
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
	chain, err := s.mirror.Chain(r.Context(), e)
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
	return s.mirror.Find(ctx, id)
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
		Listed:   s.mirror.Current().Shows(e.Manifest.UUID),
		Retired:  e.Retired,
		Cached:   s.mirror.Cached(e),
		Pinned:   s.mirror.Kept(e.Manifest.UUID),
	}
	if from, ok := s.mirror.Provenance(e.Manifest.UUID); ok {
		p := Provenance(from)
		image.Imported = &p
	}
	return image
}

// cached is GET /cached.
func (s *Server) cached(w http.ResponseWriter, r *http.Request) error {
	want, err := manifest.ParseFilters(r.URL.Query()["filter"])
	if err != nil {
		return err
	}
	return replyAll(w, func(yield func(Cached) bool) {
		for _, h := range s.mirror.Holdings(want) {
			m := h.Manifest
			row := Cached{
				UUID: h.ID.String(), Name: m.Name, Version: m.Version, Type: m.Type, OS: m.OS, Source: h.Source,
				SHA1: h.File.Sum.String(), Size: h.File.Size, Added: h.File.Added.UTC(), LastUsed: h.File.LastUsed.UTC(),
				Pinned: s.mirror.Kept(h.ID), InUse: h.File.Readers > 0, Retired: h.Retired,
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

// fills is GET /fills.
func (s *Server) fills(w http.ResponseWriter, _ *http.Request) error {
	all := s.mirror.Fills()
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
