package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
	"imgmirror/proxy/admin"
)

// refreshLimit is how long a verb that runs its own mirror waits for the
// sources' lists; it then goes by those on disk.
const refreshLimit = 30 * time.Second

// openLocal opens the data folder in this process and serves the API to itself.
// Nothing that a mirror does of its own accord runs: no refresh but that of old
// lists which n asks for, no scrub, no prefetch, no resuming of old downloads.
func openLocal(ctx context.Context, cfg *config.Config, n need, log *slog.Logger) (*session, error) {
	own := *cfg
	own.Listen, own.Admin.Listen = "", ""
	own.Verify.ScrubEvery = 0
	own.Prefetch = nil
	cleanup := func() error { return nil }
	if _, err := os.Stat(cfg.DataDir); errors.Is(err, fs.ErrNotExist) && n != needStore {
		if n == needFiles {
			return nil, failure.New("NoDataFolder", "no mirror has been run on %s (--data-dir, or data_dir in the configuration)", cfg.DataDir)
		}
		dir, err := os.MkdirTemp("", "imgmirror-")
		if err != nil {
			return nil, err
		}
		own.DataDir = dir
		cleanup = func() error { return os.RemoveAll(dir) }
	}
	m, err := newProcess(ctx, &own, log)
	if err != nil {
		return nil, errors.Join(err, cleanup())
	}
	ln := fasthttputil.NewInmemoryListener()
	client, err := admin.NewClient(admin.ClientOptions{Dial: func(context.Context) (net.Conn, error) { return ln.Dial() }})
	if err != nil {
		m.close()
		return nil, errors.Join(err, cleanup())
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- m.runLocal(serving, ln) }()
	if n != needFiles && n != needCheck {
		limited, cancel := context.WithTimeout(ctx, refreshLimit)
		refresh := m.RefreshDue
		if n == needAnswers {
			refresh = m.Refresh
		}
		if err := refresh(limited); err != nil {
			log.Warn("the lists of some sources are those of an earlier time", "error", err)
		}
		cancel()
	}
	return &session{
		Client: client,
		close: func() error {
			client.Close()
			stop()
			return errors.Join(<-done, cleanup())
		},
	}, nil
}
