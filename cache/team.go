package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache/ranges"
	"imgmirror/verify"
)

// leastRanged is how many bytes must be missing for a body to be asked for in ranges.
const leastRanged = 8 * ranges.FirstPiece

// team are the sources that bring one body in ranges (adr 21), with the window for what they bring
// ahead. The download's goroutine owns the team; nil: one source brings the body, in one request.
type team struct {
	members []*candidate
	memory  *ranges.Memory
	window  int64 // bytes of memory; 0: given back, or the Body's to give
}

// team books the window for the sources that may bring the round's missing bytes in ranges. nil: one
// request is for all. That is so for few bytes, for bytes that are all to be from one source, and where no
// memory is left. Otherwise leave, or spread, must follow.
func (d *download) team(r *round) *team {
	each := d.s.o.Streams
	if each <= 1 || d.single || !d.want.Checkable() || d.want.Size-r.have < leastRanged {
		return nil
	}
	members := slices.DeleteFunc(slices.Clone(d.candidates(r)), func(c *candidate) bool {
		return c.OpenRange == nil || c.whole || c.stalled || c.slow
	})
	d.s.mu.RLock()
	members = d.s.suspects.apart(members)
	d.s.mu.RUnlock()
	if len(members) == 0 {
		return nil
	}
	window := d.s.ranges.Take(ranges.Window(ranges.Streams(each, len(members))))
	if window == 0 {
		return nil
	}
	return &team{members, d.s.ranges, window}
}

// rangeMetrics tell of the memory for ranges.
func rangeMetrics(reg prometheus.Registerer, m *ranges.Memory) error {
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	used := func() int64 { n, _, _ := m.Usage(); return n }
	limit := func() int64 { _, n, _ := m.Usage(); return n }
	return errors.Join(
		reg.Register(gauge("imgmirror_fill_range_bytes", "Bytes of memory booked for ranges of downloads that come ahead of their readers.", used)),
		reg.Register(gauge("imgmirror_fill_range_limit_bytes", "Limit of imgmirror_fill_range_bytes.", limit)),
		reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "imgmirror_fill_ranges_refused_total", Help: "Times that a download got no memory for ranges, and went on in one request.",
		}, func() float64 { _, _, n := m.Usage(); return float64(n) })),
	)
}

// leave gives the window back.
func (t *team) leave() {
	if t != nil {
		t.memory.Give(t.window)
		t.window = 0
	}
}

// length is how many bytes c is asked for first; 0: all.
func (t *team) length(c *candidate) int64 {
	if t == nil || !slices.Contains(t.members, c) {
		return 0
	}
	return ranges.FirstPiece
}

// openRange asks for the first range.
func (a *attempt) openRange(offset int64) (*verify.Stream, error) {
	var ctx context.Context
	ctx, a.drop = context.WithCancel(a.ctx)
	body, err := a.c.OpenRange(ctx, offset, a.length)
	if err == nil && body.Part != 0 && body.Part != a.length {
		body.Close() // unread
		err = fmt.Errorf("%w: %d bytes from %d on, want %d", ranges.ErrWhole, body.Part, offset, a.length)
	}
	return body, err
}

// spread has the team of a bring the rest, beside what a has begun with.
func (d *download) spread(a *attempt, offset int64) {
	t := a.team
	t.members = slices.DeleteFunc(t.members, func(c *candidate) bool { return c == a.c || c.out != nil || c.whole })
	t.members = slices.Insert(t.members, 0, a.c) // which has the first range
	o := ranges.Options{
		Streams: d.s.o.Streams, Offset: offset, Size: d.want.Size, First: a.body, Drop: a.drop, Memory: t.memory, Window: t.window,
		Pause: d.pace.Wait,
	}
	var names []string
	for _, c := range t.members {
		names = append(names, c.Name)
		o.Sources = append(o.Sources, ranges.Source{Name: c.Name, Open: c.OpenRange})
	}
	t.window = 0
	d.f.update(func() { d.f.from = strings.Join(names, ", ") })
	a.ranges = ranges.New(a.ctx, o)
	a.body = &verify.Stream{ReadCloser: a.ranges, Size: a.body.Size, Pace: a.ranges.Pace}
}

// by is the source of the bytes that were read last.
func (a *attempt) by() *candidate {
	if a.ranges == nil {
		return a.c
	}
	return a.team.members[a.ranges.By()]
}

// hear takes in which of the team have failed. over: the round has ended, with err.
func (d *download) hear(r *round, a *attempt) (over bool, err error) {
	if a.ranges == nil {
		return false, nil
	}
	for _, lost := range a.ranges.Lost() {
		c := a.team.members[lost.Source]
		c.last = fmt.Errorf("source %s: %w", c.Name, lost.Err)
		c.heard(lost.Err)
		d.s.log.Debug("a range was not brought", "sum", d.f.blob.title(), "source", c.Name, "error", lost.Err)
		if errors.Is(lost.Err, ranges.ErrDiffers) {
			r.differ = append(r.differ, c)
		}
		if errors.Is(lost.Err, verify.ErrMismatch) {
			d.refuse(r, c, whereSize, lost.Err)
			if slices.Contains(r.from, c) {
				return true, c.last
			}
		}
	}
	return false, nil
}
