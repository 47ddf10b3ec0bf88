package zfsimport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestMain lets the test program play another process that imports an image.
func TestMain(m *testing.M) {
	if dir := os.Getenv(lockDir); dir != "" {
		os.Exit(holdLock(dir, os.Getenv(lockID)))
	}
	if dir := os.Getenv(imgadmDir); dir != "" {
		os.Exit(playImgadm(stored(dir), os.Getenv(killPool)))
	}
	os.Exit(m.Run())
}

// holdLock holds an image's lock until its stdin ends.
func holdLock(dir, id string) int {
	im, err := New(Options{LockDir: dir})
	if err != nil {
		return 1
	}
	if _, err := im.lock(context.Background(), uuid.MustParse(id), false); err != nil {
		return 1
	}
	os.Stdout.WriteString("held\n")
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // it ends when it ends
	return 0
}

// lockedElsewhere has another process hold an image's lock until release is called.
func lockedElsewhere(t *testing.T, im *Importer, id uuid.UUID) (release func()) {
	t.Helper()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), lockDir+"="+im.o.LockDir, lockID+"="+id.String())
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	released := false
	release = func() {
		if !released {
			stdin.Close()
			other.Wait()
		}
		released = true
	}
	t.Cleanup(release)
	return release
}

func TestLock(t *testing.T) {
	im := newImporter(t, nil, nil)
	id, ctx := uuid.New(), t.Context()
	l, err := im.lock(ctx, id, false)
	if err != nil {
		t.Fatal(err)
	}
	// Another Importer of the same process is kept out too.
	twin := newImporter(t, nil, nil)
	twin.o.LockDir = im.o.LockDir
	if _, err := twin.lock(ctx, id, false); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	if _, err := im.lock(ctx, uuid.New(), false); err != nil {
		t.Error("another image:", err)
	}
	brief, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := twin.lock(brief, id, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	got := make(chan error)
	go func() {
		l, err := twin.lock(ctx, id, true)
		if err == nil {
			l.release()
		}
		got <- err
	}()
	l.release()
	if err := <-got; err != nil {
		t.Error("after the release:", err)
	}

	release := lockedElsewhere(t, im, id)
	if _, err := im.lock(ctx, id, false); !errors.Is(err, ErrLocked) {
		t.Error("another process has it:", err)
	}
	brief, cancel = context.WithTimeout(ctx, 2*lockPoll)
	defer cancel()
	if _, err := im.lock(brief, id, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	go func() {
		_, err := im.lock(ctx, id, true)
		got <- err
	}()
	release()
	if err := <-got; err != nil {
		t.Error("after the other process:", err)
	}
	info, err := os.Stat(filepath.Join(im.o.LockDir, "img."+id.String()+".import.lock"))
	if err != nil || info.Size() != 0 {
		t.Errorf("the lock file: %v, %v", info, err)
	}
	im.o.LockDir = filepath.Join(im.o.LockDir, "nowhere")
	if _, err := im.lock(ctx, id, false); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := im.lock(ctx, id, false); !errors.Is(err, os.ErrNotExist) {
		t.Error("again:", err)
	}
}

// While imgadm imports an image we wait, and find it there.
func TestImportedByAnother(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 96)
	base, other := s.base.image(t, "gzip"), s.other.image(t, "gzip")
	f := newFiles(base, other)
	im := newImporter(t, p, f)
	imgadm := newImporter(t, p, f) // with a lock of its own
	imgadm.o.DBDir = im.o.DBDir
	imgadm.o.Source = ""
	release := lockedElsewhere(t, im, base.UUID)

	waiting := make(chan Progress, 1)
	type result struct {
		Outcome
		error
	}
	ended := make(chan result)
	go func() {
		o, err := im.Install(t.Context(), "", base.Manifest, func(p Progress) { waiting <- p })
		ended <- result{o, err}
	}()
	if p := <-waiting; p != (Progress{}) {
		t.Errorf("%+v", p)
	}
	// An image that another waits for keeps nobody from installing another.
	if o, err := im.Install(t.Context(), "", other.Manifest, nil); err != nil || o != Done {
		t.Error(o, err)
	}
	if o, err := imgadm.Install(t.Context(), "", base.Manifest, nil); err != nil || o != Done {
		t.Error(o, err)
	}
	opened := f.opened
	release()
	if r := <-ended; r.error != nil || r.Outcome != Present || f.opened != opened {
		t.Errorf("%+v", r)
	}
	if r, err := im.record(p.name, base.UUID); err != nil || r.Source != "" {
		t.Errorf("the record was written again: %+v, %v", r, err)
	}

	// A wait that is given up changes nothing.
	im.destroy(t.Context(), p.name+"/"+base.UUID.String())
	release = lockedElsewhere(t, im, base.UUID)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := im.Install(ctx, "", base.Manifest, func(Progress) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// One image is received at a time, in the order of the calls, however long it takes
// to find out what is there.
func TestOneAtATime(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 128)
	images := []image{s.base.image(t, "gzip"), s.middle.image(t, "gzip"), s.top.image(t, "gzip")}
	f := newFiles(images...)
	f.gate = make(chan struct{})
	half := make(chan struct{}, 100)
	f.half = func() { half <- struct{}{} }
	im := newImporter(t, p, f)
	// The first call's question whether the pool is there takes until the gate opens.
	bin := t.TempDir()
	script := fmt.Sprintf(`#!/bin/sh
if mkdir %[1]s/asked 2>/dev/null; then
	until [ -e %[1]s/go ]; do sleep 0.02; done
fi
exec %[2]s "$@"
`, bin, need(t, "zpool"))
	if err := os.WriteFile(filepath.Join(bin, "zpool"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(need(t, "zfs"), filepath.Join(bin, "zfs")); err != nil {
		t.Fatal(err)
	}
	im.o.ZFSPath = bin
	ended := make(chan error)
	for n, i := range images { // each needs the one before
		waits := make(chan struct{}, 1000)
		go func() {
			_, err := im.Install(t.Context(), "", i.Manifest, func(Progress) { waits <- struct{}{} })
			ended <- err
		}()
		<-waits
		for n == 0 { // its question is the slow one
			if _, err := os.Stat(filepath.Join(bin, "asked")); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-half
	if f.opened != 1 {
		t.Errorf("%d files are open", f.opened)
	}
	close(f.gate)
	for range images {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	p.wantImages(im, s.base, s.middle, s.top)
}

// A place in the queue is the turn of the first one only, and who leaves keeps none
// waiting.
func TestTurn(t *testing.T) {
	var q turn
	first, second, third := q.join(), q.join(), q.join()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := first.wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := third.wait(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	second.leave()
	first.leave()
	first.leave()
	if err := third.wait(t.Context()); err != nil {
		t.Error(err)
	}
	fourth := q.join()
	if err := fourth.wait(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	third.leave()
	if err := fourth.wait(t.Context()); err != nil {
		t.Error(err)
	}
}
