//go:build darwin || freebsd

package disk

import "golang.org/x/sys/unix"

const readOnlyFlag = unix.MNT_RDONLY
