// Package progress shows on a terminal how a verb's work goes, and tells how the work ended.
package progress

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

// Bars shows a job as it goes: a bar for each image under way, below the lines that Say gives
// out. Without a terminal there are only the lines. Bars is for one goroutine.
type Bars struct {
	terminal io.Writer  // where bars are painted; nil: nowhere
	width    func() int // of the terminal
	painted  int        // lines below which the cursor stands
	next     time.Time  // of the next painting by Tick
	meters   map[string]*meter
	told     map[string]bool // uuids of images that Following.Tell is done with
}

// New paints on stderr if stderr is a terminal, and quiet was not asked for.
func New(stderr io.Writer, quiet bool) *Bars {
	p := &Bars{meters: make(map[string]*meter), told: make(map[string]bool)}
	f, ok := stderr.(*os.File)
	if quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return p
	}
	p.terminal = f
	p.width = func() int {
		w, _, err := term.GetSize(int(f.Fd()))
		if err != nil || w < 1 {
			return 80
		}
		return w
	}
	return p
}

// Say writes a line to w, above the bars.
func (p *Bars) Say(w io.Writer, format string, args ...any) {
	p.Clear()
	fmt.Fprintln(w, table.Printable(fmt.Sprintf(format, args...)))
}

// tickEvery is how often Tick paints at most.
const tickEvery = 200 * time.Millisecond

// Tick is Paint for a caller that knows of each byte: most calls paint nothing.
func (p *Bars) Tick(j admin.Job) {
	if now := time.Now(); now.After(p.next) {
		p.next = now.Add(tickEvery)
		p.Paint(j)
	}
}

// Transfer is a job with one image, or with something else of a name, under way.
func Transfer(name string, done, total int64) admin.Job {
	return admin.Job{Items: []admin.Item{{UUID: name, Name: name, State: admin.JobRunning, Done: done, Total: total}}}
}

// Paint shows the images of j that are under way; of an install, their download
// and what the pool has taken in.
func (p *Bars) Paint(j admin.Job) {
	if p.terminal == nil {
		return
	}
	p.Clear()
	now := time.Now()
	var lines []string
	add := func(i admin.Item, what string) {
		m := p.meters[i.UUID+what]
		if m == nil {
			m = &meter{}
			p.meters[i.UUID+what] = m
		}
		m.add(now, i.Done)
		lines = append(lines, Bar(i, m.rate(), p.width()-1))
	}
	waiting := 0
	for _, i := range j.Items {
		if i.State == admin.ItemWaiting {
			waiting++
		}
		fetch, pool := i, i
		fetch.Done = i.Fetched
		pool.Name, pool.Version = "  into the pool", ""
		switch {
		case j.Kind == "install" && i.State == admin.JobRunning:
			add(fetch, " fetched")
			add(pool, " received")
		case j.Kind == "install" && i.State == admin.ItemWaiting && 0 < i.Fetched && i.Fetched < i.Total:
			add(fetch, " fetched") // ahead of its turn
		case i.State == admin.JobRunning:
			add(i, "")
		}
	}
	if waiting > 0 && len(lines) > 0 {
		lines = append(lines, fmt.Sprintf("%d more to come", waiting))
	}
	for _, l := range lines {
		fmt.Fprintln(p.terminal, l)
	}
	p.painted = len(lines)
}

// Clear takes the bars away; the cursor stands where the first one was.
func (p *Bars) Clear() {
	if p.painted > 0 {
		fmt.Fprintf(p.terminal, "\r\x1b[%dA\x1b[J", p.painted)
		p.painted = 0
	}
}

// nameWidth is the room for an image's name before its bar.
const nameWidth = 24

// figuresWidth is the room for bytes, rate and time to go, whose widths vary.
const figuresWidth = 36

// The same, of Short.
const (
	shortName    = 15
	shortFigures = 29
)

// Bar is one image in at most width columns: name, percentage, bar, bytes,
// rate, time to go. What does not fit is left out, the bar first.
func Bar(i admin.Item, rate int64, width int) string {
	return row(i, rate, width, nameWidth, figuresWidth)
}

// Short is Bar for a row among others: with less room for the name and the figures.
func Short(i admin.Item, rate int64, width int) string {
	return row(i, rate, width, shortName, shortFigures)
}

// ShortWidth is the least room in which Short has a bar.
const ShortWidth = shortName + len("  100% [] ") + leastBar + shortFigures

// leastBar is the least room for a bar between its brackets.
const leastBar = 5

func row(i admin.Item, rate int64, width, nameWidth, figuresWidth int) string {
	name := fmt.Sprintf("%-*s", nameWidth, cut(label(i), nameWidth))
	done := humanize.Bytes(uint64(max(i.Done, 0)))
	if i.Total <= 0 {
		return cut(fmt.Sprintf("%s  %s  %s/s", name, done, humanize.Bytes(uint64(rate))), width)
	}
	part := min(float64(i.Done)/float64(i.Total), 1)
	figures := fmt.Sprintf("%s/%s  %s/s  %s", done, humanize.Bytes(uint64(i.Total)),
		humanize.Bytes(uint64(rate)), remaining(i.Total-i.Done, rate))
	room := width - nameWidth - len("  100% [] ") - figuresWidth
	if room < leastBar {
		return cut(fmt.Sprintf("%s  %3d%%  %s", name, int(part*100), figures), width)
	}
	full := int(part * float64(room))
	return cut(fmt.Sprintf("%s  %3d%% [%s%s] %s", name, int(part*100),
		strings.Repeat("=", full), strings.Repeat(" ", room-full), figures), width)
}

// label is what a person calls the image of i.
func label(i admin.Item) string {
	switch {
	case i.Name == "":
		return i.UUID
	case i.Version == "":
		return table.Printable(i.Name)
	}
	return table.Printable(i.Name + "@" + i.Version)
}

// cut is s in at most width columns.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width, 0)])
}

// remaining is how long n bytes take: 1:02:03, 2:03, or --:-- when the rate is not known.
func remaining(n, rate int64) string {
	if rate <= 0 {
		return "--:--"
	}
	s := (max(n, 0) + rate - 1) / rate
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// meterSpan is what a rate is measured over.
const meterSpan = 5 * time.Second

// meter tells the rate of the last seconds. The bytes of the first sample, as of a download
// that is resumed, do not count.
type meter struct {
	samples []sample
}

type sample struct {
	at   time.Time
	done int64
}

func (m *meter) add(at time.Time, done int64) {
	m.samples = append(m.samples, sample{at, done})
	old := 0 // the last sample before the span stays, for its far end
	for old+1 < len(m.samples) && at.Sub(m.samples[old+1].at) >= meterSpan {
		old++
	}
	m.samples = slices.Delete(m.samples, 0, old)
}

// rate is in bytes per second, 0 when it is not known.
func (m *meter) rate() int64 {
	if len(m.samples) < 2 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	took := last.at.Sub(first.at).Seconds()
	if took <= 0 || last.done < first.done {
		return 0
	}
	return int64(float64(last.done-first.done) / took)
}
