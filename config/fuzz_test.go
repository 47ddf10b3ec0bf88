package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever a file holds, Load says what is wrong with it or gives settings that
// hold every rule and come back from their own YAML.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "../deploy/imgmirror.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := load("file", data, LoadOptions{})
		if err != nil {
			if c != nil || strings.TrimSpace(err.Error()) == "" {
				t.Fatalf("settings %v beside the error %q", c, err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("loaded, but not valid: %v", err)
		}
		text, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), ":"+mask+"@") {
			return // a masked password does not come back
		}
		again, err := load("file", text, LoadOptions{})
		if err != nil {
			t.Fatalf("own YAML: %v\n%s", err, text)
		}
		if d := diff(*c, *again); d != "" {
			t.Errorf("%s\nfrom\n%s", d, text)
		}
	})
}
