package mirror

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// The file of an image, as zfsimport gets it, ends with its context.
func TestOpenImage(t *testing.T) {
	m, _ := runMirror(t, testOptions(t, sampleSource(t)))
	entry := entryOf(t, m, sampleApp)
	f, err := m.openImage(t.Context(), entry.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	sums := verify.NewWriter()
	if _, err := io.Copy(sums, f); err != nil {
		t.Fatal(err)
	}
	file := entry.Manifest.Files[0]
	if err := (verify.Want{SHA1: file.SHA1, Size: file.Size}).Check(sums.Digests()); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// An install that is given up while no byte comes ends at once, and its download with it:
// before the source has answered, and in the midst of the file.
func TestOpenImageGivenUp(t *testing.T) {
	server, source := newSource(t)
	file := upstreamtest.Bytes(1, 1_000_000)
	id := upstreamtest.ID(1)
	if err := server.Add(upstreamtest.Manifest(id, "image", "1", nil, file), file); err != nil {
		t.Fatal(err)
	}
	m, _ := runMirror(t, testOptions(t, source))
	entry, err := m.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{0, 300_000} {
		silent := upstreamtest.Fault{Path: "/file", Delay: time.Hour}
		if after > 0 {
			silent = upstreamtest.Fault{Path: "/file", Stall: true, After: after}
		}
		server.Inject(silent)
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
		for fills := m.Fills(); len(fills) == 0 || fills[0].Have < after; fills = m.Fills() {
			runtime.Gosched()
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("after %d bytes: %v", after, err)
		}
		if fills := m.Fills(); len(fills) > 0 {
			t.Errorf("after %d bytes: the download goes on: %+v", after, fills)
		}
		server.Heal()
	}
}
