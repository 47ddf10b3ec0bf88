package mirror

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

var (
	builder = Writer{Address: netip.MustParseAddr("10.0.0.7")}
	other   = Writer{Address: netip.MustParseAddr("10.0.0.8")}
	trusted = Writer{Address: netip.MustParseAddr("10.0.0.9"), Trusted: true}
)

// uploadOf is an upload of file that tells only what imgadm tells.
func uploadOf(file []byte) Upload {
	return Upload{SHA1: verify.Sum(sha1.Sum(file)), Size: int64(len(file)), Compression: "gzip",
		Body: func(context.Context) io.Reader { return bytes.NewReader(file) }}
}

// filesOf are the files and unfinished files on disk.
func filesOf(t *testing.T, o Options) (all []string) {
	t.Helper()
	for _, dir := range []string{"files", "partial"} {
		err := filepath.WalkDir(filepath.Join(o.Cache.Dir, dir), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func begin(t *testing.T, m *Mirror, id uuid.UUID, text []byte) {
	t.Helper()
	if _, err := m.Import(t.Context(), builder, id, text); err != nil {
		t.Fatal(err)
	}
}

func addFile(t *testing.T, m *Mirror, id uuid.UUID, file []byte) {
	t.Helper()
	if _, err := m.AddFile(t.Context(), builder, id, uploadOf(file)); err != nil {
		t.Fatal(err)
	}
}

// An image is in no list and has no reader before it is activated; afterwards the image is as one that
// was published.
func TestDraft(t *testing.T) {
	o := testOptions(t)
	m, stop := runMirror(t, o)
	file := gzipped(t, 100_000)
	begin(t, m, ownBase, text(ownBase, file))
	if _, err := m.Activate(t.Context(), builder, ownBase); !errors.Is(err, ErrNoFile) {
		t.Errorf("activated without its file: %v", err)
	}
	for range 2 { // the second file takes the place of the first
		addFile(t, m, ownBase, file)
	}
	if _, err := m.Find(t.Context(), ownBase); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found before its activation: %v", err)
	}
	publishes(t, m, o)
	image, err := m.Activate(t.Context(), builder, ownBase)
	if err != nil || !image.Listable() {
		t.Fatalf("%s, %v", image.V2(), err)
	}
	publishes(t, m, o, ownBase)
	if _, err := m.Activate(t.Context(), builder, ownBase); !errors.Is(err, ErrActivated) {
		t.Errorf("activated twice: %v", err)
	}
	if _, err := m.AddFile(t.Context(), builder, ownBase, uploadOf(file)); !errors.Is(err, ErrActivated) {
		t.Errorf("a file for a published image: %v", err)
	}
	if _, err := m.Import(t.Context(), builder, ownBase, text(ownBase, file)); !errors.Is(err, ErrExists) {
		t.Errorf("imported twice: %v", err)
	}
	stop()
	m, _ = runMirror(t, o)
	publishes(t, m, o, ownBase)
	if !cached(t, m, ownBase) {
		t.Error("the file is gone after a restart")
	}
	if err := m.Drop(t.Context(), builder, ownBase); !errors.Is(err, ErrWriter) {
		t.Errorf("a published image was taken back without the token: %v", err)
	}
	if err := m.Drop(t.Context(), trusted, ownBase); err != nil {
		t.Error(err)
	}
	publishes(t, m, o)
	if left := filesOf(t, o); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
}

// What is refused leaves nothing, and the draft may still get its right file.
func TestDraftRefuses(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	m := newMirror(t, o)
	file := gzipped(t, 100_000)
	_, err := m.Import(t.Context(), builder, ownChild, text(ownBase, file))
	if !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("another uuid in the manifest: %v", err)
	}
	if _, err = m.Import(t.Context(), builder, sampleBase, text(sampleBase, file)); !errors.Is(err, ErrExists) {
		t.Errorf("another source's image: %v", err)
	}
	if _, err = m.Import(t.Context(), builder, ownBase, text(ownBase, file, withOrigin(ownChild)...)); !errors.Is(err, ErrOrigin) {
		t.Errorf("no origin: %v", err)
	}
	if _, err = m.AddFile(t.Context(), builder, ownBase, uploadOf(file)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file before the import: %v", err)
	}
	if err = m.Drop(t.Context(), builder, ownBase); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dropped before the import: %v", err)
	}
	begin(t, m, ownBase, text(ownBase, file))
	if _, err = m.Import(t.Context(), other, ownBase, text(ownBase, file)); !errors.Is(err, ErrExists) {
		t.Errorf("imported by two: %v", err)
	}
	if _, err = m.AddFile(t.Context(), other, ownBase, uploadOf(file)); !errors.Is(err, ErrWriter) {
		t.Errorf("another writer's file: %v", err)
	}
	if err = m.Drop(t.Context(), other, ownBase); !errors.Is(err, ErrWriter) {
		t.Errorf("dropped by another writer: %v", err)
	}
	wrong := bytes.Clone(file)
	wrong[50_000] ^= 1
	for name, c := range map[string]struct {
		sent []byte
		is   error
	}{"flipped": {wrong, verify.ErrMismatch}, "short": {file[:60_000], verify.ErrMismatch}, "long": {append(bytes.Clone(file), 1), verify.ErrMismatch},
		"plain": {bytes.Repeat([]byte("p"), len(file)), verify.ErrMismatch}} {
		u := uploadOf(file)
		u.Body = uploadOf(c.sent).Body
		if _, err := m.AddFile(t.Context(), builder, ownBase, u); !errors.Is(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
		m.store.Idle()
		if left := filesOf(t, o); len(left) > 0 {
			t.Errorf("%s: left on disk: %v", name, left)
		}
	}
	addFile(t, m, ownBase, file)
	if _, err := m.Activate(t.Context(), builder, ownBase); err != nil {
		t.Error(err)
	}
}

// A draft that ends gives its uuid free, and its file goes, but not the file of another image.
func TestDraftEnds(t *testing.T) {
	file, kept := gzipped(t, 1000), gzipped(t, 2000)
	ends := map[string]func(t *testing.T, m *Mirror){
		"dropped": func(t *testing.T, m *Mirror) {
			for _, id := range []uuid.UUID{ownBase, ownChild} {
				if err := m.Drop(t.Context(), builder, id); err != nil {
					t.Error(err)
				}
			}
		},
		"forgotten": func(t *testing.T, m *Mirror) { m.endDrafts(t.Context(), 0) },
	}
	for name, end := range ends {
		o := testOptions(t)
		m, _ := runMirror(t, o)
		owner := uuid.New()
		publish(t, m, text(owner, kept), kept)
		begin(t, m, ownBase, text(ownBase, file))
		addFile(t, m, ownBase, file)
		begin(t, m, ownChild, text(ownChild, kept))
		addFile(t, m, ownChild, kept)
		end(t, m)
		if left := filesOf(t, o); len(left) != 1 || filepath.Base(left[0]) != verify.Sum(sha1.Sum(kept)).String() {
			t.Errorf("%s: on disk: %v", name, left)
		}
		publish(t, m, text(ownBase, file), file)
	}
}

// A stop forgets drafts with their files; so does the start after a process that ended at once.
func TestDraftIsForgotten(t *testing.T) {
	o := testOptions(t)
	m, stop := runMirror(t, o)
	file := gzipped(t, 1000)
	begin(t, m, ownBase, text(ownBase, file))
	addFile(t, m, ownBase, file)
	stop()
	if left := filesOf(t, o); len(left) > 0 {
		t.Errorf("after a stop: on disk: %v", left)
	}

	m, stop = runMirror(t, o)
	begin(t, m, ownBase, text(ownBase, file))
	addFile(t, m, ownBase, file)
	m.drafts.mu.Lock()
	clear(m.drafts.all) // as a process that is killed
	m.drafts.mu.Unlock()
	stop()
	if left := filesOf(t, o); len(left) != 1 {
		t.Fatalf("after a kill: on disk: %v", left)
	}
	_, stop = runMirror(t, o)
	if left := filesOf(t, o); len(left) > 0 {
		t.Errorf("after the next start: on disk: %v", left)
	}
	stop()

	// The process ends within the note of the owner, and between the note and the record.
	cutShort := func() {
		m, stop = runMirror(t, o)
		begin(t, m, ownBase, text(ownBase, file))
		addFile(t, m, ownBase, file)
		m.drafts.mu.Lock()
		d := m.drafts.all[ownBase]
		clear(m.drafts.all)
		m.drafts.mu.Unlock()
		image, err := d.image.Activate()
		if err == nil {
			err = m.own(image)
		}
		if err != nil {
			t.Fatal(err)
		}
		stop()
	}
	cutShort()
	if err := os.Remove(filepath.Join(o.Cache.Dir, "manifests", ownBase.String()+".json")); err != nil {
		t.Fatal(err)
	}
	m, stop = runMirror(t, o)
	publishes(t, m, o)
	if left := filesOf(t, o); len(left) > 0 {
		t.Errorf("without a copy of the manifest: on disk: %v", left)
	}
	stop()

	cutShort()
	m, _ = runMirror(t, o)
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	publishes(t, m, o, ownBase)
	if !cached(t, m, ownBase) {
		t.Error("published without its file")
	}
}

// Drop ends an upload that waits for its bytes.
func TestDropDuringUpload(t *testing.T) {
	o := testOptions(t)
	m := newMirror(t, o)
	file := gzipped(t, 200_000)
	begin(t, m, ownBase, text(ownBase, file))
	u, waits := uploadOf(file), make(chan struct{})
	u.Body = func(ctx context.Context) io.Reader {
		stuck := readerFunc(func([]byte) (int, error) {
			close(waits)
			<-ctx.Done()
			return 0, context.Cause(ctx)
		})
		return io.MultiReader(bytes.NewReader(file[:100_000]), stuck)
	}
	done := make(chan error, 1)
	go func() {
		_, err := m.AddFile(t.Context(), builder, ownBase, u)
		done <- err
	}()
	<-waits
	if _, err := m.AddFile(t.Context(), builder, ownBase, uploadOf(file)); !errors.Is(err, ErrDraftBusy) {
		t.Errorf("two uploads at once: %v", err)
	}
	if err := m.Drop(t.Context(), builder, ownBase); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrBroke) && !errors.Is(err, context.Canceled) {
		t.Errorf("the upload ended with %v", err)
	}
	m.store.Idle()
	if left := filesOf(t, o); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
	publish(t, m, text(ownBase, file), file)
}

// An upload that does not go on takes a slot of uploads: another source's download begins at once.
func TestStuckUploadHoldsNoDownload(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	o.Rules.FillSlots = 1
	m := newMirror(t, o)
	file := gzipped(t, 200_000)
	begin(t, m, ownBase, text(ownBase, file))
	u, waits := uploadOf(file), make(chan struct{})
	u.Body = func(ctx context.Context) io.Reader {
		return io.MultiReader(bytes.NewReader(file[:100_000]), readerFunc(func([]byte) (int, error) {
			close(waits)
			<-ctx.Done()
			return 0, context.Cause(ctx)
		}))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m.AddFile(t.Context(), builder, ownBase, u)
	}()
	<-waits
	fetchSample(t, m, sampleBase)
	if err := m.Drop(t.Context(), builder, ownBase); err != nil {
		t.Error(err)
	}
	<-done
}

func TestDraftBounds(t *testing.T) {
	m := newMirror(t, testOptions(t))
	file := gzipped(t, 1000)
	begun := 0
	for host := range byte(10) {
		by := Writer{Address: netip.AddrFrom4([4]byte{10, 0, 1, host})}
		for range 10 {
			id := uuid.New()
			if _, err := m.Import(t.Context(), by, id, text(id, file)); err == nil {
				begun++
			} else if !errors.Is(err, ErrManyDrafts) {
				t.Fatal(err)
			}
		}
		if host == 0 && begun != maxDraftsOf {
			t.Errorf("%d of one address", begun)
		}
	}
	if begun != maxDrafts {
		t.Errorf("%d of all", begun)
	}
	m.endDrafts(t.Context(), 0)
	for i, id := range []uuid.UUID{uuid.New(), uuid.New(), uuid.New()} {
		begin(t, m, id, text(id, file, `"files":[`, `"files":[],"was":[`))
		u := uploadOf(file)
		u.Size = 20 << 30
		u.Body = func(context.Context) io.Reader {
			d := m.drafts.all[id]
			if d.bytes != u.Size {
				t.Errorf("booked: %d", d.bytes)
			}
			return bytes.NewReader(nil)
		}
		if i == 2 { // two of the largest are there
			m.drafts.mu.Lock()
			for other, d := range m.drafts.all {
				if other != id {
					d.bytes = u.Size
				}
			}
			m.drafts.mu.Unlock()
		}
		_, err := m.AddFile(t.Context(), builder, id, u)
		if many := errors.Is(err, ErrManyDrafts); err == nil || many != (i == 2) {
			t.Errorf("file %d: %v", i, err)
		}
	}
}

// A file that cannot be stored is refused, and its note goes.
func TestDraftWithoutRoom(t *testing.T) {
	o := testOptions(t)
	o.Rules.MaxSize = 1000
	m := newMirror(t, o)
	file := gzipped(t, 300_000)
	begin(t, m, ownBase, text(ownBase, file))
	if _, err := m.AddFile(t.Context(), builder, ownBase, uploadOf(file)); err == nil {
		t.Error("taken")
	}
	if notes, err := m.store.Notes(uploadNotes).All(); err != nil || len(notes) > 0 {
		t.Errorf("notes: %v, %v", notes, err)
	}
	if _, err := os.Stat(pathOf(o, verify.Sum(sha1.Sum(file)))); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
