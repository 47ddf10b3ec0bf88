package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// newLogger makes the process's logger. Formats: text, json, bunyan (what
// SmartOS's own services write, so that the bunyan tool reads our log).
func newLogger(w io.Writer, level slog.Leveler, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "bunyan":
		options.ReplaceAttr = bunyanAttr
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		return slog.New(slog.NewJSONHandler(w, options)).With(
			"v", 0, "name", "imgmirror", "hostname", host, "pid", os.Getpid()), nil
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
