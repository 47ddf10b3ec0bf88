package e2e

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imgmirror/proxy/upstream/upstreamtest"
)

// TestInstallKill: kill -9 of the process that installs, the mirror or the verb by itself, at
// any moment of an install of a chain of three. Nothing half-made has an image's
// name, no record is of an image that is not there, and the same command completes the
// chain.
func TestInstallKill(t *testing.T) {
	t.Parallel()
	const kills = 20
	base, web, app := newChain(t)
	chain := []string{base.uuid, web.uuid, app.uuid}
	random := rand.New(rand.NewPCG(4, 2))
	p := newPool(t, poolSize)
	src := newSource(t, base, web, app)
	src.rate(1 << 20) // so that downloads take their part of the time
	m := newMirror(t, p.settings(), from(src.URL(), settings{"refresh": "1h"}))
	forget := func() {
		t.Helper()
		m.kill()
		if err := os.RemoveAll(m.data()); err != nil {
			t.Fatal(err)
		}
		m.folder()
	}

	// How long it takes when nobody disturbs it, and what then is there.
	m.start()
	m.awaitList(3)
	began := time.Now()
	m.verb("install", "-q", app.uuid).want(t)
	whole := time.Since(began)
	want := map[string]map[string]string{}
	for _, id := range chain {
		want[id] = p.contents(id)
	}
	listing := p.listing()

	for i := range kills {
		p.clear()
		if i%4 < 2 {
			forget() // the images are not cached
		}
		alone := i%2 == 1
		if alone {
			m.kill()
		} else if !m.running() {
			m.start()
			m.awaitList(3)
		}
		verb, _ := m.command("install", "-q", app.uuid, "--config", m.configFile())
		at := time.Duration(random.Float64() * 1.1 * float64(whole))
		if err := verb.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(at)
		if alone {
			_ = verb.Process.Kill() // it may have ended
			_, _ = verb.Process.Wait()
		} else {
			m.kill()
		}
		names := p.datasets()
		for id := range p.records() {
			if !slices.Contains(names, id) {
				t.Errorf("killed after %s: there is a record of %s, which is not in the pool", at, id)
			}
		}
		for _, name := range names {
			if id, part := strings.CutSuffix(name, "-partial"); !part && !strings.Contains(p.listing(), "POOL/"+id+"@final") {
				t.Errorf("killed after %s: %s is there without its snapshot", at, id)
			}
		}
		if !alone {
			m.start()
			m.awaitList(3)
		}
		_ = verb.Wait() // it failed, or was done
		m.verb("install", "-q", app.uuid).want(t)
		p.holds(chain...)
		if diff := cmp.Diff(listing, p.listing()); diff != "" {
			t.Errorf("killed after %s: zfs list, -want +got:\n%s", at, diff)
		}
		for _, id := range chain {
			if diff := cmp.Diff(want[id], p.contents(id)); diff != "" {
				t.Errorf("killed after %s: contents of %s, -want +got:\n%s", at, id, diff)
			}
		}
		if t.Failed() {
			t.Fatalf("kill %d of %d, after %s of %s, alone %t; the pool held %q", i+1, kills, at, whole, alone, names)
		}
		parts := strings.Count(strings.Join(names, " "), "-partial")
		t.Logf("killed after %s of %s: the pool held %d of 3, and %d in part", at, whole, len(names)-parts, parts)
	}
}

// TestInstallInterrupted: Ctrl-C in mid-receive takes the image out of the pool
// again. What was downloaded is kept where there is a cache: the same command goes
// on from there.
func TestInstallInterrupted(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"mirror", "alone", "from"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, poolSize)
			img := asNew(t, sampleBase, nil, nil)
			src := newSource(t, img)
			src.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 100_000})
			m := newMirror(t, p.settings(), from(src.URL(), settings{"refresh": "1h"})).folder()
			args := []string{"install", img.uuid}
			switch way {
			case "mirror":
				m.start()
				m.awaitList(1)
			case "from":
				args = append(args, "--from", src.URL())
			}
			verb, out := m.command(append(args, "--config", m.configFile())...)
			if err := verb.Start(); err != nil {
				t.Fatal(err)
			}
			m.until("it is being received", func() bool { return slices.Contains(p.datasets(), img.uuid+"-partial") })
			if err := verb.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			out(verb.Wait()).wantError(t, "install", "Interrupted")
			p.holds()

			src.Heal()
			m.verb(append(args, "-q")...).want(t)
			p.holds(img.uuid)
			if sent, size := src.sent(img), int64(len(img.file)); way != "from" && sent >= size*11/10 {
				t.Errorf("the source sent %d bytes for a file of %d", sent, size)
			}
		})
	}
}
