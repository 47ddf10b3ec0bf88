package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp/fasthttputil"

	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
)

// serve runs the fixture's server on a port and gives its address.
func (f *fixture) serve() string {
	f.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, ln, nil) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
	return ln.Addr().String()
}

func TestNobodyWithoutTheToken(t *testing.T) {
	f := newFixture(t)
	ask := func(status int, path, authorization string) {
		t.Helper()
		r := httptest.NewRequest("GET", path, nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("GET %s with %q: %d %q, want %d", path, authorization, w.Code, w.Body, status)
		}
		if status == 401 && (w.Header().Get("WWW-Authenticate") == "" || !strings.Contains(w.Body.String(), meaning.Unauthorized)) {
			t.Errorf("GET %s: %v %q", path, w.Header(), w.Body)
		}
	}
	var paths []string
	for _, r := range f.routes() {
		paths = append(paths, apiPrefix+r.path)
	}
	// What does not exist is not told from what does.
	paths = append(paths, "/api/", "/api/v1/none", "/api/v2/images", "/debug/", "/debug/pprof/", "/debug/pprof/heap", "/debug/none")
	for _, path := range paths {
		ask(401, path, "")
		ask(401, path, "Bearer wrong")
		ask(401, path, "Bearer ")
		ask(401, path, "Bearer")
		ask(401, path, testToken)
		ask(401, path, "Basic "+testToken)
		ask(401, path, "Bearer "+testToken+"x")
		ask(401, path, "Bearer "+testToken[:len(testToken)-1])
		ask(401, path+"?access_token="+testToken, "")
	}
	ask(200, "/api/v1/images", "Bearer "+testToken)
	ask(200, "/api/v1/images", "bearer  "+testToken)
	ask(200, "/debug/pprof/", "Bearer "+testToken)
	ask(404, "/api/v1/none", "Bearer "+testToken)
	ask(200, "/metrics", "")
	// Paths that only look as if they went elsewhere.
	for _, path := range []string{"//api/v1/images", "/./api/v1/images", "/x/../api/v1/images", "/metrics/../api/v1/images"} {
		r := httptest.NewRequest("GET", path, nil)
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, r)
		if w.Code == 200 {
			t.Errorf("GET %s: %d %q", path, w.Code, w.Body)
		}
	}
}

func TestNoTokenOpensNothing(t *testing.T) {
	f := newFixture(t)
	o := f.o
	o.Token = ""
	for _, authorization := range []string{"", "Bearer ", "Bearer"} {
		r := httptest.NewRequest("GET", "/api/v1/images", nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		New(o).Handler().ServeHTTP(w, r)
		if w.Code != 401 {
			t.Errorf("%q: %d", authorization, w.Code)
		}
	}
	w := httptest.NewRecorder()
	New(o).Trusted().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/images", nil))
	if w.Code != 200 {
		t.Errorf("over the socket: %d", w.Code)
	}
}

func TestPagesOfOtherSites(t *testing.T) {
	f := newFixture(t)
	f.o.Hosts = []string{"mirror"}
	ask := func(status int, method, host string, header ...string) {
		t.Helper()
		r := httptest.NewRequest(method, "/api/v1/images", nil)
		if method == "POST" {
			r = httptest.NewRequest(method, "/api/v1/vacuum", strings.NewReader("{}"))
			r.Header.Set("Content-Type", typeJSON)
		}
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+testToken) // even so
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s, Host %s, %q: %d %q, want %d", method, host, header, w.Code, w.Body, status)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Error("other sites may read it")
		}
	}
	for _, method := range []string{"GET", "POST"} {
		ask(403, method, "127.0.0.1:8081", "Sec-Fetch-Site", "cross-site")
		ask(403, method, "127.0.0.1:8081", "Sec-Fetch-Site", "same-site")
		ask(403, method, "127.0.0.1:8081", "Origin", "http://evil.example")
		ask(403, method, "127.0.0.1:8081", "Origin", "null")
		ask(403, method, "127.0.0.1:8081", "Origin", "http://127.0.0.1:8080")
		ask(403, method, "127.0.0.1:8081", "Sec-Fetch-Site", "same-origin", "Origin", "http://evil.example")
		// A name that was made to point here.
		ask(403, method, "evil.example:8081", "Sec-Fetch-Site", "same-origin", "Origin", "http://evil.example:8081")
		ask(403, method, "evil.example:8081", "Origin", "http://evil.example:8081")
		ask(403, method, "", "Sec-Fetch-Site", "same-origin")

		ask(200, method, "127.0.0.1:8081", "Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:8081")
		ask(200, method, "[::1]:8081", "Sec-Fetch-Site", "none")
		ask(200, method, "[::1]", "Sec-Fetch-Site", "none")
		ask(200, method, "localhost:8081", "Origin", "http://localhost:8081")
		ask(200, method, "mirror:8081", "Sec-Fetch-Site", "same-origin", "Origin", "http://mirror:8081")
		ask(200, method, "mirror.example:8081") // no browser
	}
}

func TestBodiesThatForeignFormsCanSend(t *testing.T) {
	f := newFixture(t)
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"} {
		r := httptest.NewRequest("POST", "/api/v1/vacuum", strings.NewReader("{}"))
		r.Header.Set("Content-Type", kind)
		if got := f.send(r, nil); got != 415 {
			t.Errorf("%q: %d", kind, got)
		}
	}
	for _, body := range []string{`{"dry_run":true} x`, `{"dry_run":true}{}`, `[]`, `{"dry_run":"yes"}`, `{`, "\xff"} {
		r := httptest.NewRequest("POST", "/api/v1/vacuum", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		if got := f.send(r, nil); got != 400 {
			t.Errorf("%q: %d", body, got)
		}
	}
}

// endless is a body that goes on until its reader stops.
type endless struct{ sent int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.sent += int64(len(p))
	return len(p), nil
}

func TestLargeBodiesAreRefusedEarly(t *testing.T) {
	f := newFixture(t)
	addr := f.serve()
	// Over a plain connection, as a caller who does not wait for leave.
	post := func(want int, head string, body io.Reader) (sent int64) {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /api/v1/%s\r\n\r\n", strings.ReplaceAll(head, "\n", "\r\n"))
		counted := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(conn, body) // until the other side has had enough
			counted <- n
		}()
		status := make([]byte, len("HTTP/1.1 413"))
		if _, err := io.ReadFull(conn, status); err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if got := string(status); !strings.HasSuffix(got, fmt.Sprint(want)) {
			t.Errorf("%q: %s, want %d", head, got, want)
		}
		conn.Close()
		return <-counted
	}
	const most = 16 << 20 // what kernel and server may have buffered, and far below a gigabyte
	for _, test := range []struct {
		status int
		head   string
	}{
		{401, "vacuum HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 1000000000"},
		{401, "publish HTTP/1.1\nHost: x\nContent-Type: multipart/form-data; boundary=x\nContent-Length: 1000000000"},
		{413, "vacuum HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 1000000000\nAuthorization: Bearer " + testToken},
		{413, "publish HTTP/1.1\nHost: x\nContent-Type: multipart/form-data; boundary=x\nContent-Length: 100000000000\nAuthorization: Bearer " + testToken},
		{415, "publish HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 1000000000\nAuthorization: Bearer " + testToken},
	} {
		if sent := post(test.status, test.head, io.LimitReader(&endless{}, 1_000_000_000)); sent > most {
			t.Errorf("%q: %d bytes were taken", test.head, sent)
		}
	}
	// Without a length it shows only as it comes in.
	body := &endless{}
	r := httptest.NewRequest("POST", "/api/v1/vacuum", io.LimitReader(body, 1_000_000_000))
	r.ContentLength = -1
	r.Header.Set("Content-Type", typeJSON)
	if got := f.send(r, nil); got != 413 || body.sent > most {
		t.Errorf("%d after %d bytes", got, body.sent)
	}
}

func TestManyUUIDsAreNoHarm(t *testing.T) {
	f := newFixture(t)
	w := Wanted{}
	for range 20_000 {
		w.UUIDs = append(w.UUIDs, id(4))
	}
	var items []Item
	f.want(200, "POST", "/pin", w, &items)
	if len(items) != 1 {
		t.Errorf("%d items", len(items))
	}
}

func TestToken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.token")
	token, warnings, err := ReadToken(path)
	if err != nil || len(warnings) != 0 || len(token) < 40 {
		t.Fatalf("%q %v %v", token, warnings, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if again, _, err := ReadToken(path); again != token || err != nil {
		t.Errorf("%q %v, was %q", again, err, token)
	}
	other, _, err := ReadToken(filepath.Join(dir, "other"))
	if other == token || err != nil {
		t.Errorf("%q %v", other, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, warnings, err := ReadToken(path); len(warnings) != 1 || err != nil {
		t.Errorf("%v %v", warnings, err)
	}
	f := func(text string, fine bool, warns int) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		token, warnings, err := ReadToken(path)
		if (err == nil) != fine || len(warnings) != warns || fine && token != strings.TrimSpace(text) {
			t.Errorf("%q: %q %v %v", text, token, warnings, err)
		}
		if err != nil && len(text) > 3 && strings.Contains(err.Error(), strings.Fields(text)[0]) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
	f("long-enough-for-anyone\r\n", true, 0)
	f("short", true, 1)
	f("", false, 0)
	f(" \n", false, 0)
	f("two words-of-a-token", false, 0)
	f("line-one-of-many\nline-two", false, 0)
	if _, _, err := ReadToken(dir); err == nil {
		t.Error("a folder is a token")
	}
	if _, _, err := ReadToken(filepath.Join(dir, "none", "token")); err == nil {
		t.Error("a token in a folder that is not there")
	}
}

func TestSocket(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), SocketName)
	// One that a killed mirror left.
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: SocketPath(path), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()

	ln, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, nil, ln) }()
	client, err := NewClient(ClientOptions{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", SocketPath(path))
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if images, err := client.Images(t.Context()); err != nil || len(images) != 4 {
		t.Errorf("%d images, %v", len(images), err)
	}
	// Its file is removed: the connections that are open stay, others find a new one.
	if renewed, err := ln.Renew(); renewed || err != nil {
		t.Errorf("a socket that is there was renewed: %v", err)
	}
	for range 2 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if renewed, err := ln.Renew(); !renewed || err != nil {
			t.Errorf("renewed %v, %v", renewed, err)
		}
		if images, err := client.Images(t.Context()); err != nil || len(images) != 4 {
			t.Errorf("%d images, %v", len(images), err)
		}
		client.Close()
		if images, err := client.Images(t.Context()); err != nil || len(images) != 4 {
			t.Errorf("by a new connection %d images, %v", len(images), err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := ListenSocket(path); err == nil {
		ln.Close()
		t.Error("a file was replaced")
	}
	if _, err := ListenSocket(filepath.Join(path, "none", "s")); err == nil {
		t.Error("a socket in no folder")
	}
}

// A path too long for a socket's address is used by its short form.
func TestSocketInADeepFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	path := filepath.Join(dir, SocketName)
	ln, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := net.Dial("unix", SocketPath(path))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// FuzzWanted sends anything to what reads a body.
func FuzzWanted(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"uuids":["x"],"filters":["name=a"],"dry_run":true}`, `{"filters":["tag.a=~"]}`, "[[[["} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body)))
		sel, _, err := readSome(r)
		if err != nil {
			if status, told := judge(err); status < 400 || status > 499 || told.Code == "" {
				t.Errorf("%d %+v", status, told)
			}
			return
		}
		if !json.Valid(body) && len(strings.TrimSpace(string(body))) > 0 {
			t.Errorf("%q is no JSON: %+v", body, sel)
		}
	})
}

// TestTimeOfRequests: a body has to come in, what it asks for may take long.
func TestTimeOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Mirror: &mirror.Mirror{}})
		s.inner.Handle("POST "+apiPrefix+"/slow", s.handle(route{accepts: typeJSON, most: maxBody, do: func(w http.ResponseWriter, r *http.Request) error {
			var want Dry
			if err := readJSON(r, &want); err != nil {
				return err
			}
			time.Sleep(time.Hour)
			return reply(w, http.StatusOK, []Removed{})
		}}))
		ln := fasthttputil.NewInmemoryListener()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, nil, ln) }()
		ask := func(head, body string) string {
			t.Helper()
			conn, err := ln.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go fmt.Fprintf(conn, "POST /api/v1/slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n%s", head, body)
			begun := time.Now()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return err.Error()
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Error(err)
			}
			return fmt.Sprintf("%d %s after %s", resp.StatusCode, strings.TrimSpace(string(text)), time.Since(begun))
		}
		for _, test := range []struct{ head, body, want string }{
			{"Content-Length: 0", "", "200 [] after 1h0m0s"},
			{"Content-Length: 2", "{}", "200 [] after 1h0m0s"},
			{"Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n", "200 [] after 1h0m0s"},
		} {
			if got := ask(test.head, test.body); got != test.want {
				t.Errorf("%s: %q, want %q", test.head, got, test.want)
			}
		}
		if got := ask("Content-Length: 3", "{}"); !strings.HasPrefix(got, "400 ") || !strings.HasSuffix(got, " after 30s") {
			t.Errorf("a body that stalls: %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
