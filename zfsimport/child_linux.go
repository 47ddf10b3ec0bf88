package zfsimport

import "syscall"

// childAttributes put a child into a process group of its own, which is killed as
// one, and let it die with us.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
