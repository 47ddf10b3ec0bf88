package upstream

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
)

func TestSqueezed(t *testing.T) {
	blank := strings.Repeat(" \n\t\r", 5*maxBlank)
	f := func(in, want string) {
		t.Helper()
		for _, src := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
			s := &squeezed{src: src}
			got, err := io.ReadAll(s)
			if err != nil || string(got) != want || s.read != int64(len(in)) {
				t.Errorf("%.40q: %.60q of %d bytes, %v", in, got, s.read, err)
			}
		}
	}
	f("", "")
	f(`{"a": [1, 2]}`+"\n", `{"a": [1, 2]}`+"\n")
	f("["+blank+"1"+blank+"]"+blank, "["+blank[:maxBlank]+"1"+blank[:maxBlank]+"]"+blank[:maxBlank])
	f(`["`+blank+`"]`, `["`+blank+`"]`)
	f(`["\"`+blank+`","\\"`+blank+`]`, `["\"`+blank+`","\\"`+blank[:maxBlank]+`]`)
}

// A source that sends white space without end costs no memory, wherever in which
// answer, compressed or not.
func TestEndlessWhiteSpace(t *testing.T) {
	blank := []byte(strings.Repeat(" ", 1<<20))
	for _, zipped := range []bool{false, true} {
		address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			var out io.Writer = w
			if zipped {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				defer z.Close()
				out = z
			}
			fmt.Fprint(out, `[{"uuid":`)
			for range 80 {
				if _, err := out.Write(blank); err != nil {
					return
				}
			}
		})
		for _, kind := range []string{kindIMGAPI, kindStatic} {
			c := newClient(t, Options{URL: address, Kind: kind})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := c.List(t.Context(), manifest.Listing{}); err == nil {
				t.Errorf("%s: a list", kind)
			}
			if _, err := c.Get(t.Context(), upstreamtest.ID(1)); err == nil {
				t.Errorf("%s: a manifest", kind)
			}
			runtime.ReadMemStats(&after)
			if spent := (after.TotalAlloc - before.TotalAlloc) >> 20; spent > 48 {
				t.Errorf("%s, compressed %v: %d MiB were allocated", kind, zipped, spent)
			}
		}
	}
}
