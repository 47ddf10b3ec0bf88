// Package media has bundles on what carries them: a folder, a tar, a tar for each volume, a pipe.
package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgmirror/cache/bundle"
	"imgmirror/cache/disk"
	"imgmirror/cmd/imgmirror/failure"
)

// Output is where a bundle is written to. Its errors have codes.
type Output interface {
	// Name is what a person calls the output.
	Name() string
	// Lock keeps other exports out of there; a caller locks before any of what follows.
	Lock() (unlock func(), err error)
	// Unfinished gives the head of what an earlier export has left there; nil: nothing.
	Unfinished() (*bundle.Head, error)
	// Complete tells whether all of the bundle that Unfinished gave is there.
	Complete(h bundle.Head) (bool, error)
	// Write writes a volume, or what is missing of the volume, and tells where the volume is.
	// progress is called with the bytes of the volume that are there.
	Write(ctx context.Context, h bundle.Head, c bundle.Content, progress func(int64)) (path string, err error)
}

// NewOutput is the output at path: a folder, a tar, or out when path is "-". Nothing is opened.
func NewOutput(path string, out io.Writer) Output {
	if path == "-" {
		return stdout{out}
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() || strings.HasSuffix(path, string(os.PathSeparator)) {
		return folderOutput(filepath.Clean(path))
	}
	return tarOutput(path)
}

// stdout is a bundle on standard output: all of it at once.
type stdout struct{ to io.Writer }

func (stdout) Name() string                      { return "bundle" }
func (stdout) Lock() (func(), error)             { return func() {}, nil }
func (stdout) Unfinished() (*bundle.Head, error) { return nil, nil }

func (stdout) Complete(bundle.Head) (bool, error) { return false, nil }

func (o stdout) Write(ctx context.Context, h bundle.Head, c bundle.Content, progress func(int64)) (string, error) {
	return "-", bundle.Write(ctx, o.to, h, 0, c, progress)
}

// folderOutput is a bundle's tree in a folder.
type folderOutput string

func (o folderOutput) Name() string { return filepath.Base(string(o)) }

// folderLock is the file that is locked, and there, while a folder is written to.
const folderLock = ".imgmirror-lock"

func (o folderOutput) Lock() (func(), error) {
	if err := disk.MakeFolder(string(o)); err != nil {
		return nil, err
	}
	path := filepath.Join(string(o), folderLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		os.Remove(path) //nolint:errcheck // an unlocked file is no lock
		f.Close()
	}, nil
}

// lockFile keeps other processes from f, until it is closed.
func lockFile(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return failure.New("Busy", "%s is being written by another process", f.Name())
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	is, err := f.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Stat(f.Name()); err != nil || !os.SameFile(is, named) { // the process that had the lock has ended its work
		return failure.New("Busy", "%s was being written by another process until now", f.Name())
	}
	return nil
}

func (o folderOutput) Unfinished() (*bundle.Head, error) {
	_, err := os.Stat(filepath.Join(string(o), bundle.WebName)) // the first file behind the head
	if errors.Is(err, fs.ErrNotExist) {
		return nil, o.clear()
	}
	if err != nil {
		return nil, err
	}
	media, err := bundle.Open(string(o))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.New("FileExists", "%s is not empty, and holds no bundle", o)
	}
	if err != nil {
		return nil, err
	}
	return &bundle.Head{Index: media.Index, Volume: media.Volumes[0], Sig: media.Sig}, nil
}

func (o folderOutput) Complete(h bundle.Head) (bool, error) {
	for _, h := range Volumes(h) {
		f, err := o.open(h)
		if err != nil {
			return false, err
		}
		entries := h.Entries()
		last := entries[len(entries)-1]
		if begun := f.Offset(); f.Close() != nil || begun < last.Data+last.Size {
			return false, nil
		}
	}
	return true, nil
}

// Volumes gives the heads of all volumes of the bundle that h is the head of a volume of.
func Volumes(h bundle.Head) []bundle.Head {
	heads := make([]bundle.Head, h.Index.Volumes)
	for i := range heads {
		heads[i] = bundle.Head{Index: h.Index, Volume: i + 1, Sig: h.Sig}
	}
	return heads
}

// clear removes what an export left that ended before its first manifest.
func (o folderOutput) clear() error {
	entries, err := os.ReadDir(string(o))
	for _, e := range entries {
		if bundle.IsHeadName(e.Name()) {
			err = errors.Join(err, os.Remove(filepath.Join(string(o), e.Name())))
		}
	}
	return err
}

func (o folderOutput) Write(ctx context.Context, h bundle.Head, c bundle.Content, progress func(int64)) (string, error) {
	f, err := o.open(h)
	if err != nil {
		return "", err
	}
	if err := bundle.Write(ctx, f, h, f.Offset(), c, progress); err != nil {
		f.Close() //nolint:errcheck // the error of the volume is told
		return "", err
	}
	return string(o), f.Close()
}

// open opens the folder to be written to.
func (o folderOutput) open(h bundle.Head) (*bundle.Folder, error) {
	f, err := bundle.NewFolder(string(o), h)
	if errors.Is(err, fs.ErrExist) {
		return nil, &failure.Error{Code: "FileExists", Err: err}
	}
	return f, err
}

// tarOutput is a tar, or one for each volume. A tar that is not complete has partialSuffix behind
// its name.
type tarOutput string

const partialSuffix = ".partial"

func (o tarOutput) Name() string { return filepath.Base(string(o)) }

// lock does nothing: each volume is locked as it is written.
func (o tarOutput) Lock() (func(), error) { return func() {}, nil }

// path is where a volume is written to.
func (o tarOutput) path(volume, of int) string {
	if of == 1 {
		return string(o)
	}
	ext := filepath.Ext(string(o))
	return fmt.Sprintf("%s.%03d%s", strings.TrimSuffix(string(o), ext), volume, ext)
}

func (o tarOutput) Unfinished() (*bundle.Head, error) {
	ext := filepath.Ext(string(o))
	volumes, err := filepath.Glob(escapeGlob(strings.TrimSuffix(string(o), ext)) + ".[0-9][0-9][0-9]" + escapeGlob(ext))
	if err != nil {
		return nil, err
	}
	partials, err := filepath.Glob(escapeGlob(strings.TrimSuffix(string(o), ext)) + ".[0-9][0-9][0-9]" + escapeGlob(ext+partialSuffix))
	if err != nil {
		return nil, err
	}
	for _, path := range slices.Concat([]string{string(o)}, volumes) {
		h, err := headOf(path)
		switch {
		case err == nil:
			return &h, nil
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, bundle.ErrInvalid):
			return nil, failure.New("FileExists", "%s is there already, and is no bundle", path)
		default:
			return nil, err
		}
	}
	for _, path := range slices.Concat([]string{string(o) + partialSuffix}, partials) {
		if h, err := headOf(path); err == nil {
			return &h, nil
		}
	}
	return nil, nil
}

func (o tarOutput) Complete(h bundle.Head) (bool, error) {
	for _, h := range Volumes(h) {
		info, err := os.Stat(o.path(h.Volume, h.Index.Volumes))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil || info.Size() != h.Size() {
			return false, err
		}
	}
	return true, nil
}

// escapeGlob makes a pattern of a name.
func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}

func headOf(path string) (bundle.Head, error) {
	info, err := os.Stat(path)
	if err != nil {
		return bundle.Head{}, err
	}
	if !info.Mode().IsRegular() { // opening a pipe might wait for ever
		return bundle.Head{}, failure.New("FileExists", "%s is no regular file (%s): \"-\" is standard output", path, info.Mode().Type())
	}
	f, err := os.Open(path)
	if err != nil {
		return bundle.Head{}, err
	}
	defer f.Close()
	return bundle.ReadHead(f)
}

func (o tarOutput) Write(ctx context.Context, h bundle.Head, c bundle.Content, progress func(int64)) (string, error) {
	path := o.path(h.Volume, h.Index.Volumes)
	if there, err := headOf(path); err == nil {
		if info, err := os.Stat(path); err != nil || info.Size() != h.Size() || !sameHead(there, h) {
			return "", failure.New("FileExists", "%s is there already, and is another bundle", path)
		}
		return path, nil
	}
	partial := path + partialSuffix
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	err = fillTar(ctx, f, h, c, progress)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(partial, path) // as long as it is locked
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return path, disk.SyncFolder(filepath.Dir(path))
}

// fillTar writes what f lacks of a volume's tar.
func fillTar(ctx context.Context, f *os.File, h bundle.Head, c bundle.Content, progress func(int64)) error {
	if err := lockFile(f); err != nil {
		return err
	}
	there, err := bundle.ReadHead(f)
	if err != nil || !sameHead(there, h) { // there is no head, or another
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	from, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return bundle.Write(ctx, f, h, from, c, progress)
}

func sameHead(a, b bundle.Head) bool {
	return a.Volume == b.Volume && bytes.Equal(a.Index.Bytes(), b.Index.Bytes()) && bytes.Equal(a.Sig, b.Sig)
}
