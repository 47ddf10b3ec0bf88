package proxy

import (
	"strings"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

var devAndRelease = []catalog.Channel{
	{Name: "dev", Description: "all builds"},
	{Name: "release", Description: "a < b", Default: true},
	{Name: "empty"},
}

// channelled is a server with channels. Of its images 1 is in dev, 2 in both, 3 in release and built on 4, which is in
// dev and built on the disabled 5 of no channel; 6 is in no channel that there is.
func channelled(t *testing.T, channels ...catalog.Channel) *fixture {
	t.Helper()
	img := func(n int, name, extra string) string {
		return image{uuid: id(n), name: name, published: "2024-01-0" + string(rune('0'+n)) + "T00:00:00Z", content: []byte(name), extra: extra}.v2()
	}
	f := newFixtureWith(t, catalog.Options{Channels: channels},
		img(1, "one", `,"channels":["dev"]`),
		img(2, "two", `,"channels":["dev","release"],"icon":true`),
		img(3, "three", `,"channels":["release"],"origin":"`+id(4)+`"`),
		img(4, "four", `,"channels":["dev"],"origin":"`+id(5)+`"`),
		img(5, "five", `,"state":"disabled","disabled":true`),
		img(6, "six", `,"channels":["nightly"]`),
	)
	return f.start()
}

// Spec 2.9 and the rows on channels of 2.2, 2.4, 2.5 and 2.6.
func TestChannels(t *testing.T) {
	f := channelled(t, devAndRelease...)

	if got, want := f.get("/channels").body, `[{"name":"dev","description":"all builds"},`+
		`{"name":"release","description":"a < b","default":true},{"name":"empty","description":""}]`; got != want {
		t.Errorf("GET /channels: %s", got)
	}
	f.wantError("GET", "/channels", 400, "InvalidVersion", "", "Accept-Version: ~99")
	f.wantError("POST", "/channels", 405, "MethodNotAllowedError", "", "Content-Length: 0")
	if r := f.common(f.send("HEAD", "/channels")); r.status != 200 || r.header.Get("Content-Length") == "0" {
		t.Errorf("HEAD /channels: %d", r.status)
	}

	list := func(path, want string) {
		t.Helper()
		r := f.get(path)
		if r.status != 200 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		} else if got := names(t, r.body); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"/images", "/datasets"} {
		list(path, "two three")
		list(path+"?channel=", "two three")
		list(path+"?channel=release", "two three")
		list(path+"?channel=dev", "one two four")
		list(path+"?channel=dev&channel=release", "one two four")
		list(path+"?channel=empty", "")
		list(path+"?channel=*", "one two three four")
		list(path+"?channel=%2A&name=~o", "one two four")
		list(path+"?name=one", "")
		list(path+"?name=one&channel=dev", "one")
	}
	list("/", "two three")
	list("/?channel=dev", "one two four")
	list("/images?channel=dev&limit=1&marker="+id(2), "two")
	list("/images?channel=dev&marker="+id(3), "four") // a marker of another channel
	list("/images?channel=dev&state=disabled", "")
	list("/images?sort=published_at.desc", "three two")

	invalid := func(path, code string) {
		t.Helper()
		r := f.wantError("GET", path, 422, "ValidationFailed", "")
		if _, _, fields := r.errorBody(t); len(fields) != 1 || fields[0].Field != "channel" || fields[0].Code != code {
			t.Errorf("%s: %v", path, fields)
		}
	}
	const unknown = "ffffffff-0000-4000-8000-000000000000"
	for _, path := range []string{
		"/images?channel=x", "/images?state=x&channel=x", "/images?channel=nightly", "/datasets?channel=x", "/datasets?name=y&channel=x", "/?channel=x",
		"/images/" + id(1) + "?channel=x", "/images/" + unknown + "?channel=x", "/images/" + id(1) + "?account=x&channel=DEV",
		"/images/" + id(1) + "/file?channel=x", "/images/" + id(2) + "/icon?channel=x",
		"/datasets/" + id(1) + "?channel=x", "/datasets/one?channel=x", "/datasets/" + id(1) + "/f?channel=x",
	} {
		invalid(path, "Invalid")
	}
	f.wantError("GET", "/images/X?channel=x", 404, "ResourceNotFound", "/images/X?channel=x does not exist")
	f.wantError("GET", "/images?channel=x", 400, "InvalidVersion", "", "Accept-Version: ~99")

	has := func(n int, channel string) {
		t.Helper()
		query := "?channel=" + channel
		if r := f.get("/images/" + id(n) + query); r.status != 200 {
			t.Errorf("image %d in %q: %d %s", n, channel, r.status, r.body)
		}
		if r := f.send("HEAD", "/images/"+id(n)+"/file"+query); r.status != 200 {
			t.Errorf("file of %d in %q: %d", n, channel, r.status)
		}
	}
	hasNot := func(n int, channel string) {
		t.Helper()
		query := "?channel=" + channel
		for _, path := range []string{"/images/", "/datasets/"} {
			f.wantError("GET", path+id(n)+query, 404, "ResourceNotFound", "image not found")
			f.wantError("GET", path+id(n)+"/file"+query, 404, "ResourceNotFound", "image not found")
		}
		f.wantError("GET", "/images/"+id(n)+"/icon"+query, 404, "ResourceNotFound", "image not found")
		f.wantError("GET", "/"+id(n)+"/file"+query, 404, "ResourceNotFound", "image not found")
	}
	hasNot(1, "")
	hasNot(1, "release")
	has(1, "dev")
	has(1, "*")
	has(2, "")
	has(2, "dev")
	hasNot(2, "empty")
	has(3, "")
	hasNot(3, "dev")
	for n := 4; n <= 5; n++ { // spec G8: what others are built on is where they are
		has(n, "release")
		has(n, "dev")
		has(n, "*")
		hasNot(n, "empty")
	}
	f.wantError("GET", "/images/"+id(6)+"?channel=*", 404, "ResourceNotFound", "image "+id(6)+" not found")
	f.wantError("GET", "/images/"+unknown, 404, "ResourceNotFound", "image "+unknown+" not found")
	f.wantError("GET", "/images/"+id(1)+"?account=x", 404, "ResourceNotFound", "image not found") // before the account
	f.wantError("GET", "/images/"+id(2)+"?account=x", 422, "InvalidParameter", "")
	f.wantError("GET", "/datasets/one", 404, "ResourceNotFound", "dataset one not found")
	if r := f.get("/datasets/one?channel=dev"); r.status != 200 || !strings.Contains(r.body, "/"+id(1)+"/one-1.0.0.zfs.gz?channel=dev\"") {
		t.Errorf("an image of another channel as a dataset: %d %s", r.status, r.body)
	}
	if r := f.send("HEAD", "/datasets/"+id(1)+"/one-1.0.0.zfs.gz?channel=dev"); r.status != 200 {
		t.Errorf("its file: %d", r.status)
	}
	if r := f.get("/datasets/two"); strings.Contains(r.body, "channel") {
		t.Errorf("a dataset of the default channel: %s", r.body)
	}
}

// Spec 2.2: who speaks version 2 is told an image's channels.
func TestChannelsByVersion(t *testing.T) {
	f := channelled(t, devAndRelease...)
	told := func(want bool, path string, headers ...string) {
		t.Helper()
		r := f.get(path, headers...)
		if got := strings.Contains(r.body, `"channels":["dev","release"]`); r.status != 200 || got != want || !want && strings.Contains(r.body, `"channels"`) {
			t.Errorf("%s %v: %d, channels %v, want %v", path, headers, r.status, got, want)
		}
		if vary := r.header.Get("Vary"); !strings.HasPrefix(path, "/datasets") && !strings.Contains(vary, "Accept-Version") {
			t.Errorf("%s: Vary %q", path, vary)
		}
		if again := f.get(path, append(headers, "If-None-Match: "+r.header.Get("ETag"))...); again.status != 304 {
			t.Errorf("%s: %d for its own ETag", path, again.status)
		}
	}
	etags := make(map[string]bool)
	for _, path := range []string{"/images", "/images?channel=dev", "/images?name=two", "/images/" + id(2)} {
		told(false, path)
		told(false, path, "Accept-Version: ~1")
		told(false, path, "Accept-Version: 1.0.0")
		told(true, path, "Accept-Version: ~2")
		told(true, path, "Accept-Version: *")
		told(true, path, "Accept-Version: >=1")
		etags[f.get(path).header.Get("ETag")] = true
		etags[f.get(path, "Accept-Version: ~2").header.Get("ETag")] = true
	}
	if len(etags) != 8 {
		t.Errorf("%d validators of 8 bodies", len(etags))
	}
	told(false, "/datasets", "Accept-Version: ~2")
	told(false, "/datasets/"+id(2), "Accept-Version: ~2")
}

// Spec 2.4: without a default channel one must be named.
func TestNoDefaultChannel(t *testing.T) {
	f := channelled(t, catalog.Channel{Name: "dev"}, catalog.Channel{Name: "release"})
	for _, path := range []string{"/images", "/images?name=two", "/images?channel=", "/images/" + id(2), "/images/" + id(2) + "/file", "/datasets", "/datasets/two", "/"} {
		r := f.wantError("GET", path, 422, "ValidationFailed", "")
		if _, _, fields := r.errorBody(t); len(fields) != 1 || fields[0].Field != "channel" || fields[0].Code != "MissingParameter" {
			t.Errorf("%s: %v", path, fields)
		}
	}
	if got := names(t, f.get("/images?channel=release").body); got != "two three" {
		t.Error(got)
	}
}

// Spec A21, A38: without channels nothing of them is to be seen.
func TestChannelsOff(t *testing.T) {
	f := channelled(t)
	f.wantError("GET", "/channels", 404, "ResourceNotFound", "/channels does not exist")
	f.wantError("POST", "/channels", 404, "ResourceNotFound", "", "Content-Length: 0")
	for _, path := range []string{"/images", "/images?channel=x", "/images?channel=dev"} {
		r := f.get(path, "Accept-Version: ~2")
		if got := names(t, r.body); got != "one two three four six" || strings.Contains(r.body, "channels") {
			t.Errorf("%s: %s", path, r.body)
		}
		if vary := r.header.Get("Vary"); strings.Contains(vary, "Version") {
			t.Errorf("%s: Vary %q", path, vary)
		}
	}
	if r := f.get("/images/"+id(1)+"?channel=x", "Accept-Version: ~2"); r.status != 200 || strings.Contains(r.body, "channels") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := f.get("/datasets/" + id(1) + "?channel=dev"); r.status != 200 || strings.Contains(r.body, "channel") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if view, ok := f.options.Catalog.Current().View("dev"); ok || view != nil {
		t.Error("a view of a channel that is not there")
	}
	if view, ok := f.options.Catalog.Current().View(manifest.AllChannels); !ok || len(view.Images()) != 5 {
		t.Error("no view of the whole")
	}
}
