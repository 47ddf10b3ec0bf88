package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"imgmirror/proxy/admin"
	"imgmirror/proxy/upstream/upstreamtest"
)

// token is what is in the mirror's admin.token.
func (m *mirror) token() string {
	m.t.Helper()
	text, err := os.ReadFile(m.data("admin.token"))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// api asks the admin listener as an operator does.
func (m *mirror) api(path string, header ...string) reply {
	m.t.Helper()
	return get(m.t, m.admin+"/api/v1"+path, append(header, "Authorization", "Bearer "+m.token())...)
}

// TestAdminDoors: who is let in, by which door, over the life of an installation.
func TestAdminDoors(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, from(abs(t, sampleDir), settings{"kind": "directory"}))
	token := m.token()
	for name, mode := range map[string]fs.FileMode{"admin.token": 0o600, "admin.sock": 0o600 | fs.ModeSocket} {
		if info, err := os.Lstat(m.data(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v, want %v", name, info.Mode(), err, mode)
		}
	}

	for _, path := range []string{"/api/v1/images", "/api/v1/none", "/debug/pprof/", "/debug/pprof/cmdline"} {
		for _, authorization := range []string{"", "Bearer " + token + "0", "Basic " + token} {
			if got := get(t, m.admin+path, "Authorization", authorization); got.status != 401 || bytes.Contains(got.body, []byte(token)) {
				t.Errorf("%s with %q: %d %s", path, authorization, got.status, got.body)
			}
		}
		if got := get(t, m.url+path, "Authorization", "Bearer "+token); got.status < 400 {
			t.Errorf("%s on the client listener: %d", path, got.status)
		}
	}
	if got := m.api("/images"); got.status != 200 {
		t.Errorf("with the token: %d %s", got.status, got.body)
	}
	if got := get(t, m.admin+"/debug/pprof/", "Authorization", "Bearer "+token); got.status != 200 {
		t.Errorf("the profiler: %d", got.status)
	}
	// A page of another site, though it knew the token.
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://evil.example"}, {"Origin", "null"},
		{"Origin", m.url, "Sec-Fetch-Site", "same-site"},
	} {
		if got := m.api("/images", header...); got.status != 403 {
			t.Errorf("%q: %d %s", header, got.status, got.body)
		}
	}

	// A second mirror on the folder is refused, and takes nothing from the first.
	if said := m.verb("serve", "--listen", freeAddr(t), "--admin-listen", freeAddr(t)); said.code == 0 {
		t.Error("a second mirror runs on the folder")
	}
	m.verb("avail").want(t, sampleBase)

	m.kill()
	if _, err := os.Lstat(m.data("admin.sock")); err != nil {
		t.Errorf("a killed mirror leaves its socket: %v", err)
	}
	m.verb("avail").want(t, sampleBase) // nobody is behind it
	m.start()
	if m.token() != token {
		t.Error("the token has changed")
	}
	m.verb("avail").want(t, sampleBase)
	m.stop()
	if _, err := os.Lstat(m.data("admin.sock")); err == nil {
		t.Error("a mirror that was stopped leaves its socket")
	}
}

// spaces is a body of nothing.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte(" "), len(p)))
	return len(p), nil
}

// TestAdminLargeBodies: a gigabyte that nobody wants is refused before it has
// come in.
func TestAdminLargeBodies(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, from(abs(t, sampleDir), settings{"kind": "directory"}))
	post := func(want int, path, kind, token string) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(m.admin, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		sent := make(chan int64, 1)
		go func() {
			fmt.Fprintf(conn, "POST /api/v1%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n",
				path, kind, 1<<30, token)
			n, _ := io.Copy(conn, io.LimitReader(spaces{}, 1<<30)) // as much as is taken
			sent <- n
		}()
		status := make([]byte, len("HTTP/1.1 413"))
		if _, err := io.ReadFull(conn, status); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if !strings.HasSuffix(string(status), fmt.Sprint(want)) {
			t.Errorf("%s: %s, want %d", path, status, want)
		}
		conn.Close()
		if n := <-sent; n > 16<<20 {
			t.Errorf("%s: %d bytes were taken", path, n)
		}
	}
	post(401, "/fetch", "application/json", "wrong")
	post(401, "/publish", "multipart/form-data; boundary=x", "wrong")
	post(413, "/fetch", "application/json", m.token())
	post(415, "/fetch", "text/plain", m.token())
	if got := m.api("/images"); got.status != 200 {
		t.Errorf("afterwards: %d", got.status)
	}
}

// TestAdminJobCancelled: a fetch of a chain is cancelled in mid-file from
// another connection than the one that follows it; asked again it goes on from
// there.
func TestAdminJobCancelled(t *testing.T) {
	t.Parallel()
	base, web, app := sample(t, sampleBase), sample(t, sampleWeb), sample(t, sampleApp)
	src := newSource(t, base, web, app)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(3)
	src.Inject(upstreamtest.Fault{Path: filePath(base), Rate: 20_000})
	client, err := admin.NewClient(admin.ClientOptions{URL: m.admin, Token: m.token()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	wanted := admin.Wanted{UUIDs: []string{sampleApp}}
	job, err := client.Fetch(t.Context(), wanted)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	cancelled := make(chan error, 1)
	ended, err := client.Follow(ctx, job.ID, func(j admin.Job) {
		if j.Done == 0 || j.Over() || len(cancelled) > 0 {
			return
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodDelete, m.admin+"/api/v1/jobs/"+j.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+m.token())
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&j)
			resp.Body.Close()
			if j.State != admin.JobCancelled {
				t.Errorf("the answer to its end: %+v", j)
			}
		}
		cancelled <- err
	})
	if err != nil || ended.State != admin.JobCancelled {
		t.Fatalf("%+v %v", ended, err)
	}
	if err := <-cancelled; err != nil {
		t.Error(err)
	}
	for _, item := range ended.Items {
		if item.State != admin.JobCancelled {
			t.Errorf("%+v", item)
		}
	}
	if n := src.requests(web) + src.requests(app); n != 0 {
		t.Errorf("%d requests for images whose turn had not come", n)
	}
	src.Heal()
	if job, err = client.Fetch(t.Context(), wanted); err != nil {
		t.Fatal(err)
	}
	if job, err = client.Follow(ctx, job.ID, nil); err != nil || job.State != admin.JobDone {
		t.Errorf("%+v %v", job, err)
	}
	if n := src.requests(base); n != 2 {
		t.Errorf("%d requests for the origin, want 2: the cancelled job ended its download", n)
	}
	if sent, size := src.sent(base), int64(len(base.file)); sent > size+size/4 { // some may have been on their way
		t.Errorf("the source sent %d bytes of the origin's %d: the second request did not go on where the first was", sent, size)
	}
}
