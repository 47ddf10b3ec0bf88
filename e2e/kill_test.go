package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestKill: kill -9 at any moment of a fill, then a start. Nothing unverified
// is ever served, and the fill goes on from where it was: in all the source
// sends less than 1.1 times the file.
func TestKill(t *testing.T) {
	const size = 8 << 20
	const rate = 8 << 20 // a second for a file
	random := rand.New(rand.NewPCG(6, 9))
	src := newSource(t)
	src.rate(rate)
	m := startMirror(t, nil, from(src.URL(), settings{"refresh": "1h"}))

	// Six moments anywhere in the fill, and the seams: as it begins, in the
	// last block, and around the publishing.
	var moments []float64
	for range 6 {
		moments = append(moments, random.Float64())
	}
	moments = append(moments, 0, 0.995, 1)
	for i, at := range moments {
		img := newImage(fmt.Sprintf("kill-%d", i), size)
		src.add(img)
		if get(t, m.url+"/images/"+img.uuid).status != http.StatusOK {
			t.Fatal("the mirror does not find a new image by uuid")
		}
		got := make(chan []byte, 1)
		go func() {
			resp, err := http.Get(m.url + "/images/" + img.uuid + "/file")
			if err != nil {
				got <- nil
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			got <- body
		}()
		m.until("the fill has got there", func() bool {
			return src.requests(img) > 0 && src.sent(img) >= int64(at*size)
		})
		m.kill()
		sent := src.sent(img)
		body := <-got
		if !bytes.HasPrefix(img.file, body) {
			t.Fatalf("killed at %.3f: the client had %d bytes, and not the right ones", at, len(body))
		}
		for _, name := range m.files() {
			if name == img.sha1() && sent < size {
				t.Fatalf("killed at %.3f: published with %d of %d bytes", at, sent, size)
			}
		}

		m.start()
		get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
		total := src.sent(img)
		t.Logf("killed at %.3f: client had %d bytes, source had sent %d, %d in all: %.3f times the file",
			at, len(body), sent, total, float64(total)/size)
		if total >= size*11/10 {
			t.Errorf("killed at %.3f: the source sent %d bytes in all for a file of %d", at, total, size)
		}
	}
	m.awaitStored(len(moments))
	if got := len(m.files()); got != len(moments) {
		t.Errorf("%d files published, want %d", got, len(moments))
	}
}

// TestKillResumesUnasked: after a start the fill goes on although no client
// asks again.
func TestKillResumesUnasked(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	img := newImage("unasked", size)
	src := newSource(t, img)
	src.rate(4 << 20)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	go func() { _, _ = tryGet(m.url + "/images/" + img.uuid + "/file") }()
	m.until("half of it has come", func() bool { return src.sent(img) > size/2 })
	m.kill()
	m.start()
	m.awaitStored(1)
	if total := src.sent(img); total >= size*11/10 {
		t.Errorf("the source sent %d bytes in all for a file of %d", total, size)
	}
	got := get(t, m.url+"/images/"+img.uuid+"/file")
	got.wantFile(t, img)
	if x := got.header.Get("X-Cache"); x != "HIT" {
		t.Errorf("X-Cache %q, want HIT", x)
	}
}

// TestKillBeforeRecord: kill -9 when a client has the whole file, and the file has no record yet. After the start the file
// is served right, and the source is not asked again.
func TestKillBeforeRecord(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	src := newSource(t)
	m := startMirror(t, nil, from(src.URL(), settings{"refresh": "1h"}))
	for try := range 10 {
		img := newImage(fmt.Sprintf("record-%d", try), size)
		src.add(img)
		if get(t, m.url+"/images/"+img.uuid).status != http.StatusOK {
			t.Fatal("the mirror does not find a new image by uuid")
		}
		got := get(t, m.url+"/images/"+img.uuid+"/file")
		m.kill()
		got.wantFile(t, img)
		recorded := slices.Contains(m.files(), img.sha1()) // the record comes behind the file's final name
		m.start()
		get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
		if n, sent := src.requests(img), src.sent(img); n != 1 || sent != size {
			t.Fatalf("the source was asked %d times, and has sent %d bytes of %d", n, sent, size)
		}
		if !recorded {
			m.awaitStored(try + 1)
			return
		}
	}
	t.Error("each record was written before the kill")
}

// TestKillDamage: what a crash of the machine can leave behind (a partial file
// with wrong bytes, with too many) is never served and never published.
func TestKillDamage(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	for name, damage := range map[string]func([]byte) []byte{
		"zeros at the end": func(b []byte) []byte { clear(b[len(b)/2:]); return b },
		"too long":         func(b []byte) []byte { return append(b, make([]byte, size)...) },
		"empty":            func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := newImage("damage: "+name, size, map[string]any{"name": "damage"})
			src := newSource(t, img)
			src.rate(2 << 20)
			m := startMirror(t, nil, from(src.URL()))
			m.awaitList(1)
			go func() { _, _ = tryGet(m.url + "/images/" + img.uuid + "/file") }()
			m.until("half of it has come", func() bool { return src.sent(img) > size/2 })
			m.kill()
			src.Heal()
			rewritePartial(t, m, damage)
			m.start()
			deadline := time.Now().Add(20 * time.Second)
			for {
				got := get(t, m.url+"/images/"+img.uuid+"/file")
				if got.status == http.StatusOK && got.err == nil {
					got.wantFile(t, img)
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("never served again: status %d, %d bytes, %v", got.status, len(got.body), got.err)
				}
			}
			m.awaitStored(1)
			if files := m.files(); len(files) != 1 || files[0] != img.sha1() {
				t.Errorf("published: %v", files)
			}
		})
	}
}

// rewritePartial changes the one partial file of a stopped mirror.
func rewritePartial(t *testing.T, m *mirror, damage func([]byte) []byte) {
	t.Helper()
	names, err := os.ReadDir(m.data("partial"))
	if err != nil || len(names) != 1 {
		t.Fatalf("partial files: %v, %v; want one", names, err)
	}
	path := filepath.Join(m.data("partial"), names[0].Name())
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		t.Fatalf("partial file: %d bytes, %v", len(data), err)
	}
	if err := os.WriteFile(path, damage(data), 0o600); err != nil {
		t.Fatal(err)
	}
}
