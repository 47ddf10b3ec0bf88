package zfsimport

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"imgmirror/manifest"
)

// record is what imgadm's database says of an image.
type record struct {
	Manifest manifest.Manifest
	Pool     string
	Source   string // "" = none
}

// marshal gives the text that imgadm itself would have written: two spaces, a
// newline at the end, the manifest as it is.
func (r record) marshal() ([]byte, error) {
	source, err := json.Marshal(r.Source)
	if err != nil {
		return nil, err
	}
	text := append([]byte(`{"manifest":`), r.Manifest.V2()...)
	text = append(text, `,"zpool":"`+r.Pool+`"`...)
	if r.Source != "" {
		text = append(append(text, `,"source":`...), source...)
	}
	text = append(text, '}')
	value := jsontext.Value(text)
	if err := value.Format(jsontext.Multiline(true), jsontext.WithIndent("  ")); err != nil {
		return nil, fmt.Errorf("record of image %s: %w", r.Manifest.UUID, err)
	}
	return append(value, '\n'), nil
}

// parseRecord reads what marshal, or imgadm, wrote.
func parseRecord(text []byte) (record, error) {
	var raw struct {
		Manifest json.RawMessage `json:"manifest"`
		Pool     string          `json:"zpool"`
		Source   string          `json:"source"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return record{}, err
	}
	m, err := manifest.Parse(raw.Manifest, manifest.ParseOptions{ServePrivate: true})
	return record{Manifest: m, Pool: raw.Pool, Source: raw.Source}, err
}

func (im *Importer) imagesDir() string { return filepath.Join(im.o.DBDir, "images") }

func (im *Importer) recordPath(pool string, id uuid.UUID) string {
	return filepath.Join(im.imagesDir(), pool+"-"+id.String()+".json")
}

// record reads the record of an image. One that imgadm could not read counts as
// missing: the error matches fs.ErrNotExist.
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

// newRecord is a record that is on disk, but not yet in its place.
type newRecord struct {
	im         *Importer
	temp, path string
}

// prepare writes the image's record beside its place, so that nothing is left that
// can fail once the dataset has its name. The image's import lock is held, commit
// or discard follows.
func (im *Importer) prepare(pool string, image manifest.Manifest) (*newRecord, error) {
	r := record{Manifest: image, Pool: pool}
	if im.o.Source != nil {
		r.Source = im.o.Source(image)
	}
	text, err := r.marshal()
	if err != nil {
		return nil, err
	}
	path := im.recordPath(pool, image.UUID)
	n := &newRecord{im: im, temp: tempRecord(path), path: path}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("imgadm's database: %w", err)
	}
	if err := im.writeSynced(n.temp, text); err != nil {
		n.discard()
		return nil, fmt.Errorf("imgadm's database: %w", err)
	}
	return n, nil
}

// tempRecord is the name of a record before it is one. It is always the same, so
// that what a crash leaves is written over. imgadm does not look at such names.
func tempRecord(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// commit puts the record in its place; when it returns, a loss of power does not undo that.
func (n *newRecord) commit() error {
	if err := os.Rename(n.temp, n.path); err != nil {
		return err
	}
	return n.im.syncDir(filepath.Dir(n.path))
}

// discard removes a record that was not committed.
func (n *newRecord) discard() { os.Remove(n.temp) } //nolint:errcheck // it is written over the next time

func (im *Importer) writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, im.sync(f), f.Close())
}

func (im *Importer) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return im.sync(d)
}
