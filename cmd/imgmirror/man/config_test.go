package man

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"imgmirror/config"
)

// TestKeyHelp: the page has what the configuration has, and the table has nothing else.
func TestKeyHelp(t *testing.T) {
	want := config.Keys()
	for list, entry := range entryTypes {
		for i := range entry.NumField() {
			want = append(want, list+"[]."+entry.Field(i).Tag.Get("yaml"))
		}
	}
	dir := t.TempDir()
	if err := Write(dir, &cobra.Command{}, "1.0"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "imgmirror.yaml.5"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`\-`, "-", `\fB`, "", `\fP`, "").Replace(string(page))
	for _, key := range want {
		if help := keyHelp[key]; help == "" || !strings.Contains(text, ".TP\n"+key+"\n"+help) {
			t.Errorf("%s has no text, or not on its page", key)
		}
	}
	for key := range keyHelp {
		if !slices.Contains(want, key) {
			t.Errorf("%s is not a key", key)
		}
	}
}
