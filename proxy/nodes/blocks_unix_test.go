//go:build unix

package nodes

import (
	"io/fs"
	"syscall"
)

// blocks is what a file takes on the disk.
func blocks(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(stat.Blocks) * 512 //nolint:unconvert // another type elsewhere
	}
	return info.Size()
}
