package cache

import (
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache/index"
	"imgmirror/verify"
)

// Between the plan of an eviction and its turn a file may have come into use: each
// reason alone spares it, and so do all at once.
func TestEvictionLooksAgain(t *testing.T) {
	pin := func(t *testing.T, s *Store, m *sample, _ Evicted) {
		if err := s.Pin(m.id); err != nil {
			t.Fatal(err)
		}
	}
	file := func(s *Store, m *sample) *stored {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.files[m.sum()]
	}
	read := func(t *testing.T, s *Store, m *sample, e Evicted) { // by one who has it open, and did not use it since
		f := file(s, m)
		f.hold.n.Add(1)
		t.Cleanup(func() { f.hold.n.Add(-1) })
	}
	use := func(t *testing.T, s *Store, m *sample, _ Evicted) {
		wantData(t, s, m.blob, m.data, Hit)
	}
	child := func(t *testing.T, s *Store, m *sample, e Evicted) {
		newSample(t, 50, 100, m).store(t, s)
		file(s, m).used.Store(e.LastUsed.UnixNano()) // which the child's coming has changed
	}
	image := func(t *testing.T, s *Store, m *sample, _ Evicted) {
		other := newSample(t, 51, 100, nil).blob
		other.Want = m.blob.Want
		if err := s.Own(other); err != nil {
			t.Fatal(err)
		}
	}
	kept := uuid.Nil
	keep := func(_ *testing.T, _ *Store, m *sample, _ Evicted) { kept = m.id }
	nothing := func(*testing.T, *Store, *sample, Evicted) {}
	type change = func(*testing.T, *Store, *sample, Evicted)
	for name, changes := range map[string][]change{
		"nothing": {nothing}, "pinned": {pin}, "kept by rule": {keep}, "read": {read}, "used": {use},
		"a child": {child}, "another image": {image}, "all": {pin, keep, read, use, child, image},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kept = uuid.Nil
				s := openStore(t, Options{Keep: func(id uuid.UUID) bool { return id == kept && kept != uuid.Nil }})
				m := newSample(t, 1, 1000, nil)
				m.store(t, s)
				time.Sleep(time.Second)
				plan := s.plan(need{should: 1, reason: ReasonMaxSize})
				if len(plan) != 1 || plan[0].Sum != m.sum() {
					t.Fatalf("plan %+v", plan)
				}
				for _, c := range changes {
					c(t, s, m, plan[0])
				}
				gone := s.evict(plan)
				if _, there := s.Peek(m.blob); there == (name == "nothing") || len(gone) > 0 != (name == "nothing") {
					t.Errorf("there: %v, gone: %+v", there, gone)
				}
			})
		})
	}
}

// A file that images share goes by hand only when none of them is pinned, nor one on
// top of any; then it is no image's any more.
func TestRemoveOfASharedFile(t *testing.T) {
	s := openStore(t, Options{})
	m, other := newSample(t, 1, 1000, nil), newSample(t, 2, 1000, nil)
	child := newSample(t, 3, 1000, other)
	m.store(t, s)
	shared := other.blob
	shared.Want = m.blob.Want
	if err := s.Own(shared); err != nil {
		t.Fatal(err)
	}
	child.store(t, s)
	for _, id := range []uuid.UUID{m.id, other.id, child.id} {
		if err := s.Pin(id); err != nil {
			t.Fatal(err)
		}
		_, err := s.Remove(t.Context(), m.sum())
		wantError(t, err, ErrPinned)
		wantData(t, s, m.blob, m.data, Hit)
		if err := s.Unpin(id); err != nil {
			t.Fatal(err)
		}
	}
	// One of them gives it up: it stays for the other.
	if err := s.Disown(m.id, m.sum()); err != nil {
		t.Fatal(err)
	}
	if f := s.Files(); len(f) != 2 || len(f[0].Images) != 1 || len(f[1].Images) != 1 {
		t.Errorf("files: %+v", f)
	}
	if _, err := s.Manifest(other.id); err != nil {
		t.Error(err)
	}
	if err := s.Own(m.blob); err != nil {
		t.Fatal(err)
	}
	e, err := s.Remove(t.Context(), m.sum())
	if err != nil || len(e.Images) != 2 {
		t.Fatalf("removed %+v, %v", e, err)
	}
	for _, id := range []uuid.UUID{m.id, other.id} {
		if _, err := s.Manifest(id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the copy of %s: %v", id, err)
		}
	}
}

// A check holds every digest: bytes with the right sha1 that differ in another are
// wrong.
func TestCheckHoldsEveryDigest(t *testing.T) {
	for name, differ := range map[string]func(*verify.Digests){
		"sha256": func(d *verify.Digests) { d.SHA256[5] ^= 1 },
		"md5":    func(d *verify.Digests) { d.MD5[5] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			m := newSample(t, 1, 1000, nil)
			m.store(t, s)
			info, _ := s.Peek(m.blob)
			differ(&info.Digests)
			if err := s.index.Write(index.PutFile(index.File{Info: info})); err != nil { // what a collision would be
				t.Fatal(err)
			}
			s = reopenLater(t, s)
			if got, err := s.Check(t.Context(), m.sum(), nil); got != CheckQuarantined || !errors.Is(err, verify.ErrMismatch) {
				t.Errorf("Check = %q, %v", got, err)
			}
		})
	}
}
