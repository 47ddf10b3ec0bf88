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
	js := newJobs()
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
	_, err := js.start("fetch", nil, hold)
	if status, _ := judge(err); status != http.StatusTooManyRequests {
		t.Errorf("%v", err)
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
	watch := s.jobs.watch(nil)
	defer watch.close()
	failing, err := s.jobs.start("refresh", nil, func(context.Context, *job) error { return errors.New("no") })
	if err != nil {
		t.Fatal(err)
	}
	<-failing.done
	<-watch.wake
	if all := watch.take(); len(all) != 1 || all[0].Kind != "refresh" || all[0].State != JobFailed || all[0].Error.Message != "no" {
		t.Errorf("%+v", all)
	}
	if all := watch.take(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	old := s.jobs.watch(ended) // one that is over is told, and nothing after it
	defer old.close()
	<-old.wake
	if all := old.take(); len(all) != 1 || all[0].State != JobDone {
		t.Errorf("%+v", all)
	}
}
