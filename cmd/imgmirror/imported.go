package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
	"imgmirror/proxy/imported"
)

const (
	// importedRefresh is how often the catalogue asks for the imported images of its
	// own accord: it is told when they change.
	importedRefresh = 24 * time.Hour
	// importedFolder is where the records of imported images are, in the data folder.
	importedFolder = "imported"
)

// newImported makes the source of the images that bundles brought.
func (m *mirror) newImported(dataDir string) (*imported.Source, error) {
	return imported.New(imported.Options{
		Dir:     filepath.Join(dataDir, importedFolder),
		Changed: func(ctx context.Context) error { return m.catalog.Retake(ctx, imported.Name) },
		Logger:  m.log.With("component", "imported"),
	})
}

// keepsImported tells whether the image came by a bundle and nobody else has it.
func (m *mirror) keepsImported(id uuid.UUID) bool {
	if !m.imported.Keeps(id) {
		return false
	}
	entry, _ := m.catalog.Current().Entry(id)
	for _, h := range entry.Holders {
		if h.Source.Name() != imported.Name {
			return false
		}
	}
	return true
}

// forgetImported gives up imported images whose files were evicted: somebody else
// has them, or they would have been kept.
func (m *mirror) forgetImported(e cache.Evicted) {
	if e.Reason == cache.ReasonDelete || len(e.Images) == 0 {
		return // who deletes has more to say of it
	}
	if _, err := m.imported.Forget(context.Background(), e.Images...); err != nil {
		m.log.Error("imported images whose files are gone stay listed", "sum", e.Sum, "error", err)
	}
}

// trust gives the decision on bundles' signatures that cfg asks for. A key of
// bundle.trusted_keys is the text of a public key, or the name of its file.
func trust(cfg *config.Config) (func(bundle.Index, []byte) (string, error), error) {
	var keys bundle.Trusted
	for i, text := range cfg.Bundle.TrustedKeys {
		parsed, err := readTrusted(text)
		if err != nil {
			return nil, failure.New(failure.CodeConfig, "bundle.trusted_keys[%d]: %w", i, err)
		}
		keys = append(keys, parsed...)
	}
	return func(x bundle.Index, sig []byte) (string, error) {
		switch {
		case sig == nil && cfg.Bundle.RequireSignature:
			return "", fmt.Errorf("%w: bundle %s is not signed, and bundle.require_signature is set", bundle.ErrSignature, x.ID)
		case sig == nil, len(keys) == 0:
			return "", nil
		}
		return keys.Verify(x, sig)
	}, nil
}

// readTrusted reads a public key, or a file with one.
func readTrusted(text string) (bundle.Trusted, error) {
	keys, err := bundle.ParseTrusted([]string{text})
	if err == nil || !strings.ContainsRune(text, os.PathSeparator) && filepath.Ext(text) != ".pub" {
		return keys, err
	}
	data, fileErr := os.ReadFile(text)
	if fileErr != nil {
		return nil, errors.Join(fmt.Errorf("not a public key: %w", err), fileErr)
	}
	if keys, err = bundle.ParseTrusted([]string{string(data)}); err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return keys, nil
}
