package catalog

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

const (
	zfsHead  = "\x00\x00\x00\x00\x00\x00\x00\x00\xac\xcb\xba\xf5\x02\x00\x00\x00"
	gzipHead = "\x1f\x8b\x08\x00\x00"
	zstdHead = "\x28\xb5\x2f\xfd\x24"
)

// heads answers Head from a table: the first bytes by the number of the image. The size is what each spec has when it
// states one.
func heads(of map[int]string) func(context.Context, manifest.Manifest) ([]byte, int64, error) {
	return func(_ context.Context, m manifest.Manifest) ([]byte, int64, error) {
		for n, head := range of {
			if m.UUID == id(n) {
				return []byte(head), int64(1000 + n), nil
			}
		}
		return nil, 0, fmt.Errorf("first bytes of %s: %w", m.UUID, fs.ErrNotExist)
	}
}

// listedNow gives the numbers of the images that clients are shown, in order.
func listedNow(c *Catalog) (numbers []int) {
	for _, m := range c.Current().Images() {
		numbers = append(numbers, int(m.UUID[14])<<8|int(m.UUID[15]))
	}
	return numbers
}

func wantListed(t *testing.T, c *Catalog, want ...int) {
	t.Helper()
	if got := listedNow(c); !slices.Equal(got, want) {
		t.Errorf("listed are %v, want %v", got, want)
	}
}

// hiddenWhy gives what is said of an image that clients are not shown.
func hiddenWhy(c *Catalog, n int) string {
	var all []string
	for _, h := range c.Hidden(id(n)) {
		all = append(all, h.Reason+": "+h.Detail)
	}
	return strings.Join(all, "\n")
}

// looked gives how often each image's file was looked at.
func (f *fake) looked() map[int]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := make(map[int]int)
	for _, u := range f.heads {
		counts[int(u[14])<<8|int(u[15])]++
	}
	return counts
}

// What a manifest does not tell of its file is learned from the source, once, and kept; what no node can receive is not
// listed, and said.
func TestLook(t *testing.T) {
	a := &fake{t: t, name: "a", head: heads(map[int]string{1: gzipHead, 2: gzipHead, 3: gzipHead, 4: zstdHead, 5: zfsHead, 6: zfsHead, 7: "BZh91AY&SY"})}
	a.listed = []spec{
		{n: 1, size: -1}, {n: 2, packed: "-"}, {n: 3, packed: "zstd"}, {n: 4, packed: "zstd"}, {n: 5, packed: "-", size: -1, sum: "-"},
		{n: 6, packed: "none"}, {n: 7, packed: "bz2"},
	}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	check := func(down bool) {
		t.Helper()
		wantListed(t, c, 1, 2, 3, 5, 6, 7)
		for n, want := range map[int]string{1: "gzip", 2: "gzip", 3: "gzip", 5: "none", 6: "none", 7: "bzip2"} {
			m := entry(t, c, n).Manifest
			if f := m.Files[0]; f.Size != int64(1000+n) || f.Compression != want ||
				!bytes.Contains(m.V2(), fmt.Appendf(nil, `"size":%d`, 1000+n)) || !bytes.Contains(m.V2(), []byte(`"compression":"`+want+`"`)) {
				t.Errorf("image %d: %s, want size %d and %s", n, m.V2(), 1000+n, want)
			}
		}
		want := map[string]int{ReasonUnusable: 1}
		why := "unusable: compression zstd: no node can receive it"
		if down { // what is not verified is not kept for ever
			want, why = map[string]int{ReasonIncomplete: 1}, `incomplete: its compression is not known yet: the source says "zstd"`
		}
		if got := c.Status()[0].Hidden; !maps.Equal(got, want) {
			t.Errorf("hidden are %v, want %v", got, want)
		}
		if got := hiddenWhy(c, 4); !strings.Contains(got, why) {
			t.Errorf("image 4 is hidden for %q, want %q", got, why)
		}
		if m := entry(t, c, 4).Manifest; !bytes.Contains(m.V2(), []byte(`"compression":"zstd"`)) {
			t.Errorf("image 4 by uuid: %s", m.V2())
		}
	}
	once := map[int]int{1: 1, 2: 1, 3: 1, 4: 1, 5: 1}

	refresh(t, c)
	check(false)
	refresh(t, c)
	a.set(func(f *fake) { f.listed = append(f.listed, spec{n: 8, state: "disabled"}) })
	refresh(t, c)
	a.set(func(f *fake) { f.listed = f.listed[:7] })
	refresh(t, c)
	check(false)
	if got := a.looked(); !maps.Equal(got, once) {
		t.Errorf("looked at %v, want %v", got, once)
	}

	c = restarted(t, c, Options{Sources: sourcesOf(&fake{t: t, name: "a", err: errDown}), Index: x})
	check(true)
}

// Until it is known, the image is not listed; a file that is broken at its source is not looked at with each refresh, and
// one whose source could not be asked is tried again.
func TestLookInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fake{t: t, name: "a", listed: []spec{{n: 1, size: -1}, {n: 2, packed: "-"}, {n: 3, packed: "-"}, {n: 4, size: -1}, {n: 5}}}
		down := true
		a.head = func(ctx context.Context, m manifest.Manifest) ([]byte, int64, error) {
			switch m.UUID {
			case id(1):
				return nil, 0, fmt.Errorf("GET the file: %w", fs.ErrNotExist)
			case id(2):
				return []byte(gzipHead), 9999, nil // not the size that is stated
			case id(3):
				if down {
					return nil, 0, errDown
				}
				return []byte(gzipHead), 1003, nil
			}
			return []byte(gzipHead), -1, nil
		}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		refresh(t, c)
		wantListed(t, c, 5)
		if got, want := c.Status()[0].Hidden, map[string]int{ReasonIncomplete: 4}; !maps.Equal(got, want) {
			t.Errorf("hidden are %v, want %v", got, want)
		}
		for n, why := range map[int]string{
			1: "incomplete: its size is not known yet (source a: GET the file: file does not exist)",
			2: "incomplete: its compression is not known yet (source a: file does not exist: the manifest says 1002 bytes, the file has 9999)",
			3: "connection refused", 4: "source a does not tell it",
		} {
			if got := hiddenWhy(c, n); !strings.Contains(got, why) {
				t.Errorf("image %d is hidden for %q, want %q", n, got, why)
			}
		}
		for n := range 5 {
			began := time.Now()
			if e, err := c.Get(t.Context(), id(n+1)); err != nil || time.Since(began) > 0 {
				t.Errorf("by uuid: %v, after %v; %s", err, time.Since(began), e.Manifest.V2())
			}
		}
		if got, want := a.looked(), map[int]int{1: 1, 2: 1, 3: 1, 4: 1}; !maps.Equal(got, want) {
			t.Errorf("looked at %v, want %v", got, want)
		}

		time.Sleep(unsureLook)
		refresh(t, c)
		if got, want := a.looked(), map[int]int{1: 1, 2: 1, 3: 2, 4: 1}; !maps.Equal(got, want) {
			t.Errorf("looked at %v, want %v", got, want)
		}
		time.Sleep(unsureLook)
		down = false
		refresh(t, c)
		wantListed(t, c, 3, 5)

		time.Sleep(lookMemory)
		a.set(func(f *fake) { f.head = heads(map[int]string{1: gzipHead, 2: zstdHead, 4: gzipHead}) })
		refresh(t, c)
		wantListed(t, c, 1, 3, 4, 5)
		// What made it unusable was seen by a look, and is not for ever.
		time.Sleep(lookMemory)
		a.set(func(f *fake) { f.head = heads(map[int]string{2: gzipHead}) })
		refresh(t, c)
		wantListed(t, c, 1, 2, 3, 4, 5)
	})
}

// Who asks by uuid gets what can be learned, and waits for it for a bounded time; one look serves all.
func TestLookForClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		a := &fake{t: t, name: "a", hidden: []spec{{n: 1, size: -1, packed: "-", state: "disabled"}}}
		a.head = func(ctx context.Context, m manifest.Manifest) ([]byte, int64, error) {
			select {
			case <-answer:
				return []byte(gzipHead), 1001, nil
			case <-ctx.Done():
				return nil, 0, ctx.Err()
			}
		}
		c := newCatalog(t, Options{Sources: sourcesOf(a)})
		var asking sync.WaitGroup
		for range 10 {
			asking.Go(func() {
				began := time.Now()
				e, err := c.Get(t.Context(), id(1))
				if err != nil || e.Manifest.Files[0].Size != 0 || time.Since(began) != lookupWait {
					t.Errorf("while the source hangs: %v, after %v, %s", err, time.Since(began), e.Manifest.V2())
				}
			})
		}
		asking.Wait()
		for range 10 {
			asking.Go(func() {
				e, err := c.Get(t.Context(), id(1))
				if err != nil || !bytes.Contains(e.Manifest.V2(), []byte(`"size":1001`)) || e.Manifest.Files[0].Compression != "gzip" {
					t.Errorf("%v, %s", err, e.Manifest.V2())
				}
			})
		}
		synctest.Wait()
		close(answer)
		asking.Wait()
		if got := a.looked(); got[1] != 1 {
			t.Errorf("looked %d times", got[1])
		}
		c.stop()
	})
}

// What is on disk tells without a source, offline too.
func TestLookOnDisk(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, size: -1, packed: "-"}, {n: 2, size: -1}}}
	x := new(memory)
	c := newCatalog(t, Options{Sources: sourcesOf(a), Index: x})
	refresh(t, c)
	wantListed(t, c)

	var mu sync.Mutex
	disk := make(map[uuid.UUID]manifest.Facts)
	c = restarted(t, c, Options{Sources: sourcesOf(a), Index: x, Offline: true, Stored: func(m manifest.Manifest, i int) (manifest.Facts, bool) {
		mu.Lock()
		defer mu.Unlock()
		f, ok := disk[m.UUID]
		return f, ok && i == 0
	}})
	if _, err := c.Get(t.Context(), id(1)); err != nil {
		t.Error(err)
	}
	mu.Lock()
	disk[id(1)] = manifest.Facts{SHA1: verify.Sum{19: 1}, Size: 77, Compression: "xz"}
	mu.Unlock()
	e, err := c.Get(t.Context(), id(1))
	if f := e.Manifest.Files[0]; err != nil || f.Size != 77 || f.Compression != "xz" {
		t.Errorf("%+v, %v", f, err)
	}
	wantListed(t, c, 1)
	if why := hiddenWhy(c, 2); !strings.Contains(why, "its size is not known yet") {
		t.Errorf("image 2 is hidden for %q", why)
	}
	if n := len(a.looked()); n != 2 {
		t.Errorf("%d images were looked at, want 2: those of the first catalogue", n)
	}
}
