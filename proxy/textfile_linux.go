package proxy

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// mostInFile is the size of the largest text that the event loops send. A larger one is worth a goroutine, and is not
// in memory twice.
const mostInFile = 1 << 20

// textFile is a prepared text in a file without a name, in memory, from which sendfile(2) takes no copy.
type textFile struct {
	mu   sync.Mutex
	file *os.File // closed by the garbage collector: a loop may send from the file until then
}

// listFile is the file that has text, the text of t; nil where there is none. The first call makes the file.
func (s *Server) listFile(t *sharedText, text []byte) *os.File {
	if len(text) > mostInFile {
		return nil
	}
	t.file.mu.Lock()
	defer t.file.mu.Unlock()
	if t.file.file == nil {
		f, err := inFile(text)
		if err != nil {
			s.noFile.Do(func() { s.log.Warn("lists are slower: there is no file for them in memory", "error", err) })
			return nil
		}
		t.file.file = f
		t.inFiles.Store(int64(len(text)))
	}
	return t.file.file
}

// inFile makes a file in memory with that text.
func inFile(text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("list", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("list", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "list") //nolint:gosec // a descriptor
	if _, err := f.Write(text); err != nil {
		_ = f.Close() // a file that is not needed
		return nil, err
	}
	return f, nil
}
