package cache

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// openBodies are the bodies that fakes have given and the store has not closed yet. No two tests of the package run at
// once.
var openBodies = struct {
	sync.Mutex
	of      map[*fakeBody]string // the source
	watched bool                 // the end of a test looks at them
}{of: make(map[*fakeBody]string)}

func (b *fakeBody) opened() {
	openBodies.Lock()
	defer openBodies.Unlock()
	openBodies.of[b] = b.f.name
}

func (b *fakeBody) Close() error {
	openBodies.Lock()
	defer openBodies.Unlock()
	delete(openBodies.of, b)
	return nil
}

// wantBodiesClosed fails the test if at its end, when its stores are closed, a body of a fake is not.
func wantBodiesClosed(t testing.TB) {
	openBodies.Lock()
	defer openBodies.Unlock()
	if openBodies.watched { // by this test, or the one that this one is a part of
		return
	}
	openBodies.watched = true
	t.Cleanup(func() {
		openBodies.Lock()
		defer openBodies.Unlock()
		for _, source := range openBodies.of {
			t.Errorf("a body of source %s was not closed", source)
		}
		clear(openBodies.of)
		openBodies.watched = false
	})
}

// wantFilesClosed fails the test if a store that is closed has a file of its folder open, or a Reader holds a file.
func wantFilesClosed(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	for sum, file := range s.files {
		if n := file.hold.n.Load(); n != 0 {
			t.Errorf("file %s is held by %d readers that were not closed", sum, n)
		}
	}
	s.mu.Unlock()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil { // no Linux
		return
	}
	for _, fd := range fds {
		path, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err == nil && strings.HasPrefix(path, s.o.Dir+"/") && !strings.HasPrefix(path, s.dir.index()) { // a database that failed stays open
			t.Errorf("%s was not closed", path)
		}
	}
}
