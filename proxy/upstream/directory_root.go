package upstream

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"imgmirror/verify"
)

// errLeadsOut is matched for a link whose target lies outside of the folder.
var errLeadsOut = errors.New("the link leads out")

// outError is a link that is refused. It matches errLeadsOut and fs.ErrPermission.
type outError struct{ link, folder, to string }

func (e *outError) Error() string {
	return fmt.Sprintf("the link %s leads out of %s, to %s", e.link, e.folder, e.to)
}

func (e *outError) Is(target error) bool { return target == errLeadsOut || target == fs.ErrPermission }

// dirRoot is an open folder. Nothing outside of the folder is opened through dirRoot, whatever
// happens to links meanwhile: links are resolved first, and an os.Root opens their targets.
type dirRoot struct {
	root *os.Root
	path string // of the folder, as configured
}

// openTree opens the folder. Errors match verify.ErrUnavailable: a missing folder says nothing of
// its images.
func openTree(folder string) (*dirRoot, error) {
	info, err := os.Stat(folder)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder", folder)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", verify.ErrUnavailable, err) //nolint:errorlint // see above
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", verify.ErrUnavailable, err) //nolint:errorlint // see above
	}
	return &dirRoot{root: root, path: folder}, nil
}

func (t *dirRoot) Close() error { return t.root.Close() }

// full is the path of name, for messages.
func (t *dirRoot) full(name string) string { return filepath.Join(t.path, name) }

// fault names what an error of the file system is about.
func (t *dirRoot) fault(name string, err error) error {
	var at *fs.PathError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &at):
		return err
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%s: %w", t.full(name), fs.ErrNotExist)
	}
	return fmt.Errorf("%s: %w", t.full(name), at.Err)
}

// find gives what lies at name: at is its path, and no link itself. Links on the way may be
// absolute, or leave the folder and come back. Errors match fs.ErrNotExist for what is not there,
// and errLeadsOut.
func (t *dirRoot) find(name string) (at string, info fs.FileInfo, err error) {
	info, err = t.root.Lstat(name)
	switch {
	case err == nil && info.Mode()&fs.ModeSymlink == 0:
		return name, info, nil
	case err != nil && isErrno(err) && !errors.Is(err, syscall.ELOOP): // a Root follows eight links, the system more
		return "", nil, t.fault(name, err)
	}
	if at, err = t.inside(name); err != nil {
		return "", nil, err
	}
	if info, err = t.root.Lstat(at); err != nil {
		return "", nil, t.fault(name, err)
	}
	return at, info, nil
}

// inside resolves all links on the way to name, by whatever spelling they name the folder.
func (t *dirRoot) inside(name string) (string, error) {
	top, err := filepath.Abs(t.path)
	if err == nil {
		top, err = filepath.EvalSymlinks(top)
	}
	if err != nil {
		return "", err
	}
	within := func(target string) (string, bool) {
		rel, err := filepath.Rel(top, target)
		return rel, err == nil && filepath.IsLocal(rel)
	}
	target, err := filepath.EvalSymlinks(filepath.Join(top, name))
	if err == nil {
		if at, ok := within(target); ok {
			return at, nil
		}
	}
	// The first link on the way that leads out is the one to name.
	for end := range len(name) + 1 {
		if end < len(name) && name[end] != '/' {
			continue
		}
		to, ok := linkTarget(filepath.Join(top, name[:end]))
		if !ok {
			continue
		}
		if _, ok := within(to); !ok {
			return "", &outError{link: t.full(name[:end]), folder: t.path, to: to}
		}
	}
	switch {
	case err == nil: // changed meanwhile
		return "", &outError{link: t.full(name), folder: t.path, to: target}
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s is a link to nothing", t.full(name))
	}
	return "", fmt.Errorf("%s: %w", t.full(name), err)
}

// linkTarget is what a link leads to, with the links of the existing part resolved; false: no link.
func linkTarget(link string) (string, bool) {
	to, err := os.Readlink(link)
	if err != nil {
		return "", false
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(link), to)
	}
	to = filepath.Clean(to)
	for at, rest := to, ""; ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(real, rest), true
		}
		if at == filepath.Dir(at) {
			return to, true
		}
	}
}

// isErrno tells whether err is what the system says; else it is from os.Root, which refuses a link.
func isErrno(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno)
}

// names gives the names in a folder, sorted, without hidden ones and those of editors' copies.
func (t *dirRoot) names(folder string, most int) ([]string, error) {
	f, err := t.root.OpenFile(folder, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, t.fault(folder, err)
	}
	defer f.Close()
	names, err := f.Readdirnames(most + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, t.fault(folder, err)
	}
	if len(names) > most {
		return nil, bounded(reasonElements, "%s: too many names: a folder source may have a million", t.full(folder))
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return strings.HasPrefix(n, ".") || strings.HasPrefix(n, "#") ||
			strings.HasSuffix(n, "~") || strings.HasSuffix(n, ".swp") || strings.HasSuffix(n, ".swo")
	})
	slices.Sort(names)
	return names, nil
}

// openFile opens the regular file at, which find gave; anything else, such as a pipe, could block.
func (t *dirRoot) openFile(at string) (*os.File, fs.FileInfo, error) {
	f, err := t.root.OpenFile(at, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, t.fault(at, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", t.full(at))
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// readFile reads a file of at most limit bytes.
func (t *dirRoot) readFile(at string, limit int64) ([]byte, error) {
	f, _, err := t.openFile(at)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, t.fault(at, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	return data, nil
}

// below tells whether name is folder or lies in it.
func below(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

// lostAndFound is the folder of mkfs for fsck on each file system. Only root can read the folder.
const lostAndFound = "lost+found"
