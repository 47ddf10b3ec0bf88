package nodes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// What the journal tells of a node after requests of all kinds, before and after a restart.
func TestNode(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{})
	for _, r := range []*Request{
		{Address: address(1), Agent: "imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u)", Ended: now.Add(-time.Hour), Kind: Other},
		{Address: address(1), Ended: now, Kind: List},
		{Address: address(1), Ended: now, Kind: Manifest},
		{Address: address(1), Ended: now, Kind: Manifest, Failed: true},
		fetch(1, 1, "miss"),
		fetch(1, 2, "hit"),
		fetch(1, 3, "join").with(func(r *Request) { r.Sent, r.Failed = 300, true }),
		// The rest of image 3, after a part in the middle that leaves a gap.
		fetch(1, 3, "hit").with(func(r *Request) { r.Start, r.Sent = 800, 100 }),
		fetch(1, 3, "hit").with(func(r *Request) {
			r.Start, r.Sent = 200, 800
		}),
		fetch(1, 1, "hit").with(func(r *Request) { // of another file than the first
			r.Image, r.Agent = uuid.Nil, "imgadm/3.10.0 (node/0.10.48; OpenSSL/1.0.1u) joyent_20260101T010203Z"
		}),
		fetch(1, 2, "hit").with(func(r *Request) { r.Sent, r.Failed, r.Agent = 10, true, "" }),
	} {
		j.take(r)
	}
	check := func(j *Journal) {
		t.Helper()
		got, fetches, ok := j.Node(address(1))
		want := Node{
			Address: address(1), First: now.Add(-time.Hour), Last: now,
			Agent:    "imgadm/3.10.0 (node/0.10.48; OpenSSL/1.0.1u) joyent_20260101T010203Z",
			Client:   Client{Name: "imgadm", Version: "3.10.0", Platform: "20260101T010203Z"},
			Requests: 11, Lists: 1, Manifests: 2, Files: 7, Errors: 3,
			Hits: 5, Misses: 1, Joins: 1, HitBytes: 2910, MissBytes: 1000, JoinBytes: 300,
			Saved: 3210, Rate: 300, Images: 3,
		}
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" || !ok {
			t.Error(d)
		}
		of := func(n int, f Fetch) Fetch {
			f.Image, f.When, f.Took = imageID(n), now, 2*time.Second
			return f
		}
		wantFetches := []Fetch{
			of(2, Fetch{Result: "hit", Bytes: 10, Rate: 5, Fetches: 2, Whole: true, Cut: true}),
			of(3, Fetch{Result: "hit", Bytes: 800, Rate: 400, Fetches: 3, Whole: true}),
			of(1, Fetch{Result: "miss", Bytes: 1000, Rate: 500, Fetches: 1, Whole: true}),
		}
		if d := cmp.Diff(wantFetches, fetches); d != "" {
			t.Error(d)
		}
	}
	check(j)
	j.flush(math.MaxInt)
	check(newJournal(t, notes, Limits{}))
	if _, _, ok := j.Node(address(2)); ok {
		t.Error("a node that never asked is known")
	}
}

// A part of a file is no fetch, however many parts come without the ones before them.
func TestPartsWithGaps(t *testing.T) {
	j := newJournal(t, new(fakeNotes), Limits{})
	for _, part := range []struct{ start, sent int64 }{{500, 500}, {0, 100}, {200, 800}} {
		j.take(fetch(0, 1, "hit").with(func(r *Request) { r.Start, r.Sent = part.start, part.sent }))
	}
	wantNodes(t, j, Query{Image: imageID(1)}, 0)
	j.take(fetch(0, 1, "hit").with(func(r *Request) { r.Start, r.Sent = 100, 900 }))
	wantNodes(t, j, Query{Image: imageID(1)}, 1, 0)
}

// Lists of nodes: who has an image, who lacks the image, networks, texts, orders, pages.
func TestList(t *testing.T) {
	j := newJournal(t, new(fakeNotes), Limits{})
	for n := range 6 {
		for i := range n {
			j.take(fetch(n, i, "hit").with(func(r *Request) {
				r.Ended = now.Add(time.Duration(n) * time.Second)
				if n == 4 {
					r.Agent = "curl/8.5.0"
				}
				if n == 1 {
					r.Took = time.Second
				}
			}))
		}
	}
	j.take(&Request{Address: address(0), Ended: now, Kind: List, Failed: true})
	wantNodes(t, j, Query{}, 6, 5, 4, 3, 2, 1, 0)
	wantNodes(t, j, Query{Order: "asc", Offset: 1, Limit: 2}, 6, 1, 2)
	wantNodes(t, j, Query{Offset: 100, Limit: 2}, 6)
	wantNodes(t, j, Query{Image: imageID(2)}, 3, 5, 4, 3)
	wantNodes(t, j, Query{Lacks: imageID(2)}, 3, 2, 1, 0)
	wantNodes(t, j, Query{Image: imageID(2), Lacks: imageID(3)}, 1, 3)
	wantNodes(t, j, Query{Network: netip.MustParsePrefix("10.0.0.0/8")}, 3, 4, 2, 0)
	wantNodes(t, j, Query{Network: netip.PrefixFrom(address(3), 128)}, 1, 3)
	wantNodes(t, j, Query{Text: "CURL"}, 1, 4)
	wantNodes(t, j, Query{Text: "fd12::"}, 3, 5, 3, 1)
	for name, first := range map[string]int{
		"address": 0, "client": 0, "first": 5, "last": 5, "requests": 5, "errors": 0, "bytes": 5, "saved": 5, "images": 5, "rate": 1,
	} {
		if page, _ := j.List(Query{Sort: name, Limit: 1}); page[0].Address != address(first) {
			t.Errorf("%s: %v is first, want %v", name, page[0].Address, address(first))
		}
	}
	for _, name := range Sorts() {
		up, _ := j.List(Query{Sort: name, Order: "asc", Limit: 1})
		down, _ := j.List(Query{Sort: name, Order: "desc", Limit: 1})
		if up[0].Address == down[0].Address {
			t.Errorf("%s: %v is first upwards and downwards", name, up[0].Address)
		}
	}
	if len(Sorts()) != 10 {
		t.Errorf("%q are not all tried", Sorts())
	}
	page, _ := j.List(Query{Image: imageID(2), Limit: 1})
	if f := page[0].Fetch; f == nil || f.Image != imageID(2) || !f.Whole {
		t.Errorf("fetch %+v", f)
	}
}

// At the limit the node goes that has not been seen for longest; its note goes too. Of a node, the
// oldest image goes.
func TestBounds(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{Keep: time.Hour, Max: 3})
	for n := range 3 {
		j.take(fetch(n, 1, "hit"))
	}
	j.flush(math.MaxInt)
	j.take(fetch(0, 1, "hit"))
	j.take(fetch(7, 1, "hit"))
	if _, _, known := j.Node(address(1)); known || notes.len() != 3 {
		t.Errorf("known: %t, %d notes", known, notes.len())
	}
	j.flush(math.MaxInt)
	if used, limit, dropped := j.Room(); used != 3 || limit != 3 || dropped != 0 || notes.len() != 3 || len(j.gone) != 0 {
		t.Errorf("%d of %d, dropped %d, %d notes", used, limit, dropped, notes.len())
	}
	for i := range MaxImages + 2 {
		j.take(fetch(7, i, "hit")) // image 1 is known
	}
	n, fetches, _ := j.Node(address(7))
	if n.Images != MaxImages || n.Forgotten != 2 || len(fetches) != MaxImages || fetches[0].Image != imageID(MaxImages+1) {
		t.Errorf("%d images, %d forgotten, the last one is %v", n.Images, n.Forgotten, fetches[0].Image)
	}
	if size := cap(j.nodes[address(7)].images); size != MaxImages {
		t.Errorf("room for %d images", size)
	}
	wantNodes(t, j, Query{Lacks: imageID(0)}, 3, 0, 2, 7)
	j = newJournal(t, notes, Limits{Keep: time.Hour, Max: 1})
	j.flush(math.MaxInt)
	if notes.len() != 1 {
		t.Errorf("%d notes after a start with a lower limit", notes.len())
	}
}

// Nodes that were not seen for too long go; so does the whole journal once it is switched off, also
// by a reload.
func TestKeepAndOff(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{Keep: time.Hour, Max: 10})
	j.take(fetch(1, 1, "hit").with(func(r *Request) { r.Ended = now.Add(-45 * time.Minute) }))
	j.take(fetch(2, 1, "hit"))
	j.flush(math.MaxInt)
	wantNodes(t, j, Query{}, 2, 2, 1)
	j = newJournal(t, notes, Limits{Keep: 30 * time.Minute, Max: 10})
	wantNodes(t, j, Query{}, 1, 2)
	j.flush(math.MaxInt)
	if notes.len() != 1 {
		t.Errorf("%d notes", notes.len())
	}
	for _, off := range []Limits{{Keep: 0, Max: 10}, {Keep: time.Hour, Max: 0}} {
		j.Adjust(Limits{Keep: time.Hour, Max: 10})
		j.take(fetch(2, 1, "hit"))
		j.flush(math.MaxInt)
		j.Adjust(off)
		j.Note(*fetch(3, 1, "hit"))
		j.take(fetch(3, 1, "hit")) // was on its way
		wantNodes(t, j, Query{}, 0)
		j.flush(math.MaxInt)
		if notes.len() != 0 || j.On() || len(j.queue) != 0 {
			t.Errorf("off: %d notes, on: %t, %d requests wait", notes.len(), j.On(), len(j.queue))
		}
	}
	j.Adjust(Limits{Keep: time.Hour, Max: 10})
	j.Note(*fetch(3, 1, "hit"))
	if !j.On() || len(j.queue) != 1 {
		t.Error("the journal stays off")
	}
}

// Run takes requests in, writes what has changed every 30 s, only that, and at its end.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := new(fakeNotes)
		j := newJournal(t, notes, Limits{})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- j.Run(ctx) }()
		for n := range 300 {
			j.Note(*fetch(n, 1, "hit").with(func(r *Request) { r.Ended = time.Now() }))
		}
		time.Sleep(gatherFor)
		synctest.Wait()
		if used, _, _ := j.Room(); used != 300 || notes.len() != 0 {
			t.Errorf("%d nodes, %d notes", used, notes.len())
		}
		time.Sleep(writeEvery)
		synctest.Wait()
		if notes.len() != 300 || notes.writes != 3 {
			t.Errorf("%d notes in %d writes", notes.len(), notes.writes)
		}
		j.Note(*fetch(7, 2, "hit").with(func(r *Request) { r.Ended = time.Now() }))
		time.Sleep(3 * writeEvery)
		synctest.Wait()
		if notes.puts != 301 || notes.writes != 4 {
			t.Errorf("%d notes were written in %d writes", notes.puts, notes.writes)
		}
		j.Note(*fetch(500, 2, "hit").with(func(r *Request) { r.Ended = time.Now() }))
		stop()
		if err := <-ended; err != nil || notes.len() != 301 {
			t.Errorf("the end: %v, %d notes", err, notes.len())
		}
	})
}

// A disk that is full: the journal goes on in memory, stays in its room, and is written once that
// is possible.
func TestWritesThatFail(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{Keep: time.Hour, Max: 10})
	j.take(fetch(0, 1, "hit"))
	j.flush(math.MaxInt)
	notes.fail(errors.New("full"))
	for n := range 1000 {
		j.take(fetch(n, 1, "hit"))
		if n%7 == 0 {
			j.flush(math.MaxInt)
		}
	}
	if len(j.nodes) != 10 || len(j.gone) > 10 {
		t.Errorf("%d nodes, %d to be removed", len(j.nodes), len(j.gone))
	}
	if n, err := j.ForgetAll(); n != 10 || err == nil {
		t.Errorf("forgotten: %d, %v", n, err)
	}
	j.take(fetch(1, 1, "hit"))
	notes.fail(nil)
	j.flush(math.MaxInt)
	wantNodes(t, newJournal(t, notes, Limits{}), Query{}, 1, 1)
}

// A node that is dropped, or forgotten and seen again, while a write is under way: the notes are
// those of the nodes.
func TestChangesDuringWrite(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{Keep: time.Hour, Max: 2})
	j.take(fetch(0, 1, "hit"))
	notes.unsealed = func() { // as the write begins
		notes.unsealed = nil
		j.take(fetch(1, 1, "hit"))
		j.take(fetch(2, 1, "hit")) // 0 goes
	}
	j.flush(math.MaxInt)
	j.flush(math.MaxInt)
	wantNodes(t, newJournal(t, notes, Limits{}), Query{}, 2, 2, 1)

	notes.unsealed = func() {
		notes.unsealed = nil
		j.take(fetch(1, 2, "hit")) // comes back while its note is removed
	}
	if known, err := j.Forget(address(1)); !known || err != nil {
		t.Fatal(known, err)
	}
	j.flush(math.MaxInt)
	j = newJournal(t, notes, Limits{})
	wantNodes(t, j, Query{}, 2, 2, 1)
	wantNodes(t, j, Query{Image: imageID(1)}, 1, 2)
}

// What is deleted is deleted on disk at once, and stays deleted.
func TestForget(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{})
	for n := range 2000 {
		j.take(fetch(n, 1, "hit"))
	}
	j.flush(math.MaxInt)
	if known, err := j.Forget(address(7)); !known || err != nil || notes.len() != 1999 {
		t.Errorf("Forget: %t, %v, %d notes", known, err, notes.len())
	}
	if known, err := j.Forget(address(7)); known || err != nil {
		t.Errorf("again: %t, %v", known, err)
	}
	if n, err := j.ForgetAll(); n != 1999 || err != nil || notes.len() != 0 {
		t.Errorf("ForgetAll: %d, %v, %d notes", n, err, notes.len())
	}
	j.flush(math.MaxInt)
	wantNodes(t, newJournal(t, notes, Limits{}), Query{}, 0)
}

// While Run takes no requests in, Note drops and counts them, and does not wait.
func TestDropped(t *testing.T) {
	registry := prometheus.NewRegistry()
	j := New(Options{Limits: Limits{Keep: time.Hour, Max: 10}, Notes: new(fakeNotes), Registerer: registry})
	for range queueLength + 5 {
		j.Note(*fetch(1, 1, "hit"))
	}
	j.Note(Request{}) // of no address
	r := <-j.queue
	j.take(&r)
	want := "# HELP imgmirror_nodes Addresses in the journal of nodes.\n# TYPE imgmirror_nodes gauge\nimgmirror_nodes 1\n" +
		"# HELP imgmirror_nodes_limit Addresses that the journal of nodes may have: nodes.max; 0 = there is no journal.\n" +
		"# TYPE imgmirror_nodes_limit gauge\nimgmirror_nodes_limit 10\n" +
		"# HELP imgmirror_nodes_dropped_total Requests that the journal of nodes did not take in, because too many came at once.\n" +
		"# TYPE imgmirror_nodes_dropped_total counter\nimgmirror_nodes_dropped_total 5\n"
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if _, _, dropped := j.Room(); dropped != 5 {
		t.Errorf("dropped: %d", dropped)
	}
}

// User agents of strangers are kept as text of bounded length.
func TestHostileAgents(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{})
	agents := []string{
		"\x1b]0;evil\x07 \x1b[31m", "<script>alert(1)</script>", "\u202egpj.exe", "\xff\xfe\x80", strings.Repeat("ü", 5000),
		"a" + strings.Repeat("€", 100), strings.Repeat("\xe2", 300), strings.Repeat("\x80", 300), " ", "/", "imgadm/", "\x00",
	}
	for i, a := range agents {
		j.Note(*fetch(i, 1, "hit").with(func(r *Request) { r.Agent = a }))
		r := <-j.queue
		j.take(&r)
		ReadAgent(a)
	}
	j.flush(math.MaxInt)
	for _, j := range []*Journal{j, newJournal(t, notes, Limits{})} {
		for i, a := range agents {
			n, _, ok := j.Node(address(i))
			if !ok || len(n.Agent) > MaxAgent || !utf8.ValidString(n.Agent) || n.Agent == "" {
				t.Errorf("%.40q: %q (%t)", a, n.Agent, ok)
			}
			if utf8.ValidString(a) && !strings.HasPrefix(a, n.Agent) {
				t.Errorf("%.40q became %q", a, n.Agent)
			}
		}
	}
}

func TestReadAgent(t *testing.T) {
	f := func(agent, name, version, platform string) {
		t.Helper()
		if got := ReadAgent(agent); got != (Client{name, version, platform}) {
			t.Errorf("%q: %+v", agent, got)
		}
	}
	f("imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u)", "imgadm", "3.9.5", "")
	f("imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u) joyent_20260101T010203Z", "imgadm", "3.9.5", "20260101T010203Z")
	f("imgadm/3.9.5 (node/0.10.48) platform/20260101T010203Z rack=7", "imgadm", "3.9.5", "20260101T010203Z")
	f("imgadm/20260101T010203Z", "imgadm", "20260101T010203Z", "")
	f("imgadm/3.9.5 120260101T010203Z", "imgadm", "3.9.5", "")
	f("curl/8.5.0", "curl", "8.5.0", "")
	f("Wget", "Wget", "", "")
	f("", "", "", "")
}

// A note that cannot be read is removed; the others are good.
func TestBrokenNotes(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{})
	for n := range 3 {
		j.take(fetch(n, 1, "hit"))
	}
	j.flush(math.MaxInt)
	notes.all["abc"] = notes.all[j.nodes[address(1)].key()]
	notes.all[j.nodes[address(0)].key()] = []byte{version, 200}
	notes.all[string(netip.MustParseAddr("::ffff:10.1.1.1").AsSlice())] = notes.all[j.nodes[address(1)].key()]
	j = newJournal(t, notes, Limits{})
	wantNodes(t, j, Query{}, 2, 2, 1)
	j.flush(math.MaxInt)
	if notes.len() != 2 {
		t.Errorf("%d notes are left", notes.len())
	}
	notes.fail(errors.New("unreadable"))
	wantNodes(t, newJournal(t, notes, Limits{}), Query{}, 0)
}

func FuzzDecode(f *testing.F) {
	n := &node{address: address(1), first: 1, last: 2, agent: "imgadm/3.9.5"}
	f.Add("\x0a\x00\x00\x01", n.encode())
	for i := range 3 {
		n.take(fetch(1, i, "miss"))
	}
	f.Add("\x0a\x00\x00\x01", n.encode())
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		n, err := decode(key, value)
		if err != nil {
			return
		}
		again, err := decode(n.key(), n.encode())
		if err != nil || fmt.Sprint(n.node(), n.images) != fmt.Sprint(again.node(), again.images) {
			t.Errorf("%q became %+v, then %+v (%v)", value, n, again, err)
		}
		if len(n.images) > MaxImages || len(n.agent) > MaxAgent*3 {
			t.Errorf("%d images, agent %q", len(n.images), n.agent)
		}
	})
}

// A bounded write takes what changed first, the rest comes with the next ones.
func TestBoundedWrites(t *testing.T) {
	notes := new(fakeNotes)
	j := newJournal(t, notes, Limits{})
	for n := range 3 * batchNodes {
		j.take(fetch(n, 1, "hit").with(func(r *Request) { r.Ended = now.Add(time.Duration(n) * time.Millisecond) }))
	}
	for round := range 3 {
		for n := range 3 * batchNodes { // each one changes again and again
			j.take(fetch(n, 1, "hit").with(func(r *Request) { r.Ended = now.Add(time.Hour) }))
		}
		j.flush(1)
		if notes.len() != (round+1)*batchNodes {
			t.Errorf("round %d: %d notes", round, notes.len())
		}
	}
}
