package mirror

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/zfsimport"
)

// fakePools is a pool that takes in whatever comes.
type fakePools struct {
	check     error
	recover   error
	refuses   map[string]error // by name of the image
	installed chan string      // is given the names of the images in the pool, when set

	mu    sync.Mutex
	calls []string // "recover", "install NAME"
	wait  bool     // of the last Batch
	there []zfsimport.Installed
}

func (p *fakePools) note(call string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
}

// took gives what was asked of the pool, and forgets it.
func (p *fakePools) took() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := strings.Join(p.calls, ", ")
	p.calls = nil
	return calls
}

func (p *fakePools) Check(context.Context, string) error { return p.check }

func (p *fakePools) Recover(context.Context, string) error {
	p.note("recover")
	return p.recover
}

func (p *fakePools) Fits(_ context.Context, image manifest.Manifest) error {
	if err := p.refuses[image.Name]; errors.Is(err, zfsimport.ErrPlatform) {
		return err
	}
	return nil
}

func (p *fakePools) Batch(_ string, _ []manifest.Manifest, wait bool) Batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait = wait
	return fakeBatch{p}
}

func (p *fakePools) Stage(context.Context, manifest.Manifest, func(zfsimport.Progress)) (zfsimport.Outcome, error) {
	return zfsimport.Done, nil
}

func (p *fakePools) Installed(context.Context, string) ([]zfsimport.Installed, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.there), nil
}

// fakeBatch is a batch of the fake pool.
type fakeBatch struct{ *fakePools }

func (fakeBatch) Close() {}

func (b fakeBatch) Install(_ context.Context, image manifest.Manifest, _ func(zfsimport.Progress)) (zfsimport.Outcome, error) {
	b.note("install " + image.Name)
	if err := b.refuses[image.Name]; err != nil {
		return "", err
	}
	b.mu.Lock()
	b.there = append(b.there, zfsimport.Installed{UUID: image.UUID, Record: true})
	b.mu.Unlock()
	if b.installed != nil {
		b.installed <- image.Name
	}
	return zfsimport.Done, nil
}

// stepNames are the names of images, in the order of the steps.
func stepNames(steps []Step) string {
	var all []string
	for _, st := range steps {
		all = append(all, st.Entry.Manifest.Name)
	}
	return strings.Join(all, " ")
}

// What standing wishes ask for: each image after its origins, families together, and none twice. A
// wish that no image satisfies keeps no other from being satisfied.
func TestInstallOrder(t *testing.T) {
	m := newMirror(t, testOptions(t, sampleSource(t)))
	f := func(want string, failures int, all ...Wanted) {
		t.Helper()
		images := m.wishes(t.Context(), all, func(uuid.UUID, error) { failures-- })
		steps, err := m.PlanInstall(t.Context(), images, Target{})
		if got := stepNames(steps); got != want || err != nil || failures != 0 {
			t.Errorf("%s, %v, want %s; %d more failures than there were", got, err, want, failures)
		}
	}
	app := Wanted{UUIDs: []uuid.UUID{sampleApp}}
	f("", 0)
	f("sample-base sample-web sample-app", 0, matching(t, "name=sample-app"))
	f("sample-base sample-web sample-app", 0, app)
	f("sample-base sample-web sample-app sample-xz", 0, matching(t, "name=sample-web"), matching(t, "name=sample-xz"), app)
	f("", 1, matching(t, "name=nobody"), Wanted{UUIDs: []uuid.UUID{uuid.New()}})
	f("sample-base sample-web sample-app", 1, Wanted{UUIDs: []uuid.UUID{uuid.New()}}, app)
	f("sample-plain sample-xz sample-bzip2 sample-base sample-web sample-app", 0, matching(t, "name=~sample"))
}

// An image that no list shows, and that a UUID names, is wanted.
func TestWishForUnlisted(t *testing.T) {
	server, source := newSource(t)
	file := upstreamtest.Bytes(1, 1000)
	id := upstreamtest.ID(1)
	if err := server.Add(upstreamtest.Manifest(id, "hidden", "1", nil, file), file); err != nil {
		t.Fatal(err)
	}
	server.Unlist(id)
	m := newMirror(t, testOptions(t, source))
	got := m.wishes(t.Context(), []Wanted{{UUIDs: []uuid.UUID{id}}}, func(_ uuid.UUID, err error) { t.Error(err) })
	if len(got) != 1 || got[0].Manifest.Name != "hidden" {
		t.Errorf("got %v", got)
	}
}

// A pass puts right what an earlier process left, once, installs what is wanted and what comes to be
// wanted later, and goes on past what cannot be installed. An image that fails waits, and what is
// built on the image with it; the failure is told once.
func TestWishes(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	log := logged(&o)
	pool := &fakePools{refuses: map[string]error{"sample-web": zfsimport.ErrSnapshots}}
	o.Pools = pool
	m := newMirror(t, o)
	k := m.newKeeper()
	pass := func(want string, missing float64, trouble bool) {
		t.Helper()
		next := k.pass(t.Context())
		if got := pool.took(); got != want {
			t.Errorf("the pool was asked %q, want %q", got, want)
		}
		if pool.wait {
			t.Error("images that another process imports are waited for")
		}
		if got := testutil.ToFloat64(m.missing); got != missing {
			t.Errorf("%v images are missing, want %v", got, missing)
		}
		if next.After(time.Now()) != trouble {
			t.Errorf("the next pass is at %v", next)
		}
	}
	wishes := []Wanted{matching(t, "name=sample-app"), matching(t, "name=sample-xz")}
	adjust(m, func(r *Rules) { r.Install = wishes })
	pass("recover, install sample-base, install sample-web, install sample-xz", 2, true)
	pass("", 2, true)
	adjust(m, func(r *Rules) { r.Install = append(wishes, matching(t, "name=sample-plain")) })
	pass("install sample-plain", 2, true)
	if lines := log.lines("level=WARN"); len(lines) != 1 || !strings.Contains(lines[0], zfsimport.ErrSnapshots.Error()) || !strings.Contains(lines[0], sampleWeb.String()) {
		t.Errorf("warnings: %q", lines)
	}

	pool.refuses = nil
	k.trouble[sampleWeb].next = time.Now() // its time has come
	pass("install sample-web, install sample-app", 0, false)
	pass("", 0, false)
}

// Images that the machine cannot run are missing, and their failure is told; they are not tried.
func TestWishCannotRun(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	log := logged(&o)
	pool := &fakePools{refuses: map[string]error{"sample-base": zfsimport.ErrPlatform}}
	o.Pools = pool
	o.Rules.Install = []Wanted{matching(t, "name=~sample-b"), matching(t, "name=sample-web")}
	m := newMirror(t, o)
	k := m.newKeeper()
	k.pass(t.Context())
	if got := pool.took(); got != "recover, install sample-bzip2" {
		t.Errorf("the pool was asked %q", got)
	}
	if got := testutil.ToFloat64(m.missing); got != 2 {
		t.Errorf("%v images are missing", got)
	}
	if lines := log.lines("level=WARN"); len(lines) != 1 || !strings.Contains(lines[0], sampleBase.String()) {
		t.Errorf("warnings: %q", lines)
	}
	if k.trouble[sampleBase].wait != maxRetry {
		t.Errorf("the next try is after %s: only a restart of the machine helps", k.trouble[sampleBase].wait)
	}
}

// A mirror that runs installs what its rules ask for, and what other rules ask for later.
func TestInstallWishes(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	pool := &fakePools{installed: make(chan string)}
	o.Pools = pool
	o.Rules.Installing, o.Rules.Install = true, []Wanted{matching(t, "name=sample-web")}
	m, _ := runMirror(t, o)
	next := func(want string) {
		t.Helper()
		select {
		case got := <-pool.installed:
			if got != want {
				t.Errorf("%s was installed, want %s", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s is not installed", want)
		}
	}
	next("sample-base")
	next("sample-web")
	adjust(m, func(r *Rules) { r.Install = []Wanted{matching(t, "name=sample-app")} })
	next("sample-app")
}

// A host without the pool is told of once, and looked at again later. A pool with remains that cannot
// be cleared away takes in images, and the next pass tries again.
func TestWishesWithoutPool(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	log := logged(&o)
	pool := &fakePools{check: zfsimport.ErrNoZFS}
	o.Pools = pool
	o.Rules.Install = []Wanted{matching(t, "name=sample-base")}
	m := newMirror(t, o)
	k := m.newKeeper()
	for range 3 {
		if next := k.pass(t.Context()); !next.After(time.Now()) {
			t.Errorf("next at %v", next)
		}
	}
	if got := pool.took(); got != "" {
		t.Errorf("the pool was asked %q", got)
	}
	if lines := log.lines(zfsimport.ErrNoZFS.Error()); len(lines) != 1 {
		t.Errorf("told: %q", lines)
	}

	pool.check, pool.recover = nil, errPool
	k.pass(t.Context())
	if got := pool.took(); got != "recover, install sample-base" {
		t.Errorf("the pool was asked %q", got)
	}
	pool.recover = nil
	if next := k.pass(t.Context()); !next.IsZero() {
		t.Errorf("all is well, and the next pass is at %v", next)
	}
	if got := pool.took(); got != "recover" {
		t.Errorf("the pool was asked %q", got)
	}
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logText)
		m := &Mirror{log: slog.New(slog.NewTextHandler(log, nil))}
		k := m.newKeeper()
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
			if n := len(log.lines("")); n != lines {
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
		fail(zfsimport.ErrPlatform, time.Hour, 5)
	})
}
