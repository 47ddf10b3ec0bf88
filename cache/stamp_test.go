package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgmirror/cache/index"
	"imgmirror/verify"
)

// tick lets the file system's clock move on, so that a change shows in a stamp.
func tick(t testing.TB, path string) {
	t.Helper()
	probe := filepath.Join(filepath.Dir(path), ".tick")
	for before := time.Now(); ; {
		if err := os.WriteFile(probe, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(probe)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(probe); err != nil {
			t.Fatal(err)
		}
		if st.ModTime().After(before) {
			return
		}
	}
}

// A file that was changed on the disk, its size kept, is not given out: it goes to
// the quarantine and is filled again.
func TestFileIsChanged(t *testing.T) {
	const size = 300_000
	evil := noise(99, size)
	for name, change := range map[string]func(path string) error{
		"a few bytes": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("EVIL"), 1000)
			return errors.Join(err, f.Close())
		},
		"times put back": func(path string) error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, evil, 0o644), os.Chtimes(path, st.ModTime(), st.ModTime()))
		},
		"through mmap": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return err
			}
			m[5] ^= 1
			return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m), f.Close())
		},
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", evil, 0o644), os.Rename(path+".new", path))
		},
		"a pipe":   func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)) },
		"a folder": func(path string) error { return errors.Join(os.Remove(path), os.MkdirAll(path+"/x/y", 0o755)) },
		"a link": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", evil, 0o644), os.Remove(path), os.Symlink(path+".new", path))
		},
		"a broken link": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("nowhere", path)) },
		"a socket": func(path string) error {
			dir, err := os.MkdirTemp("", "s")
			if err != nil {
				return err
			}
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
			if err != nil {
				return err
			}
			ln.SetUnlinkOnClose(false)
			return errors.Join(os.Rename(filepath.Join(dir, "s"), path), ln.Close(), os.RemoveAll(dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			m := newSample(t, 1, size, nil)
			m.store(t, s)
			path := s.dir.file(m.sum())
			tick(t, path)
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			down := &fake{name: "a", reply: func(int, int64) reply { return reply{err: errors.New("down")} }}
			s.o.Patience = time.Millisecond
			_, _, err := get(s, m.blob, down)
			wantError(t, err, verify.ErrUnavailable, fs.ErrNotExist)
			m.store(t, s)
			wantData(t, s, m.blob, m.data, Hit)
			if in := quarantined(t, s); len(in) != 1 {
				t.Errorf("in quarantine: %v", in)
			}
			if s.Stats().Bytes() != size || s.Stats().Files != 1 {
				t.Errorf("account: %+v, %d files", s.Stats(), s.Stats().Files)
			}
		})
		t.Run(name+" before the start", func(t *testing.T) {
			s := openStore(t, Options{})
			m := newSample(t, 1, size, nil)
			m.store(t, s)
			path := s.dir.file(m.sum())
			closeStore(t, s)
			tick(t, path)
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			s = reopen(t, s)
			m.store(t, s)
			wantData(t, s, m.blob, m.data, Hit)
		})
		t.Run(name+" found by a check", func(t *testing.T) {
			var s *Store
			m := newSample(t, 1, size, nil)
			s = openStore(t, Options{Heal: healer(&s, m)})
			m.store(t, s)
			if err := change(s.dir.file(m.sum())); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Check(t.Context(), m.sum(), nil); got != CheckHealed {
				t.Errorf("Check = %q, %v", got, err)
			}
			wantData(t, s, m.blob, m.data, Hit)
		})
	}
}

// What changes the stamp and leaves the bytes costs one reading of the file, and no
// download; and a restart knows the new stamp.
func TestFileIsTouched(t *testing.T) {
	for name, touch := range map[string]func(path string) error{
		"touch": func(path string) error { return os.Chtimes(path, time.Now(), time.Unix(1e9, 0)) },
		"chmod": func(path string) error { return os.Chmod(path, 0o600) },
		"link":  func(path string) error { return os.Link(path, path+".backup") },
		"restore": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return errors.Join(os.Remove(path), os.WriteFile(path, data, 0o644))
		},
		"rewrite": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, data, 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			m := newSample(t, 1, 300_000, nil)
			m.store(t, s)
			checked := func() time.Time {
				f := s.Files()[0]
				return f.Checked
			}
			path, before := s.dir.file(m.sum()), checked()
			wantData(t, s, m.blob, m.data, Hit)
			if !checked().Equal(before) {
				t.Error("a file as it was published was hashed again")
			}
			tick(t, path)
			if err := touch(path); err != nil {
				t.Fatal(err)
			}
			wantData(t, s, m.blob, m.data, Hit)
			again := checked()
			if !again.After(before) {
				t.Error("the file was not hashed again")
			}
			wantData(t, s, m.blob, m.data, Hit)
			s = reopenLater(t, s)
			wantData(t, s, m.blob, m.data, Hit)
			if !checked().Equal(again) {
				t.Error("the file was hashed once more")
			}
			if in := quarantined(t, s); len(in) != 0 {
				t.Errorf("in quarantine: %v", in)
			}
		})
	}
}

// Clients that ask at the same time share one reading, and those who leave do not
// end it.
func TestHashedAgainOnce(t *testing.T) {
	s := openStore(t, Options{})
	m := newSample(t, 1, 3<<20, nil)
	m.store(t, s)
	tick(t, s.dir.file(m.sum()))
	if err := os.Chmod(s.dir.file(m.sum()), 0o600); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.File(gone, m.blob, nil); err != nil {
		wantError(t, err, context.Canceled)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			r, err := s.File(t.Context(), m.blob, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			r.SeekTo(1 << 20)
			r.Limit(1000)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, m.data[1<<20:1<<20+1000]) || r.Result() != Hit {
				t.Errorf("%s of %d bytes, %v", r.Result(), len(got), err)
			}
		})
	}
	all.Wait()
	// One who saw the old stamp and asks late finds the work done.
	s.mu.RLock()
	f := s.files[m.sum()]
	s.mu.RUnlock()
	before := f.checked.Load()
	if err := s.rehash(t.Context(), m.sum(), f); err != nil {
		t.Fatal(err)
	}
	if f.checked.Load() != before {
		t.Error("the file was hashed again for one who came late")
	}
}

// A record of an older version has no stamp: the file is served as it is, and has
// one from then on.
func TestRecordWithoutStamp(t *testing.T) {
	s := openStore(t, Options{})
	m := newSample(t, 1, 1000, nil)
	m.store(t, s)
	info, _ := s.Peek(m.blob)
	if err := s.index.Write(index.PutFile(index.File{Info: info})); err != nil {
		t.Fatal(err)
	}
	s = reopenLater(t, s)
	before := s.Files()[0].Checked
	wantData(t, s, m.blob, m.data, Hit)
	if !s.Files()[0].Checked.Equal(before) {
		t.Error("the file was hashed")
	}
	s = reopenLater(t, s)
	path := s.dir.file(m.sum())
	tick(t, path)
	if err := os.WriteFile(path, noise(9, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	m.store(t, s)
}

// A file without a record in whose place something else stands is not taken in.
func TestOrphanIsNoFile(t *testing.T) {
	s := openStore(t, Options{})
	m := newSample(t, 1, 1000, nil)
	m.store(t, s)
	if err := s.index.Write(index.DropFile(m.sum())); err != nil {
		t.Fatal(err)
	}
	s = reopenLater(t, s)
	path := s.dir.file(m.sum())
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	m.store(t, s)
	wantData(t, s, m.blob, m.data, Hit)
}

// failingSocket takes a file by ReadFrom, and says of the disk what sendfile says.
type failingSocket struct{ after int64 }

func (w failingSocket) Write(p []byte) (int, error) { return len(p), nil }

func (w failingSocket) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.CopyN(io.Discard, r, w.after)
	return n, errors.Join(err, os.NewSyscallError("sendfile", unix.EIO))
}

// A file that cannot be read to its end is brought anew for the next one who asks;
// one that a client did not take is not.
func TestUnreadableInTheMiddle(t *testing.T) {
	s := openStore(t, Options{})
	m := newSample(t, 1, 300_000, nil)
	m.store(t, s)
	send := func(w io.Writer) error {
		t.Helper()
		r, err := s.File(t.Context(), m.blob, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		n, err := r.Wait()
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.SendTo(w, n)
		return err
	}
	ours, theirs := net.Pipe()
	theirs.Close()
	if err := send(ours); err == nil {
		t.Error("sent to a client that has gone")
	}
	wantData(t, s, m.blob, m.data, Hit)
	wantError(t, send(failingSocket{70_000}), unix.EIO)
	m.store(t, s)
	wantData(t, s, m.blob, m.data, Hit)
	if in := quarantined(t, s); len(in) != 1 || failures(s, sourceDisk, whereUnreadable) != 1 {
		t.Errorf("in quarantine: %v, counted %d", in, failures(s, sourceDisk, whereUnreadable))
	}
}

// Settle waits for what clients have got whole, and for nothing else.
func TestSettle(t *testing.T) {
	s := openStore(t, Options{})
	m, never := newSample(t, 1, 1000, nil), newSample(t, 2, 300_000, nil)
	synced, goOn := make(chan struct{}), make(chan struct{})
	s.step = func(step string) {
		if step == "sync" {
			close(synced)
			<-goOn
		}
	}
	never.src.reply = func(int, int64) reply { return reply{stall: 1000} }
	r, err := s.File(t.Context(), never.blob, sources(never.src))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wantData(t, s, m.blob, m.data, Miss, m.src)
	<-synced
	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	wantError(t, s.Settle(late), context.DeadlineExceeded)
	close(goOn)
	if err := s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantData(t, s, m.blob, m.data, Hit)
}

// TestDamaged: what the disk says of a file's bytes is told from what it says of
// everything else.
func TestDamaged(t *testing.T) {
	f := func(err error, want bool) {
		t.Helper()
		if got := damaged(err); got != want {
			t.Errorf("damaged(%v) = %v", err, got)
		}
	}
	f(fmt.Errorf("read: %w", &fs.PathError{Op: "read", Path: "x", Err: unix.EIO}), true)
	f(os.NewSyscallError("sendfile", unix.EBADMSG), true)
	f(&fs.PathError{Op: "open", Path: "x", Err: unix.EACCES}, false)
	f(&fs.PathError{Op: "open", Path: "x", Err: unix.EMFILE}, false)
	f(unix.EPIPE, false)
	f(nil, false)
}
