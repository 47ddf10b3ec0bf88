package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"imgmirror/config"
	"imgmirror/proxy/accesslog"
)

// newLogs makes the process's logger and the log that has its lines and those of requests. Nothing is written
// but by the log's Run.
func newLogs(w io.Writer, level slog.Leveler, cfg config.Log) (*slog.Logger, *accesslog.Log, error) {
	var lines *accesslog.Log
	h, err := newHandler(writerFunc(func(p []byte) (int, error) { return lines.Write(p) }), level, cfg.Format)
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(h)
	var common strings.Builder // the line of a request, without time and fields
	if h, err = newHandler(&common, slog.LevelInfo, cfg.Format); err != nil {
		return nil, nil, err
	}
	h = h.WithAttrs([]slog.Attr{slog.String("component", "proxy")})
	if err := h.Handle(context.Background(), slog.NewRecord(time.Time{}, slog.LevelInfo, "request", 0)); err != nil {
		return nil, nil, err
	}
	lines, err = accesslog.New(accesslog.Options{Writer: w, Format: cfg.Format, Common: common.String(), Level: level, Logger: log})
	if err != nil {
		return nil, nil, err
	}
	lines.SetRequests(cfg.Requests)
	return log, lines, nil
}

// writerFunc is a function as a writer.
type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// keep writes the lines of log until end is called. end waits until all lines are written, but no longer than
// stuckStderr for a writer that takes nothing; then whole is false. end may be called again.
func keep(log *accesslog.Log) (end func() (whole bool)) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // end waits
		defer close(done)
		_ = log.Run(ctx) // has no errors
	}()
	return func() bool {
		stop()
		for before := log.Written(); ; before = log.Written() {
			select {
			case <-done:
				return true
			case <-time.After(stuckStderr):
				if log.Written() == before {
					return false
				}
			}
		}
	}
}

// newHandler makes what formats the process's lines. Formats: text, json, bunyan (what SmartOS's own
// services write, so that the bunyan tool reads our log).
func newHandler(w io.Writer, level slog.Leveler, format string) (slog.Handler, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.NewTextHandler(w, options), nil
	case "json":
		return slog.NewJSONHandler(w, options), nil
	case "bunyan":
		options.ReplaceAttr = bunyanAttr
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		return slog.NewJSONHandler(w, options).WithAttrs([]slog.Attr{
			slog.Int("v", 0), slog.String("name", "imgmirror"), slog.String("hostname", host), slog.Int("pid", os.Getpid()),
		}), nil
	default:
		return nil, fmt.Errorf("log.format %q: not text, json or bunyan", format)
	}
}

// bunyanAttr turns slog's own keys into bunyan's: a numeric level (debug 20,
// info 30, warn 40, error 50) and a UTC time with milliseconds.
func bunyanAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		if l, ok := a.Value.Any().(slog.Level); ok {
			return slog.Int("level", 30+int(l)*10/4)
		}
	case slog.TimeKey:
		return slog.String("time", a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	}
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().Round(time.Microsecond).String())
	}
	return a
}
