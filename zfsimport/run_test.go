package zfsimport

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
)

// Run recovers, installs what is wanted and what comes to be wanted later, and
// goes on past what it can not install.
func TestRun(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 128)
	base, middle, other := s.base.image(t, "gzip"), s.middle.image(t, "gzip"), s.other.image(t, "gzip")
	bad := newImage(t, uuid.New(), uuid.Nil, "gzip", s.two, nil)
	onBad := newImage(t, uuid.New(), bad.UUID, "gzip", s.top.stream, nil)
	f := newFiles(base, middle, other, bad, onBad)
	im := newImporter(t, p, f)
	var log bytes.Buffer
	im.log = slog.New(slog.NewTextHandler(&log, nil))
	p.leave(t, s.other)

	passes := make(chan int, 10)
	wanted := []manifest.Manifest{bad.Manifest, onBad.Manifest, base.Manifest, middle.Manifest}
	wake := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- im.Run(ctx, func() []manifest.Manifest {
			passes <- 1
			return slices.Clone(wanted)
		}, wake)
	}()
	<-passes
	wake <- struct{}{} // taken when the pass has ended
	<-passes
	wake <- struct{}{}
	<-passes
	p.wantImages(im, s.base, s.middle)
	if n := testutil.ToFloat64(im.metrics.missing); n != 2 {
		t.Errorf("%v are missing", n)
	}
	wanted = append(wanted, other.Manifest)
	wake <- struct{}{}
	<-passes
	wake <- struct{}{}
	<-passes
	p.wantImages(im, s.base, s.middle, s.other)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "unexpected number of snapshots") {
		t.Errorf("%d warnings, want one:\n%s", n, log.String())
	}
	for outcome, want := range map[Outcome]float64{Done: 3, failed: 1, Present: 0} {
		if got := testutil.ToFloat64(im.metrics.installs.WithLabelValues(string(outcome))); got != want {
			t.Errorf("%v installs %s, want %v", got, outcome, want)
		}
	}
}

// A host without the pool is told of once, and looked at again later.
func TestRunWithoutPool(t *testing.T) {
	var log bytes.Buffer
	im := newImporter(t, nil, newFiles())
	im.o.Pool, im.o.ZFSPath = "imgmnosuchpool", t.TempDir()
	im.log = slog.New(slog.NewTextHandler(&log, nil))
	k := &keeper{im: im, wanted: func() []manifest.Manifest { return nil }, trouble: make(map[uuid.UUID]*trouble)}
	for range 3 {
		if next := k.pass(t.Context()); !next.After(time.Now()) {
			t.Errorf("next at %v", next)
		}
	}
	if n := strings.Count(log.String(), "no zfs on this machine"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := im.Run(ctx, k.wanted, nil); err != nil {
		t.Error(err)
	}
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		im := newImporter(t, nil, nil)
		im.log = slog.New(slog.NewTextHandler(&log, nil))
		k := &keeper{im: im, trouble: make(map[uuid.UUID]*trouble)}
		id := uuid.New()
		fail := func(err error, wait time.Duration, lines int) {
			t.Helper()
			k.note(id, err, "it fails")
			if k.due(id) {
				t.Error("due at once")
			}
			time.Sleep(wait - time.Second)
			if k.due(id) {
				t.Errorf("due before %s", wait)
			}
			time.Sleep(time.Second)
			if !k.due(id) {
				t.Errorf("not due after %s", wait)
			}
			if n := strings.Count(log.String(), "\n"); n != lines {
				t.Errorf("%d lines, want %d", n, lines)
			}
		}
		one := errors.New("one")
		fail(one, time.Minute, 1)
		fail(one, 2*time.Minute, 1)
		fail(errors.New("two"), 4*time.Minute, 2)
		for range 10 {
			k.note(id, one, "it fails")
		}
		fail(one, time.Hour, 3)
		k.note(id, nil, "")
		if !k.due(id) {
			t.Error("not due after success")
		}
		fail(one, time.Minute, 4)
		delete(k.trouble, id)
		fail(ErrPlatform, time.Hour, 5)
	})
}

// Every label value is there from the start, and no metric twice.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	if _, err := New(Options{Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 5+2+3 {
		t.Errorf("%d series, %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if _, err := New(Options{Registerer: reg}); err == nil {
		t.Error("the same metrics twice, and no error")
	}
}
