package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
)

const (
	// maxImports bounds the imports that are open at the same time.
	maxImports = 16
	// importMemory is Options.ImportMemory where none is given: the largest bundle has 96 MiB.
	importMemory = 128 << 20
	// importLife is the time after which an import without a request ends. The verb asks more often.
	importLife = 2 * time.Minute
	// importGrace is the time without a request after which imports make room for another one.
	importGrace = time.Minute
)

// ErrManyImports is matched when no further import can begin.
var ErrManyImports = errors.New("too many imports are open")

// imports are those that are open.
type imports struct {
	limit int64 // bytes of their texts together; a single import may have more

	mu  sync.Mutex // guards all; taken before an Import's
	all []*Import
}

// ImportBytes is what the imports that are open have of indexes and manifests. In memory they take
// about two and a half times that.
func (m *Mirror) ImportBytes() int64 {
	m.imports.mu.Lock()
	defer m.imports.mu.Unlock()
	return m.imports.bytes()
}

// ImportLimit bounds ImportBytes.
func (m *Mirror) ImportLimit() int64 { return m.imports.limit }

// bytes sums up the texts of all; mu is held.
func (s *imports) bytes() (n int64) {
	for _, in := range s.all {
		n += in.bytes
	}
	return n
}

// Importing gives an import that has begun, and counts as a request; the error matches
// fs.ErrNotExist.
func (m *Mirror) Importing(id string) (*Import, error) {
	m.imports.mu.Lock()
	defer m.imports.mu.Unlock()
	for _, in := range m.imports.all {
		if in.id == id {
			in.mu.Lock()
			in.last = time.Now()
			in.mu.Unlock()
			return in, nil
		}
	}
	return nil, noImport(id)
}

func noImport(id string) error {
	return fmt.Errorf("import %.50q is not open: %w", id, fs.ErrNotExist)
}

// add opens an import; false: no further one can be opened.
func (s *imports) add(in *Import) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == maxImports || len(s.all) > 0 && s.bytes()+in.bytes > s.limit {
		return false
	}
	s.all = append(s.all, in)
	return true
}

// remove closes an import; false: the import is closed already.
func (s *imports) remove(in *Import) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	open := !in.ended
	in.ended = true
	s.all = slices.DeleteFunc(s.all, func(other *Import) bool { return other == in })
	return open
}

// endQuiet ends the imports that have been without a request for so long.
func (m *Mirror) endQuiet(ctx context.Context, life time.Duration) {
	m.imports.mu.Lock()
	all := slices.Clone(m.imports.all)
	m.imports.mu.Unlock()
	for _, in := range all {
		if !in.quiet(life) {
			continue
		}
		_, err := in.End(ctx)
		m.log.Info("an import without a client ends", "import", in.id, "bundle", in.index.ID, "error", err)
	}
}

// watchImports ends quiet imports and drafts, until ctx ends.
func (m *Mirror) watchImports(ctx context.Context) {
	t := time.NewTicker(importGrace)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			m.endQuiet(ctx, importLife)
			m.endDrafts(ctx, draftLife)
		case <-ctx.Done():
			return
		}
	}
}

// quiet tells whether the import has been without a request for so long.
func (in *Import) quiet(life time.Duration) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.busy == 0 && time.Since(in.last) >= life
}
