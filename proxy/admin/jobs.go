package admin

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/meaning"
)

const (
	maxRunningJobs = 16      // at the same time, those that wait for their turn included; more are refused
	maxWatchers    = 64      // event streams at the same time; more are refused
	keepJobs       = 100     // that are over
	keepItems      = 100_000 // of jobs that are over, all together

	stopping = "the mirror is stopping" // told of jobs that cannot start, or go on
)

// jobs is every job under way and the last ones that are over. Each job runs on
// a goroutine of its own, with a context of its own; stop ends them all.
type jobs struct {
	life    context.Context // of all jobs
	end     context.CancelFunc
	runs    sync.WaitGroup // added to under mu while not stopped
	heavy   chan struct{}  // the turn of jobs that read and hash all the time: one at a time
	metrics *metrics

	mu       sync.Mutex // guards what follows, and the states of the jobs
	stopped  bool
	running  int
	all      []*job // oldest first
	watchers map[*watcher]struct{}
	glances  int // event streams that are about no job
}

func newJobs(m *metrics) *jobs {
	j := &jobs{watchers: make(map[*watcher]struct{}), heavy: make(chan struct{}, 1), metrics: m}
	j.life, j.end = context.WithCancel(context.Background())
	return j
}

// job is one job. Its work reports by update; all else is for jobs to do.
type job struct {
	of     *jobs
	cancel context.CancelFunc
	done   chan struct{} // closed once the job is over
	state  Job           // guarded by jobs.mu, but for ID, Kind and Started
}

// start runs work as a job over items. work returns soon after its context ends;
// its error is of the job as a whole: what befell one image is for the image's item.
func (js *jobs) start(kind string, items []Item, work func(context.Context, *job) error) (*job, error) {
	ctx, cancel := context.WithCancel(js.life)
	j := &job{of: js, cancel: cancel, done: make(chan struct{}), state: Job{
		ID: uuid.NewString(), Kind: kind, State: JobRunning, Started: time.Now().UTC(), Items: items,
	}}
	for _, item := range items {
		j.state.Done += item.Done
		j.state.Total += item.Total
	}
	js.mu.Lock()
	defer js.mu.Unlock()
	switch {
	case js.stopped:
		cancel()
		js.metrics.refused[refusedStopping].Inc()
		return nil, refuse(http.StatusServiceUnavailable, meaning.Unavailable, stopping)
	case js.running >= maxRunningJobs:
		cancel()
		js.metrics.refused[refusedJobs].Inc()
		return nil, refuse(http.StatusTooManyRequests, codeTooManyJobs,
			"%d jobs are running: wait for one to end, or cancel one", js.running)
	}
	js.running++
	js.all = append(js.all, j)
	js.runs.Go(func() {
		defer cancel()
		var err error
		if kind == kindVerify {
			err = js.alone(ctx, j, work)
		} else {
			defer js.metrics.running(kind)()
			err = work(ctx, j)
		}
		j.finish(ctx, err)
	})
	js.touch(j)
	return j, nil
}

// alone does work once no other heavy job is at work. A job that ends before its turn is cancelled as
// its items tell.
func (js *jobs) alone(ctx context.Context, j *job, work func(context.Context, *job) error) error {
	over := js.metrics.waiting(j.state.Kind)
	select {
	case js.heavy <- struct{}{}:
		over()
	case <-ctx.Done():
		over()
		return nil
	}
	defer func() { <-js.heavy }()
	defer js.metrics.running(j.state.Kind)()
	return work(ctx, j)
}

// stop cancels all jobs and waits for them; none can be started any more.
func (js *jobs) stop() {
	js.mu.Lock()
	js.stopped = true
	js.mu.Unlock()
	js.end()
	js.runs.Wait()
}

// get finds a job; the error is that of the API.
func (js *jobs) get(id string) (*job, error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	for _, j := range js.all {
		if j.state.ID == id {
			return j, nil
		}
	}
	return nil, refuse(http.StatusNotFound, meaning.NotFound, "job %q was not found", shorten(id))
}

// list gives all jobs, oldest first, without their items.
func (js *jobs) list() []Job {
	js.mu.Lock()
	defer js.mu.Unlock()
	out := make([]Job, len(js.all))
	for i, j := range js.all {
		out[i] = j.state
		out[i].Items = []Item{}
	}
	return out
}

// underWay gives the jobs that run, oldest first, without their items.
func (js *jobs) underWay() []Job {
	return slices.DeleteFunc(js.list(), Job.Over)
}

// prune forgets the oldest jobs that are over. js.mu is held.
func (js *jobs) prune() {
	over, items := 0, 0
	for i := len(js.all) - 1; i >= 0; i-- {
		if state := &js.all[i].state; state.Over() {
			over++
			items += len(state.Items)
			if over > keepJobs || items > keepItems && over > 1 {
				js.all = slices.Delete(js.all, i, i+1)
			}
		}
	}
}

// snapshot is a copy of the job's state.
func (j *job) snapshot() Job {
	j.of.mu.Lock()
	defer j.of.mu.Unlock()
	state := j.state
	state.Items = slices.Clone(state.Items)
	return state
}

// update changes one item.
func (j *job) update(i int, change func(*Item)) {
	j.of.mu.Lock()
	defer j.of.mu.Unlock()
	item := &j.state.Items[i]
	j.state.Done -= item.Done
	j.state.Total -= item.Total
	change(item)
	j.state.Done += item.Done
	j.state.Total += item.Total
	j.of.touch(j)
}

// finish makes the last state of the job, after its work has returned err.
func (j *job) finish(ctx context.Context, err error) {
	j.of.mu.Lock()
	defer j.of.mu.Unlock()
	cut, failed := false, false
	for i := range j.state.Items {
		item := &j.state.Items[i]
		switch item.State {
		case ItemWaiting, JobRunning:
			cut = true
			item.State = JobCancelled
		case JobFailed, ItemQuarantined, ItemSkipped:
			failed = true
		}
	}
	state := &j.state
	state.Ended = time.Now().UTC()
	switch {
	case ctx.Err() != nil && (cut || err != nil):
		state.State = JobCancelled
		if j.of.life.Err() != nil {
			state.Error = &Error{Code: meaning.Unavailable, Message: stopping}
		}
	case err != nil:
		state.State = JobFailed
		state.Error = explain(err)
	case failed:
		state.State = JobFailed
	default:
		state.State = JobDone
	}
	j.of.metrics.ended.WithLabelValues(state.Kind, state.State).Inc()
	j.of.running--
	j.of.prune()
	j.of.touch(j)
	close(j.done)
}

// watcher follows jobs by the set of the jobs that have changed since the last take. A slow watcher
// costs no more than the set.
type watcher struct {
	of   *jobs
	only *job          // nil: all jobs
	wake chan struct{} // holds a token while changed is not empty

	changed map[*job]struct{} // guarded by jobs.mu
}

// watch begins to follow only, or all jobs. At first only counts as changed, and of all jobs those
// that run. The caller calls close. There are maxWatchers at most; the error is that of the API.
func (js *jobs) watch(only *job) (*watcher, error) {
	w := &watcher{of: js, only: only, wake: make(chan struct{}, 1), changed: make(map[*job]struct{})}
	js.mu.Lock()
	defer js.mu.Unlock()
	if err := js.mayWatch(); err != nil {
		return nil, err
	}
	js.watchers[w] = struct{}{}
	if only != nil { // also a job so old that it is in no list
		w.note(only)
		return w, nil
	}
	for _, j := range js.all {
		if !j.state.Over() {
			w.note(j)
		}
	}
	return w, nil
}

// streams is the number of event streams.
func (js *jobs) streams() int {
	js.mu.Lock()
	defer js.mu.Unlock()
	return len(js.watchers) + js.glances
}

// mayWatch refuses one event stream too many. js.mu is held.
func (js *jobs) mayWatch() error {
	if open := len(js.watchers) + js.glances; open >= maxWatchers {
		js.metrics.refused[refusedStreams].Inc()
		return refuse(http.StatusTooManyRequests, codeTooManyStreams,
			"%d event streams are open: close one, or ask without a stream", open)
	}
	return nil
}

// watchStatus counts an event stream that is about no job, until over is called.
func (js *jobs) watchStatus() (over func(), err error) {
	js.mu.Lock()
	defer js.mu.Unlock()
	if err := js.mayWatch(); err != nil {
		return nil, err
	}
	js.glances++
	return func() {
		js.mu.Lock()
		defer js.mu.Unlock()
		js.glances--
	}, nil
}

func (w *watcher) close() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.watchers, w)
}

// note marks j as changed. jobs.mu is held.
func (w *watcher) note(j *job) {
	w.changed[j] = struct{}{}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take gives the jobs that have changed, oldest first.
func (w *watcher) take() []*job {
	w.of.mu.Lock()
	changed := w.changed
	w.changed = make(map[*job]struct{})
	w.of.mu.Unlock()
	// Started and ID never change.
	return slices.SortedFunc(maps.Keys(changed), func(a, b *job) int {
		return cmp.Or(a.state.Started.Compare(b.state.Started), cmp.Compare(a.state.ID, b.state.ID))
	})
}

// touch tells watchers that j has changed. js.mu is held.
func (js *jobs) touch(j *job) {
	for w := range js.watchers {
		if w.only == nil || w.only == j {
			w.note(j)
		}
	}
}
