package upstream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// TestDirectoryBounds: a folder has bounds on names, bytes and memory, as a list has. A list beyond a
// bound says nothing of the images, and the memory is given back.
func TestDirectoryBounds(t *testing.T) {
	root := t.TempDir()
	for i := range 10 {
		folder := filepath.Join(root, fmt.Sprint(i%2))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.json", i)), []byte(v2(i+1, nil, []byte("x"))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := func(o Options, fault string) {
		t.Helper()
		o.Name, o.URL, o.Kind = "s", root, "directory"
		c, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.List(t.Context(), manifest.Listing{})
		if fault == "" {
			if err != nil || len(l.Images) != 10 {
				t.Errorf("%d images: %v", len(l.Images), err)
			}
		} else if err == nil || !errors.Is(err, verify.ErrUnavailable) || !strings.Contains(err.Error(), fault) {
			t.Errorf("%d images: %v, want %q", len(l.Images), err, fault)
		}
		if c.lists.reading != 0 {
			t.Errorf("%d bytes stay booked", c.lists.reading)
		}
	}
	size := int64(10 * len(v2(1, nil, []byte("x"))))
	f(Options{maxElements: 12, maxList: 2 * size}, "")
	f(Options{maxElements: 11}, "too many names")
	f(Options{maxElements: 1}, "too many names")
	f(Options{maxList: size / 2}, "the manifests have more than")
	f(Options{Lists: NewListMemory(2000, 1)}, "no room for the list")
}
