package eventloop

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of a loop never wait, but for a file that the kernel has swapped out, so Go's scheduler is not
// told of the calls: telling costs time at each call (BenchmarkCalls). A call may hold up the collection of garbage
// for as long as the kernel takes to copy a few replies, or to send fileTurn bytes of a file.

// receive reads what has arrived, and takes nothing away with MSG_PEEK.
func receive(fd int, b []byte, flags int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
	return int(n), errno //nolint:gosec // at most len(b)
}

// send sends the part of b that the kernel has room for. With MSG_MORE the kernel may wait for further bytes.
func send(fd int, b []byte, flags int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT), 0, 0)
	return int(n), errno //nolint:gosec // at most len(b)
}

// sendFile sends n bytes of a file from offset on, or the part that the kernel has room for, and moves offset. fd
// does not block.
func sendFile(fd, file int, offset *int64, n int64) (int, unix.Errno) {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDFILE, uintptr(fd), uintptr(file), uintptr(unsafe.Pointer(offset)), uintptr(n), 0, 0)
	return int(sent), errno //nolint:gosec // at most n
}

// ready gives the events that are there.
func ready(poll int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if errno != 0 { // a signal
		return 0
	}
	return int(n) //nolint:gosec // at most len(events)
}
