package man

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"imgmirror/config"
)

// TestKeyHelp: each key of the configuration has a text, and is on the page with this text.
func TestKeyHelp(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, &cobra.Command{}, "1.0"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "imgmirror.yaml.5"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`\-`, "-", `\fB`, "", `\fP`, "").Replace(string(page))
	keys := 0
	for key, help := range config.Help() {
		if keys++; help == "" || !strings.Contains(text, ".TP\n"+key+"\n"+help) {
			t.Errorf("%s has no text, or not on its page", key)
		}
	}
	if keys <= len(config.Keys()) {
		t.Errorf("%d texts: the keys of entries are missing", keys)
	}
}
