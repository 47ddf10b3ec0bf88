package upstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// directory is a source of kind directory; its rules are in the package comment.
// The folder is opened anew for each call, so it may be mounted or replaced meanwhile.
type directory struct {
	path    string
	options manifest.ParseOptions
	report  func(skipped []error)

	mu   sync.Mutex // guards last; not held over I/O
	last *snapshot  // nil: not looked yet
}

// snapshot is what a folder held at one time. Immutable.
type snapshot struct {
	fingerprint string
	images      []manifest.Manifest
	refusals    manifest.Refusals // what else looks like manifests
	places      map[uuid.UUID]place
}

// place is where the manifest of an image lies.
type place struct {
	folder string // relative to the root, "." at the top
	name   string // of the manifest without its extension; "" for manifest.json
}

func newDirectory(folder string, o manifest.ParseOptions, report func([]error)) *directory {
	return &directory{path: folder, options: o, report: report}
}

func (d *directory) list(ctx context.Context, prev manifest.Listing) (manifest.Listing, error) {
	s, err := d.look(ctx, prev)
	if err != nil {
		return manifest.Listing{}, err
	}
	return manifest.Listing{Kind: kindDirectory, Images: s.images, Refusals: s.refusals, ETag: s.fingerprint}, nil
}

func (d *directory) get(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	s, err := d.look(ctx, manifest.Listing{})
	if err != nil {
		return manifest.Manifest{}, err
	}
	for _, m := range s.images {
		if m.UUID == id {
			return m, nil
		}
	}
	return manifest.Manifest{}, fmt.Errorf("%w: no manifest in %s has this uuid", fs.ErrNotExist, d.path)
}

// look gives what the folder holds now; ErrNotModified when that is what prev says.
// A folder that is not there is unavailable, not empty.
func (d *directory) look(ctx context.Context, prev manifest.Listing) (*snapshot, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUnavailable, err) //nolint:errorlint // a folder that is missing says nothing of its images
	}
	defer root.Close()
	manifests, fingerprint, err := d.survey(ctx, root)
	if err != nil {
		return nil, err
	}
	if prev.Kind == kindDirectory && prev.ETag == fingerprint {
		return nil, ErrNotModified
	}
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	if last != nil && last.fingerprint == fingerprint {
		return last, nil
	}
	s := d.read(root, manifests)
	s.fingerprint = fingerprint
	d.mu.Lock()
	d.last = s
	d.mu.Unlock()
	return s, nil
}

// survey finds the manifests, in the order of their names, and the fingerprint
// of names, sizes and times that tells whether anything changed.
func (d *directory) survey(ctx context.Context, root *os.Root) (manifests []string, fingerprint string, err error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q\n", d.path)
	var folders []string
	visit := func(folder string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := readNames(root, folder)
		if err != nil {
			return fmt.Errorf("%w: %v", ErrUnavailable, err) //nolint:errorlint // as above
		}
		for _, name := range names {
			at := path.Join(folder, name)
			info, err := root.Stat(at)
			switch {
			case err != nil: // gone meanwhile, or a link that leads out
				continue
			case info.IsDir() && folder == ".":
				folders = append(folders, at)
				continue
			case !info.Mode().IsRegular():
				continue
			}
			fmt.Fprintf(sum, "%q %d %d\n", at, info.Size(), info.ModTime().UnixNano())
			if isManifestName(name) {
				manifests = append(manifests, at)
			}
		}
		return nil
	}
	if err := visit("."); err != nil {
		return nil, "", err
	}
	for _, folder := range folders {
		if err := visit(folder); err != nil {
			return nil, "", err
		}
	}
	return manifests, hex.EncodeToString(sum.Sum(nil)), nil
}

// readNames gives the names in a folder, sorted, without hidden ones.
func readNames(root *os.Root, folder string) ([]string, error) {
	f, err := root.Open(folder)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, ".") })
	slices.Sort(names)
	return names, nil
}

func isManifestName(name string) bool {
	if name == "imgmirror-bundle.json" { // the index of an unpacked bundle
		return false
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".json", ".imgmanifest", ".dsmanifest":
		return true
	}
	return false
}

// read parses the manifests.
func (d *directory) read(root *os.Root, names []string) *snapshot {
	s := &snapshot{places: make(map[uuid.UUID]place, len(names))}
	var skipped []error
	for _, at := range names {
		m, err := d.readOne(root, at)
		if err != nil {
			skipped = append(skipped, fmt.Errorf("%s: %w", filepath.Join(d.path, at), err))
			continue
		}
		p := place{folder: path.Dir(at)}
		if base := path.Base(at); base != "manifest.json" {
			p.name = strings.TrimSuffix(base, path.Ext(base))
		}
		if _, dup := s.places[m.UUID]; dup {
			skipped = append(skipped, fmt.Errorf("%s: another manifest has uuid %s", filepath.Join(d.path, at), m.UUID))
			continue
		}
		s.places[m.UUID] = p
		s.images = append(s.images, m)
	}
	s.refusals = s.refusals.Add(skipped...)
	d.report(skipped)
	return s
}

func (d *directory) readOne(root *os.Root, at string) (manifest.Manifest, error) {
	f, _, err := openRegular(root, at)
	if err != nil {
		return manifest.Manifest{}, err
	}
	defer f.Close()
	doc, err := io.ReadAll(io.LimitReader(f, maxManifestBody+1))
	if err != nil {
		return manifest.Manifest{}, err
	}
	if len(doc) > maxManifestBody {
		return manifest.Manifest{}, fmt.Errorf("longer than %d bytes", maxManifestBody)
	}
	return manifest.Parse(doc, d.options)
}

// place finds where the image lies; it looks again when the last look did not show it.
func (d *directory) place(ctx context.Context, id uuid.UUID) (place, error) {
	d.mu.Lock()
	s := d.last
	d.mu.Unlock()
	if s != nil {
		if p, ok := s.places[id]; ok {
			return p, nil
		}
	}
	s, err := d.look(ctx, manifest.Listing{})
	if err != nil {
		return place{}, err
	}
	p, ok := s.places[id]
	if !ok {
		return place{}, fmt.Errorf("%w: no manifest in %s has this uuid", fs.ErrNotExist, d.path)
	}
	return p, nil
}

func (d *directory) file(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
	p, err := d.place(ctx, m.UUID)
	if err != nil {
		return nil, err
	}
	names := fileNames(p.name, m, index)
	if p.name == "" {
		names = append(names, d.others(p.folder)...)
	}
	return d.open(p.folder, names, m.Files[index].Size, offset)
}

// others are the names in folder of what is neither a manifest nor an icon.
func (d *directory) others(folder string) []string {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil // open says what is wrong
	}
	defer root.Close()
	names, err := readNames(root, folder)
	if err != nil {
		return nil // as above
	}
	return slices.DeleteFunc(names, func(n string) bool { return isManifestName(n) || strings.HasPrefix(n, "icon.") })
}

func (d *directory) icon(ctx context.Context, m manifest.Manifest) (*verify.Stream, error) {
	p, err := d.place(ctx, m.UUID)
	if err != nil {
		return nil, err
	}
	for _, ext := range []struct{ name, contentType string }{
		{"png", "image/png"}, {"jpg", "image/jpeg"}, {"jpeg", "image/jpeg"}, {"gif", "image/gif"},
	} {
		s, err := d.open(p.folder, []string{"icon." + ext.name}, 0, 0)
		if err == nil {
			s.ContentType = ext.contentType
			return s, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: no icon beside the manifest", fs.ErrNotExist)
}

// fileNames are the names that file index of m may have beside a manifest called name.
func fileNames(name string, m manifest.Manifest, index int) []string {
	f := m.Files[index]
	names := []string{f.Path, "file" + strconv.Itoa(index)}
	stem := name
	if index == 0 {
		names = append(names, "file")
	} else {
		stem += "-" + strconv.Itoa(index)
	}
	if name != "" {
		for _, ext := range []string{".zfs", ".zvol", ".tar", ""} {
			for _, packed := range []string{".gz", ".bz2", ".xz", ".zst", ""} {
				names = append(names, stem+ext+packed)
			}
		}
	}
	return append(names, m.FilePath(index))
}

// open opens the first of names in folder that has the wanted size, else the first that
// exists. size is 0 when it is not known.
func (d *directory) open(folder string, names []string, size, offset int64) (*verify.Stream, error) {
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUnavailable, err) //nolint:errorlint // a folder that is missing says nothing of its images
	}
	defer root.Close()

	var found string
	var failed error
	for _, name := range names {
		if name == "" || !filepath.IsLocal(name) {
			continue
		}
		at := path.Join(folder, name)
		info, err := root.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			failed = localError(err)
		case !info.Mode().IsRegular():
		case info.Size() == size:
			return streamFrom(root, at, offset)
		case found == "":
			found = at
		}
	}
	switch {
	case found != "":
		return streamFrom(root, found, offset)
	case failed != nil:
		return nil, failed
	}
	return nil, fmt.Errorf("%w: no file for it in %s", fs.ErrNotExist, filepath.Join(d.path, folder))
}

// streamFrom gives the file from offset to the end that it has now.
func streamFrom(root *os.Root, at string, offset int64) (*verify.Stream, error) {
	f, info, err := openRegular(root, at)
	if err != nil {
		return nil, localError(err)
	}
	size := info.Size()
	if offset > size {
		f.Close()
		return nil, fmt.Errorf("%s has %d bytes", f.Name(), size)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, localError(err)
	}
	part := struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, size-offset), f}
	return &verify.Stream{
		ReadCloser:  &whole{ReadCloser: part, name: f.Name(), pos: offset, size: size},
		Size:        size,
		ModTime:     info.ModTime().In(time.UTC),
		ContentType: "application/octet-stream",
	}, nil
}

// openRegular opens a regular file; anything else, such as a pipe, could block.
func openRegular(root *os.Root, at string) (*os.File, fs.FileInfo, error) {
	if info, err := root.Stat(at); err != nil {
		return nil, nil, err
	} else if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is no regular file", at)
	}
	f, err := root.Open(at)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// localError gives an error of the file system one of our meanings. What the system did not
// say itself comes from os.Root: a link that leads out of the folder.
func localError(err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return err
	case errors.As(err, &errno):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", fs.ErrPermission, err)
}
