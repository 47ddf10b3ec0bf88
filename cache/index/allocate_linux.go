package index

import (
	"os"

	"golang.org/x/sys/unix"
)

// preallocate gives the first size bytes of f blocks of their own.
func preallocate(f *os.File, size int64) error {
	return unix.Fallocate(int(f.Fd()), 0, 0, size)
}
