package upstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// surveyed is what the names in a folder tell.
type surveyed struct {
	manifests   []found
	unread      []unread
	faults      []error // what hides no manifest
	fingerprint string  // of names, sizes, modes and times, which tells whether anything has changed
}

// found is something that a folder has: by which name, and where it is.
type found struct {
	name, at string
	modified time.Time // of manifests
}

// surveyor walks the folder.
type surveyor struct {
	surveyed
	tree    *dirRoot
	sum     hash.Hash
	folders []found
	been    map[string]bool // manifests, by where they are: several links may lead to one
	left    int             // names that may still be read
}

// survey finds the manifests in the order of their names: those in the folder itself, then those of
// its sub-folders. Only a fault of the folder itself is an error.
func survey(ctx context.Context, t *dirRoot, most int) (surveyed, error) {
	s := surveyor{tree: t, sum: sha256.New(), been: make(map[string]bool), left: most}
	fmt.Fprintf(s.sum, "%q\n", t.path)
	if err := s.visit(found{name: ".", at: "."}); err != nil {
		return surveyed{}, tooMuch(err)
	}
	for _, folder := range s.folders {
		if err := ctx.Err(); err != nil {
			return surveyed{}, err
		}
		err := s.visit(folder)
		var bound *boundError
		if errors.As(err, &bound) {
			return surveyed{}, tooMuch(err)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.cannotRead(folder.name, err, true)
		}
	}
	s.fingerprint = hex.EncodeToString(s.sum.Sum(nil))
	return s.surveyed, nil
}

// tooMuch says that a folder tells nothing of its images.
func tooMuch(err error) error {
	var bound *boundError
	if errors.As(err, &bound) {
		return fmt.Errorf("%w: %w", verify.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %v", verify.ErrUnavailable, err) //nolint:errorlint // an absent folder is no absent image
}

// visit takes in the names of one folder. The error is that of the folder.
func (s *surveyor) visit(folder found) error {
	names, err := s.tree.names(folder.at, s.left)
	if err != nil {
		return err
	}
	s.left -= len(names)
	for _, name := range names {
		as := path.Join(folder.name, name)
		at, info, err := s.tree.find(path.Join(folder.at, name))
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone meanwhile
		case err != nil:
			s.cannotRead(as, err, folder.name == "." || isManifestName(name))
		case info.IsDir() && folder.name == ".":
			s.folders = append(s.folders, found{name: as, at: at})
		case info.Mode().IsRegular():
			fmt.Fprintf(s.sum, "%q %q %d %d %o\n", as, at, info.Size(), info.ModTime().UnixNano(), info.Mode())
			if isManifestName(name) && !s.been[at] {
				s.been[at] = true
				s.manifests = append(s.manifests, found{as, at, info.ModTime()})
			}
		}
	}
	return nil
}

// cannotRead notes a name that leads to nothing readable; hides: manifests may have the name.
func (s *surveyor) cannotRead(name string, err error, hides bool) {
	fmt.Fprintf(s.sum, "%q %q\n", name, err)
	if hides && !errors.Is(err, errLeadsOut) {
		s.unread = append(s.unread, unread{name, err})
	} else {
		s.faults = append(s.faults, err)
	}
}

// isManifestName tells whether a manifest may have that name.
func isManifestName(name string) bool {
	switch {
	case name == "imgmirror-bundle.json": // the index of an unpacked bundle
		return false
	case name == "manifest": // Danube's
		return true
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".json", ".imgmanifest", ".dsmanifest":
		return true
	}
	return false
}

// read parses the manifests, and tries whether their files can be opened. The error is that of a
// bound.
func (d *directory) read(t *dirRoot, all surveyed) (*snapshot, error) {
	s := &snapshot{
		surveyed: all.fingerprint, fingerprint: all.fingerprint,
		places: make(map[uuid.UUID]place, len(all.manifests)),
		unread: slices.Clip(all.unread), faults: slices.Clip(all.faults),
	}
	var skipped []error
	var texts, booked int64
	defer func() { d.lists.shrink(booked) }()
	skip := func(err error) {
		if len(skipped) == builtRefusals {
			s.refusals = s.refusals.Count(err)
			return
		}
		skipped = append(skipped, err)
	}
	for _, f := range all.manifests {
		text, err := t.readFile(f.at, maxManifestBody)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // gone meanwhile
		case isErrno(err):
			s.unread = append(s.unread, unread{f.name, err})
			continue
		}
		if texts += int64(len(text)); texts > d.maxText {
			return nil, tooMuch(bounded(reasonBytes, "the manifests have more than %d bytes", d.maxText))
		}
		var m manifest.Manifest
		if err == nil {
			o := d.options
			o.Date = f.modified
			m, err = manifest.Parse(record(text), o)
		}
		if err != nil {
			skip(fmt.Errorf("%s: %w", t.full(f.name), err))
			continue
		}
		if first, dup := s.places[m.UUID]; dup {
			skip(fmt.Errorf("%s: uuid %s is that of %s, which comes first", t.full(f.name), m.UUID, t.full(first.manifest)))
			continue
		}
		if err := d.lists.grow(m.Memory()); err != nil {
			return nil, tooMuch(err)
		}
		booked += m.Memory()
		p := placeOf(f.name)
		p.real = f.at
		s.places[m.UUID] = p
		s.images = append(s.images, m)
		s.tryFiles(t, p, m)
	}
	s.refusals = s.refusals.Add(skipped...)
	d.report(skipped)
	if len(s.unread) > len(all.unread) || len(s.faults) > len(all.faults) {
		sum := sha256.Sum256([]byte(all.fingerprint + errors.Join(s.wrong()...).Error()))
		s.fingerprint = hex.EncodeToString(sum[:])
	}
	return s, nil
}

// tryFiles notes which files of m cannot be opened. A missing file is found out by its first
// reader.
func (s *snapshot) tryFiles(t *dirRoot, p place, m manifest.Manifest) {
	for i := range m.Files {
		at, err := t.fileOf(p, m, i)
		if err == nil {
			var f *os.File
			if f, _, err = t.openFile(at); err == nil {
				f.Close()
			}
		}
		known := func(e error) bool { return e.Error() == err.Error() }
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !slices.ContainsFunc(s.wrong(), known) {
			s.faults = append(s.faults, err)
		}
	}
}

// placeOf is the place of the manifest called name.
func placeOf(name string) place {
	p := place{manifest: name, real: name, folder: path.Dir(name)}
	if base := path.Base(name); base != "manifest.json" && base != "manifest" {
		p.name = strings.TrimSuffix(base, path.Ext(base))
	}
	return p
}

// record gives the manifest in a record of imgadm's own, which tells pool and source too; any other
// text as it is.
func record(text []byte) []byte {
	if !bytes.Contains(text, []byte(`"manifest"`)) {
		return text
	}
	var r struct {
		UUID     json.RawMessage `json:"uuid"`
		Manifest json.RawMessage `json:"manifest"`
	}
	if json.Unmarshal(trimmed(text), &r) == nil && r.UUID == nil && len(r.Manifest) > 0 && r.Manifest[0] == '{' {
		return r.Manifest
	}
	return text
}
