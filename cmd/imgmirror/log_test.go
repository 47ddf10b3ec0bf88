package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

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
			l, err := newAccessLog(&got, slog.LevelInfo, config.Log{Format: format, Requests: "all"}, slog.New(slog.DiscardHandler))
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
