package mirror

import (
	"context"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/proxy/imported"
)

// importedFolder is where the records of imported images are, in the data folder.
const importedFolder = "imported"

// newImported makes the source of the images that bundles brought.
func (m *Mirror) newImported(dir string) (*imported.Source, error) {
	return imported.New(imported.Options{
		Dir:     dir,
		Changed: func(ctx context.Context) error { return m.retake(ctx, imported.Name) },
		Logger:  m.log.With("component", "imported"),
	})
}

// keepsImported tells whether the image came by a bundle and nobody else has it.
func (m *Mirror) keepsImported(id uuid.UUID) bool {
	if !m.imported.Keeps(id) {
		return false
	}
	entry, _ := m.Current().Entry(id)
	for _, h := range entry.Holders {
		if h.Source.Name() != imported.Name {
			return false
		}
	}
	return true
}

// forgetEvicted gives up imported images whose files were evicted: somebody else
// has them, or they would have been kept.
func (m *Mirror) forgetEvicted(e cache.Evicted) {
	if e.Reason == cache.ReasonDelete || len(e.Images) == 0 {
		return // who deletes has more to say of it
	}
	if _, err := m.imported.Forget(context.Background(), e.Images...); err != nil {
		m.log.Error("imported images whose files are gone stay listed", "sum", e.Sum, "error", err)
	}
}
