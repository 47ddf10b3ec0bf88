package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imgmirror/config"
)

// lines collects a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) wait(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		if strings.Contains(text, what) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log has no %q:\n%s", what, text)
		}
	}
}

// SIGHUP ends nothing: what can change does, and the rest is named.
func TestHangup(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "imgmirror.yaml")
	write := func(level, more string) {
		t.Helper()
		text := fmt.Sprintf("listen: 127.0.0.1:0\ndata_dir: %s\nadmin: {listen: \"\"}\nsources: []\nlog: {level: %s}\n%s", filepath.Join(dir, "data"), level, more)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	load := func() (*config.Config, error) { return config.Load(config.LoadOptions{File: file}) }
	write("info", "")
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var log lines
	ended := make(chan error)
	go func() { ended <- serve(ctx, cfg, &log, load) }()
	log.wait(t, "msg=serving")
	hangup := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}

	write("debug", "nonsense: 1\n")
	hangup()
	log.wait(t, "nothing was changed")
	write("debug", "offline: true\n")
	hangup()
	log.wait(t, "level=debug")
	log.wait(t, `need a restart" keys=[offline]`)

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	log.wait(t, "msg=stopped")
}

// The level that is set is that of the loggers made before.
func TestLogLevelChanges(t *testing.T) {
	var log lines
	var level slog.LevelVar
	l, err := newLogger(&log, "info", "text", &level)
	if err != nil {
		t.Fatal(err)
	}
	l = l.With("component", "x")
	l.Debug("first")
	level.Set(slog.LevelDebug)
	l.Debug("second")
	if got := log.text.String(); strings.Contains(got, "first") || !strings.Contains(got, "second") {
		t.Error(got)
	}
}
