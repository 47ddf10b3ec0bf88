package admin

import (
	"imgmirror/cache"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"imgmirror/proxy/upstream/upstreamtest"
)

// Images whose origins form a ring are refused by whatever follows origins, at once and by the names of the ring; what
// follows none takes them like others.
func TestRingOfOrigins(t *testing.T) {
	f := newFixture(t)
	ring := []int{5, 6, 7, 5}
	for n, origin := range map[int]int{5: 6, 6: 7, 7: 5, 8: 8, 9: 5} {
		if err := f.source.Add(sample(n, origin), sampleFile(n)); err != nil {
			t.Fatal(err)
		}
	}
	// within is do, which must not take for ever.
	within := func(what string, do func()) {
		t.Helper()
		done := make(chan struct{})
		go func() {
			defer close(done)
			do()
		}()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s takes for ever", what)
		}
	}
	within("a refresh", func() {
		if err := f.mirror.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for n, chain := range map[int][]int{5: ring, 6: {6, 7, 5, 6}, 8: {8, 8}, 9: append([]int{9}, ring...)} {
		var names []string
		for _, n := range chain {
			names = append(names, id(n))
		}
		at := slices.Index(names, names[len(names)-1])
		want := strings.Join(names[at:], ", ")
		wantError := func(what string, told *Error) {
			t.Helper()
			if told == nil || told.Code != codeOriginMissing || !strings.Contains(told.Message, id(n)) || !strings.Contains(told.Message, want) {
				t.Errorf("%s %d: %+v, want the ring %s", what, n, told, want)
			}
		}
		within("ancestry", func() {
			var told Error
			f.want(http.StatusNotFound, "GET", "/images/"+id(n)+"/ancestry", nil, &told)
			wantError("ancestry", &told)
		})
		within("a bundle's plan", func() {
			var told Error
			f.want(http.StatusNotFound, "POST", "/bundle/plan", BundleWanted{UUIDs: []string{id(n)}}, &told)
			wantError("bundle plan", &told)
		})
		for _, path := range []string{"/fetch", "/install"} {
			within(path, func() {
				var items []Item
				dry := wanted(n, 1)
				dry.DryRun = true
				f.want(http.StatusOK, "POST", path, dry, &items)
				if len(items) != 2 || items[0].State != JobFailed || items[1].State != ItemWaiting && items[1].State != ItemPresent {
					t.Fatalf("%s: %+v", path, items)
				}
				wantError(path, items[0].Error)
				var job Job
				f.want(http.StatusAccepted, "POST", path, wanted(n, 1), &job)
				job = f.await(job)
				if job.State != JobFailed || job.Items[1].State == JobFailed {
					t.Errorf("%s: %s", path, states(job))
				}
				wantError(path, job.Items[0].Error)
			})
		}
		within("show", func() { f.want(http.StatusOK, "GET", "/images/"+id(n), nil, nil) })
	}

	// What clients have brought of a ring is pinned and removed like anything else.
	for _, n := range []int{4, 5, 6, 7} {
		e, err := f.mirror.Find(t.Context(), upstreamtest.ID(n))
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.mirror.Open(t.Context(), e, 0, cache.Client, cache.ByClient)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Stored(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	within("pin", func() { f.want(http.StatusOK, "POST", "/pin", wanted(6), nil) })
	within("delete", func() { f.refused(http.StatusConflict, codeImagePinned, "POST", "/delete", wanted(5)) })
	within("delete", func() { f.want(http.StatusOK, "POST", "/delete", wanted(4), nil) })
	within("unpin", func() { f.want(http.StatusOK, "POST", "/unpin", wanted(6), nil) })
	within("verify", func() {
		var job Job
		f.want(http.StatusAccepted, "POST", "/verify", wanted(5, 6, 7), &job)
		if job = f.await(job); job.State != JobDone {
			t.Error(states(job))
		}
	})
	within("delete", func() { f.want(http.StatusOK, "POST", "/delete", wanted(5, 6, 7), nil) })
	within("vacuum", func() { f.want(http.StatusOK, "POST", "/vacuum", Dry{}, nil) })
}
