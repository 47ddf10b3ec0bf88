package cache

import (
	"bytes"
	"context"
	"crypto/sha1"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"imgmirror/verify"
)

// sink records what it is handed.
type sink struct {
	bytes.Buffer
	from []io.Reader
}

func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	s.from = append(s.from, r)
	return s.Buffer.ReadFrom(r)
}

// The kernel can do the copying only if the connection is handed a file, or one
// LimitedReader around a file.
func TestSendToHandsOverTheFile(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	check := func(r *Reader, from int) {
		t.Helper()
		defer r.Close()
		r.SeekTo(int64(from))
		var w sink
		for {
			n, err := r.Wait()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if sent, err := r.SendTo(&w, min(n, 300_000)); err != nil || sent != min(n, 300_000) {
				t.Fatalf("SendTo = %d, %v", sent, err)
			}
		}
		if !bytes.Equal(w.Bytes(), data[from:]) {
			t.Errorf("%s: %d bytes", r.Result(), w.Len())
		}
		for _, from := range w.from {
			limited, ok := from.(*io.LimitedReader)
			if !ok {
				t.Fatalf("%s: the writer was handed a %T", r.Result(), from)
			}
			if _, ok := limited.R.(*os.File); !ok {
				t.Fatalf("%s: the writer was handed a %T around a %T", r.Result(), from, limited.R)
			}
		}
	}
	open := func() *Reader {
		r, err := s.File(t.Context(), blobOf(data), sources(&fake{name: "a", data: data}))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	check(open(), 0)
	s.Idle()
	check(open(), 0)
	check(open(), 1000)
	check(open(), len(data))

	// A writer that is no ReaderFrom is served too.
	r := open()
	defer r.Close()
	var plain bytes.Buffer
	if sent, err := r.SendTo(struct{ io.Writer }{&plain}, 10); err != nil || sent != 10 || !bytes.Equal(plain.Bytes(), data[:10]) {
		t.Errorf("SendTo = %d, %v", sent, err)
	}
}

// Over a real connection, on a hit and on a fill.
func TestSendToConnection(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 4<<20)
	for _, want := range []Result{Miss, Hit} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		received := make(chan []byte)
		go func() {
			c, err := l.Accept()
			if err != nil {
				close(received)
				return
			}
			b, _ := io.ReadAll(c)
			received <- b
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.File(t.Context(), blobOf(data), sources(always("a", data, reply{chunk: 50_000})))
		if err != nil {
			t.Fatal(err)
		}
		for {
			n, err := r.Wait()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.SendTo(c, n); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		c.Close()
		if got := <-received; !bytes.Equal(got, data) || r.Result() != want {
			t.Errorf("%s: %d bytes", r.Result(), len(got))
		}
		l.Close()
		s.Idle()
	}
	if n := int(s.Traffic().Clients[Hit].Bytes); n != len(data) {
		t.Errorf("%d bytes counted as served", n)
	}
}

// A file that is cut while it is served ends the body with an error.
func TestFileCutWhileServed(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	wantData(t, s, blobOf(data), data, Miss, &fake{name: "a", data: data})
	s.Idle()
	r, err := s.File(t.Context(), blobOf(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(s.dir.file(sumOf(data)), 1000); err != nil {
		t.Fatal(err)
	}
	n, err := r.Wait()
	if err != nil {
		t.Fatal(err)
	}
	var w bytes.Buffer
	if sent, err := r.SendTo(&w, n); err != io.ErrUnexpectedEOF || sent != 1000 {
		t.Errorf("SendTo = %d, %v", sent, err)
	}
	if _, err := r.Read(make([]byte, 10)); err != io.ErrUnexpectedEOF {
		t.Errorf("Read: %v", err)
	}
}

// What is known of a blob while it is filled, and after.
func TestReaderInfo(t *testing.T) {
	s := openStore(t, Options{})
	data := noise(1, 1<<20)
	gate := make(chan struct{})
	b := Blob{Key: "file/x/0"}
	src := always("a", data, reply{stall: 100, gate: gate, md5: md5Of(data)})
	r, err := s.File(t.Context(), b, sources(src))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if i := r.Info(); !i.Digests.SHA1.IsZero() || i.Digests.Size != int64(len(data)) || !bytes.Equal(md5From(t, r), md5Of(data)) {
		t.Errorf("while filled: %+v, %x", i, md5From(t, r))
	}
	close(gate)
	r.SeekTo(int64(len(data))) // to wait for the verdict
	if _, err := r.Wait(); err != io.EOF {
		t.Fatal(err)
	}
	if i := r.Info(); i.Digests.SHA1 != sumOf(data) || !bytes.Equal(md5From(t, r), md5Of(data)) {
		t.Errorf("once verified: %+v, %x", i, md5From(t, r))
	}
	r.SeekTo(0)
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func BenchmarkHit(b *testing.B) {
	s := openStore(b, Options{})
	data := noise(1, 1<<20)
	wantData(b, s, blobOf(data), data, Miss, &fake{name: "a", data: data})
	s.Idle()
	ctx := context.Background()
	blob := blobOf(data)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := s.File(ctx, blob, nil)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := r.Wait(); err != nil {
				b.Error(err)
			}
			r.Close()
		}
	})
}

// zeros is an endless body.
type zeros struct {
	left int64
	head byte // the first byte
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	p[0], z.head = z.head, 0
	return int(n), nil
}

func (z *zeros) Close() error { return nil }

// BenchmarkFill is a download without network, disk, digests and one reader, to the end of the body: with
// a sha1, which alone decides, and with nothing known, when all digests do.
func BenchmarkFill(b *testing.B) {
	const size = 256 << 20
	for _, known := range []bool{true, false} {
		b.Run(map[bool]string{true: "sha1", false: "all"}[known], func(b *testing.B) {
			s := openStore(b, Options{AllowUnverified: true})
			b.SetBytes(size)
			head := byte(0)
			for b.Loop() {
				b.StopTimer()
				s.Idle()
				head++
				blob := Blob{Key: string(rune(head))}
				if known {
					sum := sha1.New()
					io.Copy(sum, &zeros{size, head})
					blob = Blob{Want: verify.Want{SHA1: verify.Sum(sum.Sum(nil)), Size: size}}
				}
				src := Source{Name: "a", Open: func(context.Context, int64) (*verify.Stream, error) {
					return &verify.Stream{ReadCloser: &zeros{size, head}, Size: size}, nil
				}}
				b.StartTimer()
				r, err := s.File(context.Background(), blob, []Source{src})
				if err != nil {
					b.Fatal(err)
				}
				for {
					n, err := r.Wait()
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					if _, err := r.SendTo(io.Discard, n); err != nil {
						b.Fatal(err)
					}
				}
				r.Close()
			}
		})
	}
}

// A part of a file that comes in is no more complete than all of it, before the
// digests hold.
func TestLimitHoldsBack(t *testing.T) {
	data := noise(1, 1<<20)
	bad := bytes.Clone(data)
	bad[900_000] ^= 1
	for name, sent := range map[string][]byte{"right": data, "wrong": bad} {
		for _, part := range [][2]int64{{0, 1}, {0, 300_000}, {200_000, 300_000}, {900_000, 2 << 20}, {1 << 20, 1}} {
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, Options{})
				gate := make(chan struct{})
				r, err := s.File(t.Context(), blobOf(data), sources(always("a", data, reply{data: sent, stall: 800_000, gate: gate})))
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				r.SeekTo(part[0])
				r.Limit(part[1])
				want := data[part[0]:min(part[0]+part[1], int64(len(data)))]
				var got []byte
				done := make(chan error)
				go func() {
					var err error
					got, err = io.ReadAll(r)
					done <- err
				}()
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("%s %d: %d bytes, %v before the verdict", name, part, len(got), err)
				default:
				}
				close(gate)
				err = <-done
				if name == "right" && (err != nil || !bytes.Equal(got, want)) {
					t.Errorf("%d: %d bytes, %v", part, len(got), err)
				}
				if name == "wrong" && (err == nil || len(got) >= max(1, len(want))) {
					t.Errorf("wrong %d: %d bytes of %d, %v", part, len(got), len(want), err)
				}
			})
		}
	}
}

// lineEnd is a body of zeros with a pause before the last block, as from a line that is slower than the disk.
type lineEnd struct {
	zeros
	ended time.Time
}

func (l *lineEnd) Read(p []byte) (int, error) {
	if n := l.left - holdBack; n > 0 {
		p = p[:min(int64(len(p)), n)]
	} else if l.left == holdBack {
		time.Sleep(3 * time.Millisecond)
	}
	n, err := l.zeros.Read(p)
	if l.left == 0 {
		l.ended = time.Now()
	}
	return n, err
}

// The time from the source's last byte to the reader's: the reader must not come behind the sync.
func BenchmarkLastBlock(b *testing.B) {
	const size = 16 << 20
	s := openStore(b, Options{})
	var behind []time.Duration
	head := byte(0)
	for b.Loop() {
		s.Idle()
		head++
		sum := sha1.New()
		io.Copy(sum, &zeros{size, head})
		want := verify.Want{SHA1: verify.Sum(sum.Sum(nil)), Size: size}
		line := &lineEnd{zeros: zeros{size, head}}
		r, err := s.File(b.Context(), Blob{Want: want}, []Source{{Name: "a", Open: func(context.Context, int64) (*verify.Stream, error) {
			return &verify.Stream{ReadCloser: line, Size: size}, nil
		}}})
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			b.Fatal(n, err)
		}
		behind = append(behind, time.Since(line.ended))
		r.Close()
		s.Idle()
		if _, err := s.Remove(b.Context(), want.SHA1); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(behind)
	b.ReportMetric(float64(behind[len(behind)/2].Microseconds()), "median-us")
	b.ReportMetric(float64(behind[len(behind)*9/10].Microseconds()), "p90-us")
}
