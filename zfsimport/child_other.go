//go:build !linux

package zfsimport

import "syscall"

// childAttributes put a child into a process group of its own, which is killed as
// one. When we are killed it goes on, but its input ends, which ends it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
