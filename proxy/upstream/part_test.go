package upstream

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// A part has the bytes that were asked for; or the Stream is that of File, and says so.
func TestPart(t *testing.T) {
	data := upstreamtest.Bytes(1, 200_000)
	for _, test := range []struct {
		name   string
		fault  upstreamtest.Fault
		offset int64
		length int64
		part   int64
		want   []byte
		match  error
	}{
		{"at the start", upstreamtest.Fault{}, 0, 70_000, 70_000, data[:70_000], nil},
		{"in the middle", upstreamtest.Fault{}, 50_000, 70_000, 70_000, data[50_000:120_000], nil},
		{"at the end", upstreamtest.Fault{}, 199_999, 1, 1, data[199_999:], nil},
		{"beyond the end", upstreamtest.Fault{}, 150_000, 70_000, 50_000, data[150_000:], nil},
		{"no length", upstreamtest.Fault{Chunked: true}, 50_000, 70_000, 70_000, data[50_000:120_000], nil},
		{"ignored", upstreamtest.Fault{IgnoreRange: true}, 50_000, 70_000, 0, data[50_000:], nil},
		{"cut", upstreamtest.Fault{Cut: true, After: 30_000}, 50_000, 70_000, 70_000, data[50_000:80_000], verify.ErrUnavailable},
		{"cut without a length", upstreamtest.Fault{Cut: true, After: 30_000, Chunked: true}, 50_000, 70_000, 70_000, data[50_000:80_000], verify.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{})
			s.Inject(test.fault)
			doc := upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data)
			add(t, s, doc, data)
			st, err := newClient(t, Options{URL: s.URL(), Kind: kindIMGAPI}).Part(t.Context(), parse(t, doc), 0, test.offset, test.length)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			got, err := io.ReadAll(st)
			if (err == nil) != (test.match == nil) || st.Part != test.part || st.Size != 200_000 || !bytes.Equal(got, test.want) {
				t.Errorf("part %d of %d, %d bytes, %v; want part %d, %d bytes, %v", st.Part, st.Size, len(got), err, test.part, len(test.want), test.match)
			}
		})
	}
}

// A mirror that still fetches the file keeps the last byte of each range back: it is asked for all.
func TestPartOfAMirrorThatFetches(t *testing.T) {
	data := upstreamtest.Bytes(1, 1000)
	for _, test := range []struct {
		via, cache string
		asked      []string
	}{
		{via.Format("imgmirror-0f5e9c3c00000001"), "MISS", []string{"bytes=100-199", "bytes=100-"}},
		{via.Format("imgmirror-0f5e9c3c00000001"), "JOIN", []string{"bytes=100-199", "bytes=100-"}},
		{via.Format("imgmirror-0f5e9c3c00000001"), "HIT", []string{"bytes=100-199"}},
		{"1.1 varnish", "MISS", []string{"bytes=100-199"}},
	} {
		t.Run(test.via+test.cache, func(t *testing.T) {
			var mu sync.Mutex
			var asked []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked = append(asked, r.Header.Get("Range"))
				mu.Unlock()
				var first, last int
				if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n < 2 {
					last = 999
				}
				w.Header().Set("Via", test.via)
				w.Header().Set("X-Cache", test.cache)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/1000", first, last))
				w.Header().Set("Content-Length", strconv.Itoa(last-first+1))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(data[first : last+1])
			}))
			defer server.Close()
			m := parse(t, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", nil, data))
			st, err := newClient(t, Options{URL: server.URL, Kind: kindIMGAPI}).Part(t.Context(), m, 0, 100, 100)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			whole := len(test.asked) == 2
			got, err := io.ReadAll(st)
			if want := map[bool]int{true: 900, false: 100}[whole]; err != nil || len(got) != want || (st.Part == 0) != whole {
				t.Errorf("%d bytes of a part of %d: %v", len(got), st.Part, err)
			}
			if !slices.Equal(asked, test.asked) {
				t.Errorf("asked %v, want %v", asked, test.asked)
			}
		})
	}
}
