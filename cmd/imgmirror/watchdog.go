package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// watchdog tells systemd again and again that the mirror is healthy, until the result is called. Where the unit
// has no WatchdogSec there is nothing to tell.
func (p *process) watchdog(log *slog.Logger) (stop func()) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog cannot be told", "error", err)
	}
	if err != nil || every == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tellHealth(ctx, every/3, p.pass, func() { notify(log, daemon.SdNotifyWatchdog) })
	}()
	return func() { cancel(); <-done }
}

// tellHealth calls tell at each tick after check has returned. A check that hangs is told by silence.
func tellHealth(ctx context.Context, every time.Duration, check, tell func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			check()
			tell()
		case <-ctx.Done():
			return
		}
	}
}

// pass goes through the locks that all requests go through, and hangs where one is never released. Nothing that
// a new process would not mend counts: no source that is down, no full disk, no crowd of clients.
func (p *process) pass() {
	p.Fills()
	p.Status()
}
