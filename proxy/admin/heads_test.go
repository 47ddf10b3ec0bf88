package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/cache/bundle"
	"imgmirror/proxy/meaning"
)

// headRequest is POST /bundle with a body of that length; -1: the length is not told.
func headRequest(body io.Reader, length int64) *http.Request {
	r := httptest.NewRequest("POST", apiPrefix+"/bundle", body)
	r.Header.Set("Content-Type", typeJSON)
	r.Header.Set("Authorization", "Bearer "+testToken)
	r.ContentLength = length
	return r
}

// unread is a body that must stay unread.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body of a refused head is read")
	return 0, io.EOF
}

// TestHeadsMemory: heads beyond the bound are refused, before a byte of them is read, while others
// are being read or judged. A small head beside a small one is not.
func TestHeadsMemory(t *testing.T) {
	f := newFixture(t)
	text, err := json.Marshal(shelf{11: 0}.bundle(t, nil, 0).head())
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(text))
	f.heads.limit = 2 * size
	coming := func(length int64) (end func() int) {
		r, w := io.Pipe()
		reply := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.Handler().ServeHTTP(reply, headRequest(r, length))
		}()
		if _, err := w.Write(text[:10]); err != nil { // read, so booked
			t.Fatal(err)
		}
		return func() int {
			if _, err := w.Write(text[10:]); err != nil {
				t.Error(err)
			}
			w.Close()
			<-done
			return reply.Code
		}
	}
	refused := func(length int64) {
		t.Helper()
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, headRequest(unread{t}, length))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), meaning.Unavailable) {
			t.Errorf("a head of %d bytes: %d, Retry-After %q, %s", length, w.Code, w.Header().Get("Retry-After"), w.Body)
		}
	}
	first, second := coming(size), coming(size)
	refused(size)
	refused(-1)
	if got := f.heads.inUse(); got != 2*size {
		t.Errorf("%d bytes are booked, want %d", got, 2*size)
	}
	if got := first(); got != 200 {
		t.Errorf("the first head: %d", got)
	}
	refused(-1)
	third := coming(size)
	if a, b := second(), third(); a != 200 || b != 200 {
		t.Errorf("the second and third head: %d, %d", a, b)
	}
	if got := coming(-1)(); got != 200 {
		t.Errorf("a head of an unknown length: %d", got)
	}
	if got := f.heads.inUse(); got != 0 {
		t.Errorf("%d bytes are booked in the end", got)
	}
	if got := testutil.ToFloat64(f.metrics.refused[refusedHeads]); got != 3 {
		t.Errorf("%v refusals are counted, want 3", got)
	}
	f.refused(422, codeBundle, "POST", "/bundle", BundleHead{Index: []byte("{}")})
	if got := f.heads.inUse(); got != 0 {
		t.Errorf("%d bytes are booked after a wrong head", got)
	}
}

// TestHeadsNarrow: a head larger than the bound is refused for good.
func TestHeadsNarrow(t *testing.T) {
	s := New(Options{Mirror: newFixture(t).mirror, Token: testToken, HeadMemory: 1000})
	for _, length := range []int64{1001, -1} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, headRequest(strings.NewReader(`{"index":"`+strings.Repeat("A", 2000)), length))
		if w.Code != 413 || !strings.Contains(w.Body.String(), "1000 bytes") {
			t.Errorf("length %d: %d: %s", length, w.Code, w.Body)
		}
	}
}

// TestHeadsLists: a list of empty manifests takes no memory of many times its text.
func TestHeadsLists(t *testing.T) {
	f := func(n int, fault string) {
		t.Helper()
		head, err := readHead(strings.NewReader(`{"manifests":[""` + strings.Repeat(`,""`, n-1) + `],"volume":3}`))
		if fault != "" {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%d manifests: %v, want %q", n, err, fault)
			}
		} else if err != nil || len(head.Manifests) != n || head.Volume != 3 {
			t.Errorf("%d manifests: %v, %d", n, err, len(head.Manifests))
		}
	}
	f(bundle.MaxImages, "")
	f(bundle.MaxImages+1, "more than 10000")
	for text, fault := range map[string]string{
		``: "", `{"manifests":null}`: "", `{"manifests":7}`: "a list is wanted", `{"x":1}`: "unknown object member", `{} {}`: "more than one value", `{"index":"!"}`: "illegal base64",
		`{"manifests":["AA=="`: "unexpected EOF",
	} {
		if _, err := readHead(strings.NewReader(text)); (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q", text, err, fault)
		}
	}
}

// dripping brings a byte every twenty seconds.
type dripping struct{ conn *deadlines }

func (d dripping) Read(p []byte) (int, error) {
	time.Sleep(20 * time.Second)
	if d.conn.over() {
		return 0, io.ErrNoProgress
	}
	return copy(p, " "), nil
}

// deadlines is a reply whose request has read deadlines.
type deadlines struct {
	http.ResponseWriter
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = t; return nil }
func (d *deadlines) over() bool                        { return !d.read.IsZero() && time.Now().After(d.read) }

// TestHeadsDrip: a head that drips ends, and makes room for others.
func TestHeadsDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &deadlines{ResponseWriter: httptest.NewRecorder()}
		s := &Server{metrics: newMetrics(), heads: heads{limit: maxHead}}
		r := headRequest(bytes.NewReader(nil), maxHead)
		r.Body = &arriving{ReadCloser: io.NopCloser(dripping{conn}), conn: http.NewResponseController(conn), within: bodyTimeout}
		begin := time.Now()
		if _, _, err := s.takeHead(r); err == nil {
			t.Error("a head of a few bytes is taken")
		}
		if took := time.Since(begin); took > time.Hour || s.heads.inUse() != 0 {
			t.Errorf("after %s: %d bytes are booked", took, s.heads.inUse())
		}
	})
}
