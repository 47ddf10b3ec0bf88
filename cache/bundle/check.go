package bundle

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/google/uuid"
)

// check tells what is wrong with an index, first thing first: nothing that it
// says may lead outside the bundle's tree, collide, or be more than the limits.
func (x Index) check() error {
	switch {
	case x.ID == uuid.Nil:
		return errors.New("id is missing")
	case x.Created.Unix() < 0 || x.Created.Unix() >= 1<<33 || x.Created.Nanosecond() != 0:
		return fmt.Errorf("created is %s: must be a whole second between 1970 and 2242", x.Created.Format(time.RFC3339Nano))
	case len(x.Mirror.Name) > maxText || len(x.Mirror.Version) > maxText || len(x.Since) > maxText:
		return fmt.Errorf("mirror or since: more than %d bytes", maxText)
	case x.Volumes < 1 || x.Volumes > maxVolumes:
		return fmt.Errorf("volumes is %d: must be 1 to %d", x.Volumes, maxVolumes)
	case x.Web.Path != WebName:
		return fmt.Errorf("web.path is %s, must be %s", quoteName(x.Web.Path), WebName)
	case x.Web.Size < 2 || x.Web.Size > maxManifests:
		return fmt.Errorf("web.size is %d: must be 2 to %d", x.Web.Size, maxManifests)
	}
	known := make(map[uuid.UUID]bool, len(x.Images)+len(x.Requires))
	for i, h := range x.Requires {
		if err := checkHeld(h, known); err != nil {
			return fmt.Errorf("requires[%d]: %w", i, err)
		}
	}
	c := checker{volumes: x.Volumes, volume: 1}
	var manifests int64
	for i, m := range x.Images {
		if err := c.image(m, known); err != nil {
			return fmt.Errorf("images[%d] (%s): %w", i, m.UUID, err)
		}
		known[m.UUID] = true
		if manifests += m.Manifest.Size; manifests > maxManifests {
			return fmt.Errorf("images[%d]: manifests of more than %d bytes together", i, maxManifests)
		}
	}
	return nil
}

// checkHeld checks h, and adds its image to those known.
func checkHeld(h Held, known map[uuid.UUID]bool) error {
	switch {
	case h.UUID == uuid.Nil:
		return errors.New("uuid is missing")
	case known[h.UUID]:
		return fmt.Errorf("uuid %s is there twice", h.UUID)
	case len(h.Files) < 1 || len(h.Files) > maxFiles:
		return fmt.Errorf("%s has %d files, must have 1 to %d", h.UUID, len(h.Files), maxFiles)
	}
	for j, sum := range h.Files {
		if sum.IsZero() {
			return fmt.Errorf("%s: sha1 of file %d is missing", h.UUID, j)
		}
	}
	known[h.UUID] = true
	return nil
}

// checker goes through the images in the order in which their files lie.
type checker struct {
	volumes int
	volume  int // of the last file or part
}

func (c *checker) image(m Image, known map[uuid.UUID]bool) error {
	switch {
	case m.UUID == uuid.Nil:
		return errors.New("uuid is missing")
	case known[m.UUID]:
		return errors.New("uuid is there twice")
	case m.Origin != uuid.Nil && !known[m.Origin]:
		return fmt.Errorf("origin %s is neither before it nor in requires", m.Origin)
	case len(m.Name) > maxText || len(m.Version) > maxText:
		return fmt.Errorf("name or version: more than %d bytes", maxText)
	case m.Manifest.Path != m.UUID.String()+"/"+manifestName:
		return fmt.Errorf("manifest.path is %s, must be %s/%s", quoteName(m.Manifest.Path), m.UUID, manifestName)
	case m.Manifest.Size < 2 || m.Manifest.Size > maxManifest:
		return fmt.Errorf("manifest.size is %d: must be 2 to %d", m.Manifest.Size, maxManifest)
	case len(m.Original) > maxManifest:
		return fmt.Errorf("original has %d bytes, must have %d at most", len(m.Original), maxManifest)
	case len(m.Files) < 1 || len(m.Files) > maxFiles:
		return fmt.Errorf("%d files, must be 1 to %d", len(m.Files), maxFiles)
	}
	names := make(map[string]bool, len(m.Files))
	for j, f := range m.Files {
		if err := c.file(m.UUID.String(), f, names); err != nil {
			return fmt.Errorf("files[%d]: %w", j, err)
		}
	}
	return nil
}

func (c *checker) file(folder string, f File, names map[string]bool) error {
	name, inside := strings.CutPrefix(f.Path, folder+"/")
	folded := strings.ToLower(name) // media may not mind case
	switch {
	case !inside || !isFileName(name):
		return fmt.Errorf("path is %s: must be %s/ and a plain name", quoteName(f.Path), folder)
	case names[folded]:
		return fmt.Errorf("path %s is there twice", quoteName(f.Path))
	case f.Size < 1 || f.Size > maxFile:
		return fmt.Errorf("size is %d: must be 1 to %d", f.Size, int64(maxFile))
	case f.SHA1.IsZero() || f.SHA256 == SHA256{}:
		return errors.New("sha1 or sha256 is missing")
	case f.Volume != 0 && len(f.Parts) > 0:
		return errors.New("it is in a volume and in parts")
	case f.Volume == 0 && (len(f.Parts) < 2 || len(f.Parts) > maxVolumes):
		return fmt.Errorf("it is in no volume and in %d parts: must be 2 to %d", len(f.Parts), maxVolumes)
	}
	names[folded] = true
	if f.Volume != 0 {
		return c.at(f.Volume, 0)
	}
	rest := f.Size
	for k, p := range f.Parts {
		if err := c.part(f, k, p, rest); err != nil {
			return fmt.Errorf("parts[%d]: %w", k, err)
		}
		rest -= p.Size
	}
	if rest != 0 {
		return fmt.Errorf("parts are %d bytes short of its size", rest)
	}
	return nil
}

func (c *checker) part(f File, k int, p Part, rest int64) error {
	switch {
	case p.Path != partName(f.Path, k):
		return fmt.Errorf("path is %s, must be %s", quoteName(p.Path), partName(f.Path, k))
	case p.Size < 1 || p.Size > rest:
		return fmt.Errorf("size is %d, of %d bytes that the file has left", p.Size, rest)
	case p.SHA256 == SHA256{}:
		return errors.New("sha256 is missing")
	}
	return c.at(p.Volume, min(k, 1)) // two parts of a file are never in one volume
}

// at checks that the volumes come in order; step is how far the next one must be.
func (c *checker) at(volume, step int) error {
	if volume < c.volume+step || volume > c.volumes {
		return fmt.Errorf("volume is %d: must be %d to %d here", volume, c.volume+step, c.volumes)
	}
	c.volume = volume
	return nil
}

// partName is what part k of a file is called, k from 0.
func partName(path string, k int) string { return fmt.Sprintf("%s.part-%03d", path, k+1) }

// isFileName tells that an image's file may be called so, beside its manifest,
// on any file system and in any shell: it is nothing hidden, no manifest or
// icon to a folder that is served (kind directory), no part and no option.
func isFileName(s string) bool {
	if s == "" || len(s) > maxNameLength || strings.Trim(s[:1]+s[len(s)-1:], ".-") != s[:1]+s[len(s)-1:] {
		return false
	}
	odd := func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("._+-", r)
	}
	low := strings.ToLower(s)
	switch path.Ext(low) {
	case ".json", ".imgmanifest", ".dsmanifest":
		return false
	}
	return !strings.ContainsFunc(s, odd) && !strings.HasPrefix(low, "icon.") && !strings.Contains(low, ".part-")
}

// fileNames are what the files of an image are called: the manifest's own paths
// where these are safe, else by what they are.
func fileNames(paths, compressions []string) []string {
	names := make([]string, len(paths))
	taken := make(map[string]bool, len(paths))
	for i, name := range paths {
		if !isFileName(name) || taken[strings.ToLower(name)] {
			name = "file"
			if i > 0 {
				name = fmt.Sprintf("file-%d", i)
			}
			name += ".zfs" + map[string]string{"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}[compressions[i]]
		}
		for taken[strings.ToLower(name)] {
			name = "_" + name
		}
		names[i], taken[strings.ToLower(name)] = name, true
	}
	return names
}
