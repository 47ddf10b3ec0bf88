package admin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// shelf is images that a bundle is made of: number, and number of the origin.
type shelf map[int]int

func (s shelf) Manifest(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	for n, origin := range s {
		if upstreamtest.ID(n) == id {
			return manifest.Parse(sample(n, origin), manifest.ParseOptions{})
		}
	}
	return manifest.Manifest{}, fmt.Errorf("no image %s", id)
}

func (s shelf) File(_ context.Context, sum verify.Sum) (io.ReadCloser, error) {
	for n := range s {
		if file := sampleFile(n); sha1.Sum(file) == sum {
			return io.NopCloser(bytes.NewReader(file)), nil
		}
	}
	return nil, fmt.Errorf("no file %s", sum)
}

// made is a bundle with its volumes.
type made struct {
	bundle.Head
	volumes [][]byte
}

// entry finds what lies at path in the first volume.
func (m made) entry(t *testing.T, path string) bundle.Entry {
	t.Helper()
	for _, e := range m.Entries() {
		if strings.Contains(e.Path, path) {
			return e
		}
	}
	t.Fatalf("no %s in the bundle", path)
	return bundle.Entry{}
}

// file is the entry of image n's file.
func (m made) file(t *testing.T, n int) bundle.Entry {
	t.Helper()
	for _, e := range m.Entries() {
		if e.File == 0 && strings.HasPrefix(e.Path, id(n)) {
			return e
		}
	}
	t.Fatalf("no file of %d in the bundle", n)
	return bundle.Entry{}
}

// bundleOf makes a bundle. Held are images that the receiver has; key may be nil.
func (s shelf) bundle(t *testing.T, key []byte, volume int64, held ...int) made {
	t.Helper()
	o := bundle.PlanOptions{ID: uuid.New(), Created: time.Now(), Mirror: bundle.Mirror{Name: "there", Version: "1.0"}, Since: "a test", VolumeSize: volume}
	var images []bundle.Export
	for n, origin := range s {
		m, err := manifest.Parse(sample(n, origin), manifest.ParseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w := verify.NewWriter()
		w.Write(sampleFile(n)) //nolint:errcheck // never fails
		d := w.Digests()
		images = append(images, bundle.Export{Manifest: m, Files: []verify.Digests{d}})
		if slices.Contains(held, n) {
			o.Have = append(o.Have, bundle.Held{UUID: m.UUID, Files: []verify.Sum{d.SHA1}})
		}
	}
	slices.SortFunc(images, func(a, b bundle.Export) int { return bytes.Compare(a.Manifest.UUID[:], b.Manifest.UUID[:]) })
	x, err := bundle.Plan(t.Context(), images, o, s)
	if err != nil {
		t.Fatal(err)
	}
	m := made{Head: bundle.Head{Index: x, Volume: 1}}
	if key != nil {
		if m.Sig, err = bundle.Sign(key, "", x); err != nil {
			t.Fatal(err)
		}
	}
	for v := 1; v <= x.Volumes; v++ {
		var tar bytes.Buffer
		if err := bundle.Write(t.Context(), &tar, bundle.Head{Index: x, Volume: v, Sig: m.Sig}, 0, s, nil); err != nil {
			t.Fatal(err)
		}
		m.volumes = append(m.volumes, tar.Bytes())
	}
	return m
}

// imports has a client take a volume to the mirror, as the verb does. What is wrong with the volume is told like an
// answer of the mirror.
func (f *fixture) imports(volume io.Reader) (report BundleImport, told *Error) {
	f.t.Helper()
	if f.courier == nil {
		f.courier = f.client()
	}
	report, err := f.courier.ImportBundle(f.t.Context(), volume, func(sent, total int64) { f.sent, f.toSend = sent, total })
	if err != nil {
		told = explain(err)
	}
	return report, told
}

// imported takes volumes to the mirror, and gives what is told of the last one.
func (f *fixture) imported(volumes ...[]byte) (report BundleImport) {
	f.t.Helper()
	for _, v := range volumes {
		var told *Error
		if report, told = f.imports(bytes.NewReader(v)); report.ID == "" {
			f.t.Fatalf("import: %+v", told)
		}
		report.Error = cmp.Or(told, report.Error)
	}
	return report
}

// outcome tells a report in one line: "11 added, 12 refused NotComplete".
func outcome(r BundleImport) string {
	var all []string
	for _, i := range r.Images {
		text := strings.TrimPrefix(i.Name, "image") + " " + i.State
		if i.Error != nil {
			text += " " + i.Error.Code
		}
		all = append(all, text)
	}
	if r.Error != nil {
		all = append(all, r.Error.Code)
	}
	return strings.Join(all, ", ")
}

func (f *fixture) came(r BundleImport, want string) {
	f.t.Helper()
	if got := outcome(r); got != want {
		f.t.Errorf("imported: %s, want %s: %+v", got, want, r)
	}
}

func TestPlanBundle(t *testing.T) {
	f := newFixture(t)
	f.fetched(2)
	plan := func(w BundleWanted) string {
		t.Helper()
		var all []Bundled
		f.want(200, "POST", "/bundle/plan", w, &all)
		var texts []string
		for _, b := range all {
			m, err := manifest.Parse(b.Manifest, manifest.ParseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			n := m.Name[len("image"):]
			text := n
			if b.Wanted {
				text += "!"
			}
			if b.Cached {
				text += "*"
				if len(b.Files) != 1 || b.Files[0].SHA1 != m.Files[0].SHA1.String() || b.Files[0].Size != m.Files[0].Size || len(b.Files[0].SHA256) != 64 {
					t.Errorf("%+v", b.Files)
				}
			}
			texts = append(texts, text)
		}
		return strings.Join(texts, " ")
	}
	for _, c := range []struct {
		wanted BundleWanted
		want   string
	}{
		{BundleWanted{UUIDs: []string{id(3)}}, "1* 2* 3!"},
		{BundleWanted{UUIDs: []string{id(4), id(2)}}, "4! 1* 2!*"},
		{BundleWanted{Filters: []string{"name=~image"}, Newest: 1}, "4!"},
		{BundleWanted{UUIDs: []string{id(1)}, Filters: []string{"name=~image"}, Newest: 2}, "1!* 2* 3! 4!"},
	} {
		if got := plan(c.wanted); got != c.want {
			t.Errorf("%+v: %s, want %s", c.wanted, got, c.want)
		}
	}
	f.refused(422, meaning.InvalidParameter, "POST", "/bundle/plan", BundleWanted{})
	f.refused(422, meaning.InvalidParameter, "POST", "/bundle/plan", BundleWanted{Filters: []string{"name=x"}, Newest: -1})
	f.refused(404, meaning.NotFound, "POST", "/bundle/plan", BundleWanted{UUIDs: []string{id(99)}})
	f.refused(404, meaning.NotFound, "POST", "/bundle/plan", BundleWanted{Filters: []string{"name=none"}})
}

func TestFile(t *testing.T) {
	f := newFixture(t)
	f.fetched(1)
	file := sampleFile(1)
	sum := fmt.Sprintf("%x", sha1.Sum(file))
	get := func(header string, status int) []byte {
		t.Helper()
		r := httptest.NewRequest("GET", apiPrefix+"/files/"+sum, nil)
		if header != "" {
			r.Header.Set("Range", header)
		}
		r.Header.Set("Authorization", "Bearer "+testToken)
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, r)
		f.doc.check(t, r, w.Result(), w.Body.Bytes())
		if w.Code != status {
			t.Fatalf("%s: status %d, want %d", header, w.Code, status)
		}
		return w.Body.Bytes()
	}
	if !bytes.Equal(get("", 200), file) || !bytes.Equal(get("bytes=0-", 200), file) || !bytes.Equal(get("bytes=5-9", 200), file) {
		t.Error("not the file")
	}
	if !bytes.Equal(get("bytes=150000-", 206), file[150000:]) {
		t.Error("not the end of the file")
	}
	get(fmt.Sprintf("bytes=%d-", len(file)), 422)
	f.refused(404, meaning.NotFound, "GET", "/files/"+strings.Repeat("0", 40), nil)
	f.refused(422, meaning.InvalidParameter, "GET", "/files/zz", nil)
	c := f.client()
	parsed, _ := verify.ParseSum(sum)
	r, err := c.File(t.Context(), parsed, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, file[7:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestImport(t *testing.T) {
	f := newFixture(t)
	b := shelf{11: 0, 12: 11, 13: 0}.bundle(t, nil, 0)
	report := f.imported(b.volumes...)
	f.came(report, "11 added, 12 added, 13 added")
	if report.Bundle != b.Index.ID.String() || report.Mirror != "there 1.0" || report.Volume != 1 || report.Volumes != 1 || report.Key != "" {
		t.Errorf("%+v", report)
	}
	f.came(f.imported(b.volumes...), "11 present, 12 present, 13 present")
	for n, origin := range map[int]int{11: 0, 12: 11, 13: 0} {
		var image Image
		f.want(200, "GET", "/images/"+id(n), nil, &image)
		if image.Source != "imported" || !image.Listed || !image.Cached || image.Imported == nil || image.Imported.Bundle != report.Bundle ||
			image.Imported.Imported.IsZero() || !image.Imported.Created.Equal(b.Index.Created) {
			t.Errorf("image %d: %+v %+v", n, image, image.Imported)
		}
		if m, err := manifest.Parse(image.Manifest, manifest.ParseOptions{}); err != nil || string(m.Raw()) != string(sample(n, origin)) {
			t.Errorf("image %d: its manifest is not what it was: %v", n, err)
		}
	}
}

func TestImportDelete(t *testing.T) {
	f := newFixture(t)
	f.imported(shelf{11: 0, 12: 11, 13: 0}.bundle(t, nil, 0).volumes...)
	var removed []Removed
	f.refused(409, codeImagePinned, "POST", "/delete", wanted(11)) // another one is built on it
	f.want(200, "GET", "/images/"+id(11), nil, nil)
	f.want(200, "POST", "/delete", wanted(12), &removed)
	f.want(200, "POST", "/delete", Wanted{UUIDs: []string{id(13)}, DryRun: true}, &removed)
	f.want(200, "GET", "/images/"+id(13), nil, nil)
	f.want(200, "POST", "/delete", wanted(13), &removed)
	if len(removed) != 1 || removed[0].UUIDs[0] != id(13) {
		t.Errorf("removed: %+v", removed)
	}
	f.want(404, "GET", "/images/"+id(13), nil, &Error{})
	if got := f.fromBundles(); len(got) != 1 {
		t.Errorf("%d images are left", len(got))
	}
	// One whose file is lost is given up, too.
	sum := fmt.Sprintf("%x", sha1.Sum(sampleFile(11)))
	if err := os.Remove(f.dir + "/files/" + sum[:2] + "/" + sum); err != nil {
		t.Fatal(err)
	}
	var job Job
	f.want(202, "POST", "/verify", wanted(11), &job)
	if job = f.await(job); job.State != JobFailed {
		t.Errorf("%+v", job)
	}
	f.want(200, "POST", "/delete", wanted(11), &removed)
	f.want(404, "GET", "/images/"+id(11), nil, &Error{})
	f.refused(404, meaning.NotFound, "POST", "/delete", wanted(11))
}

// TestImportKnown: what a source has as well is there already, and with other
// files it is refused.
func TestImportKnown(t *testing.T) {
	f := newFixture(t)
	f.fetched(1)
	b := shelf{1: 0, 2: 1, 13: 0}.bundle(t, nil, 0)
	f.came(f.imported(b.volumes...), "1 present, 2 added, 13 added")
	var image Image
	f.want(200, "GET", "/images/"+id(1), nil, &image)
	if image.Source != "source" || !slices.Equal(image.Sources, []string{"source", "imported"}) || image.Imported == nil {
		t.Errorf("%+v", image)
	}
	if got := f.source.Count("/" + id(2) + "/file"); got != 0 {
		t.Errorf("the source was asked %d times for what the bundle has", got)
	}

	other := upstreamtest.Manifest(upstreamtest.ID(11), "image11", "1.0", nil, sampleFile(12))
	if err := f.source.Add(other, sampleFile(12)); err != nil {
		t.Fatal(err)
	}
	if err := f.mirror.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.came(f.imported(shelf{11: 0, 14: 0}.bundle(t, nil, 0).volumes...), "11 refused "+codeImageExists+", 14 added")
}

// TestImportDamaged: one bit, wherever it is, is found, and what it is in is not
// taken; the other images of the bundle are.
func TestImportDamaged(t *testing.T) {
	b := shelf{11: 0, 12: 11, 13: 0}.bundle(t, nil, 0)
	whole := b.volumes[0]
	f := newFixture(t)
	flipped := func(at int64) []byte {
		v := bytes.Clone(whole)
		v[at] ^= 4
		return v
	}
	e := b.file(t, 11)
	for _, at := range []int64{e.Data, e.Data + e.Size/2, e.Data + e.Size - 1} {
		report := f.imported(flipped(at))
		if at == e.Data { // the first time
			f.came(report, "11 refused ChecksumError, 12 waiting OriginDoesNotExist, 13 added")
		} else {
			f.came(report, "11 refused ChecksumError, 12 waiting OriginDoesNotExist, 13 present")
		}
		if !strings.Contains(report.Images[0].Error.Message, e.Path) {
			t.Errorf("the error does not name %s: %s", e.Path, report.Images[0].Error.Message)
		}
		f.want(404, "GET", "/images/"+id(11), nil, &Error{})
	}
	if partials := f.store.Partials(); len(partials) != 0 {
		t.Errorf("wrong bytes are kept: %+v", partials)
	}
	f.came(f.imported(whole), "11 added, 12 present, 13 present")

	// What is not a file's makes the whole bundle bad.
	for _, path := range []string{"imgmirror-bundle.json", "manifest.json"} {
		e := b.entry(t, path)
		for _, at := range []int64{e.At + 3, e.Data + 10} {
			g := newFixture(t)
			if report, told := g.imports(bytes.NewReader(flipped(at))); told == nil || told.Code != codeBundle || report.ID != "" {
				t.Errorf("%s, byte %d: %+v, %+v", path, at, told, report)
			}
			if got := g.fromBundles(); len(got) != 0 {
				t.Errorf("%s, byte %d: %d images were taken", path, at, len(got))
			}
		}
	}
}

func TestImportRefused(t *testing.T) {
	secret, public, err := bundle.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := bundle.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := bundle.ParseTrusted([]string{string(public)})
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(o *mirror.Options) { o.Signatures = bundle.Policy{Keys: trusted, Required: true} })
	refused := func(code string, body []byte, names string) {
		t.Helper()
		report, told := f.imports(bytes.NewReader(body))
		if told == nil || told.Code != code || !strings.Contains(told.Message, names) || report.ID != "" {
			t.Errorf("%+v, want %s and %s", told, code, names)
		}
		if files, images := f.store.Files(), f.fromBundles(); len(files)+len(images) != 0 {
			t.Errorf("%d files and %d images were taken", len(files), len(images))
		}
	}
	s := shelf{11: 0, 12: 11}
	refused(codeBundle, []byte("this is no bundle"), "tar")
	refused(codeBundle, make([]byte, 4096), "tar")
	refused(codeBundleTrust, s.bundle(t, nil, 0).volumes[0], "not signed")
	refused(codeBundleTrust, s.bundle(t, stranger, 0).volumes[0], "not trusted")
	refused(codeBundleBase, s.bundle(t, secret, 0, 11).volumes[0], id(11))
	good := s.bundle(t, secret, 0)
	report := f.imported(good.volumes...)
	f.came(report, "11 added, 12 added")
	if report.Key == "" {
		t.Error("who signed it is not told")
	}
	f.came(f.imported(shelf{11: 0, 12: 11, 15: 12}.bundle(t, secret, 0, 11, 12).volumes...), "15 added")
}

// TestImportResumes: what a broken import brought is not sent again.
func TestImportResumes(t *testing.T) {
	f := newFixture(t)
	b := shelf{11: 0, 12: 11, 13: 0}.bundle(t, nil, 0)
	whole := b.volumes[0]
	second := b.file(t, 12)
	const part = 70_000
	report := f.imported(whole[:second.Data+part])
	f.came(report, "11 added, 12 waiting NotComplete, 13 waiting NotComplete, InvalidBundle")
	if got := report.Images[1].Have; !slices.Equal(got, []int64{part}) {
		t.Errorf("have %v, want %d", got, part)
	}
	f.want(200, "GET", "/images/"+id(11), nil, nil)

	want := int64(len(sampleFile(12)) - part + len(sampleFile(13)))
	f.came(f.imported(whole), "11 present, 12 added, 13 added")
	if f.sent != want || f.toSend != want {
		t.Errorf("%d of %d bytes are sent, want %d", f.sent, f.toSend, want)
	}
	for _, n := range []int{11, 12, 13} {
		var image Image
		f.want(200, "GET", "/images/"+id(n), nil, &image)
		if !image.Cached {
			t.Errorf("image %d is not on disk", n)
		}
	}
}

// TestImportVolumes: parts of a file need their order, all else does not.
func TestImportVolumes(t *testing.T) {
	s := shelf{11: 0, bigImage: 0, 13: bigImage}
	b := s.bundle(t, nil, 5<<20/2)
	if len(b.volumes) != 3 {
		t.Fatalf("%d volumes", len(b.volumes))
	}
	f := newFixture(t)
	f.came(f.imported(b.volumes[1]), "11 waiting NotComplete, 99 waiting NotComplete, 13 waiting NotComplete")
	f.came(f.imported(b.volumes[2]), "11 waiting NotComplete, 99 waiting NotComplete, 13 waiting OriginDoesNotExist")
	f.came(f.imported(b.volumes[0]), "11 added, 99 waiting NotComplete, 13 waiting OriginDoesNotExist")
	report := f.imported(b.volumes[1])
	f.came(report, "11 present, 99 waiting NotComplete, 13 waiting OriginDoesNotExist")
	if text := report.Images[1].Error.Message; !strings.Contains(text, "volume 3") {
		t.Errorf("where the rest is: %s", text)
	}
	f.came(f.imported(b.volumes[2]), "11 present, 99 added, 13 present")
	var image Image
	f.want(200, "GET", "/images/"+id(bigImage), nil, &image)
	if !image.Cached {
		t.Error("the image in parts is not on disk")
	}
}

// ignore takes no notice of how an import goes.
func ignore(int64, int64) {}

// TestImportTwice: an import that waits for what another one brings goes on by
// itself when that one breaks off.
func TestImportTwice(t *testing.T) {
	f := newFixture(t)
	b := shelf{11: 0, 12: 11}.bundle(t, nil, 0)
	whole := b.volumes[0]
	r, w := io.Pipe()
	first := make(chan BundleImport, 1)
	go func() {
		report, err := f.client().ImportBundle(context.Background(), r, ignore)
		if !errors.Is(err, bundle.ErrInvalid) {
			t.Errorf("the first import: %v", err)
		}
		first <- report
	}()
	if _, err := w.Write(whole[:b.file(t, 11).Data+100_000]); err != nil {
		t.Fatal(err)
	}
	for len(f.store.Fills()) == 0 {
		runtime.Gosched()
	}
	second := make(chan BundleImport, 1)
	go func() { second <- f.imported(whole) }()
	for f.store.Fills()[0].Readers < 2 {
		runtime.Gosched()
	}
	if err := w.Close(); err != nil { // as the death of who sends does
		t.Fatal(err)
	}
	f.came(<-second, "11 added, 12 added")
	<-first
}

// twins are two images with one file: that of the shelf's only image.
type twins struct{ shelf }

func (s twins) Manifest(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	for n := range s.shelf {
		text := strings.Replace(string(sample(n, 0)), upstreamtest.ID(n).String(), id.String(), 1)
		return manifest.Parse([]byte(text), manifest.ParseOptions{})
	}
	return manifest.Manifest{}, fmt.Errorf("no image %s", id)
}

// sharedBundle is a bundle of images n and n+1 with one file, and its tar.
func sharedBundle(t *testing.T, n int) (h bundle.Head, whole []byte) {
	t.Helper()
	s := twins{shelf{n: 0}}
	w := verify.NewWriter()
	w.Write(sampleFile(n)) //nolint:errcheck // never fails
	files := []verify.Digests{w.Digests()}
	var images []bundle.Export
	for _, n := range []int{n, n + 1} {
		m, err := s.Manifest(t.Context(), upstreamtest.ID(n))
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, bundle.Export{Manifest: m, Files: files})
	}
	x, err := bundle.Plan(t.Context(), images, bundle.PlanOptions{ID: uuid.New(), Created: time.Now()}, s)
	if err != nil {
		t.Fatal(err)
	}
	h = bundle.Head{Index: x, Volume: 1}
	var tar bytes.Buffer
	if err := bundle.Write(t.Context(), &tar, h, 0, s, nil); err != nil {
		t.Fatal(err)
	}
	return h, tar.Bytes()
}

// cutBeforeLast is the tar up to where its last file would come.
func cutBeforeLast(h bundle.Head, whole []byte) []byte {
	entries := h.Entries()
	return whole[:entries[len(entries)-1].At]
}

// TestImportShared: an image whose file came as another one's is there, also where
// the bundle ends before it comes again.
func TestImportShared(t *testing.T) {
	h, whole := sharedBundle(t, 11)
	f := newFixture(t)
	f.came(f.imported(cutBeforeLast(h, whole)), "11 added, 11 added, InvalidBundle")
	f.came(f.imported(whole), "11 present, 11 present")
}
