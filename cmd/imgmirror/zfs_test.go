package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
	"imgmirror/zfsimport"
)

// What zfsimport.images asks for: each image after its origins, and none twice.
func TestInstallWanted(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, _ := runMirror(t, cfg)
	f := func(want string, rules ...string) {
		t.Helper()
		var all []string
		for _, e := range installWanted(asking{m.catalog.Current(), t.Context(), m.catalog}, rules) {
			all = append(all, e.Manifest.Name)
		}
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%q: %s, want %s", rules, got, want)
		}
	}
	f("")
	f("sample-base sample-web sample-app", "name=sample-app")
	f("sample-base sample-web sample-app", strings.ToUpper(sampleApp.String()))
	f("sample-base sample-web sample-xz sample-app", "name=sample-web", "name=sample-xz", sampleApp.String())
	f("", "name=nobody", uuid.NewString())
	f("sample-plain sample-xz sample-bzip2 sample-base sample-web sample-app", "name=~sample")
}

// An image that no list shows, and that a UUID names, is asked for.
func TestInstallWantedUnlisted(t *testing.T) {
	source, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Stop)
	file := upstreamtest.Bytes(1, 1000)
	id := upstreamtest.ID(1)
	if err := source.Add(upstreamtest.Manifest(id, "hidden", "1", nil, file), file); err != nil {
		t.Fatal(err)
	}
	source.Unlist(id)
	cfg := testConfig(t)
	cfg.Sources = []config.Source{{Name: "s", URL: config.URL(source.URL()), Kind: "imgapi"}}
	m, _ := runMirror(t, cfg)
	got := installWanted(asking{m.catalog.Current(), t.Context(), m.catalog}, []string{id.String()})
	if len(got) != 1 || got[0].Manifest.Name != "hidden" {
		t.Errorf("got %v", got)
	}
}

func TestAfter(t *testing.T) {
	queue := make([]catalog.Entry, 5)
	for i := range queue {
		queue[i].Manifest = manifest.Manifest{UUID: upstreamtest.ID(i), Name: fmt.Sprint(i)}
	}
	f := func(id int, want string) {
		t.Helper()
		got := ""
		for _, e := range after(&queue, upstreamtest.ID(id)) {
			got += e.Manifest.Name
		}
		if got != want {
			t.Errorf("after %d: %q, want %q", id, got, want)
		}
	}
	f(0, "12")
	f(3, "4")
	f(4, "")
	f(9, "")
	if after(nil, upstreamtest.ID(0)) != nil {
		t.Error("there is no queue")
	}
}

// The file of an image, as zfsimport gets it, ends with its context.
func TestOpenImage(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, _ := runMirror(t, cfg)
	entry, ok := m.catalog.Current().Entry(sampleApp)
	if !ok {
		t.Fatal("the sample is not there")
	}
	f, err := m.openImage(t.Context(), entry.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	sums := verify.NewWriter()
	if _, err := io.Copy(sums, f); err != nil {
		t.Fatal(err)
	}
	file := entry.Manifest.Files[0]
	if err := (verify.Want{SHA1: file.SHA1, Size: file.Size}).Check(sums.Digests()); err != nil || f.Size() != file.Size {
		t.Errorf("%v, size %d", err, f.Size())
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// An install that is given up while no byte comes ends at once, and its download with it:
// before the source has answered, and in the midst of the file.
func TestOpenImageGivenUp(t *testing.T) {
	source, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	file := upstreamtest.Bytes(1, 1_000_000)
	id := upstreamtest.ID(1)
	if err := source.Add(upstreamtest.Manifest(id, "image", "1", nil, file), file); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Sources = []config.Source{{Name: "s", URL: config.URL(source.URL()), Kind: "imgapi"}}
	m, _ := runMirror(t, cfg)
	entry, err := m.catalog.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{0, 300_000} {
		silent := upstreamtest.Fault{Path: "/file", Delay: time.Hour}
		if after > 0 {
			silent = upstreamtest.Fault{Path: "/file", Stall: true, After: after}
		}
		source.Inject(silent)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			f, err := m.openImage(ctx, entry.Manifest)
			if err == nil {
				_, err = io.Copy(io.Discard, f)
				f.Close()
			}
			ended <- err
		}()
		for fills := m.store.Fills(); len(fills) == 0 || fills[0].Have < after; fills = m.store.Fills() {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("after %d bytes: %v", after, err)
		}
		if fills := m.store.Fills(); len(fills) > 0 {
			t.Errorf("after %d bytes: the download goes on: %+v", after, fills)
		}
		source.Heal()
	}
}

// While one image is read, the downloads of those that are to be installed next
// have begun, and of no more.
func TestOpenImageAhead(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, _ := runMirror(t, cfg)
	queue := installWanted(m.catalog.Current(), []string{"name=sample-app", "name=sample-xz"})
	m.installing.Store(&queue)
	f, err := m.openImage(t.Context(), queue[0].Manifest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.(*imageFile).starting.Wait()
	for i, e := range queue {
		begun := cached(t, m, e.Manifest.UUID) // or on its way
		if want := i <= installAhead; begun != want {
			t.Errorf("%s: begun %t, want %t", e.Manifest.Name, begun, want)
		}
	}
}

func TestInstallErrors(t *testing.T) {
	seen := make(map[string]bool)
	for _, row := range installCodes {
		err := installError(fmt.Errorf("install: %w", row.is))
		var told *admin.Error
		if !errors.As(err, &told) || told.Code != row.code || told.Message == "" {
			t.Errorf("%v: %v", row.is, err)
		}
		if seen[row.code] {
			t.Errorf("%s comes twice", row.code)
		}
		seen[row.code] = true
	}
	for _, e := range []error{
		zfsimport.ErrNoZFS, zfsimport.ErrNoPool, zfsimport.ErrNoRoom, zfsimport.ErrNoOrigin, zfsimport.ErrNotZFS,
		zfsimport.ErrSnapshots, zfsimport.ErrDecompress, zfsimport.ErrNotImage, zfsimport.ErrType, zfsimport.ErrReceive, zfsimport.ErrCompression, zfsimport.ErrPlatform, zfsimport.ErrLocked, zfsimport.ErrProperty,
	} {
		if told := (*admin.Error)(nil); !errors.As(installError(e), &told) {
			t.Errorf("%v has no code", e)
		}
	}
	if err := installError(verify.ErrMismatch); !errors.Is(err, verify.ErrMismatch) {
		t.Errorf("%v", err)
	}
	if err := installError(nil); err != nil {
		t.Errorf("%v", err)
	}
}
