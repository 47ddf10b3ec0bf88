//go:build darwin || freebsd

package cache

import "golang.org/x/sys/unix"

const readOnlyFlag = unix.MNT_RDONLY
