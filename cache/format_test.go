package cache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is all that a folder holds: names, modes, times and contents.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var data []byte
		if info.Mode().IsRegular() {
			if data, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		all.WriteString(strings.Join([]string{path, info.Mode().String(), info.ModTime().String(), string(data)}, " ") + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestFormat(t *testing.T) {
	s := openStore(t, Options{})
	one := newSample(t, 1, 1000, nil)
	one.store(t, s)
	s.Idle()
	closeStore(t, s)
	marker := s.dir.formatFile()
	if got, err := os.ReadFile(marker); string(got) != "2\n" || err != nil {
		t.Fatalf("a new folder says %q, %v", got, err)
	}

	t.Run("without", func(t *testing.T) { // as folders of format 1 are
		if err := os.Remove(marker); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, s)
		wantData(t, s, one.blob, one.data, Hit)
		closeStore(t, s)
		if got, err := os.ReadFile(marker); string(got) != "2\n" || err != nil {
			t.Errorf("an upgraded folder says %q, %v", got, err)
		}
	})

	for text, want := range map[string]string{
		"3\n":                  string(s.dir) + " is of format 3, and this imgmirror reads formats up to 2: nothing was changed; start the later version",
		" 12 \nwhat follows\n": "is of format 12,",
		"":                     `begins with "", and not with the number of a format`,
		"two\n":                `begins with "two"`,
		"0\n":                  `begins with "0"`,
		"-1\n":                 `begins with "-1"`,
	} {
		t.Run(text, func(t *testing.T) {
			if err := os.WriteFile(marker, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			before := tree(t, string(s.dir))
			_, err := Open(context.Background(), Options{Dir: string(s.dir)})
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			if after := tree(t, string(s.dir)); after != before {
				t.Errorf("the folder was\n%.2000s\nand is\n%.2000s", before, after)
			}
		})
	}

	t.Run("pipe", func(t *testing.T) { // which is not waited for
		if err := errors.Join(os.Remove(marker), unix.Mkfifo(marker, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), Options{Dir: string(s.dir)}); !errors.Is(err, ErrDisk) {
			t.Errorf("got %v, want %v", err, ErrDisk)
		}
	})
}
