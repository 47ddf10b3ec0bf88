package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// samples of each bystander in a round, one at each tick.
	isolationSamples = 100
	isolationTick    = 15 * time.Millisecond
	// A fault may make a bystander so much slower: the double, or so long, whichever is more.
	isolationShare = 2
	isolationGrace = 50 * time.Millisecond
	// A cell is wrong when so many rounds in a row say so: a busy machine is slow now and then, a
	// bystander that pays for a fault is slow in each.
	isolationRounds = 3
	// A round takes about two seconds. A round that takes so long is not measured to its end.
	isolationLimit = 20 * time.Second

	coldImages = isolationSamples * (1 + isolationRounds)
)

// TestIsolation: for each fault of a source or a client, each bystander is asked without the fault
// and with the fault. No bystander fails, and none becomes slower than its share.
func TestIsolation(t *testing.T) {
	cold := make([]image, coldImages)
	for i := range cold {
		cold[i] = newImage(fmt.Sprintf("cold-%03d", i), 16<<10)
	}
	for _, f := range isolationFaults {
		t.Run(f.name, func(t *testing.T) {
			s := newScene(t, f, cold)
			without, err := s.round(f)
			if err != nil {
				t.Fatalf("without the fault: %v", err)
			}
			f.begin(s)
			var slow []string
			for range isolationRounds {
				with, err := s.round(f)
				if err != nil {
					t.Fatalf("with the fault: %v", err)
				}
				if slow = slower(without, with); len(slow) == 0 {
					break
				}
				t.Logf("slower: %s", strings.Join(slow, "; "))
			}
			if len(slow) > 0 {
				t.Errorf("%d rounds in a row were slow; the last one: %s", isolationRounds, strings.Join(slow, "; "))
			}
		})
	}
}

// isolationFault is something that goes wrong for one source, or that one client does.
type isolationFault struct {
	name   string
	set    settings
	images []image // of the ill source
	tls    bool    // the ill source speaks TLS
	begin  func(*scene)
	more   []bystander // beside the usual ones
}

// scene is a mirror with two sources: one is well; the other becomes ill.
type scene struct {
	t    *testing.T
	ctx  context.Context // of the fault
	m    *mirror
	well *source
	ill  *illSource
	hit  image
	cold []image
	next atomic.Int32 // of cold
	work sync.WaitGroup
}

func newScene(t *testing.T, f isolationFault, cold []image) *scene {
	t.Helper()
	s := &scene{t: t, hit: newImage("hit", 256<<10), cold: cold}
	s.well = newSource(t, append([]image{s.hit}, cold...)...)
	s.ill = newIllSource(t, f.tls, f.images...)
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	s.m = startMirror(t, f.set, from(s.ill.url, settings{"name": "ill", "insecure": f.tls}), from(s.well.URL(), settings{"name": "well"}))
	t.Cleanup(func() { // before the mirror and the sources end
		cancel()
		s.work.Wait()
	})
	s.m.awaitList(1 + len(cold) + len(f.images))
	get(t, s.m.url+filePath(s.hit)).wantFile(t, s.hit)
	s.m.awaitStored(1)
	return s
}

// again repeats do until the fault ends, with a pause between.
func (s *scene) again(pause time.Duration, do func(ctx context.Context)) {
	s.work.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for s.ctx.Err() == nil {
			do(s.ctx)
			select {
			case <-tick.C:
			case <-s.ctx.Done():
			}
		}
	})
}

// ask is the request of a client that takes all, whatever comes.
func (s *scene) ask(ctx context.Context, path string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.m.url+path, nil)
	if err != nil {
		panic(err) // a test gave a bad path
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := client.Do(req); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body) // a fault may cut the body
		resp.Body.Close()
	}
}

// connect sends a request, and takes nothing of the reply.
func (s *scene) connect(path string) net.Conn {
	host := strings.TrimPrefix(s.m.url, "http://")
	conn, err := (&net.Dialer{}).DialContext(s.ctx, "tcp", host)
	if err != nil {
		return nil // the mirror may refuse, or the fault has ended
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10) // as small as the system allows
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, host); err != nil {
		conn.Close()
		return nil
	}
	return conn
}

// bystander asks for something that has nothing to do with the fault.
type bystander struct {
	name string
	ask  func(s *scene, c *http.Client) error
}

var bystanders = []bystander{
	{"hit", func(s *scene, c *http.Client) error {
		return wantBody(c, s.m.url+filePath(s.hit), len(s.hit.file), "")
	}},
	{"cold image", func(s *scene, c *http.Client) error {
		img := s.cold[s.next.Add(1)-1]
		return wantBody(c, s.m.url+filePath(img), len(img.file), "")
	}},
	{"list", func(s *scene, c *http.Client) error { return wantBody(c, s.m.url+"/images", 0, "") }},
	{"manifest", func(s *scene, c *http.Client) error {
		return wantBody(c, s.m.url+"/images/"+s.hit.uuid, 0, "")
	}},
	{"ping", func(s *scene, c *http.Client) error { return wantBody(c, s.m.url+"/ping", 0, "") }},
	{"admin call", func(s *scene, c *http.Client) error {
		return wantBody(c, s.m.admin+"/api/v1/sources", 0, s.m.token())
	}},
}

// wantBody asks for url and wants a whole body, of size bytes unless size is 0.
func wantBody(c *http.Client, url string, size int, token string) error {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("GET %s: after %d bytes: %w", url, n, err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("GET %s: status %d", url, resp.StatusCode)
	case size > 0 && n != int64(size):
		return fmt.Errorf("GET %s: %d bytes, want %d", url, n, size)
	}
	return nil
}

// lot is the times of one bystander in one round, in order of size.
type lot []time.Duration

func (l lot) at(part float64) time.Duration { return l[int(part*float64(len(l)-1))] }

// round asks all bystanders side by side, each one isolationSamples times.
func (s *scene) round(f isolationFault) (map[string]lot, error) {
	all := slices.Concat(bystanders, f.more)
	lots := make([]lot, len(all))
	start := time.Now()
	var g errgroup.Group
	for i, b := range all {
		g.Go(func() error {
			c := stranger(2)
			defer c.CloseIdleConnections()
			tick := time.NewTicker(isolationTick)
			defer tick.Stop()
			for range isolationSamples {
				began := time.Now()
				if err := b.ask(s, c); err != nil {
					return fmt.Errorf("%s: %w", b.name, err)
				}
				if lots[i] = append(lots[i], time.Since(began)); time.Since(start) > isolationLimit {
					return fmt.Errorf("%s: only %d answers in %s", b.name, len(lots[i]), isolationLimit)
				}
				<-tick.C
			}
			slices.Sort(lots[i])
			return nil
		})
	}
	err := g.Wait()
	named := make(map[string]lot, len(all))
	for i, b := range all {
		named[b.name] = lots[i]
	}
	return named, err
}

// stranger is a client of the address 127.0.0.n, where the system has several loopback addresses.
func stranger(n byte) *http.Client {
	d := &net.Dialer{Timeout: 10 * time.Second}
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}
	if l, err := net.ListenTCP("tcp", from); err == nil {
		l.Close()
		d.LocalAddr = from
	}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableCompression: true}, Timeout: 20 * time.Second}
}

// slower names the bystanders that pay more than their share.
func slower(without, with map[string]lot) (slow []string) {
	for name, before := range without {
		for _, part := range []float64{0.5, 0.99} {
			was, is := before.at(part), with[name].at(part)
			if limit := max(isolationShare*was, was+isolationGrace); is > limit {
				slow = append(slow, fmt.Sprintf("%s, at %v: %v, was %v", name, part, is.Round(time.Microsecond), was.Round(time.Microsecond)))
			}
		}
	}
	slices.Sort(slow)
	return slow
}

// illSource is an image server that can be put out of order below HTTP.
type illSource struct {
	*source
	url    string
	addr   string
	http   *http.Server
	images []image
	asked  atomic.Int32 // questions since instead is there
	// instead answers a request in place of the source, if it gives true.
	instead atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newIllSource(t *testing.T, secure bool, images ...image) *illSource {
	t.Helper()
	s := &illSource{source: newSource(t, images...), images: images}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.url = "http://" + s.addr
	if secure {
		s.url = "https://" + s.addr
		certificate, err := tls.LoadX509KeyPair(certificate(t))
		if err != nil {
			t.Fatal(err)
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}})
	}
	s.http = &http.Server{Handler: s}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.http.Serve(l) // ends by Close
	}()
	t.Cleanup(func() {
		s.http.Close()
		<-served
	})
	return s
}

func (s *illSource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if instead := s.instead.Load(); instead != nil {
		s.asked.Add(1)
		if (*instead)(w, r) {
			return
		}
	}
	s.Server.ServeHTTP(w, r)
}

// answer puts instead in the place of the source.
func (s *illSource) answer(instead func(http.ResponseWriter, *http.Request) bool) {
	s.instead.Store(&instead)
}

// silent has the port take connections, and say nothing.
func (s *illSource) silent() {
	s.t.Helper()
	s.http.Close()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	var held []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				held = append(held, conn)
			}
		}
	}()
	s.t.Cleanup(func() {
		l.Close()
		<-done
		for _, conn := range held {
			conn.Close()
		}
	})
}
