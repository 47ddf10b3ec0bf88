package zfsimport

import "syscall"

// childAttributes give a child a process group of its own, which is killed as one, and let the
// child end with this process.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
