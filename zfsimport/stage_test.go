package zfsimport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/verify"
)

func TestStage(t *testing.T) {
	image := newImage(t, uuid.New(), uuid.Nil, "none", content(1, 200_000), nil)
	f := newFiles(image)
	im := newImporter(t, nil, f)
	path := filepath.Join(im.o.StageDir, image.UUID.String()+".file")
	stage := func(want Outcome, is error) {
		t.Helper()
		var last Progress
		o, err := im.Stage(t.Context(), image.Manifest, func(p Progress) { last = p })
		if o != want || !errors.Is(err, is) || want == Done && last != (Progress{Read: 200_000}) {
			t.Errorf("%q, %v, %+v", o, err, last)
		}
		entries, err := os.ReadDir(im.o.StageDir)
		if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != filepath.Base(path) {
			t.Errorf("in the folder: %v, %v", entries, err)
		}
		if got, err := os.ReadFile(path); want != "" && (err != nil || !bytes.Equal(got, image.file)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	f.end = verify.ErrMismatch
	stage("", verify.ErrMismatch)
	f.end = nil
	stage(Done, nil)
	stage(Present, nil)
	if f.opened != 2 {
		t.Errorf("opened %d times", f.opened)
	}
	for name, wrong := range map[string][]byte{"shorter": image.file[:1000], "other": bytes.ToUpper(image.file)} {
		if err := os.WriteFile(path, wrong, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		stage(Done, nil)
	}
	if err := os.WriteFile(path+".partial", []byte("of imgadm"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	stage(Done, nil)

	// While imgadm downloads, we wait.
	lockedElsewhere(t, im, image.UUID)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := im.Stage(ctx, image.Manifest, func(Progress) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A staged file is on disk before it has its name, and has that for good.
func TestStageIsSynced(t *testing.T) {
	image := newImage(t, uuid.New(), uuid.Nil, "none", content(1, 200_000), nil)
	im := newImporter(t, nil, newFiles(image))
	path := filepath.Join(im.o.StageDir, image.UUID.String()+".file")
	var events []string
	im.sync = func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			t.Error(err)
		}
		_, err = os.Stat(path)
		events = append(events, fmt.Sprintf("folder %t, %t bytes, named %t", info.IsDir(), info.Size() == 200_000, err == nil))
		return f.Sync()
	}
	if _, err := im.Stage(t.Context(), image.Manifest, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(events, "; "); got != "folder false, true bytes, named false; folder true, false bytes, named true" {
		t.Error("synced", got)
	}
}

// A device that is full.
func TestStageNoRoom(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		missing(t, "/dev/full")
	}
	image := newImage(t, uuid.New(), uuid.Nil, "none", content(1, 100_000), nil)
	im := newImporter(t, nil, newFiles(image))
	if err := os.MkdirAll(im.o.StageDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", filepath.Join(im.o.StageDir, image.UUID.String()+".file.partial")); err != nil {
		t.Fatal(err)
	}
	if _, err := im.Stage(t.Context(), image.Manifest, nil); !errors.Is(err, ErrNoRoom) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(im.o.StageDir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
