package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/index"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// sample is an image with one small file.
type sample struct {
	id   uuid.UUID
	data []byte
	blob Blob
	src  *fake
}

// newSample makes image n of size bytes on top of origin, if that is not nil.
func newSample(t testing.TB, n, size int, origin *sample) *sample {
	t.Helper()
	m := &sample{id: uuid.NewSHA1(uuid.Nil, []byte{byte(n), byte(n >> 8)}), data: make([]byte, size)}
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(m.data)
	more := ""
	if origin != nil {
		more = `"origin":"` + origin.id.String() + `",`
	}
	raw := fmt.Sprintf(`{"v":2,"uuid":%q,"owner":"352971aa-31ba-496c-9ade-a379feaecd52","name":"n%d","version":"1",%s"state":"active",
"disabled":false,"public":true,"published_at":"2012-05-02T15:15:24Z","type":"zone-dataset","os":"smartos",
"files":[{"sha1":%q,"size":%d,"compression":"none"}]}`, m.id, n, more, sumOf(m.data), size)
	parsed, err := manifest.Parse([]byte(raw), manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.blob = blobOf(m.data)
	m.blob.Image, m.blob.Source, m.blob.Manifest = m.id, "a", parsed
	m.src = &fake{name: "a", data: m.data}
	return m
}

func samples(t testing.TB, n, size int) []*sample {
	t.Helper()
	var all []*sample
	for i := range n {
		all = append(all, newSample(t, i, size, nil))
	}
	return all
}

// store brings m, which is not there yet; the fill is over when it returns.
func (m *sample) store(t testing.TB, s *Store) {
	t.Helper()
	r, err := s.File(t.Context(), m.blob, sources(m.src))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Stored(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Result() != Miss {
		t.Fatalf("result %s, want %s", r.Result(), Miss)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func (m *sample) sum() verify.Sum { return m.blob.Want.SHA1 }

func present(s *Store, all ...*sample) string {
	var b strings.Builder
	for i, m := range all {
		if _, ok := s.Peek(m.blob); ok {
			fmt.Fprintf(&b, "%d ", i)
		}
	}
	return strings.TrimSpace(b.String())
}

// wantPresent fails the test unless just those are there, in the tables, on the
// disk and in the index.
func wantPresent(t testing.TB, s *Store, want string, all ...*sample) {
	t.Helper()
	if got := present(s, all...); got != want {
		t.Errorf("there are %q, want %q", got, want)
	}
	wantConsistent(t, s)
}

// wantConsistent compares what the store and the index tell of files and images with the disk.
// Nothing may be going on.
func wantConsistent(t testing.TB, s *Store) {
	t.Helper()
	disk := make(map[verify.Sum]int64)
	err := filepath.WalkDir(s.dir.files(), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		sum, bad := verify.ParseSum(d.Name())
		disk[sum] = info.Size()
		return errors.Join(err, bad)
	})
	if err != nil {
		t.Fatal(err)
	}
	recorded := make(map[verify.Sum]int64)
	if err := s.index.Files(func(f index.File) { recorded[f.Digests.SHA1] = f.Digests.Size }); err != nil {
		t.Fatal(err)
	}
	files := make(map[verify.Sum]int64)
	images := make(map[uuid.UUID][]verify.Sum)
	var total int64
	for _, f := range s.Files() {
		files[f.Sum] = f.Size
		total += f.Size
		for _, id := range f.Images {
			images[id] = append(images[id], f.Sum)
		}
	}
	if !maps.Equal(files, disk) || !maps.Equal(files, recorded) {
		t.Errorf("files %v, on disk %v, in the index %v", files, disk, recorded)
	}
	known, err := s.index.Images()
	if err != nil || len(known) != len(images) {
		t.Errorf("%d images in the index (%v), %d have files", len(known), err, len(images))
	}
	children := make(map[uuid.UUID]int)
	for id, im := range known {
		if im.Origin != uuid.Nil {
			children[im.Origin]++
		}
		if len(im.Sums) != len(images[id]) || slices.ContainsFunc(im.Sums, func(sum verify.Sum) bool { return !slices.Contains(images[id], sum) }) {
			t.Errorf("image %s has the files %v, in the index %v", id, images[id], im.Sums)
		}
	}
	if !maps.Equal(children, s.images.children) { // what a caller sees is the order of evictions alone
		t.Errorf("children %v, want %v", s.images.children, children)
	}
	having := 0
	for sum, ids := range s.images.having {
		having += len(ids)
		if slices.ContainsFunc(ids, func(id uuid.UUID) bool { return known[id] == nil || !slices.Contains(known[id].Sums, sum) }) {
			t.Errorf("file %s is said to be one of %v", sum, ids)
		}
	}
	for id, im := range known {
		if having -= len(im.Sums); slices.ContainsFunc(im.Sums, func(sum verify.Sum) bool { return !slices.Contains(s.images.having[sum], id) }) {
			t.Errorf("image %s is missing among those of the files %v", id, im.Sums)
		}
	}
	keys := 0
	for sum, all := range s.aliases.keys {
		keys += len(all)
		if slices.ContainsFunc(all, func(key string) bool { return s.aliases.sums[key] != sum }) {
			t.Errorf("file %s is said to be that of %v", sum, all)
		}
	}
	if having != 0 || keys != len(s.aliases.sums) {
		t.Errorf("%d files of images too many, %d aliases by sum, %d by key", having, keys, len(s.aliases.sums))
	}
	copies, err := os.ReadDir(s.dir.manifests())
	if err != nil || len(copies) != len(images) {
		t.Errorf("%d copies of manifests (%v), %d images", len(copies), err, len(images))
	}
	if got := s.Stats(); got.Files != len(files) || got.Stored != total || got.Booked != 0 {
		t.Errorf("account %+v, want %d bytes in %d files", got, total, len(files))
	}
}

func evictions(s *Store, r Reason) int { return counter(s.metrics.evictions[r]) }

func TestEvictsLeastRecentlyUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone []Evicted
		s := openStore(t, Options{MaxSize: 10_000, OnRemove: func(e Evicted) { gone = append(gone, e) }})
		all := samples(t, 12, 1000)
		for _, m := range all[:10] {
			m.store(t, s)
			time.Sleep(time.Second)
		}
		wantPresent(t, s, "0 1 2 3 4 5 6 7 8 9", all...)
		wantData(t, s, all[0].blob, all[0].data, Hit)
		time.Sleep(time.Second)
		all[10].store(t, s) // down to the low water: 9500
		wantPresent(t, s, "0 3 4 5 6 7 8 9 10", all...)
		if len(gone) != 2 || gone[0].Sum != all[1].sum() || gone[1].Sum != all[2].sum() || gone[0].Reason != ReasonMaxSize ||
			!slices.Equal(gone[0].Images, []uuid.UUID{all[1].id}) || gone[0].Size != 1000 {
			t.Errorf("removed: %+v", gone)
		}
		all[11].store(t, s) // fits
		wantPresent(t, s, "0 3 4 5 6 7 8 9 10 11", all...)
		if n := evictions(s, ReasonMaxSize); n != 2 {
			t.Errorf("%d evictions counted", n)
		}
		all[1].store(t, s) // what was evicted can be had again
		wantPresent(t, s, "0 1 5 6 7 8 9 10 11", all...)
		files := s.Files()
		if files[0].Sum != all[5].sum() || files[len(files)-1].Sum != all[1].sum() {
			t.Errorf("Files begins with %v and ends with %v", files[0], files[len(files)-1])
		}
	})
}

// Nothing goes that is pinned, by hand or by rule, or in use; what remains goes
// only if that is enough.
func TestEvictionSpares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := samples(t, 8, 1000)
		s := openStore(t, Options{MaxSize: 4000, Keep: func(id uuid.UUID) bool { return id == all[1].id }})
		if err := s.Pin(all[0].id); err != nil { // before it is there
			t.Fatal(err)
		}
		for _, m := range all[:4] {
			m.store(t, s)
			time.Sleep(time.Second)
		}
		r, err := s.File(t.Context(), all[2].blob, nil)
		if err != nil {
			t.Fatal(err)
		}
		all[4].store(t, s)
		wantPresent(t, s, "0 1 2 4", all...)
		big := newSample(t, 100, 1001, nil)
		_, _, err = get(s, big.blob, big.src) // for which just one could go
		wantError(t, err, ErrNoSpace)
		wantPresent(t, s, "0 1 2 4", all...)
		if big.src.bytes() != 0 {
			t.Error("bytes were taken for which there is no room")
		}

		if data, err := io.ReadAll(r); err != nil || string(data) != string(all[2].data) {
			t.Errorf("the reader got %d bytes, %v", len(data), err)
		}
		time.Sleep(time.Second)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		all[5].store(t, s) // its reader's end was a use
		all[6].store(t, s)
		wantPresent(t, s, "0 1 5 6", all...)
		if err := s.Unpin(all[0].id); err != nil {
			t.Fatal(err)
		}
		all[7].store(t, s)
		wantPresent(t, s, "1 6 7", all...)

		never := newSample(t, 101, 4001, nil)
		_, _, err = get(s, never.blob, never.src)
		wantError(t, err, ErrNoSpace)
		if len(never.src.asked()) != 0 {
			t.Error("a source was asked for what can never fit")
		}
		_, _, err = get(s, all[0].blob, always("b", nil, reply{err: errors.New("down")}))
		wantError(t, err, verify.ErrUnavailable)
		wantPresent(t, s, "1 6 7", all...) // nothing goes for what nobody brings
	})
}

// Of a chain the leaf goes first, whatever was used last; a pin holds all below.
func TestEvictionKeepsOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newSample(t, 0, 1000, nil)
		middle := newSample(t, 1, 1000, root)
		leaf := newSample(t, 2, 1000, middle)
		other := newSample(t, 3, 1000, nil)
		all := []*sample{root, middle, leaf, other}
		s := openStore(t, Options{MaxSize: 4000})
		for _, m := range all {
			m.store(t, s)
			time.Sleep(time.Second)
		}
		plan := func() string {
			t.Helper()
			var got []string
			for _, e := range s.plan(need{should: 1 << 40, reason: ReasonMaxSize}) {
				got = append(got, string(rune('0'+slices.IndexFunc(all, func(m *sample) bool { return m.sum() == e.Sum }))))
			}
			return strings.Join(got, " ")
		}
		if got := plan(); got != "2 1 0 3" {
			t.Errorf("plan %q", got)
		}
		s = reopenLater(t, s)
		if got := plan(); got != "2 1 0 3" {
			t.Errorf("plan after a restart %q", got)
		}
		if err := s.Pin(leaf.id); err != nil {
			t.Fatal(err)
		}
		if got := plan(); got != "3" {
			t.Errorf("plan with a pinned leaf %q", got)
		}
		if _, err := s.Remove(t.Context(), root.sum()); !errors.Is(err, ErrPinned) {
			t.Errorf("Remove of a pinned image's root: %v", err)
		}
		if err := s.Unpin(leaf.id); err != nil {
			t.Fatal(err)
		}
		newSample(t, 4, 1500, nil).store(t, s)
		wantPresent(t, s, "0 3", all...)
		if _, err := s.Remove(t.Context(), root.sum()); err != nil {
			t.Error(err)
		}
		wantPresent(t, s, "3", all...)
	})
}

func reopenLater(t testing.TB, s *Store) *Store {
	t.Helper()
	closeStore(t, s)
	return reopen(t, s)
}

// A dry run names what then goes, in that order, whatever is there.
func TestVacuumPredicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		var all []*sample
		for i := range 60 {
			var origin *sample
			if i > 0 && r.IntN(2) == 0 {
				origin = all[r.IntN(i)]
			}
			all = append(all, newSample(t, i, 500+r.IntN(1000), origin))
		}
		s := openStore(t, Options{})
		for i, m := range all {
			m.store(t, s)
			if i%7 == 0 {
				if err := s.Pin(m.id); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Duration(r.IntN(3)) * time.Second)
		}
		if plan, err := s.Vacuum(t.Context(), true); err != nil || len(plan) != 0 {
			t.Errorf("with no limit %d files would go, %v", len(plan), err)
		}
		for _, limit := range []int64{55_000, 40_000, 20_000, 1000} {
			s.SetLimits(limit, 0)
			for range 10 {
				m := all[r.IntN(len(all))]
				if rd, err := s.File(t.Context(), m.blob, nil); err == nil {
					rd.Close()
				}
				time.Sleep(time.Second)
			}
			plan, err := s.Vacuum(t.Context(), true)
			if err != nil || len(plan) == 0 {
				t.Fatalf("limit %d: a dry run gives %d files, %v", limit, len(plan), err)
			}
			size := s.Stats().Bytes()
			gone, err := s.Vacuum(t.Context(), false)
			if err != nil || fmt.Sprint(gone) != fmt.Sprint(plan) {
				t.Errorf("limit %d: %v; predicted\n%v\ngone\n%v", limit, err, plan, gone)
			}
			for _, e := range gone {
				size -= e.Size
			}
			low := limit - limit/lowWater
			if s.Stats().Bytes() != size || limit > 1000 && (size > low || size+gone[len(gone)-1].Size <= low) {
				t.Errorf("limit %d: %d bytes are left, want %d, just below %d", limit, s.Stats().Bytes(), size, low)
			}
			if plan, err := s.Vacuum(t.Context(), true); err != nil || len(plan) != 0 {
				t.Errorf("limit %d: after a vacuum %d files would go, %v", limit, len(plan), err)
			}
			wantConsistent(t, s)
		}
		for i, m := range all {
			if _, there := s.Peek(m.blob); !there && i%7 == 0 {
				t.Errorf("pinned image %d is gone", i)
			}
		}
	})
}

// min_free is what the file system says; it may take its time to show what was
// removed, for which nothing more is removed.
func TestEvictsForMinFree(t *testing.T) {
	for _, lag := range []time.Duration{0, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var s *Store
			var mu sync.Mutex
			var late int64 // bytes that are gone, but do not show yet
			s = openStore(t, Options{MinFree: 1000, OnRemove: func(e Evicted) {
				if lag > 0 {
					mu.Lock()
					late += e.Size
					mu.Unlock()
					time.AfterFunc(lag, func() { mu.Lock(); late -= e.Size; mu.Unlock() })
				}
			}})
			s.space.free = func() (int64, error) {
				mu.Lock()
				defer mu.Unlock()
				return 6000 - s.Stats().Bytes() - late, nil
			}
			all := samples(t, 7, 1000)
			for _, m := range all[:5] {
				m.store(t, s)
				time.Sleep(time.Second)
			}
			began := time.Now()
			all[5].store(t, s) // low water: 50 bytes more than MinFree
			if took := time.Since(began); took < lag || took > lag+time.Second {
				t.Errorf("took %s with a lag of %s", took, lag)
			}
			wantPresent(t, s, "2 3 4 5", all...)
			if n := evictions(s, ReasonMinFree); n != 2 {
				t.Errorf("%d evictions counted", n)
			}
		})
	}
}

// The quarantine is given up for what is needed: before any file is evicted, and
// also when none may be, for all that the file system may take its time to show it.
func TestQuarantineMakesRoom(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := openStore(t, Options{MinFree: 1000})
			if err := os.Mkdir(s.dir.quarantine(), 0o755); err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(s.dir.quarantine(), verify.Sum{1}.String()+"-20260101T000000.0")
			if err := os.WriteFile(name, make([]byte, 3000), 0o600); err != nil {
				t.Fatal(err)
			}
			var lag time.Duration
			var emptied time.Time
			s.space.free = func() (int64, error) {
				if emptied.IsZero() && len(quarantined(t, s)) == 0 {
					emptied = time.Now()
				}
				if emptied.IsZero() || time.Since(emptied) < lag {
					return 3000 - s.Stats().Bytes(), nil
				}
				return 6000 - s.Stats().Bytes(), nil
			}
			all := samples(t, 3, 1000)
			all[0].store(t, s)
			all[1].store(t, s)
			if pinned {
				lag = 5 * time.Second
				if err := errors.Join(s.Pin(all[0].id), s.Pin(all[1].id)); err != nil {
					t.Fatal(err)
				}
			}
			all[2].store(t, s)
			wantPresent(t, s, "0 1 2", all...)
			if n := evictions(s, ReasonMinFree); n != 0 {
				t.Errorf("%d evictions counted", n)
			}
		})
	}
}

// Room is made also when nobody fills: when others take the disk, and when a
// limit is lowered.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Int64
		free.Store(1 << 40)
		s := openStore(t, Options{MinFree: 1 << 30})
		s.space.free = func() (int64, error) { return free.Load(), nil }
		all := samples(t, 6, 1000)
		for _, m := range all {
			m.store(t, s)
			time.Sleep(time.Second)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go s.Run(ctx) //nolint:errcheck // Close waits for it
		synctest.Wait()
		wantPresent(t, s, "0 1 2 3 4 5", all...)
		s.SetLimits(4000, 1<<30)
		synctest.Wait()
		wantPresent(t, s, "3 4 5", all...)
		if err := s.Pin(all[4].id); err != nil {
			t.Fatal(err)
		}
		free.Store(1<<30 - 1)
		time.Sleep(sweepEvery)
		synctest.Wait()
		wantPresent(t, s, "4", all...)
	})
}

// What unfinished downloads take is given to those who need it now.
func TestEvictsPartials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		one := newSample(t, 1, 300_000, nil)
		halfway(t, s, one.data, 200_000)
		s.o.MaxSize = 400_000
		s = reopen(t, s)
		two, three := newSample(t, 2, 150_000, nil), newSample(t, 3, 100_000, nil)
		two.store(t, s)
		if len(s.Partials()) != 1 {
			t.Errorf("partials: %v", s.Partials())
		}
		three.store(t, s)
		wantPresent(t, s, "0 1", two, three)
		if left, err := os.ReadDir(s.dir.partials()); err != nil || len(left) != 0 || s.Stats().Unfinished != 0 {
			t.Errorf("left in partial/: %v, %v, account %+v", left, err, s.Stats())
		}
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		m, same := newSample(t, 1, 200_000, nil), newSample(t, 2, 10, nil)
		m.store(t, s)
		same.blob.Want, same.data, same.src = m.blob.Want, m.data, m.src // another image of the same file
		wantData(t, s, same.blob, m.data, Hit)
		if f := s.Files(); len(f) != 1 || len(f[0].Images) != 2 {
			t.Fatalf("Files = %+v", f)
		}
		if err := s.Pin(same.id); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(t.Context(), m.sum()); !errors.Is(err, ErrPinned) {
			t.Errorf("Remove of a pinned file: %v", err)
		}
		if err := s.Unpin(same.id); err != nil {
			t.Fatal(err)
		}
		r, err := s.File(t.Context(), m.blob, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		e, err := s.Remove(t.Context(), m.sum())
		if err != nil || e.Size != 200_000 || len(e.Images) != 2 || e.Reason != ReasonDelete || e.Readers != 1 {
			t.Errorf("Remove: %+v, %v", e, err)
		}
		wantPresent(t, s, "", m, same)
		if data, err := io.ReadAll(r); err != nil || string(data) != string(m.data) {
			t.Errorf("the reader got %d bytes, %v", len(data), err)
		}
		if _, err := s.Remove(t.Context(), m.sum()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a second Remove: %v", err)
		}
		m.store(t, s)
		wantPresent(t, s, "0 1", m, same)

		part := newSample(t, 3, 300_000, nil)
		halfway(t, s, part.data, 200_000)
		s = reopen(t, s)
		if e, err := s.Remove(t.Context(), part.sum()); err != nil || !e.Partial || e.Size != 200_000 {
			t.Errorf("Remove of an unfinished download: %+v, %v", e, err)
		}
		if len(s.Partials()) != 0 || s.Stats().Unfinished != 0 {
			t.Errorf("account %+v", s.Stats())
		}
	})
}

// A slow reader of a fill gets the whole file, although the cache is too small for what
// comes meanwhile.
func TestFillsReadersHoldTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{MaxSize: 2000})
		all := samples(t, 8, 1000)
		r, err := s.File(t.Context(), all[0].blob, sources(all[0].src))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all[1:] { // he has not even opened it
			time.Sleep(time.Second)
			m.store(t, s)
		}
		wantPresent(t, s, "0 7", all...)
		if f := s.Files(); f[0].Readers != 1 || f[1].Readers != 0 {
			t.Errorf("Files = %+v", f)
		}
		if data, err := io.ReadAll(r); err != nil || string(data) != string(all[0].data) {
			t.Errorf("the reader got %d bytes, %v", len(data), err)
		}
		r.Close()
		r.Close()
		all[1].store(t, s)
		wantPresent(t, s, "1", all...)
	})
}

// The same bytes brought once more under another name: readers of the first file
// hold the second.
func TestHoldFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{MaxSize: 2000})
		data := noise(1, 1000)
		named := func(key string) Blob { return Blob{Key: key, Want: verify.Want{Size: 1000}, Unverified: true} }
		src := &fake{name: "a", data: data}
		first, err := s.File(t.Context(), named("one"), sources(src))
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Stored(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantData(t, s, named("two"), data, Miss, src)
		s.Idle()
		if f := s.Files(); len(f) != 1 || f[0].Readers != 1 {
			t.Fatalf("Files = %+v", f)
		}
		if plan := s.plan(need{should: 1}); len(plan) != 0 {
			t.Errorf("a file in use would go: %+v", plan)
		}
		first.Close()
		if plan := s.plan(need{should: 1}); len(plan) != 1 {
			t.Errorf("plan %+v", plan)
		}
		if _, err := s.Remove(t.Context(), sumOf(data)); err != nil {
			t.Fatal(err)
		}
		if len(s.aliases.sums) != 0 || len(s.aliases.keys) != 0 {
			t.Errorf("aliases of a file that is gone: %+v", s.aliases)
		}
		wantConsistent(t, s)
	})
}

// Times of use outlast a kill, but for those of the last flush interval.
func TestUsesAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		all := samples(t, 3, 1000)
		for _, m := range all {
			m.store(t, s)
			time.Sleep(time.Minute)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go s.Run(ctx) //nolint:errcheck // Close waits for it
		wantData(t, s, all[0].blob, all[0].data, Hit)
		used := time.Now()
		time.Sleep(flushEvery + time.Second)
		synctest.Wait()
		snapshot := t.TempDir()
		copyTree(t, s.o.Dir, snapshot)
		killed := openStore(t, Options{Dir: snapshot})
		files := killed.Files()
		if files[2].Sum != all[0].sum() || !files[2].LastUsed.Equal(used) || !files[2].Added.Equal(used.Add(-3*time.Minute)) {
			t.Errorf("Files = %+v, the last used at %s", files, used)
		}
		wantData(t, s, all[1].blob, all[1].data, Hit)
		s = reopenLater(t, s)
		if files := s.Files(); files[2].Sum != all[1].sum() || files[1].Sum != all[0].sum() {
			t.Errorf("Files = %+v", files)
		}
	})
}

// A folder of an earlier version knows of no images: the copies tell.
func TestImagesAreLearnedFromCopies(t *testing.T) {
	s := openStore(t, Options{})
	root := newSample(t, 1, 1000, nil)
	child := newSample(t, 2, 1000, root)
	root.store(t, s)
	child.store(t, s)
	for _, m := range []*sample{root, child} {
		if err := s.index.Write(index.DropImage(m.id)); err != nil {
			t.Fatal(err)
		}
	}
	s = reopenLater(t, s)
	wantPresent(t, s, "0 1", root, child)
	// And so when the whole index is lost.
	closeStore(t, s)
	if err := os.RemoveAll(s.dir.index()); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	for _, m := range []*sample{root, child} {
		wantData(t, s, m.blob, m.data, Hit)
	}
	wantPresent(t, s, "0 1", root, child)
	if plan := s.plan(need{should: 1}); len(plan) != 1 || plan[0].Sum != child.sum() {
		t.Errorf("plan %+v", plan)
	}
	m, err := s.Manifest(child.id)
	if err != nil || m.Origin != root.id {
		t.Errorf("Manifest: %v, %v", m, err)
	}
	if _, err := s.Manifest(uuid.New()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Manifest of nothing: %v", err)
	}
}

func TestPins(t *testing.T) {
	s := openStore(t, Options{})
	one, two := uuid.New(), uuid.New()
	for _, id := range []uuid.UUID{one, two, two} {
		if err := s.Pin(id); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Unpin(one); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if err := s.Pin(one); !errors.Is(err, ErrClosed) {
		t.Errorf("Pin after Close: %v", err)
	}
	if err := os.RemoveAll(s.dir.index()); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if p := s.Pinned(); len(p) != 1 || !p[two] || !s.Kept(two) || s.Kept(one) {
		t.Errorf("Pinned = %v", p)
	}
	closeStore(t, s)

	// People may write the file.
	if err := os.WriteFile(s.dir.pins(), []byte("\n"+strings.ToUpper(one.String())+"\r\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if p := s.Pinned(); len(p) != 1 || !p[one] {
		t.Errorf("Pinned = %v", p)
	}
	closeStore(t, s)

	// Unknown is not unpinned.
	if err := errors.Join(os.Remove(s.dir.pins()), os.Mkdir(s.dir.pins(), 0o755)); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	m := newSample(t, 1, 1000, nil)
	m.store(t, s)
	if !s.Kept(m.id) || len(s.plan(need{should: 1})) != 0 {
		t.Error("with pins that cannot be read, a file would go")
	}
	if err := s.Pin(one); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Pin: %v", err)
	}
}

// Changes grows when a file comes, and when one goes; Describe tells of the files that are there.
func TestChanges(t *testing.T) {
	s := openStore(t, Options{})
	a := newSample(t, 1, 1000, nil)
	before := s.Changes()
	if _, ok := s.Describe(a.sum()); ok {
		t.Error("a file is described before it is there")
	}
	a.store(t, s)
	came := s.Changes()
	if f, ok := s.Describe(a.sum()); !ok || f.Size != 1000 || len(f.Images) != 1 || came == before {
		t.Errorf("%+v, %v; changes %d after %d", f, ok, came, before)
	}
	if s.Peek(a.blob); s.Changes() != came {
		t.Error("a look is a change")
	}
	if _, err := s.Remove(t.Context(), a.sum()); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Describe(a.sum()); ok || s.Changes() == came {
		t.Errorf("described %v; changes %d after %d", ok, s.Changes(), came)
	}
}
