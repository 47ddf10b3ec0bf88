package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/meaning"
)

// What can be seen: sources, the catalogue, what is on disk, what comes in.

// checkTimeout bounds the wait for each source's list; maxCheckTimeout, which the longest question for
// a list does not reach, is the most that a caller can ask for.
const (
	checkTimeout    = 20 * time.Second
	maxCheckTimeout = 3 * time.Minute
)

// sources is GET /sources.
func (s *Server) sources(*http.Request) (any, error) { return sourcesOf(s.mirror.Status()), nil }

func sourcesOf(all []catalog.Status) []Source {
	out := make([]Source, len(all))
	for i, st := range all {
		out[i] = Source{
			Name: st.Name, URL: st.URL, Kind: st.Kind, State: st.State, Images: st.Images, Hidden: st.Hidden,
			LastTry: st.LastTry.UTC(), LastSuccess: st.LastSuccess.UTC(), LastError: st.LastError,
			AskedFrom: st.AskedFrom.UTC(), Resting: st.Resting, Reason: st.Reason, Certificate: st.CertificateEnd.UTC(),
		}
	}
	return out
}

// checkSources is POST /sources/check: the sources are asked side by side, and their answers are
// taken over. The reply tells of the sources after that.
func (s *Server) checkSources(r *http.Request) (any, error) {
	which := Which{Wait: int64(checkTimeout / time.Second)}
	if err := readJSON(r, &which); err != nil {
		return nil, err
	}
	if which.Wait < 1 || which.Wait > int64(maxCheckTimeout/time.Second) {
		return nil, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter,
			"wait_seconds is %d, and must be from 1 to %d", which.Wait, maxCheckTimeout/time.Second)
	}
	checks, err := s.wantedSources(which.Sources)
	if err != nil {
		return nil, err
	}
	var asked sync.WaitGroup
	for name, check := range checks {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(r.Context(), time.Duration(which.Wait)*time.Second)
			defer cancel()
			begun := time.Now()
			change, err := s.mirror.Check(ctx, name)
			check.OK, check.Took = err == nil, time.Since(begun).Milliseconds()
			check.Added, check.Removed, check.Changed = change.Added, change.Removed, change.Changed
			if err != nil {
				check.Error = err.Error()
			}
		})
	}
	asked.Wait()
	out := []Source{}
	for _, source := range sourcesOf(s.mirror.Status()) {
		if source.Check = checks[source.Name]; source.Check != nil || len(which.Sources) == 0 {
			out = append(out, source)
		}
	}
	return out, nil
}

// wantedSources has a Check to fill in for each source of these names, or without names for each source.
func (s *Server) wantedSources(names []string) (map[string]*Check, error) {
	checks := make(map[string]*Check)
	all := s.mirror.Status()
	for _, st := range all {
		if len(names) == 0 || slices.Contains(names, st.Name) {
			checks[st.Name] = new(Check)
		}
	}
	for _, name := range names {
		if checks[name] == nil {
			return nil, refuse(http.StatusNotFound, meaning.NotFound, "source %q does not exist", shorten(name))
		}
	}
	return checks, nil
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

// encodeImage is json.Marshal without another look at the manifest, which is long, and is JSON.
func encodeImage(i Image) ([]byte, error) {
	raw := i.Manifest
	i.Manifest = json.RawMessage("0")
	return withManifest(raw, i)
}

// withManifest is json.Marshal of v, which begins with a 0 in the place of the manifest, and raw in
// this place.
func withManifest(raw []byte, v any) ([]byte, error) {
	object, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	const head = `{"manifest":`
	rest, ok := bytes.CutPrefix(object, []byte(head+"0"))
	if !ok {
		return nil, errors.New("what is to hold a manifest begins with it")
	}
	return slices.Concat([]byte(head), raw, rest), nil
}

// image is GET /images/UUID.
func (s *Server) image(r *http.Request) (any, error) {
	find := s.entry
	switch ask := r.URL.Query().Get("ask"); ask {
	case "", "true":
	case "false":
		find = s.known
	default:
		return nil, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "ask is true or false, and not %q", shorten(ask))
	}
	e, err := find(r)
	if err != nil {
		return nil, err
	}
	return s.detailed(s.imageOf(e), e), nil
}

// ancestry is GET /images/UUID/ancestry.
func (s *Server) ancestry(r *http.Request) (any, error) {
	e, err := s.entry(r)
	if err != nil {
		return nil, err
	}
	chain, err := s.mirror.Chain(r.Context(), e)
	if err != nil {
		return nil, err
	}
	out := make([]Image, len(chain))
	for i, e := range chain {
		out[i] = s.imageOf(e)
	}
	return out, nil
}

// entry finds the image that the path of a request names.
func (s *Server) entry(r *http.Request) (catalog.Entry, error) {
	id, err := uuidOf(r.PathValue("uuid"))
	if err != nil {
		return catalog.Entry{}, err
	}
	return s.mirror.Find(r.Context(), id)
}

// known is entry without a question to a source.
func (s *Server) known(r *http.Request) (catalog.Entry, error) {
	id, err := uuidOf(r.PathValue("uuid"))
	if err != nil {
		return catalog.Entry{}, err
	}
	e, ok := s.mirror.Current().Entry(id)
	if !ok {
		return e, refuse(http.StatusNotFound, meaning.NotFound, "the catalogue has no image %s", id)
	}
	return e, nil
}

// maxBrief is the most bytes of a name, a version, an os or a type in a row: sources may send megabytes.
const maxBrief = 1 << 10

// brief is a text of a manifest in a row. The manifest itself has all of the text.
func brief(text string) string {
	if len(text) <= maxBrief {
		return text
	}
	return strings.ToValidUTF8(text[:maxBrief], "") + "…"
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
				UUID: h.ID.String(), Name: brief(m.Name), Version: brief(m.Version), Type: brief(m.Type), OS: brief(m.OS), Source: h.Source,
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
func (s *Server) fills(*http.Request) (any, error) { return s.fillsNow(), nil }

func (s *Server) fillsNow() []Fill {
	all, list := s.mirror.Fills(), s.mirror.Current()
	out := make([]Fill, len(all))
	for i, f := range all {
		out[i] = Fill{
			UUID: f.Image.String(), Size: f.Size, Have: f.Have, Rate: f.Rate, ETA: -1,
			Readers: f.Readers, Source: f.Source, State: string(f.State),
		}
		if e, ok := list.Entry(f.Image); ok {
			out[i].Name, out[i].Version = brief(e.Manifest.Name), brief(e.Manifest.Version)
		}
		if !f.Sum.IsZero() {
			out[i].SHA1 = f.Sum.String()
		}
		if f.ETA >= 0 {
			out[i].ETA = int64((f.ETA + time.Second - 1) / time.Second) // rounded up
		}
	}
	return out
}

// uuidOf reads the uuid of an image.
func uuidOf(text string) (uuid.UUID, error) {
	id, ok := manifest.ParseUUID(text)
	if !ok {
		return id, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, "%q is not a uuid", shorten(text))
	}
	return id, nil
}
