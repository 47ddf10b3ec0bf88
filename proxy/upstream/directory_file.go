package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgmirror/manifest"
	"imgmirror/verify"
)

func (d *directory) file(ctx context.Context, m manifest.Manifest, index int, offset int64) (*verify.Stream, error) {
	t, p, err := d.open(ctx, m.UUID)
	if err != nil {
		return nil, err
	}
	defer t.Close() //nolint:errcheck // only read
	at, err := t.fileOf(p, m, index)
	if err != nil {
		return nil, localError(err)
	}
	return t.stream(at, offset)
}

// fileOf finds file index of m: beside the manifest, or when that is a link, beside what it leads
// to.
func (t *dirRoot) fileOf(p place, m manifest.Manifest, index int) (string, error) {
	size := m.Files[index].Size
	at, err := t.locate(p.folder, p.fileNames(t, m, index), size)
	if errors.Is(err, fs.ErrNotExist) && p.real != p.manifest {
		p = placeOf(p.real)
		return t.locate(p.folder, p.fileNames(t, m, index), size)
	}
	return at, err
}

func (d *directory) icon(ctx context.Context, m manifest.Manifest) (*verify.Stream, error) {
	t, p, err := d.open(ctx, m.UUID)
	if err != nil {
		return nil, err
	}
	defer t.Close() //nolint:errcheck // only read
	for _, ext := range []struct{ name, contentType string }{
		{"png", "image/png"}, {"jpg", "image/jpeg"}, {"jpeg", "image/jpeg"}, {"gif", "image/gif"},
	} {
		at, err := t.locate(p.folder, []string{"icon." + ext.name}, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, localError(err)
		}
		s, err := t.stream(at, 0)
		if err == nil {
			s.ContentType = ext.contentType
		}
		return s, err
	}
	return nil, fmt.Errorf("%w: no icon beside the manifest", fs.ErrNotExist)
}

// fileNames are the names that file index of m may have, beside its manifest at p.
func (p place) fileNames(t *dirRoot, m manifest.Manifest, index int) []string {
	f := m.Files[index]
	numbered := "file" + strconv.Itoa(index)
	names := []string{f.Path, numbered}
	suffix := ""
	if index == 0 {
		names = append(names, "file")
	} else {
		suffix = "-" + strconv.Itoa(index)
	}
	if p.name == "" {
		return append(append(names, m.FilePath(index)), t.others(p.folder)...)
	}
	id := m.UUID.String()
	for _, stem := range []string{p.name, id} {
		for _, ext := range []string{".zfs", ".zvol", ".tar", ""} {
			for _, packed := range []string{".gz", ".bz2", ".xz", ".zst", ""} {
				names = append(names, stem+suffix+ext+packed)
			}
		}
	}
	names = append(names, m.FilePath(index), id+suffix+".file", id+"/"+numbered)
	if index == 0 {
		names = append(names, id+"/file")
	}
	return names
}

// others are the names in folder of what is neither a manifest nor an icon.
func (t *dirRoot) others(folder string) []string {
	at, _, err := t.find(folder)
	if err != nil {
		return nil // locate says what is wrong
	}
	names, err := t.names(at, maxElements)
	if err != nil {
		return nil // as above
	}
	return slices.DeleteFunc(names, func(n string) bool { return isManifestName(n) || strings.HasPrefix(n, "icon.") })
}

// locate finds the first of names in folder that has the wanted size, else the first that
// exists. size is 0 when it is not known.
func (t *dirRoot) locate(folder string, names []string, size int64) (string, error) {
	var first string
	var failed error
	for _, name := range names {
		if name == "" || !filepath.IsLocal(name) {
			continue
		}
		at, info, err := t.find(path.Join(folder, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			if failed == nil {
				failed = err
			}
		case !info.Mode().IsRegular():
		case info.Size() == size:
			return at, nil
		case first == "":
			first = at
		}
	}
	switch {
	case first != "":
		return first, nil
	case failed != nil:
		return "", failed
	}
	return "", fmt.Errorf("%w: no file for it in %s", fs.ErrNotExist, t.full(folder))
}

// stream gives the file from offset to the end that it has now.
func (t *dirRoot) stream(at string, offset int64) (*verify.Stream, error) {
	f, info, err := t.openFile(at)
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
