package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"imgmirror/cache/disk"
)

// unfinished is what the file in flight is called until it is complete. It
// cannot be the name of anything in a bundle.
const unfinished = ".imgmirror-unfinished"

// Folder unpacks the tar of a volume as it is written to it. A file has its
// name once it is complete and on disk; whatever ends the process, another
// Folder goes on with the file that was in flight.
type Folder struct {
	root   *os.Root
	cursor          // behind what is complete
	file   *os.File // of entries[0]; nil: not open
	err    error
}

// NewFolder makes dir, if it is not there, the folder of a bundle, or goes on
// with one that broke off: what Write is to be told as from is Offset. Another
// bundle's folder is refused. Several volumes may be unpacked into one folder.
func NewFolder(dir string, h Head) (*Folder, error) {
	if err := disk.MakeFolder(dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{root: root, cursor: newCursor(h)}
	if err := f.survey(); err != nil {
		root.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return f, nil
}

// survey finds what is complete: the first entries of which a file of the right
// size is there. Index and signature must be the same.
func (f *Folder) survey() error {
	for len(f.entries) > 0 {
		e := f.entries[0]
		info, err := f.root.Lstat(filepath.FromSlash(e.Path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return f.removeUnfinished()
		case err != nil:
			return err
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s: is no regular file (%s)", e.Path, info.Mode().Type())
		}
		if same, err := f.same(e, info.Size()); err != nil {
			return err
		} else if !same {
			return fmt.Errorf("%s: is that of another bundle: %w", e.Path, fs.ErrExist)
		}
		f.next()
	}
	return f.removeUnfinished()
}

func (f *Folder) removeUnfinished() error {
	if err := f.root.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// same tells that the file that is there is e, by its bytes where they are known.
func (f *Folder) same(e Entry, size int64) (bool, error) {
	if size != e.Size {
		return false, nil
	}
	var want []byte
	switch {
	case e.Path == IndexName:
		want = f.head.Index.raw
	case e.Path == SignatureName:
		want = f.head.Sig
	case e.Image < 0 && e.Path != WebName:
		want = f.head.sums()
	default:
		return true, nil
	}
	is, err := readSmall(f.root, e.Path, size)
	return bytes.Equal(is, want), err
}

// Offset is the place in the tar from which on bytes are to be written.
func (f *Folder) Offset() int64 { return f.at }

// Write takes the tar's next bytes. After an error there is no more to be done than Close.
func (f *Folder) Write(b []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	done := 0
	for done < len(b) {
		n, err := f.take(b[done:])
		done += n
		if err != nil {
			f.err = err
			return done, err
		}
	}
	return done, nil
}

// take takes bytes of one kind: of a header, a file, padding or the end.
func (f *Folder) take(b []byte) (n int, err error) {
	switch rest, of := f.fixed(); {
	case len(f.entries) == 0 || len(rest) > 0:
		n = min(len(b), len(rest))
		if n == 0 || !bytes.Equal(b[:n], rest[:n]) {
			return 0, fmt.Errorf("%s: byte %d of the tar is not what it should be", of, f.at)
		}
	default:
		if f.file == nil {
			if f.file, err = f.root.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
				return 0, err
			}
		}
		e := f.entries[0]
		n, err = f.file.Write(b[:min(int64(len(b)), e.Data+e.Size-f.at)])
	}
	f.at += int64(n)
	if err == nil && len(f.entries) > 0 && f.at == f.entries[0].end() {
		err = f.finish(f.entries[0])
	}
	return n, err
}

// finish gives the file in flight its name, once it is on disk.
func (f *Folder) finish(e Entry) error {
	err := f.file.Sync()
	err = errors.Join(err, f.file.Close())
	f.file = nil
	if err != nil {
		return err
	}
	name := filepath.FromSlash(e.Path)
	folder := filepath.Dir(name)
	if folder != "." {
		err := f.root.Mkdir(folder, 0o755)
		if err == nil {
			err = f.sync(".")
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := f.root.Rename(unfinished, name); err != nil {
		return err
	}
	f.next()
	return f.sync(folder)
}

// sync makes the names in folder last.
func (f *Folder) sync(folder string) error {
	d, err := f.root.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Close ends the Folder. It is an error if bytes are missing.
func (f *Folder) Close() error {
	if f.file != nil {
		f.file.Close()
	}
	err := f.root.Close()
	if f.err == nil && len(f.entries) > 0 {
		return fmt.Errorf("%s is not complete: %w", f.entries[0].Path, errors.Join(errShort, err))
	}
	return errors.Join(f.err, err)
}

var errShort = errors.New("the tar ended too early")
