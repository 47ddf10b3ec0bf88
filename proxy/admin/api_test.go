package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream/upstreamtest"
)

func TestSources(t *testing.T) {
	f := newFixture(t)
	var all []Source
	f.want(200, "GET", "/sources", nil, &all)
	if len(all) != 3 || all[0].Name != "source" || all[0].State != "up" || all[0].Images != 4 || all[0].LastSuccess.IsZero() || all[0].Check != nil {
		t.Errorf("%+v", all)
	}
	f.want(200, "POST", "/sources/check", nil, &all)
	if len(all) != 3 || all[0].Check == nil || !all[0].Check.OK {
		t.Errorf("%+v", all)
	}
	f.source.Inject(upstreamtest.Fault{Status: 403})
	f.want(200, "POST", "/sources/check", struct{}{}, &all)
	if all[0].Check.OK || !strings.Contains(all[0].Check.Error, "403") {
		t.Errorf("%+v", all[0].Check)
	}
	if all[0].State != "down" || !strings.Contains(all[0].LastError, "403") || all[0].Images != 4 {
		t.Errorf("after a check that failed: %+v", all[0])
	}
	f.source.Heal()
	if err := f.source.Add(sample(6, 0), sampleFile(6)); err != nil {
		t.Fatal(err)
	}
	all = nil
	f.want(200, "POST", "/sources/check", struct{}{}, &all)
	if !all[0].Check.OK || all[0].State != "up" || all[0].LastError != "" || all[0].Images != 5 {
		t.Errorf("after a check that found another image: %+v", all[0])
	}
	if check := all[0].Check; check.Added != 1 || check.Removed != 0 || check.Changed != 0 {
		t.Errorf("%+v", check)
	}
	f.want(200, "POST", "/sources/check", Which{Sources: []string{"source"}, Wait: 180}, &all)
	if len(all) != 1 || all[0].Name != "source" || all[0].Check == nil || all[0].Check.Added != 0 {
		t.Errorf("%+v", all)
	}
	f.refused(404, "ResourceNotFound", "POST", "/sources/check", Which{Sources: []string{"source", "sauce"}})
	f.refused(422, "InvalidParameter", "POST", "/sources/check", Which{Wait: 181})
	f.want(200, "GET", "/images/"+id(6), nil, nil)
	if err := f.source.Add(sample(5, 0), sampleFile(5)); err != nil {
		t.Fatal(err)
	}
	var job Job
	f.want(202, "POST", "/sources/refresh", nil, &job)
	if got := f.await(job); got.State != JobDone || got.Kind != "refresh" {
		t.Errorf("%+v", got)
	}
	if n := testutil.ToFloat64(f.metrics.ended.WithLabelValues("refresh", JobDone)); n != 1 {
		t.Errorf("%v refresh jobs have been done", n)
	}
	f.source.Inject(upstreamtest.Fault{Status: 500})
	f.want(202, "POST", "/sources/refresh", nil, &job)
	f.await(job)
	if n := testutil.ToFloat64(f.metrics.ended.WithLabelValues("refresh", JobFailed)); n != 1 {
		t.Errorf("%v refresh jobs have failed", n)
	}
	f.source.Heal()
	f.want(200, "GET", "/images/"+id(5), nil, nil)

	f.source.Inject(upstreamtest.Fault{Status: 500})
	f.want(202, "POST", "/sources/refresh", nil, &job)
	if got := f.await(job); got.State != JobFailed || got.Error == nil || got.Error.Code != meaning.RemoteSource {
		t.Errorf("%+v, error %+v", got, got.Error)
	}
}

// TestHidden: what a source offers and clients are not shown is counted, and the image's reply says why; so does the
// refusal of one that ingestion does not take.
func TestHidden(t *testing.T) {
	f := newFixture(t)
	for n, extra := range map[int]map[string]any{6: {"public": false}, 7: {"files": []any{}}} {
		if err := f.source.Add(upstreamtest.Manifest(upstreamtest.ID(n), "hidden", "1.0", extra)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.source.Add([]byte(`{"v":2,"uuid":"` + id(8) + `","name":"n","version":true,"type":"zvol","os":"linux","state":"active"}`)); err != nil {
		t.Fatal(err)
	}
	if err := f.mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	var all []Source
	f.want(200, "GET", "/sources", nil, &all)
	if got, want := fmt.Sprint(all[0].Hidden, all[1].Hidden), "map[no_files:1 private:1 refused:1] map[]"; got != want {
		t.Errorf("hidden: %s, want %s", got, want)
	}
	var image Image
	f.want(200, "GET", "/images/"+id(7), nil, &image)
	if len(image.Hidden) != 1 || image.Hidden[0].Source != "source" || image.Hidden[0].Reason != "no_files" {
		t.Errorf("of an image without files: %+v", image.Hidden)
	}
	if image.Listed {
		t.Error("an image without files counts as listed")
	}
	image = Image{}
	f.want(200, "GET", "/images/"+id(1), nil, &image)
	if image.Hidden != nil || !image.Listed {
		t.Errorf("of an image that is shown: %+v", image.Hidden)
	}
	for n, part := range map[int]string{6: "(private)", 8: "version: "} {
		var told Error
		f.want(404, "GET", "/images/"+id(n), nil, &told)
		if !strings.Contains(told.Message, "source source has it") || !strings.Contains(told.Message, part) {
			t.Errorf("of image %d: %q", n, told.Message)
		}
	}
}

func TestImages(t *testing.T) {
	f := newFixture(t)
	names := func(query string) string {
		t.Helper()
		var all []Image
		f.want(200, "GET", "/images"+query, nil, &all)
		var names []string
		for _, i := range all {
			m, err := manifest.Parse(i.Manifest, manifest.ParseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, m.Name)
		}
		return strings.Join(names, " ")
	}
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	is(names(""), "image1 image2 image3 image4")
	is(names("?filter=name%3Dimage2"), "image2")
	is(names("?filter=name%3D~image&filter=origin%3D"), "image1 image4")
	is(names("?filter=name%3Dnone"), "")
	f.refused(422, meaning.InvalidParameter, "GET", "/images?filter=colour%3Dred", nil)

	var image Image
	f.want(200, "GET", "/images/"+id(2), nil, &image)
	if image.Source != "source" || !slices.Equal(image.Sources, []string{"source"}) || !image.Listed || image.Cached || image.Pinned {
		t.Errorf("%+v", image)
	}
	f.refused(422, meaning.InvalidParameter, "GET", "/images/nonsense", nil)
	f.refused(404, meaning.NotFound, "GET", "/images/"+id(99), nil)

	var chain []Image
	f.want(200, "GET", "/images/"+id(3)+"/ancestry", nil, &chain)
	if len(chain) != 3 || !bytes.Contains(chain[0].Manifest, []byte(`"image3"`)) || !bytes.Contains(chain[2].Manifest, []byte(`"image1"`)) {
		t.Errorf("%+v", chain)
	}
	f.refused(404, meaning.NotFound, "GET", "/images/"+id(99)+"/ancestry", nil)
}

// With ask=false no source is asked for an image that the catalogue does not have.
func TestKnownImage(t *testing.T) {
	f := newFixture(t)
	f.source.Unlist(upstreamtest.ID(4))
	if err := f.mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.source.Forget()
	var image Image
	f.want(200, "GET", "/images/"+id(1)+"?ask=false", nil, &image)
	f.refused(404, meaning.NotFound, "GET", "/images/"+id(4)+"?ask=false", nil)
	if all := f.source.Requests(); len(all) > 0 {
		t.Errorf("the source was asked: %v", all)
	}
	f.want(200, "GET", "/images/"+id(4)+"?ask=true", nil, &image)
	f.refused(422, meaning.InvalidParameter, "GET", "/images/"+id(4)+"?ask=no", nil)
}

// Rows have the beginnings of long names, whatever a source sends.
func TestLongNames(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("long€", 100_000)
	if err := f.source.Add(upstreamtest.Manifest(upstreamtest.ID(5), long, long, map[string]any{"os": long, "type": long}, sampleFile(5)), sampleFile(5)); err != nil {
		t.Fatal(err)
	}
	if err := f.mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	job := f.fetched(5)
	for _, path := range []string{"/catalog", "/jobs/" + job.ID, "/cached"} {
		var all json.RawMessage
		f.want(200, "GET", path, nil, &all)
		if !bytes.Contains(all, []byte("long€long€")) || len(all) > 20_000 {
			t.Errorf("%s: %d bytes", path, len(all))
		}
	}
}

func TestOriginThatNobodyHas(t *testing.T) {
	f := newFixture(t)
	if err := f.source.Add(sample(6, 77), sampleFile(6)); err != nil {
		t.Fatal(err)
	}
	if err := f.source.Add(sample(7, 6), sampleFile(7)); err != nil {
		t.Fatal(err)
	}
	if err := f.mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.refused(404, codeOriginMissing, "GET", "/images/"+id(7)+"/ancestry", nil)
	if got := states(f.fetched(7, 4, 6)); got != "failed: 7 failed, 4 done, 6 failed" {
		t.Error(got)
	}
}

func TestFetch(t *testing.T) {
	f := newFixture(t)
	var plan []Item
	w := wanted(3)
	w.DryRun = true
	f.want(200, "POST", "/fetch", w, &plan)
	if len(plan) != 3 || plan[0].Name != "image1" || plan[2].Name != "image3" || plan[0].State != ItemWaiting || plan[1].Total != 200_002 {
		t.Errorf("%+v", plan)
	}
	if n := f.source.Count("/file"); n != 0 {
		t.Errorf("%d downloads by a dry run", n)
	}

	job := f.fetched(3)
	if got := states(job); got != "done: 1 done, 2 done, 3 done" {
		t.Error(got)
	}
	if job.Done != 600_006 || job.Total != 600_006 || job.Ended.IsZero() {
		t.Errorf("%+v", job)
	}
	var downloads []string
	for _, r := range f.source.Requests() {
		if strings.HasSuffix(r.Path, "/file") {
			downloads = append(downloads, r.Path)
		}
	}
	if want := []string{"/images/" + id(1) + "/file", "/images/" + id(2) + "/file", "/images/" + id(3) + "/file"}; !slices.Equal(downloads, want) {
		t.Errorf("downloads in the order %v, want %v", downloads, want)
	}

	var again Job
	f.want(202, "POST", "/fetch", Wanted{Filters: []string{"name=~image"}}, &again)
	if got := states(f.await(again)); got != "done: 1 present, 2 present, 3 present, 4 done" {
		t.Error(got)
	}
	if n := f.source.Count("/file"); n != 4 {
		t.Errorf("%d downloads", n)
	}

	var cached []Cached
	f.want(200, "GET", "/cached?filter=name%3Dimage3", nil, &cached)
	if len(cached) != 1 || cached[0].UUID != id(3) || cached[0].Origin != id(2) || cached[0].Size != 200_003 || cached[0].Retired || cached[0].Pinned {
		t.Errorf("%+v", cached)
	}
	f.refused(422, meaning.InvalidParameter, "GET", "/cached?filter=nonsense", nil)

	f.refused(404, meaning.NotFound, "POST", "/fetch", wanted(99))
	f.refused(422, meaning.InvalidParameter, "POST", "/fetch", Wanted{})
	f.refused(422, meaning.InvalidParameter, "POST", "/fetch", Wanted{UUIDs: []string{"x"}})
	f.refused(422, meaning.InvalidParameter, "POST", "/fetch", Wanted{Filters: []string{"x"}})
	f.refused(400, meaning.BadRequest, "POST", "/fetch", map[string]any{"uuid": id(1)})
}

func TestFetchOfWhatCannotBeHad(t *testing.T) {
	f := newFixture(t)
	f.source.Inject(upstreamtest.Fault{Path: id(1) + "/file", Corrupt: true})
	job := f.fetched(4, 3)
	if got := states(job); got != "failed: 4 done, 1 failed, 2 failed, 3 failed" {
		t.Error(got)
	}
	if e := job.Items[1].Error; e == nil || e.Code != meaning.RemoteSource {
		t.Errorf("%+v", e)
	}
	if e := job.Items[3].Error; e == nil || e.Code != codeOriginMissing {
		t.Errorf("%+v", e)
	}
}

func TestPins(t *testing.T) {
	f := newFixture(t)
	f.fetched(3)
	var items []Item
	is := func(want string) {
		t.Helper()
		if got := states(Job{Items: items}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	w := wanted(3)
	w.DryRun = true
	f.want(200, "POST", "/pin", w, &items)
	is(": 3 done")
	w.DryRun = false
	f.want(200, "POST", "/pin", w, &items)
	is(": 3 done")
	f.want(200, "POST", "/pin", Wanted{UUIDs: w.UUIDs, Filters: []string{"name=image4"}}, &items)
	is(": 3 present, 4 done")
	var image Image
	f.want(200, "GET", "/images/"+id(3), nil, &image)
	if !image.Pinned || !image.Cached {
		t.Errorf("%+v", image)
	}
	// Neither the image nor one that it needs goes, nor anything else with it.
	f.refused(409, codeImagePinned, "POST", "/delete", wanted(3))
	f.refused(409, codeImagePinned, "POST", "/delete", wanted(2, 1))
	if n := len(f.store.Files()); n != 3 {
		t.Errorf("%d files are left", n)
	}
	f.want(200, "POST", "/unpin", Wanted{Filters: []string{"name=~image"}}, &items)
	is(": 3 done, 4 done")
	f.want(200, "POST", "/unpin", wanted(3), &items)
	is(": 3 present")
	f.refused(404, meaning.NotFound, "POST", "/unpin", wanted(99))
	f.refused(404, meaning.NotFound, "POST", "/pin", wanted(99))
	f.refused(422, meaning.InvalidParameter, "POST", "/pin", Wanted{})
	f.refused(422, meaning.InvalidParameter, "POST", "/unpin", nil)
}

// Of a published image, whose file nobody else has, delete says what to do instead.
func TestDeletePublished(t *testing.T) {
	f := newFixture(t)
	f.fetched(2)
	f.own(5, 2)
	f.refused(409, codeImagePublished, "POST", "/delete", wanted(5))
	f.refused(409, codeImagePublished, "POST", "/delete", wanted(2, 1))
	if n := len(f.store.Files()); n != 3 {
		t.Errorf("%d files are left", n)
	}
}

func TestDelete(t *testing.T) {
	f := newFixture(t)
	f.fetched(3, 4)
	var gone []Removed
	w := wanted(4)
	w.DryRun = true
	f.want(200, "POST", "/delete", w, &gone)
	if len(gone) != 1 || gone[0].Size != 200_004 || !slices.Equal(gone[0].UUIDs, []string{id(4)}) || gone[0].Reason != "delete" {
		t.Errorf("%+v", gone)
	}
	if n := len(f.store.Files()); n != 4 {
		t.Errorf("%d files are left by a dry run", n)
	}
	f.want(200, "POST", "/delete", wanted(4), &gone)
	if n := len(f.store.Files()); n != 3 || len(gone) != 1 {
		t.Errorf("%d files are left, %+v", n, gone)
	}
	f.refused(404, meaning.NotFound, "POST", "/delete", wanted(4))
	f.refused(422, meaning.InvalidParameter, "POST", "/delete", Wanted{})
	f.refused(404, meaning.NotFound, "POST", "/delete", Wanted{Filters: []string{"name=image4"}})
	f.want(200, "POST", "/delete", Wanted{Filters: []string{"name=~image"}}, &gone)
	if n := len(f.store.Files()); n != 0 || len(gone) != 3 {
		t.Errorf("%d files are left, %+v", n, gone)
	}
}

func TestVacuum(t *testing.T) {
	f := newFixture(t)
	f.fetched(1, 4)
	var gone []Removed
	f.want(200, "POST", "/vacuum", nil, &gone)
	if len(gone) != 0 {
		t.Errorf("%+v", gone)
	}
	f.store.SetLimits(250_000, 0)
	var would []Removed
	f.want(200, "POST", "/vacuum", Dry{DryRun: true}, &would)
	f.want(200, "POST", "/vacuum", Dry{}, &gone)
	if len(gone) > 1 || len(gone) == 1 && (gone[0].SHA1 != would[0].SHA1 || gone[0].Reason == "") {
		t.Errorf("%+v, foretold %+v", gone, would)
	}
	if n := len(f.store.Files()); n != 1 {
		t.Errorf("%d files are left", n)
	}
	f.refused(400, meaning.BadRequest, "POST", "/vacuum", map[string]any{"dryrun": true})
}

func TestVerify(t *testing.T) {
	f := newFixture(t)
	f.fetched(1, 4)
	var job Job
	f.want(202, "POST", "/verify", nil, &job)
	if got := f.await(job); states(got) != "done: 1 done, 4 done" || got.Done != 400_005 {
		t.Errorf("%s, %+v", states(got), got)
	}
	var image []Cached
	f.want(200, "GET", "/cached?filter=name%3Dimage4", nil, &image)
	path := filepath.Join(f.dir, "files", image[0].SHA1[:2], image[0].SHA1)
	if err := os.WriteFile(path, sampleFile(3)[:200_004-1], 0o600); err != nil {
		t.Fatal(err)
	}
	f.source.Inject(upstreamtest.Fault{Status: 404})
	f.want(202, "POST", "/verify", wanted(4), &job)
	if got := f.await(job); states(got) != "failed: 4 quarantined" || got.Items[0].Error == nil {
		t.Errorf("%s, %+v", states(got), got)
	}
	f.refused(404, meaning.NotFound, "POST", "/verify", wanted(4))
	f.refused(404, meaning.NotFound, "POST", "/verify", wanted(2))
	f.refused(422, meaning.InvalidParameter, "POST", "/verify", Wanted{Filters: []string{"x"}})
}

func TestFills(t *testing.T) {
	f := newFixture(t)
	f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 100_000})
	var job Job
	f.want(202, "POST", "/fetch", wanted(4), &job)
	f.awaitProgress(job)
	var fills []Fill
	f.want(200, "GET", "/fills", nil, &fills)
	if len(fills) != 1 || fills[0].UUID != id(4) || fills[0].Size != 200_004 || fills[0].Readers < 1 || fills[0].State != "filling" {
		t.Errorf("%+v", fills)
	}
	f.want(200, "DELETE", "/jobs/"+job.ID, nil, &job)
}

// awaitProgress waits until a job has brought any bytes.
func (f *fixture) awaitProgress(job Job) {
	f.t.Helper()
	j, err := f.jobs.get(job.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	watch := watched(f.t, f.jobs, j)
	for j.snapshot().Done == 0 {
		<-watch.wake
		watch.take()
	}
}

// awaitBytes waits until the source has sent so much of files.
func (f *fixture) awaitBytes(path string, n int64) {
	f.t.Helper()
	err := f.source.Await(f.t.Context(), func(all []upstreamtest.Request) bool {
		var sent int64
		for _, r := range all {
			if strings.HasSuffix(r.Path, path) {
				sent += r.Bytes
			}
		}
		return sent >= n
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestConfigAndDoctor(t *testing.T) {
	f := newFixture(t)
	var settings map[string]any
	f.want(200, "GET", "/config", nil, &settings)
	if settings["listen"] != ":8080" {
		t.Errorf("%v", settings)
	}
	var findings []Finding
	f.want(200, "GET", "/doctor", nil, &findings)
	if len(findings) != 1 || findings[0].Check != "disk" {
		t.Errorf("%v", findings)
	}
	f.o.Config = func() (json.RawMessage, error) { return nil, errors.New("no") }
	f.o.Doctor = func(context.Context) []Finding { return []Finding{} }
	f.refused(500, meaning.Internal, "GET", "/config", nil)
	f.want(200, "GET", "/doctor", nil, &findings)
}

// form is a body of multipart/form-data; parts come in pairs of name and text.
func form(parts ...string) (kind string, body *bytes.Buffer) {
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	for i := 0; i < len(parts); i += 2 {
		part, err := w.CreateFormFile(parts[i], parts[i])
		if err != nil {
			panic(err)
		}
		if _, err := io.WriteString(part, parts[i+1]); err != nil {
			panic(err)
		}
	}
	w.Close()
	return w.FormDataContentType(), body
}

func TestPublish(t *testing.T) {
	f := newFixture(t)
	post := func(status int, code string, kind string, body io.Reader) {
		t.Helper()
		r := httptest.NewRequest("POST", apiPrefix+"/publish", body)
		r.Header.Set("Content-Type", kind)
		var told Error
		if got := f.send(r, &told); got != status || told.Code != code {
			t.Errorf("status %d, %+v, want %d %s", got, told, status, code)
		}
	}
	parts := func(status int, code string, parts ...string) {
		t.Helper()
		kind, body := form(parts...)
		post(status, code, kind, body)
	}
	mine, file := string(ownManifest(5, 0)), string(ownFile(5))
	parts(200, "", "manifest", mine, "file", file)
	parts(400, meaning.BadRequest, "file", "bytes", "manifest", "{}")
	parts(400, meaning.BadRequest, "manifest", "{}")
	parts(400, meaning.BadRequest)
	parts(413, codeTooLarge, "manifest", strings.Repeat(" ", maxManifest+1), "file", "")
	post(415, codeUnsupportedType, "text/plain", strings.NewReader("x"))
	post(400, meaning.BadRequest, "multipart/form-data", strings.NewReader("no boundary"))
	kind, body := form("manifest", string(ownManifest(6, 0)), "file", string(ownFile(6)))
	body.Truncate(5_000) // the sender was cut
	post(400, meaning.BadRequest, kind, body)

	parts(409, codeImageExists, "manifest", mine, "file", file)
	parts(422, codeOriginMissing, "manifest", string(ownManifest(6, 99)), "file", string(ownFile(6)))
	parts(422, meaning.InvalidParameter, "manifest", "{}", "file", "bytes")
	parts(422, codeChecksum, "manifest", string(ownManifest(6, 0)), "file", strings.Replace(string(ownFile(6)), "e", "f", 1))

	f.own(6, 5)
	f.refused(409, codeDependent, "DELETE", "/published/"+id(5), nil)
	var gone []Removed
	f.want(200, "DELETE", "/published/"+id(6), nil, &gone)
	if len(gone) != 1 || gone[0].Size != int64(len(ownFile(6))) || gone[0].Reason != "unpublished" {
		t.Errorf("%+v", gone)
	}
	f.refused(404, meaning.NotFound, "DELETE", "/published/"+id(1), nil)
	f.refused(422, meaning.InvalidParameter, "DELETE", "/published/x", nil)
}

func TestUnknownRoutes(t *testing.T) {
	f := newFixture(t)
	f.refused(404, meaning.NotFound, "GET", "/nothing", nil)
	f.refused(405, codeMethodNotAllowed, "DELETE", "/images", nil)
	f.refused(405, codeMethodNotAllowed, "GET", "/fetch", nil)
	f.refused(404, meaning.NotFound, "GET", "/jobs/none", nil)
	f.refused(404, meaning.NotFound, "DELETE", "/jobs/none", nil)
	f.refused(404, meaning.NotFound, "GET", "/events?job=none", nil)
}

// TestImagesThatNoSourceKnows: a source was taken out of the configuration; what
// it brought is still there, and can be seen and removed.
func TestImagesThatNoSourceKnows(t *testing.T) {
	before := newFixture(t)
	before.fetched(3)
	if err := before.mirror.Close(); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(o *mirror.Options) {
		o.Cache.Dir = before.dir
		o.Sources = mirror.Sources{}
	})
	f.dir = before.dir
	var cached []Cached
	f.want(200, "GET", "/cached?filter=name%3Dimage3", nil, &cached)
	if len(cached) != 1 || cached[0].UUID != id(3) || cached[0].Origin != id(2) || !cached[0].Retired || cached[0].Source != "" {
		t.Errorf("%+v", cached)
	}
	f.refused(404, meaning.NotFound, "GET", "/images/"+id(3), nil)
	var job Job
	f.want(202, "POST", "/verify", wanted(3), &job)
	if got := states(f.await(job)); got != "done: 3 done" {
		t.Error(got)
	}
	// Of an image whose manifest cannot be read either nothing is known: no
	// filter chooses it, its uuid does.
	if err := os.Remove(filepath.Join(f.dir, "manifests", id(1)+".json")); err != nil {
		t.Fatal(err)
	}
	var gone []Removed
	f.want(200, "POST", "/delete", Wanted{Filters: []string{"name!=image3"}, DryRun: true}, &gone)
	if len(gone) != 1 || gone[0].UUIDs[0] != id(2) {
		t.Errorf("%+v", gone)
	}
	f.want(200, "POST", "/delete", wanted(1), &gone)
	if len(gone) != 1 || len(f.store.Files()) != 2 {
		t.Errorf("%+v", gone)
	}
}
