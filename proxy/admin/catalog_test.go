package admin

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/upstream/upstreamtest"
)

// newShelf is a fixture with a second source, which has other files under the uuid of image 1, the
// same image 4, and images of its own: 5 of another os, the private 6, and 7 that its list does not
// show.
func newShelf(t *testing.T) (f *fixture, second *upstreamtest.Server) {
	t.Helper()
	second, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Stop)
	add := func(text []byte, file []byte) {
		t.Helper()
		if err := second.Add(text, file); err != nil {
			t.Fatal(err)
		}
	}
	extra := func(n int, more map[string]any) []byte {
		return upstreamtest.Manifest(upstreamtest.ID(n), fmt.Sprintf("image%d", n), "2.10", more, sampleFile(n))
	}
	other := []byte("other bytes")
	add(upstreamtest.Manifest(upstreamtest.ID(1), "image1", "1.0", nil, other), other)
	add(sample(4, 0), sampleFile(4))
	add(extra(5, map[string]any{"os": "linux", "type": "lx-dataset", "published_at": "2026-02-01T00:00:00Z", "description": "A <b>Penguin</b>"}), sampleFile(5))
	add(extra(6, map[string]any{"public": false}), sampleFile(6))
	add(extra(7, nil), sampleFile(7))
	second.Unlist(upstreamtest.ID(7))
	f = newFixture(t, func(o *mirror.Options) {
		o.Sources.List = append(o.Sources.List, mirror.Source{
			Server: upstream.Options{Name: "second", URL: second.URL(), Kind: "imgapi", StallTimeout: time.Minute},
			URL:    second.URL(), Refresh: time.Hour,
		})
	})
	return f, second
}

// browse is GET /catalog with a query string.
func (f *fixture) browse(query string) Page {
	f.t.Helper()
	var page Page
	f.want(200, "GET", "/catalog?"+query, nil, &page)
	return page
}

// numbers tells the rows of a page in one line: "1 2 of 4".
func numbers(p Page) string {
	var all []string
	for _, row := range p.Rows {
		n := strings.TrimPrefix(row.Name, "image")
		for _, h := range row.Hidden {
			n += ":" + h.Source + ":" + h.Reason
		}
		all = append(all, n)
	}
	return fmt.Sprintf("%s of %d", strings.Join(all, " "), p.Total)
}

func (f *fixture) wantPage(query, want string) Page {
	f.t.Helper()
	page := f.browse(query)
	if got := numbers(page); got != want {
		f.t.Errorf("%s: %s, want %s", query, got, want)
	}
	return page
}

// facet tells a facet in one line.
func facet(p Page, name string) string {
	var all []string
	for _, value := range slices.Sorted(maps.Keys(p.Facets[name])) {
		all = append(all, fmt.Sprintf("%s %d", value, p.Facets[name][value]))
	}
	return strings.Join(all, ", ")
}

func TestCatalog(t *testing.T) {
	f, _ := newShelf(t)
	page := f.wantPage("", "1 2 3 4 5 of 5")
	row := page.Rows[3]
	if row.Size != int64(len(sampleFile(4))) || row.Source != "source" || row.Sources != 2 || row.Cached != "none" || !row.Public || !row.Listed ||
		row.UUID != id(4) || row.OS != "smartos" || row.Type != "zone-dataset" || row.Version != "1.0" || row.Published.IsZero() {
		t.Errorf("%+v", row)
	}
	f.wantPage("q=PENGUIN", "5 of 1")
	f.wantPage("q=image+linux", "5 of 1")
	f.wantPage("q=image+nothing", " of 0")
	f.wantPage("q="+id(3)[:8], "3 of 1")
	f.wantPage("filter=os=linux", "5 of 1")
	f.wantPage("filter=os!=linux&filter=name!=image2", "1 3 4 of 3")
	f.wantPage("os=linux&type=lx-dataset&source=second", "5 of 1")
	f.wantPage("source=gone", " of 0")
	f.wantPage("sort=version", "1 2 3 4 5 of 5")
	f.wantPage("sort=name&order=desc", "5 4 3 2 1 of 5")
	f.wantPage("sort=size&order=asc", "1 2 3 4 5 of 5")
	f.wantPage("offset=1&limit=2", "2 3 of 5")
	f.wantPage("offset=4&limit=2", "5 of 5")
	if page := f.wantPage("offset=100", " of 5"); page.Offset != 100 || page.Rows == nil {
		t.Errorf("%+v", page)
	}
	page = f.wantPage("os=linux", "5 of 1")
	for name, want := range map[string]string{
		"os": "linux 1, smartos 4", "type": "lx-dataset 1", "source": "second 1",
		"state": "cached 0, hidden 0, listed 1, pinned 0, retired 0, uncached 1, unlisted 0", "reason": "",
	} {
		if got := facet(page, name); got != want {
			t.Errorf("facet %s: %s, want %s", name, got, want)
		}
	}
	for query, code := range map[string]string{
		"sort=colour": "InvalidParameter", "order=up": "InvalidParameter", "state=lost": "InvalidParameter", "reason=bad": "InvalidParameter",
		"limit=0": "InvalidParameter", "limit=201": "InvalidParameter", "limit=x": "InvalidParameter", "offset=-1": "InvalidParameter",
		"filter=colour=red": "InvalidParameter", "state=cached&reason=private": "InvalidParameter",
		"q=" + strings.Repeat("x", 201): "InvalidParameter", "q=" + strings.Repeat("x+", 17): "InvalidParameter",
	} {
		f.refused(422, code, "GET", "/catalog?"+query, nil)
	}
}

// The state on disk follows what the store has, and what is pinned.
func TestCatalogStates(t *testing.T) {
	f, _ := newShelf(t)
	f.wantPage("state=cached", " of 0")
	f.fetched(2) // with its origin, 1
	page := f.wantPage("state=cached", "1 2 of 2")
	if row := page.Rows[0]; row.Cached != "whole" || row.CachedBytes != row.Size {
		t.Errorf("%+v", row)
	}
	f.wantPage("state=uncached", "3 4 5 of 3")
	f.want(200, "POST", "/pin", wanted(2, 5), nil)
	if page := f.wantPage("state=pinned", "2 5 of 2"); !page.Rows[0].Pinned {
		t.Errorf("%+v", page.Rows[0])
	}
	if got, want := facet(f.wantPage("sort=state", "2 5 1 3 4 of 5"), "state"),
		"cached 2, hidden 2, listed 5, pinned 2, retired 0, uncached 3, unlisted 0"; got != want {
		t.Errorf("states %s, want %s", got, want)
	}
	f.want(200, "POST", "/unpin", wanted(2), nil)
	f.want(200, "POST", "/delete", wanted(2), nil)
	f.wantPage("state=cached", "1 of 1")
	f.wantPage("state=pinned", "5 of 1")

	// A rule pins as a hand does.
	filter, err := manifest.ParseFilter("name=image3")
	if err != nil {
		t.Fatal(err)
	}
	f.mirror.Adjust(mirror.Rules{Pins: []manifest.Filter{filter}})
	f.wantPage("state=pinned", "3 5 of 2")
	f.mirror.Adjust(mirror.Rules{})
	f.wantPage("state=pinned", "5 of 1")

	// What the mirror publishes is kept.
	f.own(8, 0)
	f.wantPage("state=pinned&sort=name", "5 8 of 2")
	f.wantPage("source=published", "8 of 1")
}

// Images that clients are not shown are a row for each source, with the reason.
func TestCatalogHidden(t *testing.T) {
	f, _ := newShelf(t)
	f.wantPage("state=hidden", "1:second:conflict 6:second:private of 2")
	f.want(200, "GET", "/images/"+id(7), nil, nil) // asks the sources by uuid
	page := f.wantPage("state=hidden", "1:second:conflict 6:second:private 7:second:unlisted of 3")
	if got, want := facet(page, "reason"), "conflict 1, private 1, unlisted 1"; got != want {
		t.Errorf("reasons %s, want %s", got, want)
	}
	if row := page.Rows[0]; !row.Listed || row.Hidden[0].Detail == "" || row.Size != int64(len("other bytes")) {
		t.Errorf("%+v", row)
	}
	if row := page.Rows[1]; row.Listed || row.Public {
		t.Errorf("%+v", row)
	}
	f.wantPage("reason=private", "6:second:private of 1")
	f.wantPage("state=hidden&reason=conflict&source=second", "1:second:conflict of 1")
	f.wantPage("state=hidden&source=source", " of 0")
	f.wantPage("state=unlisted", "7:second:unlisted of 1")
	f.wantPage("state=hidden&limit=1&offset=1&sort=name", "6:second:private of 3")
	f.wantPage("state=hidden&q=image7", "7:second:unlisted of 1")
	if got, want := facet(f.browse(""), "state"), "cached 0, hidden 3, listed 5, pinned 0, retired 0, uncached 5, unlisted 1"; got != want {
		t.Errorf("states %s, want %s", got, want)
	}
}

func TestCatalogRetired(t *testing.T) {
	for hide, want := range map[bool]string{false: "2 of 1", true: "2:source:retired of 1"} {
		f := newFixture(t, func(o *mirror.Options) { o.Sources.HideRetired = hide })
		f.fetched(2)
		f.wantPage("state=retired", " of 0")
		f.source.Remove(upstreamtest.ID(2))
		f.want(200, "POST", "/sources/check", nil, nil)
		page := f.wantPage("state=retired", want)
		if !page.Rows[0].Retired || page.Rows[0].Cached != "whole" || page.Rows[0].Listed == hide {
			t.Errorf("%+v", page.Rows[0])
		}
		if n := page.Facets["state"]["retired"]; n != 1 {
			t.Errorf("%d retired images are counted", n)
		}
	}
}

// One image tells of its files on disk, and of each source that has it, the one with other files too.
func TestImageTellsAll(t *testing.T) {
	f, _ := newShelf(t)
	f.fetched(1)
	var image Image
	f.want(200, "GET", "/images/"+id(1), nil, &image)
	sum := func(data []byte) string { return manifestSum(t, data) }
	if len(image.Files) != 1 || image.Files[0].Cached != "whole" || image.Files[0].SHA1 != sum(sampleFile(1)) ||
		image.Files[0].CachedBytes != int64(len(sampleFile(1))) || image.Files[0].Added.IsZero() || image.Files[0].Checked.IsZero() || image.Files[0].LastUsed.IsZero() {
		t.Errorf("files %+v", image.Files)
	}
	if len(image.Offers) != 2 {
		t.Fatalf("offers %+v", image.Offers)
	}
	first, second := image.Offers[0], image.Offers[1]
	if first.Source != "source" || first.State != "up" || !first.Holds || !first.Listed || first.Conflict || first.Hidden != nil ||
		first.Files[0] != (OfferFile{SHA1: sum(sampleFile(1)), Size: int64(len(sampleFile(1))), Compression: "none"}) {
		t.Errorf("first %+v", first)
	}
	if second.Source != "second" || second.Holds || !second.Conflict || second.Hidden == nil || second.Hidden.Reason != "conflict" ||
		second.Files[0] != (OfferFile{SHA1: sum([]byte("other bytes")), Size: int64(len("other bytes")), Compression: "none"}) {
		t.Errorf("second %+v", second)
	}
	image = Image{}
	f.want(200, "GET", "/images/"+id(4), nil, &image)
	if image.Files[0].Cached != "none" || image.Files[0].CachedBytes != 0 || len(image.Offers) != 2 || !image.Offers[1].Holds || image.Offers[1].Conflict {
		t.Errorf("%+v", image)
	}
	image = Image{}
	f.want(200, "GET", "/images/"+id(7), nil, &image)
	if len(image.Offers) != 1 || image.Offers[0].Listed || image.Offers[0].Hidden.Reason != "unlisted" {
		t.Errorf("offers of an image that no list shows: %+v", image.Offers)
	}
	f.refused(404, "ResourceNotFound", "GET", "/images/"+id(50), nil)
}

// manifestSum is the sha1 of data as a manifest has it.
func manifestSum(t *testing.T, data []byte) string {
	t.Helper()
	m, err := manifest.Parse(upstreamtest.Manifest(upstreamtest.ID(1), "x", "1", nil, data), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m.Files[0].SHA1.String()
}

// The client asks for what a Look says, in the server's terms.
func TestLookQuery(t *testing.T) {
	l := Look{
		Words: "base 64", Filters: []string{"os=smartos", "name=~x"}, OS: "smartos", Type: "zvol", Source: "first", State: "hidden",
		Reason: "conflict", Sort: "name", Desc: true, Offset: 20, Limit: 10,
	}
	q, err := readLook(l.Query())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%v", q), "{[base 64] [os=smartos name=~x] smartos zvol first conflict hidden [] name true 20 10}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if q, err = readLook(Look{}.Query()); err != nil || q.Limit != defaultRows || q.Offset != 0 || q.Desc || len(Look{}.Query()) != 0 {
		t.Errorf("%+v, %v", q, err)
	}
	if _, err := readLook(url.Values{"order": {"down"}}); err == nil {
		t.Error("an unknown order is taken")
	}
}

// What a download has left, and what it has so far, counts as a part.
func TestCatalogPart(t *testing.T) {
	f := newFixture(t)
	f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 100_000})
	var job Job
	f.want(202, "POST", "/fetch", wanted(4), &job)
	part := func() bool {
		row := f.browse("q=image4").Rows[0]
		return row.Cached == "part" && row.CachedBytes > 0 && row.CachedBytes < row.Size
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.source.Await(ctx, func(all []upstreamtest.Request) bool {
		return slices.ContainsFunc(all, func(r upstreamtest.Request) bool { return r.Bytes > 0 })
	}); err != nil {
		t.Fatal(err)
	}
	for !part() { // the store takes in what was sent
		if ctx.Err() != nil {
			t.Fatal("no bytes have come")
		}
		runtime.Gosched()
	}
	f.want(200, "DELETE", "/jobs/"+job.ID, nil, nil)
	if !part() {
		t.Errorf("after the end of the download: %+v", f.browse("q=image4").Rows[0])
	}
	var image Image
	f.want(200, "GET", "/images/"+id(4), nil, &image)
	if image.Cached || image.Files[0].Cached != "part" || image.Files[0].CachedBytes == 0 {
		t.Errorf("files %+v", image.Files)
	}
	f.wantPage("state=cached", " of 0")
}

// While the pins cannot be read, every image counts as pinned.
func TestCatalogAllPinned(t *testing.T) {
	f := newFixture(t, func(o *mirror.Options) {
		if err := os.Mkdir(filepath.Join(o.Cache.Dir, "pins"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	page := f.wantPage("state=pinned", "1 2 3 4 of 4")
	if !page.Rows[0].Pinned {
		t.Errorf("%+v", page.Rows[0])
	}
}
