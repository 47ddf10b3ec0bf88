package admin

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"imgmirror/cache"
	"imgmirror/proxy/history"
	"imgmirror/proxy/upstream/upstreamtest"
)

// readAsClient has a client read the file of image n.
func (f *fixture) readAsClient(n int) {
	f.t.Helper()
	e, err := f.mirror.Get(f.t.Context(), upstreamtest.ID(n))
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := f.mirror.Open(f.t.Context(), e, 0, cache.Client, cache.ByClient)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		f.t.Fatal(err)
	}
	if err := errors.Join(r.Stored(f.t.Context()), r.Close()); err != nil {
		f.t.Fatal(err)
	}
}

// The status counts what clients were given, once as a miss and once as a hit, and nothing of a fetch.
func TestStatus(t *testing.T) {
	f := newFixture(t)
	f.fetched(1)
	f.readAsClient(4)
	f.readAsClient(4)
	var st Status
	f.want(200, "GET", "/status", nil, &st)
	size := int64(len(sampleFile(4)))
	tr := st.Traffic
	if tr.Requests["miss"] != 1 || tr.Requests["hit"] != 1 || tr.Served["miss"] != size || tr.Served["hit"] != size || tr.Saved != size {
		t.Errorf("traffic %+v, and the file has %d bytes", tr, size)
	}
	if want := size + int64(len(sampleFile(1))); tr.Fetched != want {
		t.Errorf("%d bytes were fetched, want %d", tr.Fetched, want)
	}
	if st.Catalog.Listed != 4 || st.Catalog.Cached != 2 || st.Disk.Files != 2 || st.Disk.Size != tr.Fetched || st.Disk.Free == 0 {
		t.Errorf("catalog %+v, disk %+v", st.Catalog, st.Disk)
	}
	if len(st.Sources) != 3 || st.Started.IsZero() || !st.Ready || len(st.Trouble) != 0 || len(st.Jobs) != 0 || len(st.Fills) != 0 {
		t.Errorf("%+v", st)
	}
	if len(st.Events) != 2 || st.Events[0].Kind != history.KindBrought || st.Events[0].UUID != id(4) || st.Events[0].Source != "source" {
		t.Errorf("events %+v", st.Events)
	}

	var of []Event
	f.want(200, "GET", "/history?uuid="+id(1), nil, &of)
	if len(of) != 1 || of[0].UUID != id(1) {
		t.Errorf("history of image 1: %+v", of)
	}
	f.refused(422, "InvalidParameter", "GET", "/history?uuid=x", nil)
}

func TestTraffic(t *testing.T) {
	f := newFixture(t)
	f.readAsClient(4)
	for span, steps := range map[string]int{"hour": 60, "day": 96, "week": 84} {
		var s Series
		f.want(200, "GET", "/traffic?span="+span, nil, &s)
		var served, fetched int64
		for _, p := range s.Points {
			served, fetched = served+p.Served, fetched+p.Fetched
		}
		if size := int64(len(sampleFile(4))); len(s.Points) != steps || served != size || fetched != size {
			t.Errorf("%s: %d points with %d bytes served, %d fetched", span, len(s.Points), served, fetched)
		}
	}
	f.refused(422, "InvalidParameter", "GET", "/traffic?span=year", nil)
	f.refused(422, "InvalidParameter", "GET", "/events?topic=weather", nil)
}

// A follower of the status gets it at once, and again when it has changed.
func TestFollowStatus(t *testing.T) {
	f := newFixture(t)
	c := f.client()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen := make(chan int64, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- c.FollowStatus(ctx, func(st Status) { seen <- st.Traffic.Requests["miss"] })
	}()
	if n := <-seen; n != 0 {
		t.Errorf("%d misses at first", n)
	}
	f.readAsClient(4)
	for n := range seen {
		if n == 1 {
			break
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("following ended with %v", err)
	}
}
