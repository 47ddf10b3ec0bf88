package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/proxy/upstream/upstreamtest"
)

const (
	mixImages  = 10_000
	mixMemory  = 256 << 20
	mixHonest  = 300 // clients that ask for what there is, about once a second
	mixSlow    = 100 // that take nothing of a filtered list
	mixQuit    = 50  // that leave before the first byte of a file of an ill source
	mixRandom  = 50  // that ask for uuids that no source has
	mixAddress = 16  // addresses of clients
)

// TestMix: a mirror with 10,000 images and 256 MiB of memory, beside sources that drip, hang, lie
// and send lists without an end. Of 500 clients 200 are hostile. The mirror lives, no honest client
// has an error, the memory stays below the limit, and nothing of all this is left in the end.
// E2E_MIX is how long the mix lasts; the default is half a minute.
func TestMix(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc is of Linux")
	}
	lasts := 30 * time.Second
	if text := os.Getenv("E2E_MIX"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	x := newMix(t)
	before := x.holds()
	ctx, end := context.WithTimeout(context.Background(), lasts)
	defer end()
	x.run(ctx)
	if !x.m.running() {
		t.Fatal("the mirror has ended")
	}
	if x.failed.Load() > 0 {
		t.Errorf("%d of %d questions of honest clients failed", x.failed.Load(), x.asked.Load())
	}
	peak := statusMB(t, x.m, "VmHWM:")
	t.Logf("%d questions of honest clients; VmHWM %.0f MB", x.asked.Load(), peak)
	if peak >= mixMemory/1e6 {
		t.Errorf("VmHWM is %.0f MB, the limit is %.0f MB", peak, mixMemory/1e6)
	}
	x.m.until("the clients are gone", func() bool { return x.m.metric("imgmirror_http_connections") == 0 })
	// The downloads that clients began go on without them, as long as their sources are there.
	const each = 2*8 + 1 + 32 // slots, and places in the queue, of one source
	if n := x.m.metric("imgmirror_fills_inflight") + x.m.metric("imgmirror_fill_slots_waiting"); n > each*float64(len(x.bad)) {
		t.Errorf("%v downloads are left", n)
	}
	for _, src := range x.bad {
		src.Stop()
	}
	x.m.until("nothing is left", func() bool {
		now := x.holds()
		return now.descriptors <= before.descriptors+20 && now.goroutines <= before.goroutines+40
	})
}

// mix is the mirror with its sources and clients.
type mix struct {
	t      *testing.T
	m      *mirror
	images []image // of the source that is well
	ill    []image
	bad    []*source // that drip, hang, break, lie and fail
	asked  atomic.Int64
	failed atomic.Int64
	said   sync.Once
}

func newMix(t *testing.T) *mix {
	t.Helper()
	x := &mix{t: t, images: illImages("mix", mixImages, 4<<10)}
	well := newSourceWith(t, upstreamtest.Options{Gzip: true}, x.images...)
	sources := []map[string]any{from(well.URL(), settings{"name": "well"})}
	for name, fault := range map[string]upstreamtest.Fault{
		"drips":  {Path: "/file", Rate: 1},
		"hangs":  {Path: "/file", Delay: time.Hour},
		"breaks": {Path: "/file", Stall: true, After: 32 << 10},
		"lies":   {Path: "/file", Corrupt: true, At: 100},
		"fails":  {Path: "/file", Status: http.StatusInternalServerError},
	} {
		images := illImages("mix "+name, 20, 64<<10)
		x.ill = append(x.ill, images...)
		src := newSource(t, images...)
		src.Inject(fault)
		x.bad = append(x.bad, src)
		sources = append(sources, from(src.URL(), settings{"name": name, "refresh": "5s"}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"endless": endlessList(ctx),
		"bomb":    bomb(),
	} {
		src := newIllSource(t, false)
		src.answer(answer)
		sources = append(sources, from(src.url, settings{"name": name, "refresh": "5s"}))
	}
	x.m = newMirror(t, settings{"cache.max_size": "20MB", "log.level": "warn", "memory.limit": strconv.Itoa(mixMemory)}, sources...)
	x.m.under = memoryGroup(t, mixMemory)
	x.m.start()
	x.m.awaitList(mixImages + len(x.ill))
	return x
}

// memoryGroup gives the program that runs the mirror in a control group with so much memory. There
// is none where the system gives no group to us: the mirror's own limit counts alone then.
func memoryGroup(t *testing.T, limit int) []string {
	t.Helper()
	dir := fmt.Sprintf("/sys/fs/cgroup/memory/imgmirror-%d", os.Getpid())
	file := "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, file = fmt.Sprintf("/sys/fs/cgroup/imgmirror-%d", os.Getpid()), "memory.max"
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Logf("without a control group: %v", err)
		return nil
	}
	t.Cleanup(func() { _ = os.Remove(dir) }) // the mirror has ended
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o600); err != nil {
		t.Logf("without a control group: %v", err)
		return nil
	}
	return []string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, dir}
}

// held is what the mirror holds at the moment.
type held struct{ descriptors, goroutines int }

func (x *mix) holds() held {
	x.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.m.cmd.Process.Pid))
	if err != nil {
		x.t.Fatal(err)
	}
	return held{len(fds), int(x.m.metric("go_goroutines"))}
}

// run has all clients at work until ctx ends.
func (x *mix) run(ctx context.Context) {
	host := strings.TrimPrefix(x.m.url, "http://")
	var clients sync.WaitGroup
	every := func(n int, pause time.Duration, do func(i int, c *http.Client)) {
		for i := range n {
			clients.Go(func() {
				c := stranger(byte(2 + i%mixAddress))
				defer c.CloseIdleConnections()
				tick := time.NewTicker(pause)
				defer tick.Stop()
				for ctx.Err() == nil {
					do(i, c)
					select {
					case <-tick.C:
					case <-ctx.Done():
					}
				}
			})
		}
	}
	every(mixHonest, time.Second, func(i int, c *http.Client) { x.honest(ctx, i, c) })
	every(mixSlow, 5*time.Second, func(i int, _ *http.Client) {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /images?os=smartos&limit=%d HTTP/1.1\r\nHost: x\r\n\r\n", 5000+i)
		select {
		case <-time.After(time.Duration(5+i%10) * time.Second):
		case <-ctx.Done():
		}
	})
	every(mixQuit, time.Second, func(int, *http.Client) {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			return
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", filePath(x.ill[rand.IntN(len(x.ill))]))
		conn.Close()
	})
	every(mixRandom, 100*time.Millisecond, func(_ int, c *http.Client) {
		_ = wantBody(c, x.m.url+"/images/"+uuid.NewString(), 0, "") // there is none
	})
	clients.Wait()
}

// honest asks for something that must be there.
func (x *mix) honest(ctx context.Context, i int, c *http.Client) {
	path, size := "/ping", 0
	switch img := x.images[rand.IntN(len(x.images))]; rand.IntN(20) {
	case 0:
		path = "/images"
	case 1:
		path = "/images?name=" + img.name
	case 2, 3, 4, 5, 6:
		path = "/images/" + img.uuid
	case 7, 8:
		path, size = filePath(img), len(img.file)
	case 9, 10, 11, 12, 13, 14, 15, 16:
		img = x.images[i%100] // often asked for: cached
		path, size = filePath(img), len(img.file)
	}
	err := wantBody(c, x.m.url+path, size, "")
	x.asked.Add(1)
	if err != nil && ctx.Err() == nil {
		x.failed.Add(1)
		x.said.Do(func() { x.t.Logf("the first failure: %v", err) })
	}
}

// statusMB is a line of the process's /proc/PID/status in MB.
func statusMB(t testing.TB, m *mirror, name string) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name {
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib * 1024 / 1e6
		}
	}
	t.Fatalf("no %s in /proc", name)
	return 0
}
