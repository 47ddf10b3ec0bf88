package admin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/valyala/fasthttp/fasthttputil"

	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream/upstreamtest"
)

// fetching starts a fetch job.
func (f *fixture) fetching(n ...int) Job {
	f.t.Helper()
	var job Job
	f.want(202, "POST", "/fetch", wanted(n...), &job)
	return job
}

// cancels ends a job that is under way and looks at how it ended.
func (f *fixture) cancels(job Job, want string) {
	f.t.Helper()
	var ended Job
	f.want(200, "DELETE", "/jobs/"+job.ID, nil, &ended)
	if got := states(ended); got != want {
		f.t.Errorf("%q, want %q", got, want)
	}
	if ended.Ended.IsZero() {
		f.t.Error("it has no end")
	}
	var again Job
	f.want(200, "DELETE", "/jobs/"+job.ID, nil, &again)
	if states(again) != states(ended) {
		f.t.Errorf("after the end: %q, was %q", states(again), states(ended))
	}
}

func TestCancelFetchInEveryPhase(t *testing.T) {
	t.Run("waiting for a slot", func(t *testing.T) {
		f := newFixture(t, func(o *mirror.Options) { o.Rules.FillSlots = 1 })
		f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 1000})
		first := f.fetching(4)
		f.awaitBytes("/file", 1000)
		f.cancels(f.fetching(3), "cancelled: 1 cancelled, 2 cancelled, 3 cancelled")
		f.cancels(first, "cancelled: 4 cancelled")
	})
	t.Run("waiting for the source to answer", func(t *testing.T) {
		f := newFixture(t)
		f.source.Inject(upstreamtest.Fault{Path: "/file", Delay: time.Hour})
		job := f.fetching(3)
		if err := f.source.Await(t.Context(), func([]upstreamtest.Request) bool { return f.source.Count("/file") > 0 }); err != nil {
			t.Fatal(err)
		}
		f.cancels(job, "cancelled: 1 cancelled, 2 cancelled, 3 cancelled")
	})
	t.Run("in mid-file", func(t *testing.T) {
		f := newFixture(t)
		f.source.Inject(upstreamtest.Fault{Path: id(2) + "/file", Stall: true, After: 100_000, Times: 1})
		job := f.fetching(3)
		f.awaitBytes(id(2)+"/file", 100_000)
		f.cancels(job, "cancelled: 1 done, 2 cancelled, 3 cancelled")
	})
	t.Run("while the last block is held back", func(t *testing.T) {
		f := newFixture(t)
		f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 200_003})
		job := f.fetching(4)
		f.awaitBytes("/file", 200_003)
		f.cancels(job, "cancelled: 4 cancelled")
	})
	t.Run("after the end", func(t *testing.T) {
		f := newFixture(t)
		f.cancels(f.fetched(4), "done: 4 done")
	})
}

// A cancelled fetch ends the download that it alone wanted: the next one begins
// another, which goes on where that was.
func TestCancelledFetchGoesOnWhenAskedAgain(t *testing.T) {
	f := newFixture(t)
	f.source.Inject(upstreamtest.Fault{Path: "/file", Cut: true, After: 150_000, Times: 1})
	f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true})
	job := f.fetching(4)
	if err := f.source.Await(t.Context(), func([]upstreamtest.Request) bool { return f.source.Count("/file") > 1 }); err != nil {
		t.Fatal(err)
	}
	f.cancels(job, "cancelled: 4 cancelled")
	f.source.Heal() // for new requests
	if got := states(f.fetched(4)); got != "done: 4 done" {
		t.Error(got)
	}
	if sent := f.source.Bytes("/file"); sent > 220_000 {
		t.Errorf("the source sent %d bytes for a file of 200,004", sent)
	}
}

func TestCancelRefresh(t *testing.T) {
	f := newFixture(t)
	var job Job
	f.source.Inject(upstreamtest.Fault{Path: "/images", Delay: time.Hour})
	f.want(202, "POST", "/sources/refresh", nil, &job)
	f.cancels(job, "cancelled: ")
}

func TestJobsAreBounded(t *testing.T) {
	js := newJobs(newMetrics())
	defer js.stop()
	hold := func(ctx context.Context, _ *job) error { <-ctx.Done(); return ctx.Err() }
	var running []*job
	for range maxRunningJobs {
		j, err := js.start("fetch", nil, hold)
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, j)
	}
	for range 10_000 {
		_, err := js.start("fetch", nil, hold)
		if status, _ := judge(err); status != http.StatusTooManyRequests {
			t.Fatalf("%v", err)
		}
	}
	if n := testutil.ToFloat64(js.metrics.refused[refusedJobs]); n != 10_000 || len(js.list()) != maxRunningJobs {
		t.Errorf("%v refusals are counted, %d jobs remembered", n, len(js.list()))
	}
	for _, j := range running {
		j.cancel()
		<-j.done
	}
	for range 3 * keepJobs {
		j, err := js.start("fetch", []Item{{State: JobDone}}, func(context.Context, *job) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		<-j.done
	}
	if n := len(js.list()); n != keepJobs {
		t.Errorf("%d jobs are remembered, want %d", n, keepJobs)
	}
	for range 3 {
		j, err := js.start("fetch", make([]Item, keepItems/2), func(context.Context, *job) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		<-j.done
	}
	if n := len(js.list()); n != 2 {
		t.Errorf("%d large jobs are remembered, want 2", n)
	}
}

func TestStopEndsJobsAndEvents(t *testing.T) {
	f := newFixture(t)
	f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 1000})
	ln := fasthttputil.NewInmemoryListener()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, nil, ln) }()
	client, err := NewClient(ClientOptions{OneRequest: true, Dial: func(context.Context) (net.Conn, error) { return ln.Dial() }})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	job, err := client.Fetch(t.Context(), wanted(4))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan struct{}, 1)
	followed := make(chan Job, 1)
	go func() {
		j, err := client.Follow(t.Context(), job.ID, func(Job) {
			select {
			case seen <- struct{}{}:
			default:
			}
		})
		if err != nil {
			t.Error(err)
		}
		followed <- j
	}()
	<-seen
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	j := <-followed
	if j.State != JobCancelled || j.Error == nil || j.Error.Code != meaning.Unavailable {
		t.Errorf("%+v %+v", j, j.Error)
	}
	if _, err := f.jobs.start("fetch", nil, nil); err == nil {
		t.Error("a job can be started after the end")
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		step, stepped := make(chan int64), make(chan struct{})
		j, err := s.jobs.start("fetch", []Item{{UUID: "a", State: ItemWaiting, Total: 10}}, func(ctx context.Context, j *job) error {
			for n := range step {
				j.update(0, func(i *Item) { i.State, i.Done = JobRunning, n })
				stepped <- struct{}{}
			}
			j.update(0, func(i *Item) { i.State = JobDone })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/events?job="+j.state.ID, nil)
		over := make(chan error, 1)
		go func() { over <- s.events(w, r) }()
		synctest.Wait()
		// Many changes within one pause are told at once.
		for n := int64(1); n <= 5; n++ {
			step <- n
			<-stepped
		}
		time.Sleep(eventPause)
		synctest.Wait()
		time.Sleep(keepAlive)
		synctest.Wait()
		close(step)
		time.Sleep(eventPause)
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		body := w.Body.String()
		if n := strings.Count(body, "event: job\n"); n != 3 {
			t.Errorf("%d events, want 3:\n%s", n, body)
		}
		for _, want := range []string{`"done_bytes":5`, ": alive\n\n", `"state":"done"`} {
			if !strings.Contains(body, want) {
				t.Errorf("no %s in\n%s", want, body)
			}
		}
		if got := w.Header().Get("Content-Type"); got != "text/event-stream" {
			t.Error(got)
		}
		s.jobs.stop()
	})
}

func TestEventsOfAllJobs(t *testing.T) {
	s := New(Options{})
	defer s.jobs.stop()
	ended, err := s.jobs.start("verify", nil, func(context.Context, *job) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	<-ended.done
	watch := watched(t, s.jobs, nil)
	failing, err := s.jobs.start("refresh", nil, func(context.Context, *job) error { return errors.New("no") })
	if err != nil {
		t.Fatal(err)
	}
	<-failing.done
	<-watch.wake
	if all := watch.take(); len(all) != 1 || all[0].state.Kind != "refresh" || all[0].snapshot().State != JobFailed || all[0].snapshot().Error.Message != "no" {
		t.Errorf("%+v", all)
	}
	if all := watch.take(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	old := watched(t, s.jobs, ended) // one that is over is told, and nothing after it
	<-old.wake
	if all := old.take(); len(all) != 1 || all[0].snapshot().State != JobDone {
		t.Errorf("%+v", all)
	}
}

func watched(t testing.TB, js *jobs, only *job) *watcher {
	t.Helper()
	w, err := js.watch(only)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// Event streams are bounded, and a stream that ends makes room for another.
func TestStreamsAreBounded(t *testing.T) {
	js := newJobs(newMetrics())
	defer js.stop()
	j, err := js.start(kindFetch, nil, func(ctx context.Context, _ *job) error { <-ctx.Done(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	for range maxWatchers - 1 {
		watched(t, js, j)
	}
	last, err := js.watch(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := js.watch(j); err == nil {
			t.Fatal("one stream too many")
		} else if status, told := judge(err); status != http.StatusTooManyRequests || told.Code != codeTooManyStreams {
			t.Errorf("%d %+v", status, told)
		}
	}
	if n := testutil.ToFloat64(js.metrics.refused[refusedStreams]); n != 3 || js.streams() != maxWatchers {
		t.Errorf("%v refusals are counted, %d streams are open", n, js.streams())
	}
	last.close()
	watched(t, js, j)
}

// One verify job is at work at a time. The others wait for their turn, hold up no other job, and can be cancelled.
func TestVerifyJobsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		js := newJobs(newMetrics())
		defer js.stop()
		gate := make(chan struct{})
		began := make(map[int]bool)
		work := func(n int) func(context.Context, *job) error {
			return func(ctx context.Context, j *job) error {
				began[n] = true
				select {
				case <-gate:
					j.update(0, func(i *Item) { i.State = JobDone })
				case <-ctx.Done():
				}
				return nil
			}
		}
		start := func(kind string, n int) *job {
			t.Helper()
			j, err := js.start(kind, []Item{{State: ItemWaiting}}, work(n))
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			return j
		}
		gauge := func(kind, state string, want float64) {
			t.Helper()
			if got := testutil.ToFloat64(js.metrics.jobs.WithLabelValues(kind, state)); got != want {
				t.Errorf("%v jobs of kind %s are %s, want %v", got, kind, state, want)
			}
		}
		first, second, third, fetch := start(kindVerify, 1), start(kindVerify, 2), start(kindVerify, 3), start(kindFetch, 4)
		if !began[1] || began[2] || began[3] || !began[4] {
			t.Errorf("at work are %v", began)
		}
		gauge(kindVerify, JobRunning, 1)
		gauge(kindVerify, ItemWaiting, 2)
		gauge(kindFetch, JobRunning, 1)
		second.cancel()
		<-second.done
		close(gate)
		for _, j := range []*job{first, third, fetch} {
			<-j.done
		}
		if second.snapshot().State != JobCancelled || third.snapshot().State != JobDone || began[2] {
			t.Errorf("second %+v, third %+v", second.snapshot(), third.snapshot())
		}
		synctest.Wait()
		gauge(kindVerify, JobRunning, 0)
		gauge(kindVerify, ItemWaiting, 0)
		gauge(kindFetch, JobRunning, 0)
	})
}

// With no stream left, a job is followed by asking for it.
func TestFollowWithoutAStream(t *testing.T) {
	f := newFixture(t)
	c := f.client()
	for range maxWatchers {
		watched(t, f.jobs, nil)
	}
	job, err := c.Fetch(t.Context(), wanted(4))
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	if last, err := c.Follow(t.Context(), job.ID, func(Job) { told++ }); err != nil || last.State != JobDone || told == 0 {
		t.Errorf("%+v, %v, told %d times", last, err, told)
	}
}
