package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"imgmirror/config"
	"imgmirror/proxy/accesslog"
)

// The lines of requests are those of the process's logger, byte for byte, in each format.
func TestAccessLogHasTheProcessesFormat(t *testing.T) {
	hostile := []string{
		"", "/images", "two words", "a=b", `"quoted" back\slash`, "tab\tnew\nline\r\x00\x1b[31m\x7f", "ä\u2028\u2029\u00a0\u200b",
		"invalid \xff\xfe\xef", "\ufffd", "<b>&amp;", "😀", strings.Repeat("long ", 300),
	}
	for _, format := range []string{"text", "json", "bunyan"} {
		t.Run(format, func(t *testing.T) {
			var want, got bytes.Buffer
			h, err := newHandler(&want, slog.LevelInfo, format)
			if err != nil {
				t.Fatal(err)
			}
			h = h.WithAttrs([]slog.Attr{slog.String("component", "proxy")})
			_, l, err := newLogs(&got, slog.LevelInfo, config.Log{Format: format, Requests: "all"})
			if err != nil {
				t.Fatal(err)
			}
			end := time.Date(2026, 11, 29, 12, 0, 0, 0, time.Local)
			for i, text := range hostile {
				e := accesslog.Entry{
					End: end.Add(time.Duration(i) * 12_345_678), Method: "GET", Path: text, Status: 200 + i, Bytes: 12345, Duration: 1_234_567 * time.Duration(i),
					Received: int64(i % 2), Cache: text, Remote: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 4711}, RequestID: text, UserAgent: text,
				}
				r := slog.NewRecord(e.End, slog.LevelInfo, "request", 0)
				r.AddAttrs(slog.String("method", "GET"), slog.String("path", text), slog.Int("status", e.Status), slog.Int64("bytes", e.Bytes), slog.Duration("duration", e.Duration))
				if e.Received > 0 {
					r.AddAttrs(slog.Int64("received", e.Received))
				}
				if text != "" {
					r.AddAttrs(slog.String("cache", text))
				}
				r.AddAttrs(slog.String("remote", "10.0.0.7:4711"), slog.String("request_id", text), slog.String("user_agent", text))
				if i%3 == 0 {
					e.Err = errors.New(text)
					r.AddAttrs(slog.Any("error", e.Err))
				}
				l.Add(&e)
				if err := h.Handle(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			ctx, stop := context.WithCancel(t.Context())
			stop()
			if err := l.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("the lines are\n%swant\n%s", got.String(), want.String())
			}
		})
	}
}

// The process's lines and those of requests are in the order in which they came, and all are written at the end.
func TestLogKeepsOrder(t *testing.T) {
	var got bytes.Buffer
	log, l, err := newLogs(&got, slog.LevelInfo, config.Log{Format: "text", Requests: "all"})
	if err != nil {
		t.Fatal(err)
	}
	end := keep(l)
	const lines = 1000
	for i := range lines {
		if i%3 == 0 {
			log.Warn("other", "path", i, "long", strings.Repeat("x", i))
		} else {
			l.Add(&accesslog.Entry{Method: "GET", Path: strconv.Itoa(i), Remote: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7)}})
		}
	}
	if !end() {
		t.Error("the end gave up")
	}
	n := 0
	for line := range strings.Lines(got.String()) {
		if !strings.Contains(line, fmt.Sprintf(" path=%d ", n)) {
			t.Fatalf("line %d is %s", n, line)
		}
		n++
	}
	if n != lines {
		t.Errorf("%d of %d lines", n, lines)
	}
}

// slow is a writer with a pause in each Write; 0: the first Write never ends.
type slow struct {
	pause   time.Duration
	release chan struct{}
	bytes.Buffer
}

func (s *slow) Write(p []byte) (int, error) {
	if s.pause == 0 {
		<-s.release
	}
	time.Sleep(s.pause)
	return s.Buffer.Write(p)
}

// The end of the log waits for a slow writer to the last line, and gives up on one that takes nothing.
func TestEndOfLog(t *testing.T) {
	for _, pause := range []time.Duration{0, 900 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			w := &slow{pause: pause, release: make(chan struct{})}
			log, l, err := newLogs(w, slog.LevelInfo, config.Log{Format: "text", Requests: "all"})
			if err != nil {
				t.Fatal(err)
			}
			end := keep(l)
			for i := range 1000 { // several writes
				log.Info("line", "n", i, "text", strings.Repeat("x", 300))
			}
			start := time.Now()
			whole := end()
			if took := time.Since(start); whole != (pause > 0) || pause == 0 && took > stuckStderr || pause > 0 && took < 3*pause {
				t.Errorf("pause %v: whole %v after %v", pause, whole, took)
			}
			if n := strings.Count(w.String(), "\n"); whole && n != 1000 {
				t.Errorf("%d lines", n)
			}
			close(w.release)
			end()
		})
	}
}

// A verb waits for a reader of its error, however long the reader pauses; serve does not.
func TestErrorInPager(t *testing.T) {
	for _, verb := range []string{"list", "serve"} {
		synctest.Test(t, func(t *testing.T) {
			w := &slow{pause: time.Hour, release: make(chan struct{})}
			start := time.Now()
			tellError(&cobra.Command{Use: verb}, struct{ io.Writer }{w}, "error\n")
			if took := time.Since(start); (took >= time.Hour) != (verb == "list") {
				t.Errorf("%s ended after %v", verb, took)
			}
			time.Sleep(2 * time.Hour)
		})
	}
}
