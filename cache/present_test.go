package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

// A folder of unfinished downloads that is gone is made anew, by a download or by
// a look; where something else stands in its place it is "cannot tell".
func TestPartialsGone(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"removed":       os.RemoveAll,
		"renamed":       func(dir string) error { return os.Rename(dir, dir+".away") },
		"with DATA/new": func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			all := samples(t, 3, 1000)
			all[0].store(t, s)
			if err := harm(s.dir.partials()); err != nil {
				t.Fatal(err)
			}
			all[1].store(t, s)
			wantData(t, s, all[0].blob, all[0].data, Hit)
			if err := harm(s.dir.partials()); err != nil && name != "renamed" {
				t.Fatal(err)
			}
			if down, hampered := s.Look(); down != nil || hampered != nil {
				t.Errorf("Look: %v, %v", down, hampered)
			}
			if _, err := os.Stat(s.dir.partials()); err != nil {
				t.Error(err)
			}
			all[2].store(t, s)
		})
	}
	for name, harm := range map[string]func(dir string) error{
		"a file":        func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"a broken link": func(dir string) error { return os.Symlink("nowhere", dir) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			all := samples(t, 2, 1000)
			all[0].store(t, s)
			dir := s.dir.partials()
			if err := errors.Join(os.Rename(dir, dir+".away"), harm(dir)); err != nil {
				t.Fatal(err)
			}
			_, _, err := get(s, all[1].blob, all[1].src)
			wantError(t, err, ErrDisk, fs.ErrNotExist)
			wantData(t, s, all[0].blob, all[0].data, Hit)
			down, _ := s.Look()
			wantError(t, down, ErrDisk)
			wantError(t, s.Health(), ErrDisk)
			if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
				t.Fatal(err)
			}
			if down, hampered := s.Look(); down != nil || hampered != nil || s.Health() != nil {
				t.Errorf("Look: %v, %v", down, hampered)
			}
			all[1].store(t, s)
		})
	}
}

// A download whose unfinished file is removed under it begins again for those who
// have had no byte.
func TestPartialRemovedUnderFill(t *testing.T) {
	for name, harm := range map[string]func(s *Store, m *sample) error{
		"the file":   func(s *Store, m *sample) error { return os.Remove(s.dir.partial(m.blob.partialName())) },
		"the folder": func(s *Store, _ *sample) error { return os.RemoveAll(s.dir.partials()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			m := newSample(t, 1, 3<<20, nil)
			gate := make(chan struct{})
			m.src.reply = func(try int, _ int64) reply {
				if try > 1 {
					return reply{}
				}
				return reply{stall: 2 << 20, gate: gate}
			}
			first, err := s.File(t.Context(), m.blob, sources(m.src))
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			if _, err := io.ReadFull(first, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			if err := harm(s, m); err != nil {
				t.Fatal(err)
			}
			second, err := s.File(t.Context(), m.blob, sources(m.src))
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			if n, wake, err := func() (int64, <-chan struct{}, error) { _, _ = second.open(); return second.look() }(); n != 0 || wake == nil || err != nil {
				t.Errorf("a second reader finds %d bytes, %v", n, err)
			}
			close(gate)
			got, err := io.ReadAll(second)
			if err != nil || !bytes.Equal(got, m.data) {
				t.Fatalf("the second reader got %d bytes, %v", len(got), err)
			}
			if _, err := io.ReadAll(first); err == nil {
				t.Error("the first reader has bytes of a round that ended")
			}
			if err := second.Stored(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantData(t, s, m.blob, m.data, Hit)
		})
		t.Run(name+", with nobody coming", func(t *testing.T) {
			s := openStore(t, Options{})
			m := newSample(t, 1, 300_000, nil)
			s.step = func(step string) {
				if step == "sync" {
					if err := harm(s, m); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Error(err)
					}
					s.step = func(string) {}
				}
			}
			wantData(t, s, m.blob, m.data, Miss, m.src)
			if err := s.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Idle()
			wantData(t, s, m.blob, m.data, Hit)
			if s.Stats().Bytes() != 300_000 {
				t.Errorf("account: %+v", s.Stats())
			}
		})
	}
	t.Run("between two fills", func(t *testing.T) {
		s := openStore(t, Options{Patience: 1})
		m := newSample(t, 1, 300_000, nil)
		other := newSample(t, 1, 300_000, nil)
		m.src.reply = func(try int, _ int64) reply {
			if try == 1 {
				return reply{cut: 100_000}
			}
			return reply{err: fs.ErrPermission}
		}
		if _, _, err := get(s, m.blob, m.src); err == nil {
			t.Fatal("a whole file")
		}
		s.Idle()
		if len(s.Partials()) != 1 {
			t.Fatalf("left over: %v", s.Partials())
		}
		if err := harm(s); err != nil {
			t.Fatal(err)
		}
		wantData(t, s, m.blob, m.data, Miss, other.src)
		s.Idle()
		wantAsked(t, other.src, 0)
		if s.Stats().Bytes() != 300_000 {
			t.Errorf("account: %+v", s.Stats())
		}
	})
}

// A Reader of a fill that has not begun to read when the file is published, and then removed by hand,
// ends with an error.
func TestRemovedBeforeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		m := newSample(t, 1, 300_000, nil)
		r := open(t, s, m.blob, m.src)
		defer r.Close()
		if err := r.Stored(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(s.dir.file(m.sum())); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := r.WaitContext(ctx)
		wantError(t, err, ErrDisk)
	})
}

func harm(s *Store) error { return os.RemoveAll(s.dir.partials()) }

// away says what becomes of a store whose files are away: nothing is given out,
// stored, forgotten or evicted, and nothing is "not there".
func away(t *testing.T, s *Store, known, other *sample) {
	t.Helper()
	for range 2 {
		for _, m := range []*sample{known, other} {
			asked := len(m.src.asked())
			_, _, err := get(s, m.blob, m.src)
			wantError(t, err, ErrDisk, fs.ErrNotExist, fs.ErrPermission)
			if len(m.src.asked()) != asked {
				t.Error("a source was asked for what cannot be stored")
			}
		}
	}
	if got, err := s.Check(t.Context(), known.sum(), nil); got != CheckUnreadable || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Check = %q, %v", got, err)
	}
	if _, err := s.Remove(t.Context(), known.sum()); err == nil {
		t.Error("a file that is away was removed")
	}
	before := s.Stats().Stored
	s.SetLimits(1, 0)
	if gone, err := s.Vacuum(t.Context(), false); len(gone) != 0 {
		t.Errorf("evicted: %v, %v", gone, err)
	}
	s.SetLimits(0, 0)
	if s.Stats().Stored != before {
		t.Errorf("account: %+v", s.Stats())
	}
	if _, ok := s.Peek(known.blob); !ok {
		t.Error("the file was forgotten")
	}
	wantError(t, s.Health(), ErrDisk)
	down, _ := s.Look()
	wantError(t, down, ErrDisk)
}

// back says what becomes of it when they are there again.
func back(t *testing.T, s *Store, known, other *sample) {
	t.Helper()
	wantData(t, s, known.blob, known.data, Hit)
	if down, hampered := s.Look(); down != nil || hampered != nil || s.Health() != nil {
		t.Errorf("Look: %v, %v", down, hampered)
	}
	other.store(t, s)
	if got := present(s, known, other); got != "0 1" {
		t.Errorf("there are %s", got)
	}
	s = reopenLater(t, s)
	wantData(t, s, known.blob, known.data, Hit)
}

// DATA/files, or DATA, that is gone or is another folder may be an unmounted disk.
func TestFilesAway(t *testing.T) {
	type change struct{ harm, heal func(dir string) error }
	aside := func(dir string) error { return os.Rename(dir, dir+".away") }
	putBack := func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Rename(dir+".away", dir)) }
	for name, c := range map[string]change{
		"renamed":        {aside, putBack},
		"an empty one":   {func(dir string) error { return errors.Join(aside(dir), os.Mkdir(dir, 0o755)) }, putBack},
		"a file":         {func(dir string) error { return errors.Join(aside(dir), os.WriteFile(dir, nil, 0o644)) }, putBack},
		"a broken link":  {func(dir string) error { return errors.Join(aside(dir), os.Symlink("nowhere", dir)) }, putBack},
		"a link to self": {func(dir string) error { return errors.Join(aside(dir), os.Symlink(dir, dir)) }, putBack},
		"copied back": {aside, func(dir string) error {
			return errors.Join(os.CopyFS(dir, os.DirFS(dir+".away")), os.RemoveAll(dir+".away"))
		}},
		"linked back": {aside, func(dir string) error { return os.Symlink(dir+".away", dir) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			all := samples(t, 2, 1000)
			all[0].store(t, s)
			if err := c.harm(s.dir.files()); err != nil {
				t.Fatal(err)
			}
			away(t, s, all[0], all[1])
			if err := c.heal(s.dir.files()); err != nil {
				t.Fatal(err)
			}
			back(t, s, all[0], all[1])
		})
		if name == "copied back" || name == "linked back" {
			continue // of DATA: the index is open in the other one
		}
		t.Run("DATA "+name, func(t *testing.T) {
			s := openStore(t, Options{Dir: filepath.Join(t.TempDir(), "data")})
			all := samples(t, 2, 1000)
			all[0].store(t, s)
			if err := c.harm(string(s.dir)); err != nil {
				t.Fatal(err)
			}
			away(t, s, all[0], all[1])
			if err := c.heal(string(s.dir)); err != nil {
				t.Fatal(err)
			}
			back(t, s, all[0], all[1])
		})
	}
}

// The same with a real mount, which takes root.
func TestFilesUnmounted(t *testing.T) {
	if os.Getuid() != 0 {
		lack(t, "needs root, to mount")
	}
	dir := t.TempDir()
	disk, data := filepath.Join(dir, "disk"), filepath.Join(dir, "data")
	files := filepath.Join(data, "files")
	mount := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			lack(t, "%s %v: %v: %s", name, args, err, out)
		}
	}
	if err := errors.Join(os.MkdirAll(files, 0o755), os.Mkdir(disk, 0o755)); err != nil {
		t.Fatal(err)
	}
	mount("mount", "--bind", disk, files)
	t.Cleanup(func() { _ = exec.Command("umount", "-l", files).Run() }) // not mounted any more, mostly
	s := openStore(t, Options{Dir: data})
	all := samples(t, 2, 1000)
	r := func() { // a bind mount is another mount to rename(2): the file is put there by hand
		t.Helper()
		path := s.dir.file(all[0].sum())
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, all[0].data, 0o644)); err != nil {
			t.Fatal(err)
		}
		s = reopenLater(t, s)
		wantData(t, s, all[0].blob, all[0].data, Hit)
	}
	r()
	mount("umount", files)
	away(t, s, all[0], all[1])
	mount("mount", "--bind", disk, files)
	wantData(t, s, all[0].blob, all[0].data, Hit)
	if down, _ := s.Look(); down != nil {
		t.Error(down)
	}
}

// One folder of DATA/files that was removed takes its own files with it, and is
// made anew; one that cannot be looked into is "cannot tell", at a start too.
func TestFolderOfFilesGone(t *testing.T) {
	s := openStore(t, Options{})
	all := samples(t, 3, 1000)
	for _, m := range all {
		m.store(t, s)
	}
	parent := filepath.Dir(s.dir.file(all[0].sum()))
	if err := os.RemoveAll(parent); err != nil {
		t.Fatal(err)
	}
	wantData(t, s, all[1].blob, all[1].data, Hit)
	all[0].store(t, s)
	wantData(t, s, all[0].blob, all[0].data, Hit)
	for name, harm := range map[string]func() error{
		"a broken link": func() error { return os.Symlink("nowhere", parent) },
		"a file":        func() error { return os.WriteFile(parent, nil, 0o644) },
	} {
		if err := errors.Join(os.Rename(parent, parent+".away"), harm()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, _, err := get(s, all[0].blob, all[0].src)
			wantError(t, err, ErrDisk, fs.ErrNotExist)
			wantData(t, s, all[1].blob, all[1].data, Hit)
			if _, ok := s.Peek(all[0].blob); !ok {
				t.Errorf("%s: the file was forgotten", name)
			}
			s = reopenLater(t, s)
		}
		if err := errors.Join(os.Remove(parent), os.Rename(parent+".away", parent)); err != nil {
			t.Fatal(err)
		}
		wantData(t, s, all[0].blob, all[0].data, Hit)
	}
}

// The quarantine, the copies of manifests and the file of pins are made anew.
func TestMadeAnew(t *testing.T) {
	s := openStore(t, Options{})
	all := samples(t, 2, 1000)
	all[0].store(t, s)
	all[0].spoil(t, s)
	pinned := uuid.UUID{1}
	if err := s.Pin(pinned); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Check(t.Context(), all[0].sum(), nil); got != CheckQuarantined {
		t.Fatal(got, err)
	}
	all[1].store(t, s)
	all[1].spoil(t, s)
	for _, path := range []string{s.dir.quarantine(), s.dir.manifests(), s.dir.pins()} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Check(t.Context(), all[1].sum(), nil); got != CheckQuarantined {
		t.Errorf("Check = %q, %v", got, err)
	}
	if down, hampered := s.Look(); down != nil || hampered != nil {
		t.Errorf("Look: %v, %v", down, hampered)
	}
	all[0].store(t, s)
	if _, err := s.Manifest(all[0].blob.Image); err != nil {
		t.Error(err)
	}
	if s = reopenLater(t, s); !s.Pinned()[pinned] {
		t.Error("the pin is lost")
	}
}

// Copies of manifests that were removed are written again by the next request.
func TestCopiesRemoved(t *testing.T) {
	s := openStore(t, Options{})
	m := newSample(t, 1, 1000, nil)
	m.store(t, s)
	if err := os.RemoveAll(s.dir.manifests()); err != nil {
		t.Fatal(err)
	}
	if down, hampered := s.Look(); down != nil || hampered != nil {
		t.Errorf("Look: %v, %v", down, hampered)
	}
	wantData(t, s, m.blob, m.data, Hit)
	if _, err := s.Manifest(m.blob.Image); err != nil {
		t.Error(err)
	}
}

// Run looks by itself.
func TestRunLooks(t *testing.T) {
	s := openStore(t, Options{})
	if err := os.Rename(s.dir.files(), s.dir.files()+".away"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for s.Health() == nil {
		select {
		case err := <-done:
			t.Fatal(err)
		default:
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := os.Rename(s.dir.files()+".away", s.dir.files()); err != nil {
		t.Fatal(err)
	}
}

// A disk that fails requests is not ready, although its folders look well, until a try of it
// goes through; one that fails a single file is.
func TestDiskFails(t *testing.T) {
	s := openStore(t, Options{})
	one := newSample(t, 1, 1000, nil)
	one.store(t, s)
	s.Idle()
	broken := errors.New("input/output error")
	s.tryDisk = func(string) error { return broken }
	if down, hampered := s.Look(); down != nil || hampered != nil {
		t.Errorf("before any request: %v, %v", down, hampered)
	}
	parent := filepath.Dir(s.dir.file(one.sum()))
	if err := errors.Join(os.Rename(parent, parent+".away"), os.WriteFile(parent, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	_, _, err := get(s, one.blob, one.src)
	wantError(t, err, ErrDisk)
	for range 2 {
		down, _ := s.Look()
		wantError(t, down, ErrDisk)
		wantError(t, s.Health(), ErrDisk)
	}
	s.tryDisk = tryDisk
	if down, _ := s.Look(); down != nil || s.Health() != nil {
		t.Errorf("a disk that works again: %v, %v", down, s.Health())
	}
}
