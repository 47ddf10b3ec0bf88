package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// carried are images of a bundle: the size of the file of each.
type carried map[int]int

func (c carried) file(n int) []byte { return upstreamtest.Bytes(uint64(n), c[n]) }

func (c carried) Manifest(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	for n := range c {
		if upstreamtest.ID(n) == id {
			return manifest.Parse(upstreamtest.Manifest(id, fmt.Sprintf("image%d", n), "1.0", nil, c.file(n)), manifest.ParseOptions{})
		}
	}
	return manifest.Manifest{}, fs.ErrNotExist
}

func (c carried) File(_ context.Context, sum verify.Sum) (io.ReadCloser, error) {
	for n := range c {
		if sumOfBytes(c.file(n)) == sum {
			return io.NopCloser(bytes.NewReader(c.file(n))), nil
		}
	}
	return nil, fs.ErrNotExist
}

func digestsOf(b []byte) verify.Digests {
	w := verify.NewWriter()
	w.Write(b) //nolint:errcheck // never fails
	return w.Digests()
}

func sumOfBytes(b []byte) verify.Sum { return digestsOf(b).SHA1 }

// bundle makes the first volume of a bundle of the images; volume is the size of volumes, 0: there
// is one.
func (c carried) bundle(t *testing.T, volume int64) Bundle {
	t.Helper()
	var images []bundle.Export
	for n := range c {
		m, err := c.Manifest(t.Context(), upstreamtest.ID(n))
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, bundle.Export{Manifest: m, Files: []verify.Digests{digestsOf(c.file(n))}})
	}
	slices.SortFunc(images, func(a, b bundle.Export) int { return bytes.Compare(a.Manifest.UUID[:], b.Manifest.UUID[:]) })
	x, err := bundle.Plan(t.Context(), images, bundle.PlanOptions{ID: uuid.New(), Created: time.Now(), VolumeSize: volume}, c)
	if err != nil {
		t.Fatal(err)
	}
	b := Bundle{Index: x, Volume: 1}
	for _, image := range images {
		b.Manifests = append(b.Manifests, image.Manifest.Raw())
	}
	return b
}

// begun begins an import.
func begun(t *testing.T, m *Mirror, b Bundle) *Import {
	t.Helper()
	in, err := m.BeginImport(t.Context(), b, false)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// states tells a report in one line: "added, waiting".
func states(r ImportReport) string {
	var all []string
	for _, i := range r.Images {
		all = append(all, i.State)
	}
	return strings.Join(all, ", ")
}

// inBubble is a mirror without sources, in a time of its own.
func inBubble(t *testing.T, do func(t *testing.T, m *Mirror)) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Cache.StallTimeout = 2 * time.Hour
		do(t, newMirror(t, o))
	})
}

// TestImportsBound: as many imports are open as the bound allows. The one that was quiet for
// longest makes room, once it has been quiet for a while.
func TestImportsBound(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Mirror) {
		first := carried{1: 100, 2: 200}.bundle(t, 0)
		b := carried{3: 300}.bundle(t, 0)
		oldest := begun(t, m, first)
		time.Sleep(time.Second)
		for range maxImports - 1 {
			begun(t, m, b)
		}
		if _, err := m.BeginImport(t.Context(), b, false); !errors.Is(err, ErrManyImports) {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(importGrace)
		begun(t, m, b)
		if _, err := m.Importing(oldest.id); !errors.Is(err, fs.ErrNotExist) || m.Kept(upstreamtest.ID(1)) || !m.Kept(upstreamtest.ID(3)) {
			t.Errorf("the oldest import: %v; its images are kept: %v", err, m.Kept(upstreamtest.ID(1)))
		}
		if _, err := oldest.Take(t.Context(), sumOfBytes(carried{1: 100}.file(1)), 0, 100, bytes.NewReader(nil)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file for the oldest import: %v", err)
		}
	})
}

// TestImportsMemory: the imports that are open hold as many texts as the bound allows, or one import
// of any size. Quiet imports make room.
func TestImportsMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Mirror) {
		b := carried{3: 300}.bundle(t, 0)
		m.imports.limit = 1
		first := begun(t, m, b)
		each := m.ImportBytes()
		if texts := int64(len(b.Index.Bytes()) + len(b.Manifests[0])); each != texts {
			t.Errorf("%d bytes are held, want %d", each, texts)
		}
		m.imports.limit = 2 * each
		begun(t, m, b)
		if _, err := m.BeginImport(t.Context(), b, false); !errors.Is(err, ErrManyImports) {
			t.Errorf("a third: %v", err)
		}
		if _, err := m.BeginImport(t.Context(), b, true); err != nil {
			t.Errorf("a dry run: %v", err)
		}
		if _, err := first.End(t.Context()); err != nil || m.ImportBytes() != each {
			t.Errorf("an end: %v, %d bytes are held", err, m.ImportBytes())
		}
		begun(t, m, b)
		time.Sleep(importGrace)
		begun(t, m, b)
		if got := m.ImportBytes(); got != each {
			t.Errorf("%d bytes are held after a while, want %d", got, each)
		}
	})
}

// TestImportsLife: an import without a request ends, one with a file under way does not.
func TestImportsLife(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Mirror) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.watchImports(ctx)
		}()
		c := carried{1: 100, 2: 200_000}
		quiet, busy := begun(t, m, carried{3: 300}.bundle(t, 0)), begun(t, m, c.bundle(t, 0))
		r, w := io.Pipe()
		taken := make(chan error, 1)
		go func() {
			_, err := busy.Take(ctx, sumOfBytes(c.file(2)), 0, 200_000, r)
			taken <- err
		}()
		if _, err := w.Write(c.file(2)[:1000]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(importLife + 2*importGrace)
		if _, err := m.Importing(quiet.id); !errors.Is(err, fs.ErrNotExist) || m.Kept(upstreamtest.ID(3)) {
			t.Errorf("the quiet import: %v; its image is kept: %v", err, m.Kept(upstreamtest.ID(3)))
		}
		if _, err := m.Importing(busy.id); err != nil || !m.Kept(upstreamtest.ID(1)) {
			t.Errorf("the busy import: %v", err)
		}
		if _, err := w.Write(c.file(2)[1000:]); err != nil {
			t.Fatal(err)
		}
		if err := <-taken; err != nil {
			t.Error(err)
		}
		time.Sleep(importLife + 2*importGrace)
		if _, err := m.Importing(busy.id); !errors.Is(err, fs.ErrNotExist) || m.Kept(upstreamtest.ID(1)) || !m.Kept(upstreamtest.ID(2)) {
			t.Errorf("the other one, an hour after its file: %v", err)
		}
		cancel()
		<-done
	})
}

// TestImportTakesOnce: of two requests with one file the second one waits, and goes on when the
// first one breaks off. The import ends when both have.
func TestImportTakesOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, m *Mirror) {
		c := carried{1: 300_000}
		in := begun(t, m, c.bundle(t, 0))
		file := c.file(1)
		r, w := io.Pipe()
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := in.Take(t.Context(), sumOfBytes(file), 0, int64(len(file)), r)
			first <- err
		}()
		if _, err := w.Write(file[:100_000]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		body := &counted{r: bytes.NewReader(file)}
		go func() {
			_, err := in.Take(t.Context(), sumOfBytes(file), 0, int64(len(file)), body)
			second <- err
		}()
		ended := make(chan ImportReport, 1)
		synctest.Wait()
		if body.n > 0 {
			t.Errorf("%d bytes of the second request are read while the first one goes on", body.n)
		}
		go func() {
			report, err := in.End(t.Context())
			if err != nil {
				t.Error(err)
			}
			ended <- report
		}()
		synctest.Wait()
		if err := w.CloseWithError(io.ErrUnexpectedEOF); err != nil {
			t.Fatal(err)
		}
		if err := <-first; !errors.Is(err, ErrBroke) {
			t.Errorf("the first request: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the second request: %v", err)
		}
		if report := <-ended; states(report) != ImageAdded {
			t.Errorf("%s: %+v", states(report), report.Images)
		}
		if entry, ok := m.Current().Entry(upstreamtest.ID(1)); !ok || !m.Cached(entry) {
			t.Error("the image is not in the catalogue, or not on disk")
		}
	})
}

type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

// TestImportParts: the parts of a file come from their volumes. A wrong one is refused by its own
// name, and nothing of it is kept.
func TestImportParts(t *testing.T) {
	m := newMirror(t, testOptions(t))
	c := carried{1: 6 << 20, 2: 100}
	b := c.bundle(t, 5<<20/2)
	image := slices.IndexFunc(b.Index.Images, func(i bundle.Image) bool { return len(i.Files[0].Parts) > 1 })
	if image < 0 {
		t.Fatal("no file is in parts")
	}
	file, parts := c.file(1), b.Index.Images[image].Files[0].Parts
	take := func(k int, change byte) error {
		t.Helper()
		b.Volume = parts[k].Volume
		in := begun(t, m, b)
		at := int64(0)
		for _, p := range parts[:k] {
			at += p.Size
		}
		bytesOf := bytes.Clone(file[at : at+parts[k].Size])
		bytesOf[0] ^= change
		_, err := in.Take(t.Context(), sumOfBytes(file), at, parts[k].Size, bytes.NewReader(bytesOf))
		if _, failed := in.End(t.Context()); failed != nil {
			t.Error(failed)
		}
		return err
	}
	if err := take(1, 0); !errors.Is(err, ErrOffset) {
		t.Errorf("the second part before the first one: %v", err)
	}
	if err := take(0, 1); !errors.Is(err, verify.ErrMismatch) || !strings.Contains(err.Error(), parts[0].Path) {
		t.Errorf("a wrong part: %v", err)
	}
	if left := m.store.Partials(); len(left) != 0 {
		t.Errorf("of a wrong part are kept %+v", left)
	}
	for k := range parts {
		if err := take(k, 0); err != nil {
			t.Errorf("part %d: %v", k, err)
		}
	}
	if entry, ok := m.Current().Entry(upstreamtest.ID(1)); !ok || !m.Cached(entry) {
		t.Error("the image is not in the catalogue, or not on disk")
	}
}
