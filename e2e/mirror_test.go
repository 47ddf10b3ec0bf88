package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// settings are configuration keys in dotted form, over those of newMirror.
type settings map[string]any

// mirror is one installation: a configuration and a data folder, and the
// process that runs on them, if one does. A stop and a start is a restart.
type mirror struct {
	t      testing.TB
	dir    string // holds imgmirror.yaml, data/ and log
	url    string // of the client listener
	admin  string // of the admin listener
	config map[string]any
	env    []string
	under  []string // a program that runs the binary, and its arguments; nil: none
	stderr *os.File // of the process; nil: log

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	err    error         // of cmd.Wait, valid once exited is closed
}

// newMirror makes an installation with sources, on ports of its own. It starts
// nothing; the process is killed at the end of the test, if it still runs.
func newMirror(t testing.TB, set settings, sources ...map[string]any) *mirror {
	t.Helper()
	m := &mirror{t: t, dir: t.TempDir(), env: cleanEnv()}
	listen, admin := freeAddr(t), freeAddr(t)
	m.url, m.admin = "http://"+listen, "http://"+admin
	if sources == nil {
		sources = []map[string]any{}
	}
	m.config = map[string]any{
		"listen":   listen,
		"data_dir": filepath.Join(m.dir, "data"),
		"log":      map[string]any{"level": "info"},
		"admin":    map[string]any{"listen": admin},
		"sources":  sources,
		"cache":    map[string]any{"min_free": "1MB"},
		"clients":  map[string]any{"drain_timeout": "5s"},
	}
	m.set(set)
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("the mirror's log:\n%s", tail(m.log(), 8<<10))
		}
	})
	return m
}

// startMirror is newMirror and start.
func startMirror(t testing.TB, set settings, sources ...map[string]any) *mirror {
	t.Helper()
	m := newMirror(t, set, sources...)
	m.start()
	return m
}

// set changes configuration keys, for the next start.
func (m *mirror) set(set settings) {
	for key, value := range set {
		section, name, found := strings.Cut(key, ".")
		if !found {
			m.config[key] = value
			continue
		}
		sub := map[string]any{}
		if old, ok := m.config[section].(map[string]any); ok {
			sub = maps.Clone(old)
		}
		sub[name] = value
		m.config[section] = sub
	}
}

// from is a source's configuration: its url and more keys.
func from(url string, more ...settings) map[string]any {
	source := map[string]any{"url": url}
	for _, s := range more {
		maps.Copy(source, s)
	}
	return source
}

// folder makes the data folder, as a first start does, for verbs that work without a mirror.
func (m *mirror) folder() *mirror {
	m.t.Helper()
	if err := os.MkdirAll(m.data(), 0o755); err != nil {
		m.t.Fatal(err)
	}
	return m
}

// data is the path of something in the data folder.
func (m *mirror) data(elem ...string) string {
	return filepath.Join(append([]string{m.dir, "data"}, elem...)...)
}

// start runs `imgmirror serve` and waits until it is ready.
func (m *mirror) start() {
	m.t.Helper()
	m.launch()
	m.awaitReady()
}

// launch runs `imgmirror serve` and does not wait.
func (m *mirror) launch() {
	m.t.Helper()
	m.run("serve", "--config", m.configFile())
}

// configFile writes the configuration and tells where.
func (m *mirror) configFile() string {
	m.t.Helper()
	text, err := yaml.Marshal(m.config)
	if err != nil {
		m.t.Fatal(err)
	}
	file := filepath.Join(m.dir, "imgmirror.yaml")
	err = os.WriteFile(file+".new", text, 0o600)
	if err == nil { // a process that starts just now reads the file whole, before or after
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return file
}

// run starts the binary as this mirror's process.
func (m *mirror) run(args ...string) {
	m.t.Helper()
	if m.running() {
		m.t.Fatal("start: it runs already")
	}
	log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	args = slices.Concat(m.under, []string{imgmirror}, args)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if m.stderr != nil {
		cmd.Stderr = m.stderr
	}
	cmd.Env, cmd.Dir = m.env, m.dir
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	exited := make(chan struct{})
	m.cmd, m.exited = cmd, exited
	go func() {
		m.err = cmd.Wait()
		close(exited)
	}()
}

// awaitReady waits until /readyz says so.
func (m *mirror) awaitReady() {
	m.t.Helper()
	m.until("the mirror is ready", func() bool {
		if !m.running() {
			m.t.Fatalf("imgmirror ended: %v\n%s", m.err, tail(m.log(), 4<<10))
		}
		resp, err := probe.Get(m.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// awaitList waits until the mirror lists at least n images.
func (m *mirror) awaitList(n int) {
	m.t.Helper()
	m.until(fmt.Sprintf("%d images are listed", n), func() bool {
		return m.metric("imgmirror_catalog_images") >= float64(n)
	})
}

// awaitStored waits until n files are published and recorded: a client has
// them as soon as their sums hold, which is before that.
func (m *mirror) awaitStored(n int) {
	m.t.Helper()
	m.until(fmt.Sprintf("%d files are stored", n), func() bool {
		return m.metric("imgmirror_cache_files") == float64(n)
	})
}

// running tells whether the process lives.
func (m *mirror) running() bool {
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// stop ends the process by SIGTERM and wants a clean exit.
func (m *mirror) stop() {
	m.t.Helper()
	m.signal(syscall.SIGTERM)
	if code := m.awaitExit(20 * time.Second); code != 0 {
		m.t.Fatalf("SIGTERM: exit %d (%v)\n%s", code, m.err, tail(m.log(), 4<<10))
	}
}

// kill ends the process as a power cut would, and waits until it is gone.
func (m *mirror) kill() {
	if m.running() {
		_ = m.cmd.Process.Kill()
		<-m.exited
	}
}

// restart stops the process in good order and starts it again.
func (m *mirror) restart() {
	m.t.Helper()
	m.stop()
	m.start()
}

func (m *mirror) signal(s os.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Fatalf("signal %v: %v", s, err)
	}
}

// awaitExit waits for the process's end and returns its exit code, -1 if a
// signal ended it.
func (m *mirror) awaitExit(limit time.Duration) int {
	m.t.Helper()
	select {
	case <-m.exited:
		return m.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
		m.kill()
		m.t.Fatalf("still running after %s\n%s", limit, tail(m.log(), 8<<10))
		return -1
	}
}

func (m *mirror) logFile() string { return filepath.Join(m.dir, "log") }

// log is what all processes of this mirror have printed.
func (m *mirror) log() string {
	text, err := os.ReadFile(m.logFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Error(err)
	}
	return string(text)
}

// until polls cond every few milliseconds and fails the test after 30 seconds.
// It is for what can only be seen from outside the process.
func (m *mirror) until(what string, cond func() bool) {
	m.t.Helper()
	m.untilEach(5*time.Millisecond, what, cond)
}

// untilEach is until for what takes its time.
func (m *mirror) untilEach(pause time.Duration, what string, cond func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			m.t.Fatalf("gave up waiting until %s", what)
		}
		<-tick.C
	}
}

// metric is the sum of a metric's series whose labels contain all the given
// `label="value"` texts. A metric that is not there at all counts as 0.
func (m *mirror) metric(name string, labels ...string) float64 {
	m.t.Helper()
	resp, err := probe.Get(m.admin + "/metrics")
	if err != nil {
		m.t.Fatalf("GET /metrics: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatalf("GET /metrics: %v", err)
	}
	var sum float64
next:
	for line := range strings.Lines(string(text)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || (series != name && !strings.HasPrefix(series, name+"{")) {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(series, label) {
				continue next
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			m.t.Fatalf("metric %q: %v", line, err)
		}
		sum += v
	}
	return sum
}

// files are the names of what is published in DATA/files.
func (m *mirror) files() []string {
	m.t.Helper()
	return m.walk("files")
}

// walk lists the regular files below a folder of the data folder.
func (m *mirror) walk(folder string) []string {
	m.t.Helper()
	var names []string
	err := filepath.WalkDir(m.data(folder), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return names
}

// probe is the client for questions that are beside the test's point.
var probe = &http.Client{Timeout: 10 * time.Second}

// reply is an answer read to its end, as far as it came.
type reply struct {
	status  int
	header  http.Header
	body    []byte
	err     error         // of the body: nil only if it ended as announced
	first   time.Duration // from the request to the first byte of the body
	elapsed time.Duration // to its end
}

// get asks on a connection of its own. Only a failure before the headers fails the test.
func get(t testing.TB, url string, header ...string) reply {
	t.Helper()
	r, err := tryGet(url, header...)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return r
}

// tryGet is get for a server that may not be there. Header is pairs of name and value.
func tryGet(url string, header ...string) (reply, error) {
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	start := time.Now()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if resp.ContentLength > 0 {
		body.Grow(int(resp.ContentLength) + bytes.MinRead)
	}
	r := reply{status: resp.StatusCode, header: resp.Header}
	one := make([]byte, 1)
	if n, err := io.ReadFull(resp.Body, one); n == 1 {
		r.first = time.Since(start)
		body.Write(one)
		_, r.err = body.ReadFrom(resp.Body)
	} else if !errors.Is(err, io.EOF) {
		r.err = err
	}
	r.elapsed = time.Since(start)
	r.body = body.Bytes()
	return r, nil
}

// wantFile fails the test unless r is img's file, whole and right.
func (r reply) wantFile(t testing.TB, img image) {
	t.Helper()
	switch {
	case r.status != http.StatusOK:
		t.Fatalf("%s: status %d: %s", img.name, r.status, tail(string(r.body), 300))
	case r.err != nil:
		t.Fatalf("%s: after %d of %d bytes: %v", img.name, len(r.body), len(img.file), r.err)
	case !bytes.Equal(r.body, img.file):
		t.Fatalf("%s: %d bytes, and not the right ones", img.name, len(r.body))
	}
}

// wantError fails the test unless r is the error with that status and code.
func (r reply) wantError(t testing.TB, status int, code string) {
	t.Helper()
	if r.status != status || !bytes.Contains(r.body, []byte(`"code":"`+code+`"`)) && !bytes.Contains(r.body, []byte(`"code": "`+code+`"`)) {
		t.Fatalf("status %d, body %s; want %d %s", r.status, tail(string(r.body), 300), status, code)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type of an error: %q", got)
	}
}

// nextPort is the last port handed out by freeAddr, below the range from which
// the kernel takes ports for outgoing connections.
var nextPort atomic.Int32

var seedPort = sync.OnceFunc(func() { nextPort.Store(int32(12000 + os.Getpid()%15000)) })

// freeAddr is a loopback address that nobody listens on. The mirror gets fixed
// ports, not port 0, so that a restart has the same ones.
func freeAddr(t testing.TB) string {
	t.Helper()
	seedPort()
	for range 500 {
		addr := fmt.Sprintf("127.0.0.1:%d", nextPort.Add(1))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return ""
}

// cleanEnv is the environment without what would configure a mirror or send
// its requests through a proxy.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if upper := strings.ToUpper(name); !strings.HasPrefix(upper, "IMGMIRROR_") && !strings.HasSuffix(upper, "_PROXY") {
			env = append(env, kv)
		}
	}
	return env
}

// tail is the end of a text.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "…" + s[len(s)-n:]
}
