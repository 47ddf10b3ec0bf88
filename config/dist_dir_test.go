package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// No name of the data folder is taken for dist_dir: the folder has the admin token.
func TestDistDirIsApart(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.MkdirAll(filepath.Join(dir, "data", "dist"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "programs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("data", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for dist, good := range map[string]bool{
		filepath.Join(dir, "data"):          false,
		filepath.Join(dir, "link"):          false,
		filepath.Join(dir, "link", "dist"):  false,
		"link":                              false,
		dir:                                 false,
		filepath.Join(dir, "programs"):      true,
		"programs":                          true,
		filepath.Join(dir, "not-there-yet"): true,
	} {
		c := Defaults()
		c.DataDir, c.DistDir = "./data", dist
		err := c.Validate()
		if refused := err != nil && strings.Contains(err.Error(), "must be apart from data_dir"); refused == good {
			t.Errorf("dist_dir %s: %v", dist, err)
		}
	}
}
