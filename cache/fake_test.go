package cache

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"imgmirror/verify"
)

// noise is n bytes that are the same for the same seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func sumOf(b []byte) verify.Sum { return sha1.Sum(b) }

func md5Of(b []byte) []byte { s := md5.Sum(b); return s[:] }

// digestsOf are all digests of b.
func digestsOf(b []byte) verify.Digests {
	w := verify.NewWriter()
	w.Write(b)
	return w.Digests()
}

// md5From is what r announces.
func md5From(t *testing.T, r *Reader) []byte {
	t.Helper()
	sum, err := r.MD5(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// blobOf is a blob of which sha1 and size are known.
func blobOf(data []byte) Blob {
	return Blob{Want: verify.Want{SHA1: sumOf(data), Size: int64(len(data))}}
}

// reply is what a fake source does with one request.
type reply struct {
	err     error           // instead of a body
	delay   time.Duration   // before anything
	cut     int             // > 0: after that many bytes the body breaks off
	stall   int             // > 0: after that many bytes, -1 at once: nothing more comes
	gate    <-chan struct{} // with stall: until it is closed, then the rest comes
	data    []byte          // other bytes than the source's own
	noSize  bool            // no size is claimed
	size    int64           // > 0: the claimed size
	md5     []byte          // the claimed md5
	modTime time.Time       // claimed
	chunk   int             // bytes a Read gives at most; 0 = as asked
	pause   time.Duration   // before each Read
	skip    time.Duration   // so long Reads come back with nothing, one each second
	skipped int64           // bytes that each of these Reads has thrown away
	whole   bool            // a range is answered with all from the offset on
	refused error           // instead of a range that does not begin at 0
	held    bool            // the pauses are the mirror's own limit
}

// fake is a source that does as it is told.
type fake struct {
	name   string
	data   []byte
	reply  func(try int, offset int64) reply // nil: serve always
	ranged bool                              // it gives ranges

	mu      sync.Mutex
	offsets []int64 // of each request
	sent    int64
}

func (f *fake) source() Source {
	s := Source{Name: f.name, Open: f.open}
	if f.ranged {
		s.OpenRange = f.openRange
	}
	return s
}

func (f *fake) openRange(ctx context.Context, offset, length int64) (*verify.Stream, error) {
	s, err := f.open(ctx, offset)
	if err != nil {
		return nil, err
	}
	b := s.ReadCloser.(*fakeBody)
	if b.r.refused != nil && offset > 0 {
		s.Close()
		return nil, b.r.refused
	}
	if !b.r.whole {
		b.rest = b.rest[:min(length, int64(len(b.rest)))]
		s.Part, s.MD5 = int64(len(b.rest)), nil
	}
	return s, nil
}

func (f *fake) asked() []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]int64(nil), f.offsets...)
}

func (f *fake) bytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent
}

func (f *fake) open(ctx context.Context, offset int64) (*verify.Stream, error) {
	f.mu.Lock()
	f.offsets = append(f.offsets, offset)
	try := len(f.offsets)
	f.mu.Unlock()
	var r reply
	if f.reply != nil {
		r = f.reply(try, offset)
	}
	if !pause(ctx, r.delay) {
		return nil, ctx.Err()
	}
	if r.err != nil {
		return nil, r.err
	}
	data := f.data
	if r.data != nil {
		data = r.data
	}
	size := int64(len(data))
	switch {
	case r.noSize:
		size = -1
	case r.size > 0:
		size = r.size
	}
	rest := data[min(offset, int64(len(data))):]
	body := &fakeBody{ctx: ctx, f: f, r: r, rest: rest}
	body.opened()
	return &verify.Stream{ReadCloser: body, Size: size, MD5: r.md5, ModTime: r.modTime, Pace: func() verify.Pace { return body.pace }}, nil
}

type fakeBody struct {
	ctx  context.Context
	f    *fake
	r    reply
	rest []byte
	gave int
	pace verify.Pace
}

func (b *fakeBody) Read(p []byte) (int, error) {
	if !pause(b.ctx, b.r.pause) {
		return 0, b.ctx.Err()
	}
	if b.r.held {
		b.pace.Held += b.r.pause
	}
	if b.r.skip > 0 {
		b.r.skip -= time.Second
		b.pace.Skipped += b.r.skipped
		pause(b.ctx, time.Second)
		return 0, b.ctx.Err()
	}
	n := min(len(p), len(b.rest))
	if b.r.chunk > 0 {
		n = min(n, b.r.chunk)
	}
	if b.r.cut > 0 {
		if b.gave >= b.r.cut {
			return 0, io.ErrUnexpectedEOF
		}
		n = min(n, b.r.cut-b.gave)
	}
	if b.r.stall != 0 {
		if b.gave >= max(0, b.r.stall) {
			select {
			case <-b.r.gate:
				b.r.stall = 0
				return b.Read(p)
			case <-b.ctx.Done():
				return 0, b.ctx.Err()
			}
		}
		n = min(n, b.r.stall-b.gave)
	}
	if n == 0 && len(b.rest) == 0 {
		if b.r.size > int64(len(b.f.data)) {
			return 0, io.ErrUnexpectedEOF // as net/http says of a body shorter than its Content-Length
		}
		return 0, io.EOF
	}
	copy(p, b.rest[:n])
	b.rest = b.rest[n:]
	b.gave += n
	b.f.mu.Lock()
	b.f.sent += int64(n)
	b.f.mu.Unlock()
	return n, nil
}

// pause waits for d; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// testLog prints to the test's log.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// openStore opens a store that the test's end closes. By then nothing else may be open.
func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	wantBodiesClosed(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Logger == nil {
		o.Logger = testLog(t)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		wantFilesClosed(t, s)
	})
	return s
}

// closeStore ends a store before the test does.
func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func sources(fakes ...*fake) []Source {
	var all []Source
	for _, f := range fakes {
		all = append(all, f.source())
	}
	return all
}

// get reads the whole blob.
func get(s *Store, b Blob, fakes ...*fake) ([]byte, Result, error) {
	r, err := s.File(context.Background(), b, sources(fakes...))
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err == nil && int64(len(data)) != r.Size() {
		err = errors.New("the body is not as long as announced")
	}
	return data, r.Result(), err
}

// wantData fails the test unless get gives data as result says.
func wantData(t testing.TB, s *Store, b Blob, data []byte, result Result, fakes ...*fake) {
	t.Helper()
	got, res, err := get(s, b, fakes...)
	if err != nil {
		t.Fatalf("%s of %d bytes: %v after %d bytes", result, len(data), err, len(got))
	}
	if string(got) != string(data) {
		t.Fatalf("%s of %d bytes: got %d other bytes", result, len(data), len(got))
	}
	if res != result {
		t.Fatalf("result %s, want %s", res, result)
	}
}

func wantError(t testing.TB, err error, is error, not ...error) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Fatalf("error %v, want one that matches %v", err, is)
	}
	for _, n := range not {
		if errors.Is(err, n) {
			t.Fatalf("error %v matches %v too", err, n)
		}
	}
}

func wantAsked(t testing.TB, f *fake, offsets ...int64) {
	t.Helper()
	got := f.asked()
	if len(got) != len(offsets) {
		t.Fatalf("source %s was asked at %v, want %v", f.name, got, offsets)
	}
	for i := range got {
		if got[i] != offsets[i] {
			t.Fatalf("source %s was asked at %v, want %v", f.name, got, offsets)
		}
	}
}

func counter(c prometheus.Collector) int { return int(testutil.ToFloat64(c)) }

// requests is the number of a client's requests that were met so.
func (s *Store) requests(r Result) int { return int(s.Traffic().Clients[r].Requests) }

// failures is the count of verification failures.
func failures(s *Store, source, where string) int {
	return counter(s.metrics.failures.WithLabelValues(source, where))
}
