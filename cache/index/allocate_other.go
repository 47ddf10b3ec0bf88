//go:build !linux

package index

import (
	"errors"
	"os"
)

// preallocate gives the first size bytes of f blocks of their own, where the system can.
func preallocate(*os.File, int64) error { return errors.ErrUnsupported }
