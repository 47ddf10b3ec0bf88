package catalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/manifest"
	"imgmirror/verify"
)

func TestNewFaults(t *testing.T) {
	f := func(o Options, want string) {
		t.Helper()
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want an error with %q", err, want)
		}
	}
	a := &fake{t: t, name: "a"}
	f(Options{Sources: []SourceOptions{{}}}, "source 0 is nil")
	f(Options{Sources: sourcesOf(a, a)}, `"a"`)
	f(Options{Sources: sourcesOf(&fake{t: t})}, "empty")
}

func TestNoSources(t *testing.T) {
	c := newCatalog(t, Options{})
	<-c.Ready()
	body, etag := whole(c.Current()).JSON(false)
	if string(body) != "[]" || len(etag) != 32 {
		t.Errorf("body %q, etag %q", body, etag)
	}
	refresh(t, c)
}

// The first source that has a uuid wins; those with the same bytes are holders, one with others is a conflict.
func TestMerge(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 3}, {n: 1}, {n: 4, sum: strings.Repeat("a", 40)}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 2}, {n: 1, name: "other"}, {n: 4, sum: strings.Repeat("b", 40)}}}
	log := new(lines)
	r := prometheus.NewRegistry()
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Logger: log.logger(), Registerer: r})
	refresh(t, c)
	wantShown(t, c, 1, 2, 3, 4)
	for n, want := range map[int][3]string{1: {"a", "a b", "image1"}, 2: {"b", "b", "image2"}, 3: {"a", "a", "image3"}, 4: {"a", "a", "image4"}} {
		e := entry(t, c, n)
		if got := [3]string{e.Source, holders(e), e.Manifest.Name}; got != want || !e.Listed {
			t.Errorf("image %d: %q, want %q", n, got, want)
		}
	}
	if got := entry(t, c, 1).Holders[1].Manifest.Name; got != "other" {
		t.Errorf("the holder's own manifest has name %q", got)
	}

	a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 5}) })
	refresh(t, c)
	if n := log.count("different files of one image", id(4).String(), "source=a", "ignored=b"); n != 1 {
		t.Errorf("conflict logged %d times", n)
	}
	gauges := func(images, conflicts string) {
		t.Helper()
		want := "# HELP imgmirror_catalog_conflicts Images of which a source now has other bytes than the source they are served from.\n" +
			"# TYPE imgmirror_catalog_conflicts gauge\nimgmirror_catalog_conflicts " + conflicts + "\n" +
			"# HELP imgmirror_catalog_images Images in the list now being served.\n" +
			"# TYPE imgmirror_catalog_images gauge\nimgmirror_catalog_images " + images + "\n"
		if err := testutil.GatherAndCompare(r, strings.NewReader(want), "imgmirror_catalog_images", "imgmirror_catalog_conflicts"); err != nil {
			t.Error(err)
		}
	}
	gauges("5", "1")
	b.set(func(f *fake) { f.listed = f.listed[:2] })
	refresh(t, c)
	gauges("5", "0")
}

// What clients get is the join of the manifests, with a validator that changes with it and only with it.
func TestBody(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 2}, {n: 1}, {n: 3, state: "disabled"}, {n: 4, state: "creating"}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	refresh(t, c)
	wantShown(t, c, 1, 2)
	l := c.Current()
	body, etag := whole(l).JSON(false)
	var got, want any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	text := "[" + string(spec{n: 1}.JSON()) + "," + string(spec{n: 2}.JSON()) + "]"
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	zr, err := gzip.NewReader(bytes.NewReader(whole(l).Reply(false, Gzip).Body))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(zr); err != nil || !bytes.Equal(plain, body) {
		t.Errorf("gzip: %v, or another text", err)
	}

	if e := entry(t, c, 3); !e.Listed || e.Manifest.State != "disabled" {
		t.Errorf("disabled image: %+v", e)
	}

	a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 5, state: "disabled"}) })
	refresh(t, c)
	if c.Current() == l {
		t.Fatal("the list was not swapped")
	}
	if _, same := whole(c.Current()).JSON(false); same != etag {
		t.Error("another validator for the same body")
	}
	if &whole(l).Reply(false, Gzip).Body[0] != &whole(c.Current()).Reply(false, Gzip).Body[0] {
		t.Error("compressed again for the same body")
	}
	a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 6}) })
	refresh(t, c)
	if _, other := whole(c.Current()).JSON(false); other == etag {
		t.Error("the same validator for another body")
	}
}

func TestBySum(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2}}, hidden: []spec{{n: 7}}}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	refresh(t, c)
	if _, err := c.Get(t.Context(), id(7)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 2, 7} {
		file := entry(t, c, n).Manifest.Files[0]
		for size, want := range map[int64]bool{0: true, file.Size: true, file.Size + 1: false} {
			e, i, ok := c.Current().BySum(file.SHA1, size)
			if ok != want || i != 0 || ok && e.Manifest.UUID != id(n) {
				t.Errorf("image %d of %d bytes: found %s, %d, %v", n, size, e.Manifest.UUID, i, ok)
			}
		}
	}
	for _, s := range []verify.Sum{{}, {1, 2, 3}} {
		if e, _, ok := c.Current().BySum(s, 0); ok {
			t.Errorf("%s: found %s", s, e.Manifest.UUID)
		}
	}
}

// A refresh that brings nothing new leaves the list as it is, whether the source says so, sends the same
// again, or the same in another order.
func TestUnchanged(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}, {n: 2}, {n: 3}}}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	refresh(t, c)
	l, saves := c.Current(), x.saves
	f := func(change func(f *fake), swapped bool) {
		t.Helper()
		a.set(change)
		refresh(t, c)
		if (c.Current() != l) != swapped {
			t.Errorf("swapped: %v, want %v", c.Current() != l, swapped)
		}
		l = c.Current()
	}
	f(func(f *fake) {}, false)
	f(func(f *fake) { slices.Reverse(f.listed) }, false)
	if x.saves != saves {
		t.Errorf("saved %d times without need", x.saves-saves)
	}
	f(func(f *fake) { f.etag = "x" }, false)
	if x.saves != saves+1 {
		t.Errorf("a new validator was saved %d times", x.saves-saves)
	}
	f(func(f *fake) {}, false) // not modified
	if got := a.prevs[len(a.prevs)-1].ETag; got != "x" {
		t.Errorf("asked with validator %q", got)
	}
	f(func(f *fake) { f.etag = ""; f.listed = []spec{{n: 1}, {n: 2}, {n: 2}} }, true)
	f(func(f *fake) { f.listed = []spec{{n: 1}, {n: 2, name: "renamed"}, {n: 3}} }, true)
	f(func(f *fake) { f.listed = f.listed[:2] }, true)
	wantShown(t, c, 1, 2)
}

// A source that fails before its first list has none to keep, and the log promises none.
func TestFailureBeforeFirstList(t *testing.T) {
	a := &fake{t: t, name: "a", err: errDown}
	log := new(lines)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Logger: log.logger()})
	if err := c.Refresh(t.Context()); !errors.Is(err, errDown) {
		t.Fatalf("Refresh: %v", err)
	}
	if n, kept := log.count("source failed; the source has never given a list", "source=a"), log.count("is kept"); n != 1 || kept != 0 {
		t.Errorf("%d lines tell it, %d promise a list", n, kept)
	}
}

// A source that fails keeps its list; the failure and the recovery are logged once each.
func TestFailureKeepsList(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 2}}}
	log := new(lines)
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Logger: log.logger()})
	if s := c.Status()[0]; s.State != "unknown" || s.Kind != "" || !s.LastTry.IsZero() {
		t.Errorf("before any try: %+v", s)
	}
	refresh(t, c)
	a.set(func(f *fake) { f.err = errDown })
	for range 3 {
		if err := c.Refresh(t.Context()); !errors.Is(err, errDown) {
			t.Fatalf("Refresh: %v", err)
		}
	}
	wantShown(t, c, 1, 2)
	s := c.Status()
	if s[0].State != "down" || s[0].Images != 1 || !strings.Contains(s[0].LastError, errDown.Error()) || s[0].Kind != "imgapi" ||
		!s[0].LastTry.After(s[0].LastSuccess) || s[1].State != "up" || s[1].LastError != "" {
		t.Errorf("%+v", s)
	}
	if n := log.count("source failed; its last good list is kept", "source=a", errDown.Error()); n != 1 {
		t.Errorf("failure logged %d times", n)
	}
	a.set(func(f *fake) { f.err = nil })
	refresh(t, c)
	refresh(t, c)
	if n := log.count("answers again", "source=a"); n != 1 {
		t.Errorf("recovery logged %d times", n)
	}
	if s := c.Status()[0]; s.State != "up" || s.LastError != "" {
		t.Errorf("%+v", s)
	}
}

// A source that says "not modified" although there is nothing yet has failed.
// A source that cannot read all it has is up, and tells so; the log does when that changes.
func TestTrouble(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1}}, etag: "1", ill: "lost+found: permission denied"}
	log := new(lines)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Logger: log.logger()})
	want := func(trouble string, warned, healed int) {
		t.Helper()
		refresh(t, c)
		if st := c.Status()[0]; st.State != stateUp || st.LastError != trouble || st.Images != 1 {
			t.Errorf("%+v, want the error %q", st, trouble)
		}
		if w, h := log.count("source=a", "WARN", "cannot read all"), log.count("source=a", "can read all it has again"); w != warned || h != healed {
			t.Errorf("logged %d times, and %d times that it is over, want %d and %d", w, h, warned, healed)
		}
	}
	want("lost+found: permission denied", 1, 0)
	want("lost+found: permission denied", 1, 0) // not modified
	a.set(func(f *fake) { f.ill, f.etag = "b: input/output error", "2" })
	want("b: input/output error", 2, 0)
	a.set(func(f *fake) { f.ill, f.etag = "", "3" })
	want("", 2, 1)
	want("", 2, 1)
}

// A list that another server gave under the same name is told apart from the source's own.
func TestListOfAnotherServer(t *testing.T) {
	index := &memory{}
	old := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
	options := func(f *fake, url string) Options {
		return Options{Index: index, Sources: []SourceOptions{{Source: f, URL: url}}}
	}
	refresh(t, newCatalog(t, options(old, "/srv/old")))
	same, other := &fake{t: t, name: "a"}, &fake{t: t, name: "a"}
	refresh(t, newCatalog(t, options(same, "/srv/old")))
	if same.prevs[0].Kind != "imgapi" || len(same.prevs[0].Images) != 1 {
		t.Errorf("the same server: %+v", same.prevs[0])
	}
	refresh(t, newCatalog(t, options(other, "/srv/new")))
	if other.prevs[0].Kind != "" {
		t.Errorf("another server: %+v", other.prevs[0])
	}
}

func TestNotModifiedWithoutList(t *testing.T) {
	a := &fake{t: t, name: "a", err: errSame}
	c := newCatalog(t, Options{Sources: sourcesOf(a)})
	if err := c.Refresh(t.Context()); !errors.Is(err, errSame) || c.Status()[0].State != "down" {
		t.Errorf("%v, %+v", err, c.Status())
	}
}

// After a restart the saved lists are served before any source has answered, and first asked for without
// validators. What was saved of a source that is no longer configured is not served.
func TestRestart(t *testing.T) {
	a := &fake{t: t, name: "a", etag: "x", listed: []spec{{n: 1, origin: 7}, {n: 2}}, hidden: []spec{{n: 7, state: "disabled"}}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 3}}}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Index: x})
	refresh(t, c)
	_, etag := whole(c.Current()).JSON(false)

	a.set(func(f *fake) { f.err = errDown })
	b.set(func(f *fake) { f.err = errDown })
	r := prometheus.NewRegistry()
	c = restarted(t, c, Options{Sources: sourcesOf(a, b), Index: x, Registerer: r})
	<-c.Ready()
	wantShown(t, c, 1, 2, 3)
	if e := entry(t, c, 7); e.Listed || e.Source != "a" || holders(e) != "a" || e.Manifest.State != "disabled" {
		t.Errorf("unlisted origin: %+v", e)
	}
	if _, got := whole(c.Current()).JSON(false); got != etag {
		t.Error("another validator after the restart")
	}
	if s := c.Status()[0]; s.State != "unknown" || s.LastSuccess.IsZero() || s.Images != 2 {
		t.Errorf("%+v", s)
	}
	if n, err := testutil.GatherAndCount(r, "imgmirror_catalog_last_success_timestamp_seconds"); n != 2 || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
	if got := testutil.ToFloat64(c.metrics.lastSuccess.WithLabelValues("a")); got < 1e9 {
		t.Errorf("last success %v", got)
	}

	l := c.Current()
	if err := c.Refresh(t.Context()); !errors.Is(err, errDown) || c.Current() != l {
		t.Errorf("%v; swapped: %v", err, c.Current() != l)
	}
	a.set(func(f *fake) { f.err = nil })
	b.set(func(f *fake) { f.err = nil })
	refresh(t, c)
	if prev := a.prevs[len(a.prevs)-1]; prev.ETag != "" || len(prev.Images) != 2 {
		t.Errorf("asked with validator %q, %d images", prev.ETag, len(prev.Images))
	}
	if c.Current() != l {
		t.Error("swapped although nothing has changed")
	}

	c = restarted(t, c, Options{Sources: sourcesOf(b), Index: x})
	wantShown(t, c, 3)
	wantAbsent(t, c, 7)
}

// Who stops asking learns nothing of the source.
func TestRefreshCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", hang: true}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var two sync.WaitGroup
		for range 2 { // the second waits for its turn
			two.Go(func() {
				if err := c.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Refresh: %v", err)
				}
			})
		}
		two.Wait()
		if s := c.Status()[0]; s.State != "unknown" || len(a.lists) != 1 {
			t.Errorf("%+v, asked %d times", s, len(a.lists))
		}
	})
}

// Many troubles at once do not flood the log, and are counted all the same.
func TestManyConflicts(t *testing.T) {
	a, b := &fake{t: t, name: "a"}, &fake{t: t, name: "b"}
	for n := 1; n <= 50; n++ {
		a.listed = append(a.listed, spec{n: n, origin: 1000})
		b.listed = append(b.listed, spec{n: n, origin: 1000, sum: fmt.Sprintf("%040x", n+5000)})
	}
	log := new(lines)
	c := newCatalog(t, Options{Sources: sourcesOf(a, b), Logger: log.logger()})
	refresh(t, c)
	refresh(t, c)
	f := func(want int, texts ...string) {
		t.Helper()
		if n := log.count(texts...); n != want {
			t.Errorf("%q is in %d lines, want %d", texts, n, want)
		}
	}
	f(20, "the first is served")
	f(1, "more images of which sources have different files", "count=30")
	f(20, "chain of origins is broken")
	f(1, "more images with broken chains", "count=30")
	if n := testutil.ToFloat64(c.metrics.conflicts); n != 50 {
		t.Errorf("%v conflicts", n)
	}
}

type brokenIndex struct{}

func (*brokenIndex) Listings() ([]manifest.Listing, error) { return nil, errors.New("disk on fire") }
func (*brokenIndex) SaveListing(manifest.Listing) error    { return errors.New("disk on fire") }
func (*brokenIndex) Facts() (map[manifest.FileID]manifest.Facts, error) {
	return nil, errors.New("disk on fire")
}
func (*brokenIndex) SaveUnlisted(string, manifest.Manifest) error { return errors.New("disk on fire") }
func (*brokenIndex) SaveFacts(manifest.FileID, manifest.Facts) error {
	return errors.New("disk on fire")
}

// An index that does not work is logged and hinders nothing.
func TestBrokenIndex(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, origin: 2, sum: "-"}}, hidden: []spec{{n: 2}}}
	log := new(lines)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: new(brokenIndex), Logger: log.logger()})
	refresh(t, c)
	c.Learn(manifest.FileID{Image: id(1)}, manifest.Facts{SHA1: verify.Sum{1}, Size: 1001})
	wantShown(t, c, 1)
	entry(t, c, 2)
	if entry(t, c, 1).Manifest.Files[0].SHA1 != (verify.Sum{1}) {
		t.Error("not learned")
	}
	for _, text := range []string{
		"saved lists cannot be read", "saved facts cannot be read", "list could not be saved",
		"manifest could not be saved", "facts of a file could not be saved",
	} {
		if n := log.count(text, "disk on fire"); n != 1 {
			t.Errorf("%q was logged %d times", text, n)
		}
	}
}

// heldIndex does not come to an end of saving a list until it may.
type heldIndex struct {
	memory
	may chan struct{}
}

func (x *heldIndex) SaveListing(l manifest.Listing) error {
	<-x.may
	return x.memory.SaveListing(l)
}

// Who waits for Ready finds what the sources have said, however long the disk takes over it.
func TestReadyIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		x := &heldIndex{may: make(chan struct{})}
		c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
		stop := run(t, c)
		<-c.Ready()
		wantShown(t, c, 1)
		close(x.may)
		stop()
	})
}

// run a catalogue in the background of the bubble; stop ends it and checks that Run returned.
func run(t *testing.T, c *Catalog) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// Sources are refreshed each on its own interval; one that fails sooner, backing off to its interval.
func TestRunSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", err: errDown}
		b := &fake{t: t, name: "b", listed: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: []SourceOptions{{Source: a, Refresh: 2 * time.Minute}, {Source: b, Refresh: 5 * time.Minute}}})
		start := time.Now()
		stop := run(t, c)
		<-c.Ready()
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		a.set(func(f *fake) { f.err = nil })
		time.Sleep(5 * time.Minute)
		stop()
		calls := func(f *fake) (out []time.Duration) {
			for _, at := range f.lists {
				out = append(out, at.Sub(start))
			}
			return out
		}
		s := time.Second
		// 10, 20, 40, 80, 120, 120 … seconds apart; the interval from the first success on (at 750 s).
		if d := cmp.Diff([]time.Duration{0, 10 * s, 30 * s, 70 * s, 150 * s, 270 * s, 390 * s, 510 * s, 630 * s, 750 * s, 870 * s}, calls(a)); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]time.Duration{0, 300 * s, 600 * s, 900 * s}, calls(b)); d != "" {
			t.Error(d)
		}
	})
}

// A list that never comes is given up after 120 s; meanwhile the other source is served, and Ready waits.
func TestRunHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", hang: true}
		b := &fake{t: t, name: "b", listed: []spec{{n: 1}}}
		c := newCatalog(t, Options{Sources: sourcesOf(a, b)})
		start := time.Now()
		stop := run(t, c)
		synctest.Wait()
		wantShown(t, c, 1)
		select {
		case <-c.Ready():
			t.Error("ready although a has not answered")
		default:
		}
		<-c.Ready()
		if d := time.Since(start); d != 120*time.Second {
			t.Errorf("ready after %v", d)
		}
		time.Sleep(time.Minute) // in the second try
		stop()
		if s := c.Status()[0]; s.State != "down" {
			t.Errorf("%+v", s)
		}
	})
}

func TestOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1}}}
		var seen []int
		c := newCatalog(t, Options{
			Sources:  []SourceOptions{{Source: a, Refresh: time.Minute}},
			OnChange: func(l *List) { seen = append(seen, len(l.Images())) },
		})
		stop := run(t, c)
		time.Sleep(90 * time.Second)
		a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 2}) })
		time.Sleep(5 * time.Minute)
		stop()
		// The empty list at the start may or may not have been seen before the first refresh.
		if got := seen; !slices.Equal(got, []int{0, 1, 2}) && !slices.Equal(got, []int{1, 2}) {
			t.Errorf("OnChange saw %v", got)
		}
	})
}

func TestOffline(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, origin: 9}}}
	x := new(memory)
	refresh(t, newCatalog(t, Options{Sources: sourcesOf(a), Index: x}))
	asked := len(a.lists) + len(a.gets)
	synctest.Test(t, func(t *testing.T) {
		c := newCatalog(t, Options{Sources: sourcesOf(a, &fake{t: t, name: "b"}), Index: x, Offline: true})
		<-c.Ready()
		stop := run(t, c)
		refresh(t, c)
		time.Sleep(time.Hour)
		wantShown(t, c, 1)
		if _, err := c.Get(t.Context(), id(9)); !isNotExist(err) {
			t.Errorf("Get: %v", err)
		}
		if e, err := c.Get(t.Context(), id(1)); err != nil || len(e.Holders) > 0 {
			t.Errorf("a file could be asked of %v, %v", e.Holders, err)
		}
		stop()
	})
	if n := len(a.lists) + len(a.gets); n != asked {
		t.Errorf("a source was asked %d times", n-asked)
	}
}

// Filters apply to each source before the merge; ancestors of images that are taken stay reachable.
func TestFilters(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{
		{n: 1, name: "base"}, {n: 2, name: "app", origin: 3}, {n: 3, name: "root", origin: 4}, {n: 4, name: "root0"},
		{n: 5, name: "app-old"}, {n: 6, name: "other"},
	}}
	b := &fake{t: t, name: "b", listed: []spec{{n: 6, name: "other"}, {n: 5, name: "app-old"}, {n: 7, name: "x", origin: 1}}}
	filters := func(texts ...string) (out []manifest.Filter) {
		for _, text := range texts {
			f, err := manifest.ParseFilter(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, f)
		}
		return out
	}
	c := newCatalog(t, Options{Sources: []SourceOptions{
		{Source: a, Include: filters("name=~app", "os=smartos"), Exclude: filters("name=~old", "name=nothing")},
		{Source: b, Exclude: filters("name=other")},
	}})
	refresh(t, c)
	wantShown(t, c, 2, 5, 7)
	if e := entry(t, c, 5); e.Source != "b" || holders(e) != "b" {
		t.Errorf("image 5 from %s, held by %s", e.Source, holders(e))
	}
	for _, n := range []int{1, 3, 4} {
		if e := entry(t, c, n); e.Listed {
			t.Errorf("ancestor %d is listed", n)
		}
	}
	wantAbsent(t, c, 6)
	if _, err := c.Get(t.Context(), id(6)); !isNotExist(err) {
		t.Errorf("Get of an excluded image: %v", err)
	}
	if n := a.asked(3) + a.asked(4) + b.asked(3); n != 0 {
		t.Errorf("listed ancestors were asked for %d times", n)
	}
}

// Private images are served only from sources that are trusted with them, also after that has been changed
// in the configuration.
func TestPrivate(t *testing.T) {
	images := []spec{{n: 1}, {n: 2, private: true, acl: id(99).String()}}
	x := new(memory)
	a := &fake{t: t, name: "a", listed: images, hidden: []spec{{n: 3, private: true}}, private: true}
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	refresh(t, c)
	open := func() {
		t.Helper()
		wantShown(t, c, 1, 2)
		if !bytes.Contains(entry(t, c, 2).Manifest.V2(), []byte(`"acl"`)) {
			t.Error("the acl is not shown")
		}
	}
	open()
	if _, err := c.Get(t.Context(), id(3)); err != nil {
		t.Error(err)
	}
	c = restarted(t, c, Options{Sources: sourcesOf(a), Index: x})
	open()

	shut := func() {
		t.Helper()
		wantShown(t, c, 1)
		wantAbsent(t, c, 2)
		wantAbsent(t, c, 3)
		for _, n := range []int{2, 3} {
			if _, err := c.Get(t.Context(), id(n)); !isNotExist(err) {
				t.Errorf("Get(%d): %v", n, err)
			}
		}
	}
	a.private = false
	c = restarted(t, c, Options{Sources: sourcesOf(a), Index: x})
	shut()
	refresh(t, c)
	shut()
}
