package accesslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// hostile are texts that clients can send.
var hostile = []string{
	"", "plain", "two words", "a=b", `"quoted"`, `back\slash`, "tab\tnew\nline\rreturn", "bell\a null\x00 esc\x1b[31m", "\x7f",
	"umlaut ä", "line\u2028para\u2029", "nbsp\u00a0x", "nbsp\u00a0", "\u200b", "invalid \xff\xfe", "cut \xe4\xbd", "\xef", "\ufffd", "<script>&amp;", "emoji 😀",
	"😀", "ä", "\u2028", strings.Repeat("long ", 300), strings.Repeat("\x01", 700),
}

func entry(text string) Entry {
	return Entry{
		Method: "GET", Path: text, Status: 200, Bytes: 1234, Duration: 1234567 * time.Nanosecond,
		Remote: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4711}, RequestID: text, UserAgent: text,
	}
}

// entries are requests of all kinds.
func entries() []Entry {
	var all []Entry
	for _, text := range hostile {
		all = append(all, entry(text))
	}
	with := func(change func(*Entry)) {
		e := entry("/x")
		change(&e)
		all = append(all, e)
	}
	for _, text := range hostile {
		with(func(e *Entry) { e.Method, e.Cache, e.Err = text, text, errors.New(text) })
	}
	for _, d := range []time.Duration{0, 1, 999, 1500, time.Millisecond, 1499999, time.Second + 7, 90 * time.Minute} {
		with(func(e *Entry) { e.Duration = d })
	}
	with(func(e *Entry) { e.Received, e.Bytes = 1<<40, 0 })
	with(func(e *Entry) { e.Err = fmt.Errorf("client: %w", io.ErrUnexpectedEOF) })
	for _, a := range []net.Addr{
		&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}, &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 65535},
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: `e"=`, Port: 65535},
		&net.TCPAddr{IP: net.IPv4(1, 2, 3, 4).To4(), Port: 80}, &net.TCPAddr{IP: net.ParseIP("::ffff:1.2.3.4"), Port: 80}, &net.TCPAddr{Port: 80}, &net.TCPAddr{},
		&net.TCPAddr{IP: net.IP{1, 2, 3}, Port: 5}, &net.UnixAddr{Net: "unix"}, &net.UnixAddr{Name: "@", Net: "unix"}, &net.UnixAddr{Name: "/a b", Net: "unix"},
	} {
		with(func(e *Entry) { e.Remote = a })
	}
	return all
}

// attrs are the fields of a request, as slog has them.
func attrs(e *Entry) []slog.Attr {
	list := []slog.Attr{
		slog.String("method", e.Method), slog.String("path", e.Path), slog.Int("status", e.Status),
		slog.Int64("bytes", e.Bytes), slog.Duration("duration", e.Duration),
	}
	if e.Received > 0 {
		list = append(list, slog.Int64("received", e.Received))
	}
	if e.Cache != "" {
		list = append(list, slog.String("cache", e.Cache))
	}
	list = append(list, slog.String("remote", e.Remote.String()), slog.String("request_id", e.RequestID), slog.String("user_agent", e.UserAgent))
	if e.Err != nil {
		list = append(list, slog.Any("error", e.Err))
	}
	return list
}

// compareWithSlog is the test of each format: all lines are those of slog's handler, byte for byte. The
// handler of bunyan's format is in package main, which has a test of its own.
func compareWithSlog(t *testing.T, name string, handler func(io.Writer) slog.Handler) {
	var want, got bytes.Buffer
	l, err := New(Options{Writer: &got, Format: name, Common: common(t, handler)})
	if err != nil {
		t.Fatal(err)
	}
	slogs := handler(&want)
	zones := []*time.Location{time.UTC, time.FixedZone("", 5*3600+1800), time.Local}
	times := []time.Time{
		time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), time.Date(2026, 11, 29, 12, 0, 0, 999_999_999, time.UTC),
		time.Date(2026, 1, 2, 3, 4, 5, 120_000_000, time.UTC), time.Now(),
	}
	defer func(zone *time.Location) { time.Local = zone }(time.Local)
	for i, e := range entries() {
		time.Local = zones[i/2%len(zones)]
		e.End = times[i/2%len(times)].In(time.Local) // two lines of each time
		r := slog.NewRecord(e.End, slog.LevelInfo, "request", 0)
		r.AddAttrs(attrs(&e)...)
		if err := slogs.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		l.Add(&e)
		l.write()
		if got.String() != want.String() {
			t.Errorf("%+v\nis  %swant %s", e, got.String(), want.String())
		}
		got.Reset()
		want.Reset()
	}
}

func text(w io.Writer) slog.Handler {
	return slog.NewTextHandler(w, nil).WithAttrs([]slog.Attr{slog.String("component", "proxy")})
}

// common is Options.Common for the lines of a handler.
func common(t testing.TB, handler func(io.Writer) slog.Handler) string {
	t.Helper()
	var line strings.Builder
	if err := handler(&line).Handle(t.Context(), slog.NewRecord(time.Time{}, slog.LevelInfo, "request", 0)); err != nil {
		t.Fatal(err)
	}
	return line.String()
}

func TestLinesAreSlogs(t *testing.T) {
	t.Run(Text, func(t *testing.T) { compareWithSlog(t, Text, text) })
	t.Run(JSON, func(t *testing.T) {
		compareWithSlog(t, JSON, func(w io.Writer) slog.Handler {
			return slog.NewJSONHandler(w, nil).WithAttrs([]slog.Attr{slog.String("component", "proxy")})
		})
	})
}

func TestNoSuchFormat(t *testing.T) {
	if _, err := New(Options{Writer: io.Discard, Common: common(t, text), Format: "xml"}); err == nil {
		t.Error("xml is a format")
	}
}

// sink keeps what is written, and counts the Writes.
type sink struct {
	mu     sync.Mutex
	text   strings.Builder
	writes int
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	return s.text.Write(p)
}

func (s *sink) state() (lines, writes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), "\n"), s.writes
}

// A line is written within 100 ms, lines that come together in one write, and the last ones at the end.
func TestLinesGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l, err := New(Options{Writer: s, Common: common(t, text)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for round := range 3 {
			time.Sleep(time.Hour) // the log is asleep
			for range 10 {
				e := entry("/x")
				l.Add(&e)
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if lines, writes := s.state(); lines != 10*(round+1) || writes != round+1 {
				t.Fatalf("%d lines in %d writes after round %d", lines, writes, round+1)
			}
		}
		for round := range 3 { // a line that is no request's does not wait, and takes those before with it
			e := entry("/x")
			l.Add(&e)
			if round == 2 {
				time.Sleep(gatherFor / 2)
			}
			if _, err := l.Write([]byte("other\n")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if lines, writes := s.state(); lines != 30+2*(round+1) || writes != 4+round {
				t.Fatalf("%d lines in %d writes after other line %d", lines, writes, round+1)
			}
			if round == 0 {
				time.Sleep(time.Hour)
			}
		}
		e := entry("/last")
		l.Add(&e)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if lines, writes := s.state(); lines != 37 || writes != 7 {
			t.Errorf("%d lines in %d writes at the end", lines, writes)
		}
	})
}

// stuck is a writer that takes nothing until it is let go.
type stuck struct {
	sink
	entered chan struct{}
	release chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.release
	return s.sink.Write(p)
}

// A writer that takes nothing delays no request and no other line: what has no room is counted, and told once. Requests
// leave room for other lines.
func TestFullQueue(t *testing.T) {
	w := &stuck{entered: make(chan struct{}, 1), release: make(chan struct{})}
	registry, warnings := prometheus.NewRegistry(), &sink{}
	l, err := New(Options{Writer: w, Common: common(t, text), Logger: slog.New(slog.NewTextHandler(warnings, nil))})
	if err != nil {
		t.Fatal(err)
	}
	l.Register(registry)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	e := entry("/first")
	l.Add(&e)
	<-w.entered
	const beyond = 100
	for range queueLength - kept + beyond {
		e := entry("/x")
		l.Add(&e)
	}
	if got := value(t, registry, "imgmirror_http_log_lost_total"); got != beyond {
		t.Errorf("%v lines are lost, want %d", got, beyond)
	}
	for range kept {
		if _, err := l.Write([]byte("other\n")); err != nil {
			t.Fatal(err)
		}
	}
	if got := value(t, registry, "imgmirror_http_log_lost_total"); got != beyond {
		t.Errorf("%v lines are lost, want %d: requests leave no room for other lines", got, beyond)
	}
	if _, err := l.Write([]byte("lost\n")); err != nil {
		t.Fatal(err)
	}
	if got := value(t, registry, "imgmirror_http_log_lost_total"); got != beyond+1 {
		t.Errorf("%v lines are lost, want %d", got, beyond+1)
	}
	if got := value(t, registry, "imgmirror_http_log_lines"); got != queueLength {
		t.Errorf("%v lines wait, want %d", got, queueLength)
	}
	close(w.release)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if lines, _ := w.state(); lines != 1+queueLength {
		t.Errorf("%d lines are written, want %d", lines, 1+queueLength)
	}
	l.lost.Add(1)
	l.write()
	if lines, _ := warnings.state(); lines != 1 {
		t.Errorf("%d warnings: %s", lines, warnings.text.String())
	}
}

// busy is a writer. During each of its first Writes, rounds in number, more lines come than the queue has room for.
type busy struct {
	sink
	log    *Log
	rounds int
}

func (b *busy) Write(p []byte) (int, error) {
	if b.rounds--; b.rounds >= 0 {
		for range queueLength {
			e := entry("/x")
			b.log.Add(&e)
		}
	}
	return b.sink.Write(p)
}

// A loss is told while lines go on to come faster than they are written, and at the end of Run at the latest.
func TestLossIsTold(t *testing.T) {
	for _, rounds := range []int{50, 0} {
		w := &busy{rounds: rounds}
		h := slog.NewTextHandler(writer(func(p []byte) (int, error) { return w.log.Write(p) }), nil)
		l, err := New(Options{Writer: w, Common: common(t, text), Logger: slog.New(h)})
		if err != nil {
			t.Fatal(err)
		}
		w.log = l
		for range queueLength {
			e := entry("/first")
			l.Add(&e)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		before, _, found := strings.Cut(w.text.String(), "the log has lost lines")
		if n := strings.Count(before, "\n"); !found || n > 2*queueLength {
			t.Errorf("%d rounds: told %v, after %d lines", rounds, found, n)
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// Long lines have room of their own, and no more than that.
func TestLongLinesAreBounded(t *testing.T) {
	s := &sink{}
	l, err := New(Options{Writer: s, Common: common(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	const length = 64 << 10
	e := entry("/" + strings.Repeat("x", length))
	e.UserAgent, e.RequestID = "a", "b"
	for range 2 { // room that was used is there again
		s.text.Reset()
		l.lost.Store(0)
		for range 2 * longBytes / length {
			l.Add(&e)
		}
		if held := l.taken.Load(); held > longBytes-longKept || held < longBytes-longKept-2*length {
			t.Errorf("%d bytes of requests wait", held)
		}
		line := []byte(strings.Repeat("y", length) + "\n")
		for range 2 * longBytes / length {
			if _, err := l.Write(line); err != nil {
				t.Fatal(err)
			}
		}
		line[0] = 'z' // the line belongs to the caller
		if held := l.taken.Load(); held > longBytes || held < longBytes-2*length {
			t.Errorf("%d bytes wait", held)
		}
		l.write()
		lines, _ := s.state()
		if int64(lines)+l.lost.Load() != 4*longBytes/length || lines < longBytes/length-4 || strings.Contains(s.text.String(), "z") {
			t.Errorf("%d lines, %d lost", lines, l.lost.Load())
		}
	}
	if cap(l.batch) > writeBytes || l.taken.Load() != 0 {
		t.Errorf("%d and %d bytes are kept", cap(l.batch), l.taken.Load())
	}
}

func value(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	if n, err := testutil.GatherAndCount(g, name); err != nil || n != 1 {
		t.Fatalf("%s: %d series, %v", name, n, err)
	}
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

func TestRequests(t *testing.T) {
	fine, wrong, broken := entry("/fine"), entry("/wrong"), entry("/broken")
	wrong.Status, broken.Err = 400, io.ErrUnexpectedEOF
	for _, test := range []struct {
		requests string
		level    slog.Level
		want     int
	}{
		{All, slog.LevelInfo, 3}, {All, slog.LevelDebug, 3}, {All, slog.LevelWarn, 0},
		{Errors, slog.LevelInfo, 2}, {Errors, slog.LevelWarn, 0}, {Off, slog.LevelDebug, 0},
	} {
		s := &sink{}
		l, err := New(Options{Writer: s, Common: common(t, text), Level: test.level})
		if err != nil {
			t.Fatal(err)
		}
		l.SetRequests(test.requests)
		for _, e := range []*Entry{&fine, &wrong, &broken} {
			l.Add(e)
		}
		l.write()
		if lines, _ := s.state(); lines != test.want {
			t.Errorf("%s at %v: %d lines, want %d", test.requests, test.level, lines, test.want)
		}
	}
}

// Lines of many requests at once are whole, and each is there.
func TestConcurrentAdd(t *testing.T) {
	s := &sink{}
	l, err := New(Options{Writer: s, Common: common(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	const writers, each = 8, 400 // all of them fit, should Run not run
	var adding sync.WaitGroup
	for i := range writers {
		adding.Go(func() {
			for j := range each {
				e := entry(fmt.Sprintf("/%d/%d", i, j))
				e.UserAgent = strings.Repeat("agent", (i+j)%150)
				l.Add(&e)
			}
		})
	}
	adding.Wait()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	seen := make(map[string]int)
	for line := range strings.Lines(s.text.String()) {
		var path, agent string
		for _, field := range strings.Fields(line) {
			if v, ok := strings.CutPrefix(field, "path="); ok {
				path = v
			}
			if v, ok := strings.CutPrefix(field, "user_agent="); ok {
				agent = strings.Trim(v, `"`)
			}
		}
		seen[path]++
		var i, j int
		if _, err := fmt.Sscanf(path, "/%d/%d", &i, &j); err != nil || agent != strings.Repeat("agent", (i+j)%150) {
			t.Errorf("%q: %v", line, err)
		}
	}
	if len(seen) != writers*each {
		t.Errorf("%d of %d lines", len(seen), writers*each)
	}
}

// Add takes no memory.
func TestAddAllocatesNothing(t *testing.T) {
	l, err := New(Options{Writer: io.Discard, Common: common(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	e := entry("/images")
	e.End, e.Cache = time.Now(), "HIT"
	if n := testing.AllocsPerRun(1000, func() {
		l.Add(&e)
		l.write()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Add against slog, on a writer that costs nothing.
func BenchmarkAdd(b *testing.B) {
	e := entry("/images/00000000-0000-4000-8000-000000000001")
	e.UserAgent, e.RequestID = "imgadm/3.9.5", "7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73"
	b.Run("slog", func(b *testing.B) {
		log := slog.New(text(io.Discard))
		b.ReportAllocs()
		for b.Loop() {
			log.LogAttrs(b.Context(), slog.LevelInfo, "request", attrs(&e)...)
		}
	})
	b.Run("ring", func(b *testing.B) {
		l, err := New(Options{Writer: io.Discard, Common: common(b, text)})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for n := 1; b.Loop(); n++ {
			e.End = time.Now()
			l.Add(&e)
			if n%(queueLength/2) == 0 {
				l.write()
			}
		}
	})
}

// full is a writer with room for so many bytes, as a full disk is.
type full struct {
	sink
	room int
}

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	_, _ = f.sink.Write(p[:n])
	if n < len(p) {
		return n, errors.New("no space is left")
	}
	return n, nil
}

// made is the line of e.
func made(l *Log, e *Entry) []byte {
	var f facts
	texts, _ := f.take(e)
	return l.format.append(nil, new(clock), &f, appendTexts(nil, &texts))
}

// Lines that the writer does not take whole are counted, and a line that was cut ends before the next one begins. The
// loss is told once the writer takes lines again.
func TestFullDisk(t *testing.T) {
	w, warnings := &full{}, &sink{}
	l, err := New(Options{Writer: w, Common: common(t, text), Logger: slog.New(slog.NewTextHandler(warnings, nil))})
	if err != nil {
		t.Fatal(err)
	}
	e := entry("/x")
	line := string(made(l, &e))
	length := len(line)
	w.room = 2*length + length/2
	for range 5 {
		l.Add(&e)
	}
	l.write()
	l.write() // there is nothing to write
	if lost := l.lost.Load(); lost != 3 {
		t.Errorf("%d lines are lost, want 3", lost)
	}
	if warnings.text.Len() > 0 {
		t.Errorf("told on a full disk: %s", warnings.text.String())
	}
	w.room = 1 << 20
	for range 2 {
		l.Add(&e)
		l.write()
	}
	if got, want := w.text.String(), line+line+line[:length/2]+"\n"+line+line; got != want {
		t.Errorf("the log is\n%q, want\n%q", got, want)
	}
	if lines, _ := warnings.state(); lines != 1 {
		t.Errorf("%d warnings: %s", lines, warnings.text.String())
	}
}

// The longest line of a place leaves the batch its size.
func TestMadeLine(t *testing.T) {
	for _, name := range []string{Text, JSON, Bunyan} {
		for _, text := range []string{"\x01", "\xff", "\u2028", "\U000e0001"} {
			l, err := New(Options{Writer: io.Discard, Format: name, Common: strings.Repeat("x", 500)})
			if err != nil {
				t.Fatal(err)
			}
			e := entry("/x")
			e.UserAgent = strings.Repeat(text, (shortText-len("GET/x/x"))/len(text))
			if n := len(made(l, &e)); n > madeLine {
				t.Errorf("%s: a line with many %q has %d bytes, more than %d", name, text, n, madeLine)
			}
		}
	}
}

// Lines of all kinds are whole and in order, also in places that have had lines of another kind.
func TestPlacesAreUsedAgain(t *testing.T) {
	var got, want bytes.Buffer
	l, err := New(Options{Writer: &got, Common: common(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * queueLength {
		length := 5
		if i/2%3 == 1 {
			length = shortText
		}
		line := strings.Repeat(string(rune('a'+i%26)), length)
		if i%2 == 0 {
			e := entry("/" + line)
			l.Add(&e)
			want.Write(made(l, &e))
		} else {
			if _, err := l.Write([]byte(line + "\n")); err != nil {
				t.Fatal(err)
			}
			want.WriteString(line + "\n")
		}
		if i%101 == 0 {
			l.write()
		}
	}
	l.write()
	if l.lost.Load() != 0 || got.String() != want.String() {
		t.Errorf("%d lines are lost, %d bytes are written, want %d", l.lost.Load(), got.Len(), want.Len())
	}
}
