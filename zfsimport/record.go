package zfsimport

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"imgmirror/manifest"
)

// record is the knowledge of imgadm's database about an image.
type record struct {
	Manifest manifest.Manifest
	Pool     string
	Source   string // "" = none
}

// recordText is a record in imgadm's own form.
type recordText struct {
	Manifest jsontext.Value `json:"manifest"`
	Pool     string         `json:"zpool"`
	Source   string         `json:"source,omitzero"`
}

// marshal gives the text that imgadm itself writes: two spaces, a newline at the end, all values of
// the manifest as they are.
func (r record) marshal() ([]byte, error) {
	text, err := json.Marshal(recordText{r.Manifest.V2(), r.Pool, r.Source}, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("record of image %s: %w", r.Manifest.UUID, err)
	}
	return append(text, '\n'), nil
}

// parseRecord reads the text of marshal or of imgadm.
func parseRecord(text []byte) (record, error) {
	var t recordText
	if err := json.Unmarshal(text, &t); err != nil {
		return record{}, err
	}
	m, err := manifest.Parse(t.Manifest, manifest.ParseOptions{ServePrivate: true})
	return record{Manifest: m, Pool: t.Pool, Source: t.Source}, err
}

func (im *Importer) imagesDir() string { return filepath.Join(im.o.DBDir, "images") }

func (im *Importer) recordPath(pool string, id uuid.UUID) string {
	return filepath.Join(im.imagesDir(), pool+"-"+id.String()+".json")
}

// record reads the record of an image. A record that imgadm could not read counts as missing: the
// error matches fs.ErrNotExist.
func (im *Importer) record(pool string, id uuid.UUID) (record, error) {
	path := im.recordPath(pool, id)
	text, err := os.ReadFile(path)
	if err != nil {
		return record{}, err
	}
	r, err := parseRecord(text)
	if err == nil && r.Manifest.UUID != id {
		err = fmt.Errorf("it is of image %s", r.Manifest.UUID)
	}
	if err != nil {
		return record{}, fmt.Errorf("%w: a usable record: %s: %w", fs.ErrNotExist, path, err)
	}
	return r, nil
}

// prepare writes the record of an image beside its place and gives this place, so that no step can
// fail for the record's content once the dataset has its name. The caller holds the image's import
// lock; commit or discard follows.
func (im *Importer) prepare(pool string, image manifest.Manifest) (path string, err error) {
	text, err := record{Manifest: image, Pool: pool, Source: im.o.Source}.marshal()
	if err != nil {
		return "", err
	}
	path = im.recordPath(pool, image.UUID)
	if err := os.MkdirAll(im.imagesDir(), 0o755); err != nil {
		return "", fmt.Errorf("imgadm's database: %w", err)
	}
	f, err := os.OpenFile(tempRecord(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err == nil {
		_, err = f.Write(text)
		err = errors.Join(err, im.sync(f), f.Close())
	}
	if err != nil {
		discard(path)
		return "", fmt.Errorf("imgadm's database: %w", err)
	}
	return path, nil
}

// tempRecord is the name of a prepared record, which imgadm ignores. The name is always the same, so
// that a record writes over the leavings of a crash.
func tempRecord(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// commit puts a prepared record in its place, for good when commit returns.
func (im *Importer) commit(path string) error {
	if err := os.Rename(tempRecord(path), path); err != nil {
		return err
	}
	return im.syncDir(filepath.Dir(path))
}

// discard removes a prepared record.
func discard(path string) { os.Remove(tempRecord(path)) } //nolint:errcheck // the next record writes over the file

func (im *Importer) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return im.sync(d)
}
