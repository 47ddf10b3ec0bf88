// Package accesslog writes the log: a line for each request, and the process's other lines, in the same form
// and in the order in which they came. The goroutine that has something to tell puts the line, or the facts of a
// request, into a place of a bounded ring and goes on; one goroutine makes and writes the lines, many in one write. So
// a slow disk or pipe delays no reply and no connection.
package accesslog

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/proxy/ring"
)

const (
	queueLength = 4096                  // lines that wait to be written
	kept        = 512                   // of queueLength: for lines that are no request's
	shortText   = 360                   // bytes of a line, or of a request's texts, that need no memory of their own
	madeLine    = 4 << 10               // the longest line of a request with a shortText
	longBytes   = 4 << 20               // of all longer lines that wait
	longKept    = 1 << 20               // of longBytes: for lines that are no request's
	gatherFor   = 50 * time.Millisecond // lines gather before they are written together
	writeBytes  = 64 << 10              // in one write, and the longest line in addition
)

// Values of Log.SetRequests, and of the key log.requests.
const (
	All    = "all"
	Errors = "errors" // statuses from 400 on, and bodies that ended early
	Off    = "off"
)

// Formats, the values of the key log.format.
const (
	Text   = "text"
	JSON   = "json"
	Bunyan = "bunyan"
)

// Entry is one request, told after the last byte of the reply. The strings are read during Add only.
type Entry struct {
	End       time.Time // of the request, the time of the line, which tells End in the local zone
	Method    string
	Path      string
	Status    int
	Bytes     int64         // of the reply's body
	Duration  time.Duration // from the header to End
	Received  int64         // bytes of the request's body; 0 = no field
	Cache     string        // X-Cache; "" = no field
	Remote    net.Addr
	RequestID string
	UserAgent string
	Err       error // why the body ended early; nil = no field
}

// Options of New. Required: Writer, Common.
type Options struct {
	// Writer takes whole lines, in one Write or several.
	Writer io.Writer
	// Format is one of the formats above; "" = text.
	Format string
	// Common is what all lines have: the line of a slog.Handler for the message, without time and fields.
	Common string
	// Level is that of the process's other lines: the lines of requests are at slog.LevelInfo. nil = info.
	Level slog.Leveler

	// Logger is told that lines are lost, and may write to the Log; nil: silent.
	Logger *slog.Logger
}

// Log is the log. Add, Write, Written and SetRequests may be called concurrently.
type Log struct {
	writer   io.Writer
	log      *slog.Logger
	level    slog.Leveler
	format   format
	requests atomic.Pointer[string]

	lines *ring.Ring[line]
	long  []atomic.Pointer[[]byte] // by the Index of a place: the line, where it is longer than a place
	taken atomic.Int64             // bytes of all long lines
	lost  atomic.Int64
	wrote atomic.Int64 // Writes of writer that have ended
	// Of Run:
	told   bool // that lines are lost
	failed bool // the last write
	cut    bool // what is written ends amid a line
	clock  clock
	batch  []byte
}

// line is a line that waits. A line has no pointers, so that the garbage collector passes the queue by.
type line struct {
	kind   lineKind
	length int // of text
	facts  facts
	text   [shortText]byte
}

type lineKind uint8

const (
	isRequest lineKind = iota // facts and text are to be formatted
	isLine                    // text is the line
	isLong                    // Log.long has the line, or the line is lost
)

// New makes a log with all requests; Run writes it.
func New(o Options) (*Log, error) {
	l := &Log{
		writer: o.Writer,
		log:    cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		level:  o.Level,
		lines:  ring.New[line](queueLength),
		long:   make([]atomic.Pointer[[]byte], queueLength),
		batch:  make([]byte, 0, writeBytes),
	}
	if l.level == nil {
		l.level = slog.LevelInfo
	}
	var err error
	if l.format, err = newFormat(cmp.Or(o.Format, Text), o.Common); err != nil {
		return nil, err
	}
	l.SetRequests(All)
	return l, nil
}

// Register registers the metrics of l.
func (l *Log) Register(r prometheus.Registerer) {
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "imgmirror_http_log_lost_total",
		Help: "Lines of the log, of requests and others, that were lost: too many lines waited to be written, or the writing failed.",
	}, func() float64 { return float64(l.lost.Load()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "imgmirror_http_log_lines",
		Help: "Lines of the log, of requests and others, that wait to be written.",
	}, func() float64 { return float64(l.lines.Len()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "imgmirror_http_log_lines_limit",
		Help: "Limit of imgmirror_http_log_lines.",
	}, func() float64 { return queueLength }))
}

// SetRequests puts All, Errors or Off in force.
func (l *Log) SetRequests(which string) { l.requests.Store(&which) }

// wants tells whether a request has a line.
func (l *Log) wants(e *Entry) bool {
	if l.level.Level() > slog.LevelInfo {
		return false
	}
	switch *l.requests.Load() {
	case Off:
		return false
	case Errors:
		return e.Status >= 400 || e.Err != nil
	}
	return true
}

// Add gives e a line. Add waits for nothing: if too many lines wait to be written, e has no line and
// is counted.
func (l *Log) Add(e *Entry) {
	if !l.wants(e) {
		return
	}
	if l.lines.Len() >= queueLength-kept {
		l.lost.Add(1)
		return
	}
	p := l.lines.Claim()
	if p == nil {
		l.lost.Add(1)
		return
	}
	v := &p.Value
	texts, length := v.facts.take(e)
	if v.kind, v.length = isRequest, length; length <= shortText {
		appendTexts(v.text[:0], &texts)
	} else {
		all := appendTexts(make([]byte, 0, length), &texts)
		l.addLong(p, l.format.append(nil, new(clock), &v.facts, all), longBytes-longKept)
	}
	l.lines.Publish(p)
}

// Write takes a line that is no request's, which then is written at once. Write waits for nothing and gives no
// error: a line that finds no room is counted. Requests leave some room to such lines.
func (l *Log) Write(text []byte) (int, error) {
	p := l.lines.Claim()
	if p == nil {
		l.lost.Add(1)
		return len(text), nil
	}
	v := &p.Value
	if v.kind, v.length = isLine, copy(v.text[:], text); v.length < len(text) {
		l.addLong(p, bytes.Clone(text), longBytes)
	}
	l.lines.Publish(p)
	l.lines.Hurry()
	return len(text), nil
}

// Written counts the writes to Options.Writer that have ended.
func (l *Log) Written() int64 { return l.wrote.Load() }

// addLong keeps a line for which the place is too small, unless long lines then take more than limit.
func (l *Log) addLong(place *ring.Place[line], text []byte, limit int64) {
	place.Value.kind = isLong
	if l.taken.Add(int64(len(text))) > limit {
		l.taken.Add(-int64(len(text)))
		l.lost.Add(1)
		return
	}
	l.long[place.Index].Store(&text)
}

// Run writes each line within 100 ms of Add, until ctx ends. At the end Run writes all lines that wait. Lines that
// come after the end of ctx are lost. Call Run once.
func (l *Log) Run(ctx context.Context) error {
	l.lines.Run(ctx, gatherFor, l.write)
	return nil
}

// write writes the lines that wait, and the line that tells of a loss, if one was found: no other call may come.
func (l *Log) write() {
	before := l.told
	l.empty()
	if l.told != before {
		l.empty()
	}
}

// empty writes the lines that wait.
func (l *Log) empty() {
	for p := l.lines.Next(); p != nil; p = l.lines.Next() {
		switch v := &p.Value; v.kind {
		case isRequest:
			l.batch = l.format.append(l.batch, &l.clock, &v.facts, v.text[:v.length])
		case isLine:
			l.batch = append(l.batch, v.text[:v.length]...)
		case isLong:
			if text := l.long[p.Index].Swap(nil); text != nil {
				l.batch = append(l.batch, *text...)
				l.taken.Add(-int64(len(*text)))
			}
		}
		l.lines.Release(p)
		if len(l.batch) >= writeBytes-madeLine {
			l.flush()
		}
	}
	l.flush()
}

// flush writes the batch, behind the end of a line that was cut. Errors of the writer have no place to be told: the
// log is where errors are told. The lines count as lost.
//
// A loss is told here, since empty ends only when lines come more slowly than flush writes them, and before the
// write, while the queue has room.
func (l *Log) flush() {
	if !l.told && !l.failed && l.lost.Load() > 0 {
		l.told = true
		l.log.Warn("the log has lost lines: lines came faster than they were written, or writing failed",
			"metric", "imgmirror_http_log_lost_total")
	}
	if len(l.batch) > 0 {
		if l.cut {
			_, err := l.writer.Write([]byte{'\n'})
			l.cut = err != nil
		}
		n, err := l.writer.Write(l.batch)
		l.wrote.Add(1)
		l.failed = err != nil
		l.lost.Add(int64(bytes.Count(l.batch[n:], []byte{'\n'})))
		l.cut = n > 0 && l.batch[n-1] != '\n' || n == 0 && l.cut
	}
	l.batch = l.batch[:0]
	if cap(l.batch) > writeBytes { // a long line was in it
		l.batch = make([]byte, 0, writeBytes)
	}
}
