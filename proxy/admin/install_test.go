package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
	"imgmirror/zfsimport"
)

// fakePools is a pool that takes in whatever comes.
type fakePools struct {
	// receive, when set, takes its time for an image, or fails.
	receive func(ctx context.Context, name string) error
	unfit   string // name of the image that this machine cannot run

	mu    sync.Mutex
	calls []string // "prepare POOL", "install NAME into POOL", "stage NAME"
	there []zfsimport.Installed
}

func (p *fakePools) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprintf(format, args...))
}

// took gives what was asked of it, and forgets it.
func (p *fakePools) took() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

func (p *fakePools) Check(context.Context, string) error { return nil }

func (p *fakePools) Recover(_ context.Context, pool string) error {
	p.note("prepare %s", pool)
	return nil
}

func (p *fakePools) Fits(_ context.Context, image manifest.Manifest) error {
	if image.Name == p.unfit {
		return fmt.Errorf("%w: needs another platform", zfsimport.ErrPlatform)
	}
	return nil
}

func (p *fakePools) Batch(pool string, _ []manifest.Manifest, _ bool) mirror.Batch {
	return fakeBatch{p, pool}
}

// fakeBatch is a batch of the fake pool.
type fakeBatch struct {
	*fakePools
	pool string
}

func (fakeBatch) Close() {}

func (b fakeBatch) Install(ctx context.Context, image manifest.Manifest, progress func(zfsimport.Progress)) (zfsimport.Outcome, error) {
	p, pool := b.fakePools, b.pool
	p.note("install %s into %s", image.Name, pool)
	progress(zfsimport.Progress{Read: 1, Written: 2})
	if p.receive != nil {
		if err := p.receive(ctx, image.Name); err != nil {
			return "", err
		}
	}
	progress(zfsimport.Progress{Read: image.Files[0].Size, Written: 3 * image.Files[0].Size})
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.there {
		if p.there[i].UUID == image.UUID {
			p.there[i].Record = true
			return zfsimport.Repaired, nil
		}
	}
	p.there = append(p.there, zfsimport.Installed{UUID: image.UUID, Pool: pool, Dataset: pool + "/" + image.UUID.String(), Record: true, Manifest: &image})
	return zfsimport.Done, nil
}

func (p *fakePools) Stage(ctx context.Context, image manifest.Manifest, progress func(zfsimport.Progress)) (zfsimport.Outcome, error) {
	p.note("stage %s", image.Name)
	if p.receive != nil {
		if err := p.receive(ctx, image.Name); err != nil {
			return "", err
		}
	}
	progress(zfsimport.Progress{Read: image.Files[0].Size})
	return zfsimport.Done, nil
}

func (p *fakePools) Installed(_ context.Context, pool string) ([]zfsimport.Installed, error) {
	if pool == "none" {
		return nil, fmt.Errorf("%w: pool none is not there", zfsimport.ErrNoPool)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.there), nil
}

// installing starts an install.
func (f *fixture) installing(pool string, n ...int) Job {
	f.t.Helper()
	var job Job
	f.want(202, "POST", "/install", Install{Wanted: wanted(n...), Pool: pool}, &job)
	return job
}

func (f *fixture) wantCalls(want ...string) {
	f.t.Helper()
	if got := f.pool.took(); !slices.Equal(got, want) {
		f.t.Errorf("the pool was asked %q, want %q", got, want)
	}
}

// A chain goes in root first, whatever is asked for first.
func TestInstallChain(t *testing.T) {
	f := newFixture(t)
	var items []Item
	f.want(200, "POST", "/install", Install{Wanted: Wanted{UUIDs: wanted(3, 1).UUIDs, DryRun: true}}, &items)
	if got := states(Job{Items: items}); got != ": 1 waiting, 2 waiting, 3 waiting" {
		t.Errorf("dry run: %s", got)
	}
	f.wantCalls()

	// As the real one does, the pool reads each file to its end.
	reads := map[string]int{"image1": 1, "image2": 2, "image3": 3}
	f.pool.receive = func(ctx context.Context, name string) error {
		entry, err := f.mirror.Get(ctx, uuid.MustParse(id(reads[name])))
		if err != nil {
			return err
		}
		r, err := f.mirror.Open(ctx, entry, 0, cache.Job, cache.ByFetch)
		if err != nil {
			return err
		}
		defer r.Close()
		return r.Stored(ctx)
	}
	job := f.await(f.installing("tank", 3, 1))
	if got := states(job); job.Kind != "install" || got != "done: 1 done, 2 done, 3 done" {
		t.Errorf("%s %s", job.Kind, got)
	}
	f.wantCalls("prepare tank", "install image1 into tank", "install image2 into tank", "install image3 into tank")
	for _, i := range job.Items {
		if i.Done != i.Total || i.Fetched != i.Total || i.Received != 3*i.Total || i.Total == 0 {
			t.Errorf("%+v", i)
		}
	}

	// All is there.
	before := len(f.source.Requests())
	if got := states(f.await(f.installing("tank", 3))); got != "done: 1 present, 2 present, 3 present" {
		t.Error(got)
	}
	f.wantCalls("prepare tank")
	if n := len(f.source.Requests()) - before; n != 0 {
		t.Errorf("%d requests for what is there", n)
	}
	var there []Installed
	f.want(200, "GET", "/installed?pool=tank", nil, &there)
	if len(there) != 3 || there[0].UUID != id(1) || len(there[0].Manifest) == 0 {
		t.Errorf("%+v", there)
	}
}

// An image without a record gets one, and no file is fetched for that.
// TestInstallFamilies: what is built on an image follows the image, whatever comes between in the order that is asked for.
func TestInstallFamilies(t *testing.T) {
	f := newFixture(t)
	w := wanted(1, 4, 2, 3)
	w.DryRun = true
	var items []Item
	f.want(200, "POST", "/install", w, &items)
	var names []string
	for _, i := range items {
		names = append(names, i.Name)
	}
	if got := strings.Join(names, " "); got != "image1 image2 image3 image4" {
		t.Errorf("order %s", got)
	}
	var job Job
	f.want(202, "POST", "/install", wanted(1, 4, 2, 3), &job)
	if got := states(f.await(job)); got != "done: 1 done, 2 done, 3 done, 4 done" {
		t.Error(got)
	}
}

func TestInstallRepairs(t *testing.T) {
	f := newFixture(t)
	f.pool.there = []zfsimport.Installed{{UUID: upstreamtest.ID(4)}}
	if got := states(f.await(f.installing("", 4))); got != "done: 4 repaired" {
		t.Error(got)
	}
	if n := f.source.Count(id(4) + "/file"); n != 0 {
		t.Errorf("the file was asked for %d times", n)
	}
}

// What fails takes its descendants with it, and nothing else.
func TestInstallFails(t *testing.T) {
	f := newFixture(t)
	f.pool.receive = func(_ context.Context, name string) error {
		if name == "image2" {
			return &Error{"ReceiveFailed", "refused"}
		}
		return nil
	}
	job := f.await(f.installing("", 3, 4))
	if got := states(job); got != "failed: 1 done, 2 failed, 3 failed, 4 done" {
		t.Error(got)
	}
	if e := job.Items[1].Error; e == nil || e.Code != "ReceiveFailed" {
		t.Errorf("%+v", e)
	}
	if e := job.Items[2].Error; e == nil || e.Code != codeOriginNotInPool {
		t.Errorf("%+v", e)
	}
}

// What can never run here is told, and not fetched.
func TestInstallSkips(t *testing.T) {
	f := newFixture(t)
	f.pool.unfit = "image1"
	job := f.await(f.installing("", 2, 4))
	if got := states(job); got != "failed: 1 skipped, 2 failed, 4 done" {
		t.Error(got)
	}
	if e := job.Items[0].Error; e == nil || e.Code != "PlatformMismatch" {
		t.Errorf("%+v", e)
	}
	if n := f.source.Count(id(1) + "/file"); n != 0 {
		t.Errorf("its file was asked for %d times", n)
	}
	f.wantCalls("prepare ", "install image4 into ")
}

// An image whose origin no source has can be installed when the pool has it.
func TestInstallOnOriginInPool(t *testing.T) {
	f := newFixture(t)
	file := sampleFile(9)
	orphan := upstreamtest.Manifest(upstreamtest.ID(9), "image9", "1.0", map[string]any{"origin": upstreamtest.ID(8)}, file)
	if err := f.source.Add(orphan, file); err != nil {
		t.Fatal(err)
	}
	if got := states(f.await(f.installing("", 9))); got != "failed: 9 failed" {
		t.Error(got)
	}
	f.pool.there = []zfsimport.Installed{{UUID: upstreamtest.ID(8), Record: true}}
	if got := states(f.await(f.installing("", 9))); got != "done: 9 done" {
		t.Error(got)
	}
}

// While one image is received the files of the next ones come, but not of all.
func TestInstallFetchesAhead(t *testing.T) {
	f := newFixture(t)
	for n := 5; n <= 6; n++ {
		if err := f.source.Add(sample(n, 0), sampleFile(n)); err != nil {
			t.Fatal(err)
		}
	}
	free := make(chan struct{})
	f.pool.receive = func(ctx context.Context, _ string) error {
		select {
		case <-free:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	job := f.installing("", 1, 2, 3, 4, 5, 6)
	for n := 1; n <= 4; n++ {
		f.awaitFile(job, n)
	}
	if n := f.source.Count(id(5) + "/file"); n != 0 {
		t.Errorf("image 5 was fetched while image 1 was received")
	}
	close(free)
	if got := states(f.await(job)); got != "done: 1 done, 2 done, 3 done, 4 done, 5 done, 6 done" {
		t.Error(got)
	}
}

// A job is over only when the downloads that only the job wanted are over.
func TestInstallEndsItsDownloads(t *testing.T) {
	f := newFixture(t)
	f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 1000})
	f.pool.receive = func(context.Context, string) error {
		for len(f.store.Fills()) < 4 { // all that are fetched ahead
			time.Sleep(time.Millisecond)
		}
		return &Error{"ReceiveFailed", "refused"}
	}
	if got := states(f.await(f.installing("", 3, 4))); got != "failed: 1 failed, 2 failed, 3 failed, 4 failed" {
		t.Error(got)
	}
	if fills := f.store.Fills(); len(fills) > 0 {
		t.Errorf("the job is over, and downloads run: %+v", fills)
	}
}

// awaitFile follows the job until the file of image n has been fetched.
func (f *fixture) awaitFile(job Job, n int) {
	f.t.Helper()
	j, err := f.jobs.get(job.ID)
	if err != nil {
		f.t.Fatal(err)
	}
	w := watched(f.t, f.jobs, j)
	for range w.wake {
		for _, changed := range w.take() {
			state := changed.snapshot()
			i := state.Items[n-1]
			if i.Fetched == i.Total {
				return
			}
			if state.Over() {
				f.t.Fatalf("it is over: %s", states(state))
			}
		}
	}
}

// A job that is cancelled ends the receive.
func TestInstallCancelled(t *testing.T) {
	f := newFixture(t)
	began := make(chan struct{})
	f.pool.receive = func(ctx context.Context, _ string) error {
		close(began)
		<-ctx.Done()
		return fmt.Errorf("receive: %w", ctx.Err())
	}
	job := f.installing("", 2)
	<-began
	f.want(200, "DELETE", "/jobs/"+job.ID, nil, &job)
	if got := states(job); got != "cancelled: 1 cancelled, 2 cancelled" {
		t.Error(got)
	}
	f.wantCalls("prepare ", "install image1 into ")
}

// Staging asks no pool, and needs no order.
func TestStage(t *testing.T) {
	f := newFixture(t)
	f.pool.there = []zfsimport.Installed{{UUID: upstreamtest.ID(1), Record: true}}
	f.pool.receive = func(_ context.Context, name string) error {
		if name == "image2" {
			return fmt.Errorf("file: %w", verify.ErrMismatch)
		}
		return nil
	}
	var job Job
	f.want(202, "POST", "/install", Install{Wanted: wanted(3), Stage: true}, &job)
	job = f.await(job)
	if got := states(job); job.Kind != "stage" || got != "failed: 1 done, 2 failed, 3 done" {
		t.Errorf("%s %s", job.Kind, got)
	}
	if e := job.Items[1].Error; e == nil || e.Code != meaning.RemoteSource {
		t.Errorf("%+v", e)
	}
	calls := f.pool.took()
	slices.Sort(calls)
	if want := []string{"stage image1", "stage image2", "stage image3"}; !slices.Equal(calls, want) {
		t.Errorf("asked %q, want %q", calls, want)
	}
}

func TestInstallRefused(t *testing.T) {
	f := newFixture(t)
	f.refused(422, meaning.InvalidParameter, "POST", "/install", Install{Pool: "tank"})
	f.refused(422, meaning.InvalidParameter, "POST", "/install", Install{Wanted: wanted(1), Pool: "tank", Stage: true})
	f.refused(422, meaning.InvalidParameter, "POST", "/install", Install{Wanted: Wanted{Filters: []string{"nonsense"}}})
	f.refused(422, "NoPool", "POST", "/install", Install{Wanted: wanted(1), Pool: "none"})
	f.refused(422, "NoPool", "GET", "/installed?pool=none", nil)
	f.refused(404, meaning.NotFound, "POST", "/install", Install{Wanted: wanted(77)})
	f.wantCalls()

	r := httptest.NewRequest(http.MethodPost, apiPrefix+"/install", strings.NewReader(`{"uuid":"x"}`))
	r.Header.Set("Content-Type", typeJSON)
	var told Error
	if status := f.send(r, &told); status != 400 || told.Code != meaning.BadRequest {
		t.Errorf("status %d, %+v", status, told)
	}
}
