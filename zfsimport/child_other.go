//go:build !linux

package zfsimport

import "syscall"

// childAttributes give a child a process group of its own, which is killed as one. The child goes on
// when this process is killed, until the end of its input.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
