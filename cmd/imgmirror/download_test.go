package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

// sender is a mirror that sends data, and breaks off each answer after a number
// of bytes.
type sender struct {
	data  []byte
	size  int64   // announced; 0: that of data
	cuts  []int   // of the first answers; the others are whole
	end   int     // where each of the others breaks off; -1: before its first byte; 0: nowhere
	fails []error // of the first requests; nil: it is answered
	asked []int64 // offsets
}

func (s *sender) open(_ context.Context, offset int64) (*verify.Stream, error) {
	s.asked = append(s.asked, offset)
	if len(s.fails) > 0 {
		err := s.fails[0]
		s.fails = s.fails[1:]
		if err != nil {
			return nil, err
		}
	}
	var body io.Reader = bytes.NewReader(s.data[offset:])
	cut := func(n int64) {
		body = io.MultiReader(io.LimitReader(body, n), iotest.ErrReader(fmt.Errorf("cut: %w", verify.ErrUnavailable)))
	}
	if len(s.cuts) > 0 {
		cut(int64(s.cuts[0]))
		s.cuts = s.cuts[1:]
	} else if s.end != 0 {
		cut(max(int64(s.end)-offset, 0))
	}
	size := s.size
	if size == 0 {
		size = int64(len(s.data))
	}
	return &verify.Stream{ReadCloser: io.NopCloser(body), Size: size}, nil
}

// wantOf is what data must be.
func wantOf(data []byte) verify.Want {
	return verify.Want{SHA1: sha1.Sum(data), Size: int64(len(data))}
}

func TestDownload(t *testing.T) {
	data := upstreamtest.Bytes(1, 2_000_000)
	f := func(name string, want verify.Want, s *sender, asked ...int64) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			d, err := newDownload(t.Context(), want, s.open)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer d.Close()
			got, err := io.ReadAll(d)
			if err != nil || !bytes.Equal(got, s.data) || d.size != int64(len(s.data)) {
				t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(s.data), err)
			}
			if fmt.Sprint(s.asked) != fmt.Sprint(asked) {
				t.Errorf("%s: asked for %v, want %v", name, s.asked, asked)
			}
		})
	}
	gone := fmt.Errorf("%w: %w", verify.ErrUnavailable, &net.OpError{Op: "dial", Err: errors.New("refused")})
	away := fmt.Errorf("503: %w", verify.ErrUnavailable)
	f("whole", wantOf(data), &sender{data: data}, 0)
	f("without a size", verify.Want{SHA1: sha1.Sum(data)}, &sender{data: data}, 0)
	f("small", wantOf(data[:100]), &sender{data: data[:100]}, 0)
	f("as long as what is held back", wantOf(data[:heldBack]), &sender{data: data[:heldBack]}, 0)
	f("cut", wantOf(data), &sender{data: data, cuts: []int{1000, 700_000, 0}}, 0, 1000, 701_000, 701_000)
	f("cut in what is held back", wantOf(data), &sender{data: data, cuts: []int{len(data) - 10}}, 0, int64(len(data)-10))
	f("cut at its end", wantOf(data), &sender{data: data, cuts: []int{len(data)}}, 0, int64(len(data)))
	f("away for a while", wantOf(data), &sender{data: data, fails: []error{gone, gone, gone}}, 0, 0, 0, 0)
	f("restarted", wantOf(data), &sender{data: data, cuts: []int{1000}, fails: []error{nil, gone, gone, away, gone, gone}}, 0, 1000, 1000, 1000, 1000, 1000, 1000)
}

// What cannot come right ends it, with less than the whole given out.
func TestDownloadFails(t *testing.T) {
	data := upstreamtest.Bytes(1, 2_000_000)
	f := func(name string, want verify.Want, s *sender, is error, asked int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			var got []byte
			d, err := newDownload(t.Context(), want, s.open)
			if err == nil {
				got, err = io.ReadAll(d)
				d.Close()
			}
			if !errors.Is(err, is) || len(s.asked) != asked {
				t.Errorf("%s: asked %d times, %v; want %d, %v", name, len(s.asked), err, asked, is)
			}
			if len(got) > len(data)-heldBack {
				t.Errorf("%s: %d of %d bytes were given out", name, len(got), len(data))
			}
			if took := time.Since(began); took > 2*time.Minute {
				t.Errorf("%s: it took %s", name, took)
			}
		})
	}
	flipped := bytes.Clone(data)
	flipped[1000] ^= 1
	f("a flipped bit", wantOf(data), &sender{data: flipped}, verify.ErrMismatch, 1)
	last := bytes.Clone(data)
	last[len(last)-1] ^= 1
	f("a flipped bit at the end", wantOf(data), &sender{data: last}, verify.ErrMismatch, 1)
	f("another size", wantOf(data), &sender{data: data[:1000]}, verify.ErrMismatch, 1)
	f("more than it said", wantOf(data), &sender{data: append(bytes.Clone(data), 0), size: int64(len(data))}, verify.ErrMismatch, 1)
	f("nothing to check it by", verify.Want{Size: 5}, &sender{data: data[:5]}, verify.ErrMismatch, 0)
	f("less than it said", wantOf(data), &sender{data: data[:1000], size: int64(len(data))}, verify.ErrUnavailable, 1+emptyTries)
	f("cut at the same place each time", wantOf(data), &sender{data: data, end: 700_000}, verify.ErrUnavailable, 1+emptyTries)
	f("not a byte", wantOf(data), &sender{data: data, end: -1}, verify.ErrUnavailable, emptyTries)
	f("not there", wantOf(data), &sender{data: data, fails: []error{fs.ErrNotExist}}, fs.ErrNotExist, 1)
	cuts := make([]int, 1000)
	for i := range cuts {
		cuts[i] = 10
	}
	f("next to nothing each time", wantOf(data), &sender{data: data, cuts: cuts}, verify.ErrUnavailable, downloadTries)
}

// Who gives up waits for nothing.
func TestDownloadCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		data := upstreamtest.Bytes(1, 1_000_000)
		d, err := newDownload(ctx, wantOf(data), (&sender{data: data, cuts: []int{500_000, 0}}).open)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		time.AfterFunc(downloadPause/4, cancel)
		if _, err := io.ReadAll(d); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A mirror that has begun to lie says why it gives no more, and is asked twice for that; one that
// says nothing is named as the one that broke off.
func TestDownloadReason(t *testing.T) {
	data := upstreamtest.Bytes(1, 1_000_000)
	lied := fmt.Errorf("GET /file: 503: RemoteSourceError: every source sends other bytes: %w", verify.ErrUnavailable)
	for _, c := range []struct {
		name  string
		fails []error
		says  string
		asked int
	}{
		{"it says why", []error{nil, lied, lied}, "every source sends other bytes", 3},
		{"it says why once", []error{nil, nil, lied}, "every source sends other bytes", 3},
		{"and then breaks off", []error{nil, lied}, "every source sends other bytes", 3},
		{"it says nothing", nil, "gives nothing more after 900000 of 1000000 bytes, and no reason", 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &sender{data: data, end: 900_000, fails: c.fails}
			d, err := newDownload(t.Context(), wantOf(data), s.open)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			_, err = io.ReadAll(d)
			if !errors.Is(err, verify.ErrUnavailable) || !strings.Contains(err.Error(), c.says) || len(s.asked) != c.asked {
				t.Errorf("%s: asked %d times, %v", c.name, len(s.asked), err)
			}
		})
	}
}

// A server that ignores ranges and breaks off at the same byte each time is asked three
// times, however much it sends again; one that breaks off later goes on.
func TestDownloadWithoutRanges(t *testing.T) {
	data := upstreamtest.Bytes(1, 1_000_000)
	image := upstreamtest.Manifest(upstreamtest.ID(1), "image", "1.0", nil, data)
	for _, times := range []int{1, 0} {
		source, err := upstreamtest.New(upstreamtest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { source.Close() })
		if err := source.Add(image, data); err != nil {
			t.Fatal(err)
		}
		source.Inject(upstreamtest.Fault{Path: "/file", Cut: true, After: 400_000, IgnoreRange: true, Times: times})
		source.Inject(upstreamtest.Fault{Path: "/file", IgnoreRange: true})
		r, err := newRemote(&config.Config{Fill: config.Fill{StallTimeout: time.Minute}}, source.URL())
		if err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Parse(image, manifest.ParseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		file, err := r.open(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(file)
		file.Close()
		asked := source.Count(upstreamtest.ID(1).String() + "/file")
		if times == 1 && (err != nil || !bytes.Equal(got, data) || asked != 2) {
			t.Errorf("cut once: %d bytes, %v, asked %d times", len(got), err, asked)
		}
		if times == 0 && (!errors.Is(err, verify.ErrUnavailable) || asked != 1+emptyTries) {
			t.Errorf("cut each time: %d bytes, %v, asked %d times", len(got), err, asked)
		}
	}
}
