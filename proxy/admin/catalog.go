package admin

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/catalog/browse"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
)

// The catalogue for people: pages of it, and one image with all that is known.

const (
	defaultRows = 50
	maxRows     = 200
	maxSearch   = 200 // bytes of q
	maxWords    = 16
)

// catalog is GET /catalog.
func (s *Server) catalog(r *http.Request) (any, error) {
	q, err := readLook(r.URL.Query())
	if err != nil {
		return nil, err
	}
	found := s.mirror.Browse(q)
	page := Page{Total: found.Total, Offset: q.Offset, Rows: make([]Row, len(found.Rows)), Facets: found.Facets}
	for i, seen := range found.Rows {
		page.Rows[i] = rowOf(seen)
	}
	return page, nil
}

func rowOf(seen mirror.Seen) Row {
	m := seen.Image
	row := Row{
		UUID: m.UUID.String(), Name: brief(m.Name), Version: brief(m.Version), OS: brief(m.OS), Type: brief(m.Type), Published: m.Published, Size: m.Size(),
		Source: seen.Source, Sources: seen.Sources, Cached: seen.Cached, CachedBytes: seen.Have,
		Pinned: seen.Pinned, Retired: seen.Retired, Listed: seen.Listed, Public: m.Public,
	}
	if seen.Hidden != nil {
		row.Hidden = []Hidden{Hidden(*seen.Hidden)}
	}
	return row
}

// readLook reads the query of GET /catalog. Parameters that it does not have are ignored.
func readLook(params url.Values) (q browse.Query, err error) {
	bad := func(format string, args ...any) (browse.Query, error) {
		return q, refuse(http.StatusUnprocessableEntity, meaning.InvalidParameter, format, args...)
	}
	text := params.Get("q")
	q = browse.Query{
		Words: strings.Fields(text),
		OS:    params.Get("os"), Type: params.Get("type"), Source: params.Get("source"),
		State: params.Get("state"), Reason: params.Get("reason"), Sort: params.Get("sort"),
	}
	if len(text) > maxSearch || len(q.Words) > maxWords {
		return bad("q has more than %d bytes or %d words", maxSearch, maxWords)
	}
	if q.Filters, err = manifest.ParseFilters(params["filter"]); err != nil {
		return q, err
	}
	for _, p := range []struct {
		name, value string
		all         []string
	}{
		{"state", q.State, mirror.States}, {"reason", q.Reason, catalog.Reasons}, {"sort", q.Sort, browse.Fields},
		{"order", params.Get("order"), []string{"asc", "desc"}},
	} {
		if p.value != "" && !slices.Contains(p.all, p.value) {
			return bad("%s is one of %s, and not %q", p.name, strings.Join(p.all, ", "), shorten(p.value))
		}
	}
	if q.Reason != "" && q.State != "" && q.State != mirror.StateHidden {
		return bad("reason goes with state=%s only", mirror.StateHidden)
	}
	q.Desc = params.Get("order") == "desc"
	for _, p := range []struct {
		name      string
		least, is int
		to        *int
	}{{"offset", 0, 0, &q.Offset}, {"limit", 1, defaultRows, &q.Limit}} {
		n, err := strconv.Atoi(cmp.Or(params.Get(p.name), strconv.Itoa(p.is)))
		if err != nil || n < p.least {
			return bad("%s is a number from %d up", p.name, p.least)
		}
		*p.to = n
	}
	if q.Limit > maxRows {
		return bad("limit is %d at most", maxRows)
	}
	return q, nil
}

// detailed is what GET /images/UUID tells beside what lists of images do.
func (s *Server) detailed(image Image, e catalog.Entry) Image {
	id := e.Manifest.UUID
	for _, h := range s.mirror.Hidden(id) {
		image.Hidden = append(image.Hidden, Hidden(h))
	}
	states := make(map[string]string)
	for _, st := range s.mirror.Status() {
		states[st.Name] = st.State
	}
	for _, o := range s.mirror.Offers(id) {
		offer := Offer{
			Source: o.Source, State: states[o.Source], Name: brief(o.Manifest.Name), Version: brief(o.Manifest.Version), Public: o.Manifest.Public,
			Listed: o.Listed, Holds: o.Holds, Conflict: o.Hidden.Reason == catalog.ReasonConflict, Files: make([]OfferFile, len(o.Manifest.Files)),
		}
		for i, f := range o.Manifest.Files {
			offer.Files[i] = OfferFile{SHA1: sumText(f), Size: f.Size, Compression: f.Compression}
		}
		if o.Hidden.Reason != "" {
			h := Hidden(o.Hidden)
			offer.Hidden = &h
		}
		image.Offers = append(image.Offers, offer)
	}
	for i, st := range s.mirror.FilesOf(e.Manifest) {
		f := e.Manifest.Files[i]
		file := ImageFile{SHA1: sumText(f), Size: f.Size, Compression: f.Compression, Cached: mirror.CachedNone, CachedBytes: st.Have}
		switch {
		case st.Stored:
			file.Cached, file.Size, file.SHA1 = mirror.CachedWhole, st.Size, st.Sum.String()
			file.Added, file.Checked, file.LastUsed, file.Readers = st.Added.UTC(), st.Checked.UTC(), st.LastUsed.UTC(), st.Readers
		case st.Have > 0:
			file.Cached = mirror.CachedPart
		}
		image.Files = append(image.Files, file)
	}
	return image
}

// sumText is the sha1 of a file, "" where the source gives none.
func sumText(f manifest.File) string {
	if f.SHA1.IsZero() {
		return ""
	}
	return f.SHA1.String()
}
