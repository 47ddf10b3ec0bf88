package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock is tried that another process holds. The system's
// own way to wait for one can not be given up.
const lockPoll = 200 * time.Millisecond

// held are the locks that this process has, by path; a channel is closed when its
// lock is given back. It is one for the process since such locks are: a second
// one on the same file would be granted, and the first lost with it.
var held = struct {
	mu    sync.Mutex
	paths map[string]chan struct{}
}{paths: make(map[string]chan struct{})}

// importLock is imgadm's lock of one image: a write lock on an empty file that is
// never removed.
type importLock struct {
	f    *os.File
	path string
}

// lock takes the image's import lock. While another has it: with wait, it waits
// until ctx ends; else the error matches ErrLocked. Who has one lock may take only
// those of the images below: imgadm takes its locks from the top of a chain to the base.
func (im *Importer) lock(ctx context.Context, id uuid.UUID, wait bool) (*importLock, error) {
	path := filepath.Join(im.o.LockDir, "img."+id.String()+".import.lock")
	for {
		other := reserve(path)
		if other == nil {
			break
		}
		if !wait {
			return nil, ErrLocked
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another import of the image to end: %w", context.Cause(ctx))
		case <-other:
		}
	}
	l := &importLock{path: path}
	if err := l.acquire(ctx, wait); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// reserve takes path for this process, or gives what to wait for.
func reserve(path string) (other <-chan struct{}) {
	held.mu.Lock()
	defer held.mu.Unlock()
	if c, ok := held.paths[path]; ok {
		return c
	}
	held.paths[path] = make(chan struct{})
	return nil
}

func (l *importLock) acquire(ctx context.Context, wait bool) (err error) {
	if l.f, err = os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return fmt.Errorf("imgadm's import lock: %w", err)
	}
	for {
		err := unix.FcntlFlock(l.f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
			return fmt.Errorf("lock %s: %w", l.path, err)
		case !wait:
			return ErrLocked
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for lock %s: %w", l.path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// release gives the lock back.
func (l *importLock) release() {
	if l.f != nil {
		l.f.Close() // and with it goes the lock
	}
	held.mu.Lock()
	defer held.mu.Unlock()
	close(held.paths[l.path])
	delete(held.paths, l.path)
}
