package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"imgmirror/verify"
)

// Media is a bundle on disk: the tar of one volume, or a folder with what one or more of them held.
type Media struct {
	Index   Index
	Sig     []byte // nil: unsigned
	Volumes []int  // those that are there

	path   string
	folder bool
	heads  []Head // one for each of Volumes
}

// Open looks at the bundle at path. It reads the index, the list of sums and the
// signature, and judges them as Read does.
func Open(path string) (*Media, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		m := &Media{path: path, folder: true}
		if err := m.readFolder(root); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return m, nil
	}
	if !info.Mode().IsRegular() { // it is opened more than once
		return nil, invalid(path, "is no regular file (%s)", info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := ReadHead(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Media{Index: h.Index, Sig: h.Sig, Volumes: []int{h.Volume}, path: path, heads: []Head{h}}, nil
}

// Volume opens the tar of a volume that is there. Of a folder it is made as it is
// read: a file that is missing, or of another size, is an error at its place. What
// else lies in the folder is not looked at. The reader can Seek forward.
func (m *Media) Volume(n int) (io.ReadSeekCloser, error) {
	i := slices.Index(m.Volumes, n)
	if i < 0 {
		return nil, fmt.Errorf("%s: volume %d is not in it: %w", m.path, n, fs.ErrNotExist)
	}
	if !m.folder {
		return os.Open(m.path)
	}
	root, err := os.OpenRoot(m.path)
	if err != nil {
		return nil, err
	}
	return &folderTar{root: root, cursor: newCursor(m.heads[i])}, nil
}

// readFolder takes in what lies in the folder.
func (m *Media) readFolder(root *os.Root) error {
	index, err := readSmall(root, IndexName, maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, IndexName, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	if m.Index, err = ParseIndex(index); err != nil {
		return err
	}
	m.Sig, err = readSmall(root, SignatureName, maxSignature)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for v := 1; v <= m.Index.Volumes; v++ {
		h := Head{Index: m.Index, Volume: v, Sig: m.Sig}
		sums, err := readSmall(root, sumsName(v, m.Index.Volumes), int64(len(h.sums())+maxText))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if h.Sig != nil && !bytes.Contains(sums, []byte("  "+SignatureName+"\n")) {
			h.loose = true // signed after it was written
		}
		if err := checkSums(h, sums); err != nil {
			return err
		}
		m.Volumes, m.heads = append(m.Volumes, v), append(m.heads, h)
	}
	if len(m.Volumes) == 0 {
		return fmt.Errorf("%s: %w", sumsName(1, m.Index.Volumes), fs.ErrNotExist)
	}
	return nil
}

func readSmall(root *os.Root, name string, limit int64) ([]byte, error) {
	f, size, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, invalid(name, "%d bytes, must be %d at most", size, limit)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = invalid(name, "more than %d bytes", limit)
	}
	return b, err
}

// openRegular opens a regular file. A link, also one that stays in the folder,
// is refused, and so is what could block.
func openRegular(root *os.Root, name string) (*os.File, int64, error) {
	info, err := root.Lstat(name)
	var system syscall.Errno
	if err != nil && !errors.As(err, &system) { // os.Root's own: a link leads out of the folder
		return nil, 0, invalid(name, "%v", err)
	}
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, invalid(name, "is no regular file (%s)", info.Mode().Type())
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = invalid(name, "is no regular file (%s)", info.Mode().Type())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// folderTar reads a folder as the tar of one of its volumes.
type folderTar struct {
	root *os.Root
	cursor
	file *os.File // of entries[0]; nil: not open
}

// Read gives the next bytes.
func (t *folderTar) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for len(t.entries) > 0 && t.at >= t.entries[0].end() {
		t.close()
		t.next()
	}
	rest, _ := t.fixed()
	n := copy(b, rest)
	switch {
	case n > 0:
		t.at += int64(n)
		return n, nil
	case len(t.entries) == 0:
		return 0, io.EOF
	}
	e := t.entries[0]
	if t.file == nil {
		if err := t.open(e); err != nil {
			return 0, err
		}
	}
	n, err := t.file.Read(b[:min(int64(len(b)), e.Data+e.Size-t.at)])
	t.at += int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%s: %w", e.Path, shorter(err))
}

func (t *folderTar) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

// open opens what e is made of: the part, or, where all parts were joined, that piece of the file.
func (t *folderTar) open(e Entry) error {
	path, size, from := e.Path, e.Size, t.at-e.Data
	f, is, err := openRegular(t.root, path)
	if errors.Is(err, fs.ErrNotExist) && e.Part >= 0 {
		whole := t.head.Index.Images[e.Image].Files[e.File]
		path, size, from = whole.Path, whole.Size, from+e.Begin
		f, is, err = openRegular(t.root, path)
	}
	if err != nil {
		return err
	}
	if is != size {
		f.Close()
		return fmt.Errorf("%s: %w: it has %d bytes, the index says %d", path, verify.ErrMismatch, is, size)
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		f.Close()
		return err
	}
	t.file = f
	return nil
}

// Seek goes forward from where the reader is; nothing else.
func (t *folderTar) Seek(n int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		n -= t.at
	} else if whence != io.SeekCurrent {
		n = -1
	}
	if n < 0 {
		return 0, errors.New("a folder can only be sought in forward")
	}
	if n > 0 {
		t.close()
		t.at += n
	}
	return t.at, nil
}

// Close ends the reader.
func (t *folderTar) Close() error {
	t.close()
	return t.root.Close()
}
