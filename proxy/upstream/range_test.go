package upstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// open gives the stream of the one image of s from offset on.
func open(t *testing.T, s *upstreamtest.Server, data []byte, offset int64, o Options) (io.ReadCloser, int64, error) {
	t.Helper()
	doc := upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data)
	add(t, s, doc, data)
	o.URL, o.Kind = s.URL(), kindIMGAPI
	st, err := newClient(t, o).File(t.Context(), parse(t, doc), 0, offset)
	if err != nil {
		return nil, 0, err
	}
	t.Cleanup(func() { st.Close() })
	return st, st.Size, nil
}

func TestFaultyFiles(t *testing.T) {
	data := upstreamtest.Bytes(1, 200_000)
	flipped := bytes.Clone(data)
	flipped[150_000] ^= 1
	for _, test := range []struct {
		name   string
		fault  upstreamtest.Fault
		offset int64
		want   []byte // what arrives
		size   int64
		match  error // what ends it
	}{
		{"well", upstreamtest.Fault{}, 0, data, 200_000, nil},
		{"resumed", upstreamtest.Fault{}, 50_000, data[50_000:], 200_000, nil},
		{"range ignored", upstreamtest.Fault{IgnoreRange: true}, 50_000, data[50_000:], 200_000, nil},
		{"range ignored, no length", upstreamtest.Fault{IgnoreRange: true, Chunked: true}, 50_000, data[50_000:], -1, nil},
		{"no length", upstreamtest.Fault{Chunked: true}, 0, data, -1, nil},
		{"range without a length", upstreamtest.Fault{Chunked: true}, 50_000, data[50_000:], 200_000, nil},
		{"cut", upstreamtest.Fault{Cut: true, After: 70_000}, 0, data[:70_000], 200_000, verify.ErrUnavailable},
		{"cut after resuming", upstreamtest.Fault{Cut: true, After: 70_000}, 50_000, data[50_000:120_000], 200_000, verify.ErrUnavailable},
		{"cut without a length", upstreamtest.Fault{Cut: true, After: 70_000, Chunked: true}, 0, data[:70_000], -1, verify.ErrUnavailable},
		{"cut while skipping", upstreamtest.Fault{Cut: true, After: 20_000, IgnoreRange: true}, 50_000, nil, 200_000, verify.ErrUnavailable},
		{"stalls", upstreamtest.Fault{Stall: true, After: 70_000}, 0, data[:70_000], 200_000, verify.ErrStalled},
		{"stalls while skipping", upstreamtest.Fault{Stall: true, After: 20_000, IgnoreRange: true}, 50_000, nil, 200_000, verify.ErrStalled},
		{"corrupt", upstreamtest.Fault{Corrupt: true, At: 150_000}, 0, flipped, 200_000, nil},
		{"corrupt, resumed", upstreamtest.Fault{Corrupt: true, At: 150_000}, 140_000, flipped[140_000:], 200_000, nil},
		{"a byte less", upstreamtest.Fault{Grow: -1}, 0, data[:199_999], 199_999, nil},
		{"a byte more", upstreamtest.Fault{Grow: 1}, 0, append(data[:200_000:200_000], 0), 200_001, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{})
			s.Inject(test.fault)
			o := Options{}
			if test.match == verify.ErrStalled {
				t.Parallel()
				o.StallTimeout = 3 * time.Second // the bytes before the stall come in time
			}
			st, size, err := open(t, s, data, test.offset, o)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(st)
			if !errors.Is(err, test.match) || test.match != nil && !errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("ends with %v, want %v", err, test.match)
			}
			if !bytes.Equal(got, test.want) || size != test.size {
				t.Errorf("%d bytes of %d, want %d of %d", len(got), size, len(test.want), test.size)
			}
			if n, again := st.Read(make([]byte, 1)); test.match != nil && (n != 0 || again == nil || again == io.EOF) {
				t.Errorf("after its end: %d, %v", n, again)
			}
		})
	}
}

func TestRangeAnswers(t *testing.T) {
	data := upstreamtest.Bytes(1, 1000)
	for _, test := range []struct {
		name     string
		offset   int64
		status   int
		rng, md5 string
		body     []byte
		want     []byte
		match    error // nil, with ok false: any
		ok       bool
	}{
		{"right", 600, 206, "bytes 600-999/1000", "", data[600:], data[600:], nil, true},
		{"unit in capitals", 600, 206, "Bytes 600-999/1000", "", data[600:], data[600:], nil, true},
		{"total unknown", 600, 206, "bytes 600-999/*", "", data[600:], data[600:], nil, true},
		{"whole as a part", 0, 206, "bytes 0-999/1000", "", data, data, nil, true},
		{"shorter than asked", 600, 206, "bytes 600-799/1000", "", data[600:800], data[600:800], verify.ErrUnavailable, true},
		{"wrong start", 600, 206, "bytes 599-999/1000", "", data[599:], nil, nil, false},
		{"from the start", 600, 206, "bytes 0-999/1000", "", data, nil, nil, false},
		{"wrong total", 600, 206, "bytes 600-1000/1001", "", append(data[600:1000:1000], 0), append(data[600:1000:1000], 0), nil, true},
		{"no range told", 600, 206, "", "", data[600:], nil, verify.ErrUnavailable, false},
		{"garbage", 600, 206, "bytes 600-x/1000", "", data[600:], nil, verify.ErrUnavailable, false},
		{"unlike its length", 600, 206, "bytes 600-999/1000", "", data[:10], nil, verify.ErrUnavailable, false},
		{"416", 600, 416, "", "", nil, nil, nil, false},
		{"416 that contradicts itself", 600, 416, "bytes */1000", "", nil, nil, nil, false},
		{"416 at the end", 600, 416, "bytes */600", "", nil, []byte{}, nil, true},
		{"416 beyond the end", 600, 416, "bytes */599", "", nil, []byte{}, nil, true},
		{"200 that is too short", 600, 200, "", "", data[:500], []byte{}, verify.ErrUnavailable, true},
		{"200 that ends there", 1000, 200, "", "", data, []byte{}, nil, true},
		{"304", 600, 304, "", "", nil, nil, verify.ErrUnavailable, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if test.rng != "" {
					w.Header().Set("Content-Range", test.rng)
				}
				if test.status != 304 {
					w.Header().Set("Content-Length", strconv.Itoa(len(test.body)))
				}
				w.Header().Set("Content-MD5", base64.StdEncoding.EncodeToString(make([]byte, 16)))
				w.WriteHeader(test.status)
				w.Write(test.body)
			})
			c := newClient(t, Options{URL: address, Kind: kindIMGAPI})
			m := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data))
			st, err := c.File(t.Context(), m, 0, test.offset)
			if (err == nil) != test.ok {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				if !errors.Is(err, test.match) && test.match != nil || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("error %v, want %v", err, test.match)
				}
				return
			}
			defer st.Close()
			got, err := io.ReadAll(st)
			if !bytes.Equal(got, test.want) || !errors.Is(err, test.match) {
				t.Errorf("%d bytes, %v, want %d, %v", len(got), err, len(test.want), test.match)
			}
			if size, claimed := map[string]int64{
				"total unknown": -1, "wrong total": 1001, "416 at the end": 600, "416 beyond the end": 599, "200 that is too short": 500,
			}[test.name]; claimed && st.Size != size || !claimed && st.Size != 1000 {
				t.Errorf("size %d", st.Size)
			}
			if (st.MD5 != nil) != (test.status == 200) {
				t.Errorf("md5 %x: that of a part is not that of the file", st.MD5)
			}
		})
	}
}

func TestIfRange(t *testing.T) {
	data := upstreamtest.Bytes(1, 1000)
	const date = "Wed, 21 Oct 2015 07:28:00 GMT"
	for _, test := range []struct{ etag, modified, want string }{
		{`"strong"`, date, `"strong"`},
		{`W/"weak"`, date, date},
		{"unquoted", date, date},
		{"unquoted", "", ""},
		{"", "", ""},
	} {
		var got []string
		c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.Header.Get("Range")+" "+r.Header.Get("If-Range"))
			if test.etag != "" {
				w.Header().Set("ETag", test.etag)
			}
			if test.modified != "" {
				w.Header().Set("Last-Modified", test.modified)
			}
			w.Write(data) // as if the file had changed
		})})
		m := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data))
		for _, offset := range []int64{10, 20} {
			st, err := c.File(t.Context(), m, 0, offset)
			if err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(st); err != nil || !bytes.Equal(rest, data[offset:]) {
				t.Errorf("%d bytes, %v", len(rest), err)
			}
			st.Close()
		}
		if got[0] != "bytes=10- " || got[1] != "bytes=20- "+test.want {
			t.Errorf("etag %q, date %q: asked with %q", test.etag, test.modified, got)
		}
	}
}

func TestFileIsNeverDecompressed(t *testing.T) {
	data := []byte("\x1f\x8b\x08 not really gzip")
	c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip") // a label that some servers put on .gz files
		w.Write(data)
	})})
	m := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data))
	if got := read(t, c, m, 0); !bytes.Equal(got, data) {
		t.Errorf("%q", got)
	}
}

func TestCloseEndsTheTransfer(t *testing.T) {
	data := upstreamtest.Bytes(1, 200_000)
	s := newServer(t, upstreamtest.Options{})
	s.Inject(upstreamtest.Fault{Stall: true, After: 1000})
	st, _, err := open(t, s, data, 0, Options{RateLimit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(st, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := st.Read(make([]byte, 1))
		ended <- err
	}()
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || err == io.EOF {
		t.Errorf("the waiting Read ends with %v", err)
	}
	if err := s.Await(t.Context(), func(r []upstreamtest.Request) bool { return r[0].Done }); err != nil {
		t.Errorf("the server was not left: %v", err)
	}
}

func TestContextBoundsTheStream(t *testing.T) {
	data := upstreamtest.Bytes(1, 200_000)
	s := newServer(t, upstreamtest.Options{})
	doc := upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data)
	add(t, s, doc, data)
	s.Inject(upstreamtest.Fault{Stall: true, After: 1000})
	c := newClient(t, Options{URL: s.URL(), Kind: kindIMGAPI})
	why := errors.New("a reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	st, err := c.File(ctx, parse(t, doc), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := io.ReadFull(st, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel(why)
	if _, err := st.Read(make([]byte, 1)); !errors.Is(err, why) || !errors.Is(err, context.Canceled) || errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("ends with %v", err)
	}
}

func TestRangeGoesAlongWithARedirect(t *testing.T) {
	data := upstreamtest.Bytes(1, 1000)
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	})
	c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+"/x", http.StatusFound)
	})})
	st, err := c.File(t.Context(), parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data)), 0, 600)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, data[600:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := value(t, c.metrics.received); n != 400 {
		t.Errorf("%v bytes received", n)
	}
}

// A redirect's target may be a signed address that runs out: each request for the rest of a file asks the source's own
// address, which redirects to a new one.
func TestResumeAsksTheSourceForANewAddress(t *testing.T) {
	data := upstreamtest.Bytes(1, 1000)
	signed := 0 // the number of the last address that was given out; only that one is good
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("sig") != strconv.Itoa(signed) {
			http.Error(w, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(data))
	})
	stale := false // the source itself may be late, too
	c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !stale {
			signed++
		}
		at := signed
		if stale {
			at--
		}
		http.Redirect(w, r, elsewhere+"/x?sig="+strconv.Itoa(at), http.StatusFound)
	})})
	m := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data))
	for _, offset := range []int64{0, 300, 600} {
		stale = offset == 600
		if stale {
			if _, err := c.File(t.Context(), m, 0, offset); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("an address that has run out: %v", err)
			}
			stale = false
		}
		st, err := c.File(t.Context(), m, 0, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(st)
		st.Close()
		if err != nil || !bytes.Equal(got, data[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
}

func TestCloseLeavesNoConnection(t *testing.T) {
	data := upstreamtest.Bytes(1, 1<<20)
	var mu sync.Mutex
	open, opened := 0, 0
	allClosed := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(data) }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch state {
		case http.StateNew:
			open, opened = open+1, opened+1
		case http.StateClosed:
			if open--; open == 0 && opened == 3 {
				close(allClosed)
			}
		}
	}
	s.Start()
	defer s.Close()
	c := newClient(t, Options{URL: s.URL, Kind: kindIMGAPI})
	m := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data))
	var streams []io.Closer
	for _, bytes := range []int64{0, 1000, 1 << 20} { // one left at the start, one in the middle, one read to its end
		st, err := c.File(t.Context(), m, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.CopyN(io.Discard, st, bytes); err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		streams = append(streams, st)
	}
	for _, st := range streams {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-allClosed:
	case <-time.After(30 * time.Second):
		t.Error("a connection is still open")
	}
}

func TestConnectionsAreReused(t *testing.T) {
	data := upstreamtest.Bytes(1, 100_000)
	connections := map[string]bool{}
	c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true
		w.Write(data)
	})})
	m := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data))
	for range 5 {
		read(t, c, m, 0)
		c.Get(t.Context(), manifest.Manifest{}.UUID) // nonsense, but read to its end
	}
	if len(connections) > 2 {
		t.Errorf("%d connections for 10 requests one after the other", len(connections))
	}
}

func TestParseContentRange(t *testing.T) {
	f := func(s string, first, last, total int64) {
		t.Helper()
		a, b, c, ok := parseContentRange(s)
		if ok != (total != 0) || a != first || b != last || ok && c != total {
			t.Errorf("%q: %d-%d/%d %v", s, a, b, c, ok)
		}
	}
	f("bytes 0-0/1", 0, 0, 1)
	f("bytes 5-9/10", 5, 9, 10)
	f("bytes 5-9/*", 5, 9, -1)
	f(" BYTES  5-9/10 ", 5, 9, 10)
	for _, bad := range []string{
		"", "bytes", "bytes */10", "bytes 5-9", "bytes 9-5/10", "bytes 5-10/10", "bytes -5-9/10", "bytes +5-9/10", "bytes 5-9/-1",
		"items 5-9/10", "bytes=5-9/10", "bytes 5-9/10/11", "bytes 5-99999999999999999999/*", "bytes 0x5-9/10", "bytes 5-9/",
	} {
		f(bad, 0, 0, 0)
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Add("bytes 5-9/*")
	f.Add("bytes */10")
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := parseContentRange(s)
		if !ok {
			return
		}
		if first < 0 || last < first || total != -1 && total <= last || last-first+1 <= 0 {
			t.Fatalf("%q: %d-%d/%d", s, first, last, total)
		}
		size := "*"
		if total >= 0 {
			size = strconv.FormatInt(total, 10)
		}
		a, b, c, ok := parseContentRange(fmt.Sprintf("bytes %d-%d/%s", first, last, size))
		if !ok || a != first || b != last || c != total {
			t.Errorf("%q: read back as %d-%d/%d", s, a, b, c)
		}
	})
}

func TestParseMD5(t *testing.T) {
	for s, ok := range map[string]bool{
		"XrY7u+Ae7tCTyyK7j1rNww==": true, " XrY7u+Ae7tCTyyK7j1rNww== ": true,
		"": false, "XrY7u": false, "5eb63bbbe01eeed093cb22bb8f5acdc3": false, "aGVsbG8=": false,
	} {
		if sum := parseMD5(s); (len(sum) == 16) != ok || !ok && sum != nil {
			t.Errorf("%q: %x", s, sum)
		}
	}
}
