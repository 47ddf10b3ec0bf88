package eventloop

import (
	"bytes"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fileTurn is how many bytes of a file a loop sends before the next connection has its turn.
const fileTurn = 128 << 10

// sendWithFile sends r. The last reply of r ends with a file.
func (l *loop) sendWithFile(c *Conn, r *Replies, now time.Time) {
	sent, errno := sendSome(c.fd, r.Bytes, unix.MSG_MORE)
	if errno != 0 {
		l.finish(c, os.NewSyscallError("send", errno))
		return
	}
	c.rest = rest{file: r.File.File, left: r.File.Size, close: r.Then == Close}
	if sent < len(r.Bytes) {
		c.rest.before = bytes.Clone(r.Bytes[sent:])
	}
	c.until = now.Add(r.File.Time)
	l.sendRest(c, now)
}

// sendRest sends what the kernel has room for of c's rest, a turn at most, and waits for more room or for the next
// request.
func (l *loop) sendRest(c *Conn, now time.Time) {
	r := &c.rest
	if len(r.before) > 0 {
		sent, errno := sendSome(c.fd, r.before, unix.MSG_MORE)
		if errno != 0 {
			l.finish(c, os.NewSyscallError("send", errno))
			return
		}
		r.before = r.before[sent:]
	}
	if len(r.before) == 0 {
		sent, errno := sendFile(c.fd, int(r.file.Fd()), &r.offset, min(r.left, fileTurn)) //nolint:gosec // descriptors are small
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
		case errno != 0:
			l.finish(c, os.NewSyscallError("sendfile", errno))
			return
		case sent == 0:
			l.finish(c, io.ErrUnexpectedEOF)
			return
		default:
			r.left -= int64(sent)
		}
	}
	if r.left > 0 {
		if !r.watched {
			r.watched = true
			l.await(c, unix.EPOLLOUT)
		}
		return
	}
	if r.watched && !r.close {
		l.await(c, unix.EPOLLIN)
	}
	last := r.close
	c.rest = rest{}
	if last {
		l.conclude(c)
		return
	}
	c.until = now.Add(l.o.Idle)
	l.o.Answered(c)
}

// await has the loop told of other events of c.
func (l *loop) await(c *Conn, events uint32) {
	// c is watched, and open: there is no error.
	_ = unix.EpollCtl(l.poll, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: events, Fd: int32(c.fd)}) //nolint:gosec // descriptors are small
}
