package page

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/proxy/admin"
)

// counting is a page with one part, which needs no API, counts how often it is made, and shows a text.
func counting(t *testing.T) (p *Page, made *atomic.Int64, text *atomic.Value) {
	t.Helper()
	p, made, text = fresh(t), new(atomic.Int64), new(atomic.Value)
	text.Store("one")
	p.parts = []part{{id: "job-list", page: "jobs", template: "job-list", load: func(*look, string) (any, error) {
		made.Add(1)
		return &jobList{Running: []admin.Job{{ID: "a", Kind: text.Load().(string), State: admin.JobRunning}}}, nil
	}}}
	return p, made, text
}

// All streams get the same bytes, made once a second, only while a stream is open, and only when they have changed.
func TestHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, made, text := counting(t)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()

		time.Sleep(time.Minute)
		if made.Load() != 0 {
			t.Errorf("%d parts are made for no one", made.Load())
		}
		var all []*stream
		for range 10 {
			s, err := p.operatorHub.open("job-list,none,job-list", netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		var first []byte
		for i, s := range all {
			events, err := s.next(ctx)
			if err != nil || len(events) != 1 || !bytes.HasPrefix(events[0], []byte("event: part\ndata: job-list\ndata: ")) || !bytes.HasSuffix(events[0], []byte("\n\n")) {
				t.Fatalf("%q, %v", events, err)
			}
			if i == 0 {
				first = events[0]
			} else if &first[0] != &events[0][0] {
				t.Error("two streams have bytes of their own")
			}
		}
		begun := time.Now()
		if events, err := all[0].next(ctx); events != nil || err != nil || time.Since(begun) != liveAlive {
			t.Errorf("without a change: %q, %v after %s", events, err, time.Since(begun))
		}
		if n := made.Load(); n < 14 || n > 17 {
			t.Errorf("in 15 seconds the part was made %d times", n)
		}
		text.Store("two")
		for _, s := range all {
			if events, err := s.next(ctx); err != nil || len(events) != 1 || !strings.Contains(string(events[0]), "two") {
				t.Errorf("%q, %v", events, err)
			}
		}
		for _, s := range all[1:] {
			s.close()
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := all[0].next(gone); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		all[0].close()
		synctest.Wait()
		time.Sleep(2 * time.Second)
		n := made.Load()
		time.Sleep(time.Minute)
		if made.Load() != n || len(p.operatorHub.made) != 0 {
			t.Errorf("without a stream the part is made %d times, %d are kept", made.Load()-n, len(p.operatorHub.made))
		}

		s, err := p.operatorHub.open("job-list", netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		waited := make(chan error, 1)
		go func() {
			_, err := s.next(t.Context()) // the part
			if err == nil {
				_, err = s.next(t.Context())
			}
			waited <- err
		}()
		time.Sleep(2 * time.Second)
		stop()
		if err := <-waited; !errors.Is(err, errEnded) {
			t.Errorf("at the stop: %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := p.operatorHub.open("job-list", netip.Addr{}); !errors.Is(err, errEnded) {
			t.Errorf("after the stop: %v", err)
		}
	})
}

func TestStreamBounds(t *testing.T) {
	p := fresh(t)
	one := netip.MustParseAddr("192.0.2.1")
	for range maxAddressStreams {
		if _, _, err := p.Clients().Follow("fills", one); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := p.Clients().Follow("fills", one); !errors.Is(err, errStreams) {
		t.Errorf("one address: %v", err)
	}
	var end func()
	for n := range maxStreams - maxAddressStreams {
		var err error
		if _, end, err = p.Clients().Follow("fills", netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})); err != nil {
			t.Fatal(err)
		}
	}
	other := netip.MustParseAddr("192.0.2.2")
	if _, _, err := p.Clients().Follow("fills", other); !errors.Is(err, errStreams) {
		t.Errorf("all addresses: %v", err)
	}
	if open, refused := testutil.ToFloat64(p.metrics.streams[sideClients]), testutil.ToFloat64(p.metrics.refused[sideClients]); open != maxStreams || refused != 2 {
		t.Errorf("metrics: %v open, %v refused", open, refused)
	}
	end()
	if _, _, err := p.Clients().Follow("fills", other); err != nil {
		t.Errorf("after the end of one: %v", err)
	}
	if _, err := p.operatorHub.open("fills", netip.Addr{}); err != nil {
		t.Errorf("operators: %v", err)
	}
	s, err := p.operatorHub.open(strings.Repeat("job.x,", 100)+"job."+strings.Repeat("x", 100), netip.Addr{})
	if err != nil || len(s.wants) > maxWants {
		t.Errorf("%q, %v", s.wants, err)
	}
	if s, err = p.operatorHub.open("job.x,fills,image.y,job.z,health", netip.Addr{}); err != nil || strings.Join(s.wants, " ") != "job.x fills health" {
		t.Errorf("more than one subject: %q, %v", s.wants, err)
	}
}

// Parts that take long are made less often, so that streams leave the processors to clients.
func TestHubHasAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = time.Second
		p, made, _ := counting(t)
		load := p.parts[0].load
		p.parts[0].load = func(l *look, arg string) (any, error) {
			time.Sleep(took)
			return load(l, arg)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		if _, err := p.operatorHub.open("job-list", netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n, most := made.Load(), int64(time.Minute/took/makeShare)+1; n > most || n < 5 {
			t.Errorf("made %d times, want at most %d", n, most)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// tellingWriter tells of the first part that it gets.
type tellingWriter struct {
	*httptest.ResponseRecorder
	told chan struct{}
}

func (w *tellingWriter) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, []byte("event: part\ndata: job-list\n")) {
		close(w.told)
	}
	return w.ResponseRecorder.Write(p)
}

// An operator's stream ends with its session.
func TestStreamEndsWithSession(t *testing.T) {
	f := newFixture(t)
	f.login()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	r := httptest.NewRequest("GET", "/ui/live?want=job-list", nil)
	r.AddCookie(f.cookie)
	w := &tellingWriter{ResponseRecorder: httptest.NewRecorder(), told: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Operators().ServeHTTP(w, r)
	}()
	<-w.told
	f.sessions.end(r)
	<-ended
	if kind := w.Header().Get("Content-Type"); kind != "text/event-stream" {
		t.Error(kind)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Each part stands in the page that it is a part of.
func TestPartsHaveTheirPlaces(t *testing.T) {
	f := newFixture(t)
	f.login()
	all := ""
	for _, path := range paths() {
		all += f.operator("GET", path, nil).Body.String()
	}
	for _, row := range parts {
		if !strings.Contains(all, `id="`+row.id) {
			t.Errorf("no page has the part %s", row.id)
		}
	}
}
