package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRestartSamePort: a stop leaves nothing behind that would hinder a start
// on the same ports and the same folder, idle connections or not.
func TestRestartSamePort(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	for range 3 {
		m.awaitList(len(sampleUUIDs))
		idle, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		kept, err := probe.Get(m.url + "/ping") // its connection is kept in the pool
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, kept.Body)
		kept.Body.Close()
		start := time.Now()
		m.stop()
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("stopping with idle connections took %v", took)
		}
		probe.CloseIdleConnections()
		m.start()
	}
	if s := m.log(); strings.Contains(s, "panic") || strings.Contains(s, "goroutine ") {
		t.Error("a panic in the log")
	}
}

// TestStopDrains: a stop lets running replies end, takes no new clients, and
// is not ready from the start on. A second signal ends at once.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	for _, signals := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d signals", signals), func(t *testing.T) {
			t.Parallel()
			const size = 3_000_000
			img := newImage("drains", size)
			src := newSource(t, img)
			src.rate(1_500_000)
			m := startMirror(t, settings{"clients.drain_timeout": "60s"}, from(src.URL()))
			m.awaitList(1)
			resp, err := http.Get(m.url + "/images/" + img.uuid + "/file")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var body bytes.Buffer
			if _, err := io.CopyN(&body, resp.Body, 100_000); err != nil {
				t.Fatal(err)
			}
			m.signal(syscall.SIGTERM)
			m.until("the mirror is not ready any more", func() bool {
				resp, err := probe.Get(m.admin + "/readyz")
				if err != nil {
					return true
				}
				resp.Body.Close()
				return resp.StatusCode == http.StatusServiceUnavailable
			})
			if signals == 2 {
				if !m.running() {
					t.Fatal("it ended before the reply did")
				}
				start := time.Now()
				// Two that come together count as one: repeat it as an operator would.
				m.until("the mirror has ended", func() bool {
					_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
					return !m.running()
				})
				if took := time.Since(start); took > 1500*time.Millisecond {
					t.Errorf("after the second signal it took %v", took)
				}
				return
			}
			m.until("no new connection is taken", func() bool {
				conn, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
			if _, err := body.ReadFrom(resp.Body); err != nil {
				t.Fatalf("the running reply was cut after %d of %d bytes: %v", body.Len(), size, err)
			}
			if !bytes.Equal(body.Bytes(), img.file) {
				t.Error("wrong bytes")
			}
			if code := m.awaitExit(10 * time.Second); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

// TestSecondProcess: one data folder has one process.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t))
	m.awaitList(len(sampleUUIDs))
	second := newMirror(t, settings{"data_dir": m.data()}, samples(t))
	second.launch()
	if code := second.awaitExit(20 * time.Second); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	if log := second.log(); !strings.Contains(log, "imgmirror serve: error (Busy): data folder "+m.data()+" is in use by another imgmirror (process ") {
		t.Errorf("it says\n%s", tail(log, 1000))
	}
	base := sample(t, sampleBase)
	get(t, m.url+"/images/"+sampleBase+"/file").wantFile(t, base) // the first is unharmed
}

// TestPortTaken: a port in use is an error at once, with the key and the address.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := newMirror(t, settings{"listen": l.Addr().String()})
	m.launch()
	if code := m.awaitExit(20 * time.Second); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	if !strings.Contains(m.log(), l.Addr().String()) || !strings.Contains(m.log(), "the key listen: ") {
		t.Errorf("it says\n%s", tail(m.log(), 1000))
	}
}

// TestIndexLost: the index folder deleted or filled with rubbish, everything
// is as before, and no cached file is fetched again.
func TestIndexLost(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(dir string) error{
		"deleted": os.RemoveAll,
		"rubbish": func(dir string) error {
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, e.Name()), []byte("rubbish"), 0o600)
				}
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cached, other := newImage("cached", 300_000), newImage("other", 1000)
			src := newSource(t, cached, other)
			m := startMirror(t, nil, from(src.URL()))
			m.awaitList(2)
			list := get(t, m.url+"/images")
			get(t, m.url+"/images/"+cached.uuid+"/file").wantFile(t, cached)
			m.awaitStored(1)
			m.stop()
			if err := harm(m.data("index")); err != nil {
				t.Fatal(err)
			}
			m.start()
			m.awaitList(2)
			if got := get(t, m.url+"/images"); !bytes.Equal(got.body, list.body) {
				t.Errorf("the list has %d bytes, before: %d", len(got.body), len(list.body))
			}
			got := get(t, m.url+"/images/"+cached.uuid+"/file")
			got.wantFile(t, cached)
			if md5 := got.header.Get("Content-MD5"); md5 != cached.contentMD5() {
				t.Errorf("Content-MD5 %q, want %q", md5, cached.contentMD5())
			}
			if n := src.requests(cached); n != 1 {
				t.Errorf("the source was asked %d times for the file", n)
			}
			get(t, m.url+"/images/"+other.uuid+"/file").wantFile(t, other)
		})
	}
}

// TestFileLost: a file that vanished from the folder is fetched again.
func TestFileLost(t *testing.T) {
	t.Parallel()
	img := newImage("lost", 300_000)
	src := newSource(t, img)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	path := m.url + "/images/" + img.uuid + "/file"
	get(t, path).wantFile(t, img)
	m.awaitStored(1)
	sum := img.sha1()
	if err := os.Remove(m.data("files", sum[:2], sum)); err != nil {
		t.Fatal(err)
	}
	get(t, path).wantFile(t, img)
	if n := src.requests(img); n != 2 {
		t.Errorf("the source was asked %d times, want 2", n)
	}
}

// TestMirrorOfMirror: a mirror is a source like any other.
func TestMirrorOfMirror(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"auto", "imgapi", "dsapi"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			first := startMirror(t, nil, samples(t))
			first.awaitList(len(sampleUUIDs))
			second := startMirror(t, nil, from(first.url, settings{"kind": kind}))
			second.awaitList(len(sampleUUIDs))
			got, err := newImgadm(t, second, "imgapi").importImage(sampleApp)
			if err != nil {
				t.Fatal(err)
			}
			wantImport(t, got, []string{sampleBase, sampleWeb, sampleApp})
			a, b := get(t, first.url+"/images/"+sampleApp), get(t, second.url+"/images/"+sampleApp)
			if kind != "dsapi" && !bytes.Equal(a.body, b.body) {
				t.Errorf("the manifest changed on its way:\n%s\n%s", a.body, b.body)
			}
		})
	}
}

// TestEnvironment: a mirror configured by the environment alone.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	img := newImage("environment", 1000)
	src := newSource(t, img)
	m := newMirror(t, nil)
	m.env = append(m.env,
		"IMGMIRROR_LISTEN="+strings.TrimPrefix(m.url, "http://"),
		"IMGMIRROR_ADMIN_LISTEN="+strings.TrimPrefix(m.admin, "http://"),
		"IMGMIRROR_DATA_DIR="+m.data(),
		"IMGMIRROR_CACHE_MIN_FREE=1MB",
		"IMGMIRROR_LOG_FORMAT=json",
		`IMGMIRROR_SOURCES=[{"name":"env","url":"`+src.URL()+`","kind":"imgapi"}]`,
	)
	m.run("serve")
	m.awaitReady()
	m.awaitList(1)
	get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
	if got := m.metric("imgmirror_upstream_up", `source="env"`); got != 1 {
		t.Errorf(`imgmirror_upstream_up{source="env"} %v`, got)
	}
	if !strings.HasPrefix(m.log(), "{") {
		t.Errorf("not a JSON log: %s", tail(m.log(), 300))
	}
	m.stop()

	// Flags win over the environment.
	other := newImage("flags", 1000)
	second := newSource(t, other)
	m.run("serve", "--source", second.URL())
	m.awaitReady()
	m.until("the flag's source is listed", func() bool { return bytes.Contains(get(t, m.url+"/images").body, []byte(other.uuid)) })
	if body := get(t, m.url+"/images").body; bytes.Contains(body, []byte(img.uuid)) {
		t.Error("the environment's source is listed, too")
	}
	m.stop()
}

// TestMetrics: the names that dashboards lean on are there from the start, and
// count what happened.
func TestMetrics(t *testing.T) {
	t.Parallel()
	img := newImage("metrics", 100_000)
	src := newSource(t, img)
	m := startMirror(t, nil, from(src.URL(), settings{"name": "src"}))
	m.awaitList(1)
	text := string(get(t, m.admin+"/metrics").body)
	for _, series := range []string{
		`imgmirror_cache_requests_total{result="hit"}`, `imgmirror_cache_requests_total{result="miss"}`, `imgmirror_cache_requests_total{result="join"}`,
		`imgmirror_cache_served_bytes_total{result="hit"}`, `imgmirror_upstream_received_bytes_total{source="src"}`,
		`imgmirror_upstream_requests_total{`, `imgmirror_upstream_up{source="src"} 1`, `imgmirror_fill_resumes_total{source="src"} 0`,
		`imgmirror_fills_inflight 0`, `imgmirror_verify_failures_total{source="src"`, `imgmirror_cache_size_bytes`, `imgmirror_cache_limit_bytes`,
		`imgmirror_cache_files 0`, `imgmirror_catalog_images 1`, `imgmirror_catalog_last_success_timestamp_seconds{source="src"}`,
		`imgmirror_catalog_conflicts 0`, `imgmirror_build_info{`,
	} {
		if !strings.Contains(text, "\n"+series) {
			t.Errorf("/metrics without %s", series)
		}
	}
	if strings.Contains(text, img.uuid) {
		t.Error("a uuid as a label")
	}
	for range 3 {
		get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
		m.awaitStored(1)
	}
	for _, want := range []struct {
		name, label string
		value       float64
	}{
		{"imgmirror_cache_requests_total", `result="miss"`, 1},
		{"imgmirror_cache_requests_total", `result="hit"`, 2},
		{"imgmirror_cache_served_bytes_total", `result="hit"`, 200_000},
		{"imgmirror_cache_served_bytes_total", `result="miss"`, 100_000},
		{"imgmirror_cache_size_bytes", "", 100_000},
		{"imgmirror_http_requests_total", `code="200"`, 3},
	} {
		m.until(fmt.Sprintf("%s{%s} is %v at least", want.name, want.label, want.value), func() bool {
			return m.metric(want.name, want.label) >= want.value
		})
	}
	if got := m.metric("imgmirror_upstream_received_bytes_total", `source="src"`); got < 100_000 {
		t.Errorf("received %v bytes", got)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := get(t, m.admin+path); got.status != 200 {
			t.Errorf("%s: status %d", path, got.status)
		}
	}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/healthz"} { // none of it is for clients
		if got := get(t, m.url+path); got.status != 404 {
			t.Errorf("%s on the client listener: status %d", path, got.status)
		}
	}
}
