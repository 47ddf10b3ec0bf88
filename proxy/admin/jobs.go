package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/meaning"
)

const (
	maxRunningJobs = 16      // at the same time; more are refused
	keepJobs       = 100     // that are over
	keepItems      = 100_000 // of jobs that are over, all together

	stopping = "the mirror is stopping" // told of jobs that cannot start, or go on
)

// jobs is every job under way and the last ones that are over. Each job runs on
// a goroutine of its own, with a context of its own; stop ends them all.
type jobs struct {
	life context.Context // of all jobs
	end  context.CancelFunc
	runs sync.WaitGroup // added to under mu while not stopped

	mu       sync.Mutex // guards what follows, and the states of the jobs
	stopped  bool
	running  int
	all      []*job // oldest first
	watchers map[*watcher]struct{}
}

func newJobs() *jobs {
	j := &jobs{watchers: make(map[*watcher]struct{})}
	j.life, j.end = context.WithCancel(context.Background())
	return j
}

// job is one job. Its work reports by update; all else is for jobs to do.
type job struct {
	of     *jobs
	cancel context.CancelFunc
	done   chan struct{} // closed once the job is over
	state  Job           // guarded by jobs.mu, but for the ID
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
		return nil, refuse(http.StatusServiceUnavailable, meaning.Unavailable, stopping)
	case js.running >= maxRunningJobs:
		cancel()
		return nil, refuse(http.StatusTooManyRequests, codeTooManyJobs,
			"%d jobs are running: wait for one to end, or cancel one", js.running)
	}
	js.running++
	js.all = append(js.all, j)
	js.runs.Go(func() {
		defer cancel()
		j.finish(ctx, work(ctx, j))
	})
	js.touch(j)
	return j, nil
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
// that run. The caller calls close.
func (js *jobs) watch(only *job) *watcher {
	w := &watcher{of: js, only: only, wake: make(chan struct{}, 1), changed: make(map[*job]struct{})}
	js.mu.Lock()
	defer js.mu.Unlock()
	js.watchers[w] = struct{}{}
	if only != nil { // also a job so old that it is in no list
		w.note(only)
		return w
	}
	for _, j := range js.all {
		if !j.state.Over() {
			w.note(j)
		}
	}
	return w
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

// take gives the jobs that have changed, as they are now, oldest first.
func (w *watcher) take() []Job {
	w.of.mu.Lock()
	changed := w.changed
	w.changed = make(map[*job]struct{})
	w.of.mu.Unlock()
	out := make([]Job, 0, len(changed))
	for j := range changed {
		out = append(out, j.snapshot())
	}
	slices.SortFunc(out, func(a, b Job) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// touch tells watchers that j has changed. js.mu is held.
func (js *jobs) touch(j *job) {
	for w := range js.watchers {
		if w.only == nil || w.only == j {
			w.note(j)
		}
	}
}
