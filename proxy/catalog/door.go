package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"imgmirror/verify"
)

const (
	maxAsking    = 128                    // questions of clients under way at one source
	maxWaiting   = 1024                   // places in the lines of one source
	maxLists     = 2                      // the same, at a source that answers each with its whole list
	maxOwnAsking = 8                      // questions of the catalogue itself under way at one source
	turnWait     = 2 * time.Second        // for a turn
	answerTime   = 250 * time.Millisecond // of a search that is left for the answer, at least
	silence      = 500 * time.Millisecond // without an answer, after which a source with no place left counts as busy at once
	burst        = 100 * time.Millisecond // how much of unused rate is made up for later
)

var (
	// ErrBusy is matched, together with verify.ErrUnavailable, when a source was not asked because
	// too many questions are under way, or wait for their turn.
	ErrBusy = errors.New("too many questions for the sources")
	// ErrThrottled is matched beside ErrBusy when the questions are those of the asker's address.
	ErrThrottled = fmt.Errorf("%w from one address", ErrBusy)

	errNotAsked = fmt.Errorf("%w: %w", verify.ErrUnavailable, ErrBusy)
)

// The values of the label "reason": why a question was not put to a source.
const (
	refusedAddress  = "address"     // the address has as many questions waiting as it may have
	refusedRate     = "rate"        // the turn did not come in time
	refusedBusy     = "source_busy" // the source does not answer those that it has
	refusedSearches = "searches"    // the address has as many searches under way as it may have
	refusedLooks    = "looks"       // too many images are looked at at the same time
)

// door lets questions for manifests and beginnings of files through to one source: some at a time,
// and at a rate. Waiting questions take turns by account, and those of one account keep their
// order: an account with many questions waits for itself.
//
// An account has at most as many questions under way as there are places left, and the same holds
// for places in its line. One account alone gets half, two get a third each, and a place is left
// for the next.
//
// Questions of the catalogue itself pass by the lines, and are bounded apart.
type door struct {
	source  string
	rate    int // questions of clients per second; 0 = no bound
	metrics doorMetrics
	own     chan struct{} // one token for each question of the catalogue itself under way

	mu      sync.Mutex // guards what follows, and lines and tickets
	most    int        // questions under way: maxAsking or maxLists
	lines   map[account]*line
	ring    []*line   // those with tickets, in the order of their turns
	asking  int       // questions under way
	waiting int       // places taken in all lines
	next    time.Time // of a turn by the rate, at the earliest
	waking  bool      // a timer is set for next
	heard   time.Time // when the source last answered, or was asked when no question was under way
}

// line is the questions of one account.
type line struct {
	account account
	asking  int
	tickets []*ticket // the longest waiting first
}

// ticket is a waiting question.
type ticket struct {
	turn  chan struct{} // closed when the turn has come, after by is set
	lines []*line       // that the ticket is in
	by    *line         // whose turn it is; nil while the question waits
}

func newDoor(source string, rate int, m doorMetrics) *door {
	return &door{source: source, rate: rate, metrics: m, own: make(chan struct{}, maxOwnAsking), most: maxAsking, lines: make(map[account]*line)}
}

// enter waits for the turn of a question to the source, until ctx ends or turnWait is over. The
// caller must call leave after the answer, with true if there was one. The error matches
// verify.ErrUnavailable: the source cannot tell.
func (d *door) enter(ctx context.Context) (leave func(answered bool), err error) {
	k := askerOf(ctx)
	if k == nil {
		return d.enterOwn(ctx)
	}
	t, err := d.queue(k)
	if err != nil {
		return nil, err
	}
	defer d.forget(k, t)
	select {
	case <-t.turn:
		return func(answered bool) { d.leave(t.by, answered) }, nil
	default:
	}
	limit := time.NewTimer(patience(ctx))
	defer limit.Stop()
	select {
	case <-t.turn:
	case <-ctx.Done():
	case <-limit.C:
	}
	switch d.drop(t); {
	case t.by != nil:
		return func(answered bool) { d.leave(t.by, answered) }, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("source %s: %w: %w", d.source, verify.ErrUnavailable, ctx.Err())
	}
	return nil, d.refusal(ErrBusy, refusedRate)
}

// patience is how long a question of ctx waits for its turn: a turn that leaves no time for the
// answer is worth nothing.
func patience(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(turnWait, time.Until(end)-answerTime)
	}
	return turnWait
}

// enterOwn is enter for the catalogue itself.
func (d *door) enterOwn(ctx context.Context) (leave func(answered bool), err error) {
	select {
	case d.own <- struct{}{}:
		d.metrics.own.Inc()
		return func(bool) { d.metrics.own.Dec(); <-d.own }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("source %s: %w: %w", d.source, verify.ErrUnavailable, ctx.Err())
	}
}

func (d *door) refusal(is error, reason string) error {
	d.metrics.refused.WithLabelValues(reason).Inc()
	return fmt.Errorf("source %s: %w: %w", d.source, verify.ErrUnavailable, is)
}

// queue puts a question of k in the lines of all of k's accounts, or says why there is no place.
func (d *door) queue(k *asker) (*ticket, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &ticket{turn: make(chan struct{})}
	for _, a := range k.accounts {
		d.place(t, a)
	}
	if len(t.lines) == 0 {
		return nil, d.refusal(ErrThrottled, refusedAddress)
	}
	d.admit()
	if t.by == nil && d.silent(t) {
		d.remove(t)
		return nil, d.refusal(ErrBusy, refusedBusy)
	}
	k.waiting[t] = d
	return t, nil
}

// also puts a waiting question in the line of another account.
func (d *door) also(t *ticket, a account) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.by == nil && len(t.lines) > 0 {
		d.place(t, a)
		d.admit()
	}
}

// forget ends the wait of a question of k.
func (d *door) forget(k *asker, t *ticket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.waiting, t)
}

// place puts t in the line of a if there is a place; mu is held.
func (d *door) place(t *ticket, a account) {
	l := d.lines[a]
	if l == nil {
		l = &line{account: a}
	}
	room := maxWaiting - d.waiting
	if d.rate > 0 { // who is further behind waits in vain
		room = min(room, max(1, int(turnWait.Seconds()*float64(d.rate))))
	}
	if len(l.tickets) >= room {
		return
	}
	d.lines[a] = l
	if len(l.tickets) == 0 {
		d.ring = append(d.ring, l)
	}
	l.tickets = append(l.tickets, t)
	t.lines = append(t.lines, l)
	d.count(1)
}

// drop takes t out of its lines, if the turn of t has not come.
func (d *door) drop(t *ticket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.by == nil {
		d.remove(t)
	}
}

// remove takes t out of its lines; mu is held.
func (d *door) remove(t *ticket) {
	for _, l := range t.lines {
		i := slices.Index(l.tickets, t)
		l.tickets = slices.Delete(l.tickets, i, i+1)
		d.count(-1)
		if len(l.tickets) == 0 {
			i := slices.Index(d.ring, l)
			d.ring = slices.Delete(d.ring, i, i+1)
			d.tidy(l)
		}
	}
	t.lines = nil
}

// admit gives the turns that can be given now; mu is held.
func (d *door) admit() {
	for {
		i := slices.IndexFunc(d.ring, d.mayAsk)
		if i < 0 || !d.inTime() {
			return
		}
		l := d.ring[i]
		t := l.tickets[0]
		d.ring = append(slices.Delete(d.ring, i, i+1), l) // the last, for the next turn
		d.remove(t)
		if d.asking == 0 {
			d.heard = time.Now()
		}
		d.lines[l.account] = l // a line without tickets has just been tidied away
		l.asking++
		d.asking++
		d.metrics.asking.Inc()
		t.by = l
		close(t.turn)
	}
}

// mayAsk tells whether l has less questions under way than there are places left; mu is held.
func (d *door) mayAsk(l *line) bool { return l.asking < d.most-d.asking }

// inTime takes the next turn by the rate, or sets a timer for it; mu is held.
func (d *door) inTime() bool {
	if d.rate == 0 {
		return true
	}
	now := time.Now()
	if unused := now.Add(-burst); d.next.Before(unused) {
		d.next = unused
	}
	if wait := d.next.Sub(now); wait > 0 {
		if !d.waking {
			d.waking = true
			time.AfterFunc(wait, d.wake)
		}
		return false
	}
	d.next = d.next.Add(time.Second / time.Duration(d.rate))
	return true
}

func (d *door) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waking = false
	d.admit()
}

// narrow has the source answer each question with its whole list.
func (d *door) narrow() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.most = maxLists
}

// silent tells that t would wait for the answers of a source that gives none; mu is held. A whole
// list may take its time.
func (d *door) silent(t *ticket) bool {
	return d.most == maxAsking && !slices.ContainsFunc(t.lines, d.mayAsk) && time.Since(d.heard) >= silence
}

// leave ends a question of l.
func (d *door) leave(l *line, answered bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.asking--
	d.asking--
	d.metrics.asking.Dec()
	if answered {
		d.heard = time.Now()
	}
	d.tidy(l)
	d.admit()
}

// tidy forgets l once l has no question; mu is held.
func (d *door) tidy(l *line) {
	if l.asking == 0 && len(l.tickets) == 0 {
		delete(d.lines, l.account)
	}
}

// count notes n more places taken; mu is held.
func (d *door) count(n int) {
	d.waiting += n
	d.metrics.waiting.Set(float64(d.waiting))
}
