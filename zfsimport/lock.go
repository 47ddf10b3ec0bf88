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

// lockPoll is the pause between tries on a lock of another process. The system's own wait for a lock
// does not end with a context.
const lockPoll = 200 * time.Millisecond

// held are the locks of this process by path; a channel is closed with the release of its lock. The
// system's locks belong to the process, and so does held: the system grants a second lock on the same
// file, and takes the first away with the second.
var held = struct {
	mu    sync.Mutex
	paths map[string]chan struct{}
}{paths: make(map[string]chan struct{})}

// importLock is imgadm's lock of one image: a write lock on an empty file, which stays for good.
type importLock struct {
	f    *os.File
	path string
}

// lock takes the image's import lock. While another import has the lock, the result is an error that
// matches ErrLocked; with wait, lock waits until ctx ends. The holder of a lock may take only the
// locks of the images below: imgadm takes its locks from the top of a chain to the base.
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

// reserve takes path for this process, or gives the channel of the lock that has path.
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
		l.f.Close() // the lock goes with the file
	}
	held.mu.Lock()
	defer held.mu.Unlock()
	close(held.paths[l.path])
	delete(held.paths, l.path)
}
