//go:build !linux

package sender

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// Sender is for Linux.
type Sender struct{}

// New fails: the error matches ErrUnsupported.
func New(Options) (*Sender, error) {
	return nil, fmt.Errorf("sender: no loops on %s: %w", runtime.GOOS, ErrUnsupported)
}

// Close has nothing to end.
func (*Sender) Close() {}

// Send fails: the error matches ErrUnsupported.
func (*Sender) Send(<-chan struct{}, syscall.RawConn, *os.File, int64, int64) (int64, error) {
	return 0, ErrUnsupported
}
