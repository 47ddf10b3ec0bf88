package history

import "time"

// span is a stretch of time up to now, in steps.
type span struct {
	name  string
	step  time.Duration
	steps int64
}

// The spans.
const (
	Hour = "hour"
	Day  = "day"
	Week = "week"
)

var spans = [...]span{
	{Hour, time.Minute, 60},
	{Day, 15 * time.Minute, 96},
	{Week, 2 * time.Hour, 84},
}

// Point is what went over the wire in one step.
type Point struct {
	Time    time.Time // when the step began
	Served  int64     // bytes given to clients
	Fetched int64     // bytes that sources sent
}

// slot is one step. Its number is that of the step since 1970: a slot that the clock has left behind,
// or has yet to reach, has another number than the step that is asked for.
type slot struct{ number, served, fetched int64 }

// ring is the slots of a span; the slot of a step lies at its number modulo the length.
type ring struct {
	span
	slots []slot
}

func newRing(s span) ring { return ring{s, make([]slot, s.steps)} }

func (r *ring) number(t time.Time) int64 { return t.Unix() / int64(r.step/time.Second) }

// place gives the slot that the step of that number has, or another step has taken. A clock that was
// never set begins in 1970, and the steps before have negative numbers.
func (r *ring) place(number int64) *slot { return &r.slots[(number%r.steps+r.steps)%r.steps] }

// at gives the slot of that number, emptied if it was another step's.
func (r *ring) at(number int64) *slot {
	s := r.place(number)
	if s.number != number {
		*s = slot{number: number}
	}
	return s
}

func (r *ring) add(t time.Time, served, fetched int64) {
	if served == 0 && fetched == 0 {
		return
	}
	s := r.at(r.number(t))
	s.served += served
	s.fetched += fetched
}

// points gives all steps up to the one of now.
func (r *ring) points(now time.Time) []Point {
	all := make([]Point, r.steps)
	last := r.number(now)
	for i := range all {
		number := last - r.steps + 1 + int64(i)
		all[i].Time = time.Unix(number*int64(r.step/time.Second), 0).UTC()
		if s := r.place(number); s.number == number {
			all[i].Served, all[i].Fetched = s.served, s.fetched
		}
	}
	return all
}
