package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"imgmirror/proxy/upstream/upstreamtest"
)

// The page is for the network's callers, under the mirror's own names, and for forms of its own pages.
func TestMount(t *testing.T) {
	f := newFixture(t)
	f.o.Hosts = []string{"mirror"}
	ask := func(status int, method, path, host string, header ...string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(method, path, nil)
		r.Host = host
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s %s %s %q: %d, want %d", method, host, path, header, w.Code, status)
		}
		return w
	}
	ask(404, "GET", "/ui/", "localhost")
	ask(404, "GET", "/", "localhost")
	f.Mount(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	if w := ask(302, "GET", "/", "localhost:8081"); w.Header().Get("Location") != "/ui/" {
		t.Error(w.Header())
	}
	ask(404, "GET", "/none", "localhost")
	for _, host := range []string{"localhost:8081", "127.0.0.1:8081", "[::1]:8081", "mirror", "MIRROR:8081"} {
		ask(418, "GET", "/ui/", host)
		ask(418, "POST", "/ui/login", host, "Origin", "http://"+host)
		ask(418, "GET", "/ui/x", host, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate") // a link
		ask(403, "POST", "/ui/login", host, "Origin", "http://evil.example")
		ask(403, "POST", "/ui/login", host, "Origin", "null")
		ask(403, "POST", "/ui/login", host, "Sec-Fetch-Site", "cross-site")
		ask(403, "POST", "/ui/login", host, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate")
		ask(403, "GET", "/ui/live", host, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors")
	}
	// A name that a foreign name service leads here.
	ask(403, "GET", "/ui/", "evil.example")
	ask(403, "POST", "/ui/login", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin")

	w := httptest.NewRecorder()
	f.Trusted().ServeHTTP(w, httptest.NewRequest("GET", "/ui/", nil))
	if w.Code != 404 {
		t.Errorf("over the socket: %d", w.Code)
	}
}

// A client in this process gets what one on the socket gets.
func TestLocal(t *testing.T) {
	f := newFixture(t)
	c := f.Local()
	id := upstreamtest.ID(1)
	if image, err := c.Image(t.Context(), id); err != nil || len(image.Manifest) == 0 {
		t.Fatal(err)
	}
	if all, err := c.Images(t.Context()); err != nil || len(all) != 4 {
		t.Errorf("%d images, %v", len(all), err)
	}
	if _, err := c.Image(t.Context(), upstreamtest.ID(77)); StatusOf(err) != 404 || StatusOf(nil) != 0 {
		t.Errorf("an absent image: %d %v", StatusOf(err), err)
	}
	job, err := c.Fetch(t.Context(), Wanted{UUIDs: []string{id.String()}})
	if err != nil {
		t.Fatal(err)
	}
	if job, err = c.Follow(t.Context(), job.ID, nil); err != nil || job.State != JobDone {
		t.Errorf("%+v, %v", job, err)
	}

	// A caller that has enough of a reply ends the handler.
	resp, err := c.send(t.Context(), http.MethodGet, "/events", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.jobs.streams() != 1 {
		t.Error("no stream is open")
	}
	resp.Body.Close()
	if f.jobs.streams() != 0 {
		t.Error("the stream goes on")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if _, err := c.Sources(ctx); err == nil {
		t.Error("an ended context is no error")
	}

	// A handler that breaks off is an error, before the reply and within.
	breaks := New(f.o)
	for _, begun := range []bool{false, true} {
		breaks.trusted = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if begun {
				_, _ = w.Write([]byte(`[{"name":"x"},`))
			}
			panic(http.ErrAbortHandler)
		})
		if _, err := breaks.Local().Sources(t.Context()); err == nil {
			t.Error("half a reply is no error")
		}
	}
}
