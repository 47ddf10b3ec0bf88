package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"imgmirror/proxy/meaning"
)

// Bounds of Options.DistDir.
const (
	// maxPrograms is how many files a list of sums has; the first in the order of names.
	maxPrograms = 64
	// maxProgramName bounds a file's name: a list of sums stays a small body.
	maxProgramName = 128
	// sumsTimeout bounds the wait for a list of sums: all files are read after a change of each.
	sumsTimeout = 5 * time.Minute
)

// sumsName is the list of sums in sha256sum's form: the operator's file, else the mirror makes it.
const sumsName = "SHA256SUMS"

// sendProgram answers GET /dist/NAME with the regular file NAME of Options.DistDir. Folders, links,
// hidden files and all below folders are not there. There is no list but SHA256SUMS.
func (s *Server) sendProgram(req *request) error {
	name := req.segs[1]
	f, info, err := openProgram(s.opts.DistDir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && name == sumsName:
		return s.sendSums(req)
	case errors.Is(err, fs.ErrNotExist):
		return notFound("%s does not exist", req.path)
	case err != nil:
		return fmt.Errorf("dist_dir: %w", err)
	}
	req.setKey(hdrTypeOptions, valueNosniff)
	req.setKey(hdrContentType, typeOctetStream)
	if name == sumsName {
		req.setKey(hdrContentType, typeText)
	}
	req.setLastModified(info.ModTime())
	done, err := req.condition(validators{modified: info.ModTime()})
	if done || req.ctx.IsHead() {
		f.Close()
		if !done {
			req.ctx.Response.Header.SetContentLength(int(info.Size()))
		}
		return err
	}
	body := &programBody{server: s, conn: req.ctx.Conn(), file: f, left: info.Size(), record: req.record}
	req.ctx.Response.SetBodyStream(body, int(info.Size()))
	return nil
}

// openProgram opens a regular file of a folder; fs.ErrNotExist for all else that the name may mean.
func openProgram(dir, name string) (*os.File, fs.FileInfo, error) {
	if !isProgram(name) {
		return nil, nil, fs.ErrNotExist
	}
	path := filepath.Join(dir, name)
	before, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fs.ErrNotExist
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(before, info) { // replaced by something else meanwhile
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// isProgram tells whether a name is one that DistDir may have: no path, no hidden file.
func isProgram(name string) bool {
	return name != "" && len(name) <= maxProgramName && name[0] != '.' &&
		strings.Trim(name, letters+"0123456789._+~-") == ""
}

// programBody is the body of a reply with a file of DistDir. Close ends the request.
type programBody struct {
	server *Server
	conn   net.Conn
	file   *os.File
	left   int64
	sent   int64
	err    error
	record *record
}

// WriteTo sends the body by sendfile, as fileBody does. A file that became shorter ends the
// connection early.
func (b *programBody) WriteTo(w io.Writer) (int64, error) {
	for b.left > 0 {
		n := min(b.left, step)
		if err := b.conn.SetWriteDeadline(time.Now().Add(b.server.opts.ClientStall)); err != nil {
			return b.sent, b.fail(fmt.Errorf("client: %w", err))
		}
		sent, err := io.Copy(w, &io.LimitedReader{R: b.file, N: n})
		b.sent += sent
		b.left -= sent
		if err == nil && sent < n {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return b.sent, b.fail(err)
		}
	}
	return b.sent, nil
}

// Read makes the body an io.Reader, as fasthttp demands; fasthttp itself uses WriteTo.
func (b *programBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.file.Read(p[:min(int64(len(p)), b.left)])
	b.sent += int64(n)
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, b.fail(err)
}

func (b *programBody) fail(err error) error {
	b.err = err
	return err
}

func (b *programBody) Close() error {
	err := b.file.Close()
	if b.left > 0 && b.err == nil {
		b.err = errNotSent
	}
	b.server.finish(b.record, b.sent, b.err)
	return err
}

// sums are the sha256 of the files of DistDir: each file is read once after each change. One request
// at a time reads.
type sums struct {
	turn  chan struct{}
	known map[string]sum // by name; for the holder of the turn
}

// sum is the sha256 of a file that looks like info.
type sum struct {
	info fs.FileInfo
	hex  string
}

func (s *sums) init() {
	s.turn = make(chan struct{}, 1)
	s.known = make(map[string]sum)
}

// sendSums answers with the list that the mirror makes.
func (s *Server) sendSums(req *request) error {
	w := s.wait(s.base, req, sumsTimeout)
	defer req.endWait(w)
	text, err := s.sums.of(w, s.opts.DistDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notFound("%s does not exist", req.path)
	case w.Err() != nil:
		return &apiError{status: 503, code: meaning.Unavailable, cause: err,
			message: "the sums are being made: ask again later"}
	case err != nil:
		return fmt.Errorf("dist_dir: %w", err)
	}
	req.setKey(hdrTypeOptions, valueNosniff)
	req.setKey(hdrContentType, typeText)
	req.ctx.Response.SetBodyString(text)
	return nil
}

// of gives a line of sha256sum for each file of dir that sendProgram sends.
func (s *sums) of(ctx context.Context, dir string) (string, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-s.turn }()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	known := make(map[string]sum)
	var lines strings.Builder
	for _, e := range entries {
		name := e.Name()
		if !isProgram(name) || !e.Type().IsRegular() || len(known) == maxPrograms {
			continue
		}
		sum, err := s.one(ctx, dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			s.keep(known)
			return "", err
		}
		known[name] = sum
		fmt.Fprintf(&lines, "%s  %s\n", sum.hex, name)
	}
	s.known = known
	return lines.String(), nil
}

// keep remembers what a reading that broke off has found.
func (s *sums) keep(found map[string]sum) {
	for name, sum := range found {
		s.known[name] = sum
	}
}

// one gives the sum of a file, which is read if it is not the file that was read last.
func (s *sums) one(ctx context.Context, dir, name string) (sum, error) {
	f, info, err := openProgram(dir, name)
	if err != nil {
		return sum{}, err
	}
	defer f.Close()
	last, ok := s.known[name]
	if ok && os.SameFile(last.info, info) && last.info.Size() == info.Size() &&
		last.info.ModTime().Equal(info.ModTime()) {
		return last, nil
	}
	h := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return sum{}, err
		}
		n, err := io.CopyN(h, f, step)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sum{}, fmt.Errorf("read %s after %d bytes: %w", name, n, err)
		}
	}
	return sum{info: info, hex: hex.EncodeToString(h.Sum(nil))}, nil
}
