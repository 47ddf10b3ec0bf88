package mirror

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cache"
	"imgmirror/zfsimport"
)

// How soon what failed is tried again: later each time.
const (
	firstRetry = time.Minute
	maxRetry   = time.Hour
)

// installWishes keeps in the pool what the rules ask for: once the catalogue is there, and again
// whenever the catalogue or the rules have changed. The remains of an earlier process are put right
// first. A failed install is tried again later; a failure is logged when the failure begins, and when
// the reason changes.
func (m *Mirror) installWishes(ctx context.Context) {
	if !m.awaitStart(ctx) {
		return
	}
	k := m.newKeeper()
	for {
		var retry <-chan time.Time
		if m.rules.Load().Installing {
			if next := k.pass(ctx); !next.IsZero() {
				retry = time.After(time.Until(next))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-m.installDue:
		case <-retry:
		}
	}
}

// keeper is what installWishes knows.
type keeper struct {
	m         *Mirror
	recovered bool
	trouble   map[uuid.UUID]*trouble // by image; uuid.Nil is for the pool
}

// trouble is with what failed the last time.
type trouble struct {
	said string
	wait time.Duration
	next time.Time // when to try again
}

func (m *Mirror) newKeeper() *keeper {
	return &keeper{m: m, trouble: make(map[uuid.UUID]*trouble)}
}

// newMissing makes the gauge of what installWishes has still to do.
func newMissing(reg prometheus.Registerer) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imgmirror_zfsimport_missing", Help: "Images that are to be in the local zpool and are not yet."})
	reg.MustRegister(g)
	return g
}

// pass installs what is missing, and tells when to come again, zero for never.
func (k *keeper) pass(ctx context.Context) (next time.Time) {
	err := k.install(ctx)
	if ctx.Err() != nil {
		return time.Time{}
	}
	k.note(uuid.Nil, err, "the local zpool is not as it should be")
	for _, t := range k.trouble {
		if next.IsZero() || t.next.Before(next) {
			next = t.next
		}
	}
	return next
}

// due tells that an image may be tried, as far as earlier tries go.
func (k *keeper) due(id uuid.UUID) bool {
	t := k.trouble[id]
	return t == nil || !time.Now().Before(t.next)
}

// note keeps in mind how a try ended.
func (k *keeper) note(id uuid.UUID, err error, message string, args ...any) {
	if err == nil {
		delete(k.trouble, id)
		return
	}
	t := k.trouble[id]
	if t == nil {
		t = &trouble{wait: firstRetry / 2}
		k.trouble[id] = t
	}
	t.wait = min(2*t.wait, maxRetry)
	if errors.Is(err, zfsimport.ErrPlatform) {
		t.wait = maxRetry // only a restart of the machine can help
	}
	t.next = time.Now().Add(t.wait)
	if err.Error() == t.said {
		return
	}
	t.said = err.Error()
	k.m.log.Warn(message, append(args, "component", "zfsimport", "error", err)...)
}

// install installs what is missing and due. Its error is about the pool as a whole.
func (k *keeper) install(ctx context.Context) error {
	m := k.m
	if err := m.pools.Check(ctx, ""); err != nil {
		return err
	}
	var recoverErr error
	if !k.recovered {
		recoverErr = m.pools.Recover(ctx, "") // what is left does not keep images from being installed
		k.recovered = recoverErr == nil
	}
	wanted := make(map[uuid.UUID]bool)
	failed := func(id uuid.UUID, err error) {
		wanted[id] = true
		if k.due(id) {
			k.note(id, err, "an image can not be installed", "uuid", id)
		}
	}
	steps, err := m.PlanInstall(ctx, m.wishes(ctx, m.rules.Load().Install, failed), Target{})
	if err != nil {
		return errors.Join(recoverErr, err)
	}
	missing := 0
	for i := range steps {
		st := &steps[i]
		id := st.Entry.Manifest.UUID
		wanted[id] = true
		switch {
		case st.Outcome == zfsimport.Present:
			delete(k.trouble, id)
			continue
		case !k.due(id):
			st.Err = errLater
		case st.Err != nil:
			k.note(id, st.Err, "an image can not be installed", "uuid", id)
		}
		missing++
	}
	m.install(ctx, steps, "", cache.Ahead, func(i int, t Turn) {
		image := steps[i].Entry.Manifest
		switch {
		case !t.Ended, errors.Is(t.Err, errOriginFailed):
		default:
			k.note(image.UUID, t.Err, "an image can not be installed", "uuid", image.UUID, "name", image.Name, "version", image.Version)
			if t.Err == nil {
				missing--
			}
		}
	})
	m.missing.Set(float64(missing))
	maps.DeleteFunc(k.trouble, func(id uuid.UUID, _ *trouble) bool { return id != uuid.Nil && !wanted[id] })
	return recoverErr
}

// errLater keeps an image from its turn until a later pass.
var errLater = errors.New("not due yet")
