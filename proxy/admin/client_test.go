package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/proxy/meaning"
	"imgmirror/proxy/upstream/upstreamtest"
)

func (f *fixture) client() *Client {
	f.t.Helper()
	client, err := NewClient(ClientOptions{URL: "http://" + f.serve() + "/", Token: testToken})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { client.Close() })
	return client
}

func TestClientAsksEverything(t *testing.T) {
	f := newFixture(t)
	c, ctx := f.client(), t.Context()
	try := func(what string, ok bool, err error) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	sources, err := c.Sources(ctx)
	try("sources", len(sources) == 3, err)
	sources, err = c.CheckSources(ctx)
	try("check", len(sources) == 3 && sources[0].Check.OK, err)
	job, err := c.Refresh(ctx)
	try("refresh", job.Kind == "refresh", err)
	job, err = c.Follow(ctx, job.ID, nil)
	try("follow", job.State == JobDone, err)
	images, err := c.Images(ctx, "name=~image", "name!=image1")
	try("images", len(images) == 3, err)
	image, err := c.Image(ctx, upstreamtest.ID(1))
	try("image", image.Listed, err)
	images, err = c.Ancestry(ctx, upstreamtest.ID(3))
	try("ancestry", len(images) == 3, err)
	items, err := c.FetchDry(ctx, wanted(3))
	try("fetch -n", len(items) == 3, err)
	job, err = c.Fetch(ctx, wanted(3))
	try("fetch", job.Total == 600_006, err)
	updates := 0
	job, err = c.Follow(ctx, job.ID, func(Job) { updates++ })
	try("follow", job.State == JobDone && updates > 0, err)
	job, err = c.Job(ctx, job.ID)
	try("job", job.State == JobDone && len(job.Items) == 3, err)
	job, err = c.Cancel(ctx, job.ID)
	try("cancel", job.State == JobDone, err)
	jobs, err := c.Jobs(ctx)
	try("jobs", len(jobs) == 2 && len(jobs[1].Items) == 0, err)
	cached, err := c.Cached(ctx)
	try("cached", len(cached) == 3, err)
	fills, err := c.Fills(ctx)
	try("fills", len(fills) == 0, err)
	items, err = c.Pin(ctx, wanted(1))
	try("pin", len(items) == 1 && items[0].State == JobDone, err)
	items, err = c.Unpin(ctx, wanted(1))
	try("unpin", len(items) == 1 && items[0].State == JobDone, err)
	job, err = c.Verify(ctx, Wanted{})
	try("verify", len(job.Items) == 3, err)
	job, err = c.Follow(ctx, job.ID, nil)
	try("follow", job.State == JobDone, err)
	gone, err := c.Vacuum(ctx, true)
	try("vacuum", len(gone) == 0, err)
	gone, err = c.Delete(ctx, wanted(3))
	try("delete", len(gone) == 1, err)
	image, err = c.Publish(ctx, ownManifest(5, 0), bytes.NewReader(ownFile(5)))
	try("publish", image.Listed && image.Source == "published", err)
	gone, err = c.Unpublish(ctx, upstreamtest.ID(5))
	try("unpublish", len(gone) == 1, err)
	settings, err := c.Config(ctx)
	try("config", strings.Contains(string(settings), "8080"), err)
	findings, err := c.Doctor(ctx)
	try("doctor", len(findings) == 1, err)

	_, err = c.Image(ctx, upstreamtest.ID(99))
	var told *Error
	if !errors.As(err, &told) || told.Code != meaning.NotFound {
		t.Errorf("%v", err)
	}
	if _, err = c.Follow(ctx, "none", nil); !errors.As(err, &told) || told.Code != meaning.NotFound {
		t.Errorf("%v", err)
	}
}

func TestClientIsRefused(t *testing.T) {
	f := newFixture(t)
	addr := f.serve()
	c, err := NewClient(ClientOptions{URL: "http://" + addr, Token: "wrong"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var told *Error
	if _, err := c.Sources(t.Context()); !errors.As(err, &told) || told.Code != meaning.Unauthorized {
		t.Errorf("%v", err)
	}
	body := &endless{}
	if _, err := c.Publish(t.Context(), []byte("{}"), body); !errors.As(err, &told) || told.Code != meaning.Unauthorized {
		t.Errorf("%v", err)
	}
	if body.sent > 1<<20 {
		t.Errorf("%d bytes were read of a file that is not wanted", body.sent)
	}
}

func TestClientMeetsSomethingElse(t *testing.T) {
	answer := func(status int, text string) error {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(status)
			fmt.Fprint(w, text)
		}))
		defer s.Close()
		c, err := NewClient(ClientOptions{URL: s.URL, Token: testToken})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Sources(t.Context())
		return err
	}
	var told *Error
	for _, err := range []error{
		answer(404, "<html>"), answer(500, `{"message":"x"}`), answer(302, ""), answer(200, "<html>"), answer(200, ""),
	} {
		if err == nil || errors.As(err, &told) {
			t.Errorf("%v", err)
		}
	}
	for _, address := range []string{"", "mirror:8081", "ftp://mirror", "http://", "http://%zz"} {
		if _, err := NewClient(ClientOptions{URL: address}); err == nil {
			t.Errorf("%q is taken for an address", address)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	c, err := NewClient(ClientOptions{URL: "http://" + ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Sources(t.Context()); err == nil || errors.As(err, &told) {
		t.Errorf("%v", err)
	}
}

// A stream that breaks is taken up again, and what happened meanwhile is told.
func TestFollowReconnects(t *testing.T) {
	var tries atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		send := func(state string, done int64) {
			data, err := json.Marshal(Job{ID: "a", State: state, Done: done})
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, ": hello\n\nevent: job\ndata: %s\n\n", data)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		switch tries.Add(1) {
		case 1:
			send(JobRunning, 1)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case 2:
			panic(http.ErrAbortHandler)
		case 3: // a proxy that gives up in its own words
			w.WriteHeader(http.StatusBadGateway)
		case 4:
			fmt.Fprint(w, "event: job\ndata: {\n\n")
		default:
			send(JobRunning, 2)
			send(JobDone, 3)
		}
	}))
	defer s.Close()
	c, err := NewClient(ClientOptions{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var seen []int64
	job, err := c.Follow(t.Context(), "a", func(j Job) { seen = append(seen, j.Done) })
	if err != nil || job.State != JobDone || fmt.Sprint(seen) != "[1 2 3]" {
		t.Errorf("%+v %v %v", job, err, seen)
	}
}

// A mirror that has ended is not waited for longer than a network that fails.
func TestFollowGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("connection refused")
		c, err := NewClient(ClientOptions{Dial: func(context.Context) (net.Conn, error) { return nil, gone }})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		last, err := c.Follow(t.Context(), "a", nil)
		if !errors.Is(err, gone) || !strings.Contains(err.Error(), "has not answered for 10s") || last.ID != "a" || last.Over() {
			t.Errorf("%+v %v", last, err)
		}
		if took := time.Since(began); took < followTries || took > followTries+2*followPause {
			t.Errorf("it took %s", took)
		}
	})
}

func TestFollowEndsWithItsContext(t *testing.T) {
	f := newFixture(t)
	c := f.client()
	f.source.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: 1000})
	job, err := c.Fetch(t.Context(), wanted(4))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	last, err := c.Follow(ctx, job.ID, func(Job) { cancel() })
	if !errors.Is(err, context.Canceled) || last.State != JobRunning || last.ID != job.ID {
		t.Errorf("%+v %v", last, err)
	}
	ended, err := c.Cancel(t.Context(), job.ID)
	if err != nil || ended.State != JobCancelled {
		t.Errorf("%+v %v", ended, err)
	}
}
