package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgmirror/config"
)

// manPages writes the pages and reads them back without the escapes.
func manPages(t *testing.T) (dir, commands, configuration string) {
	t.Helper()
	dir = t.TempDir()
	if code := run([]string{"man", dir}, os.Stdout, os.Stderr); code != 0 {
		t.Fatalf("exit %d", code)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.NewReplacer(`\-`, "-", `\e`, `\`, `\fB`, "", `\fR`, "", `\fI`, "").Replace(string(data))
	}
	return dir, read("imgmirror.8"), read("imgmirror.yaml.5")
}

// TestManPages: every verb, option and key is there.
func TestManPages(t *testing.T) {
	dir, commands, configuration := manPages(t)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Hidden || sub.Name() == "help" {
				continue
			}
			if sub.HasSubCommands() {
				walk(sub)
				continue
			}
			_, part, found := strings.Cut(commands, ".SS "+sub.CommandPath())
			part, _, _ = strings.Cut(part, "\n.S")
			if !found {
				t.Errorf("no section on %s", sub.CommandPath())
			}
			sub.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if f.Name != "help" && !strings.Contains(part, "--"+f.Name) {
					t.Errorf("%s: no option --%s", sub.CommandPath(), f.Name)
				}
			})
		}
	}
	walk(newRootCmd())
	for _, key := range config.Keys() {
		if !strings.Contains(configuration, ".TP\n"+key+"\n") || !strings.Contains(configuration, "("+config.EnvName(key)+")") {
			t.Errorf("no entry on %s", key)
		}
	}
	if !strings.Contains(configuration, "Default: 10GB.") {
		t.Error("the default of cache.min_free is not told")
	}
	for _, page := range []string{"imgmirror.8", "imgmirror.yaml.5"} {
		man, err := exec.LookPath("groff")
		if err != nil && os.Getenv("CI") == "true" {
			t.Fatal("missing: groff (e2e/install.sh installs it)")
		}
		if err != nil {
			t.Skip("missing: groff")
		}
		out, err := exec.Command(man, "-man", "-Tutf8", "-ww", "-z", filepath.Join(dir, page)).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

// TestKeyHelp: the table has what the configuration has, and nothing else.
func TestKeyHelp(t *testing.T) {
	want := config.Keys()
	for list, entry := range map[string]reflect.Type{
		"sources":  reflect.TypeFor[config.Source](),
		"channels": reflect.TypeFor[config.Channel](),
		"prefetch": reflect.TypeFor[config.Prefetch](),
	} {
		var keys []string
		for i := range entry.NumField() {
			name := entry.Field(i).Tag.Get("yaml")
			keys = append(keys, name)
			want = append(want, list+"[]."+name)
		}
		if !slices.Equal(keys, entryKeys[list]) {
			t.Errorf("entries of %s: %q, want %q", list, entryKeys[list], keys)
		}
	}
	for _, key := range want {
		if keyHelp[key] == "" {
			t.Errorf("%s has no text", key)
		}
	}
	for key := range keyHelp {
		if !slices.Contains(want, key) {
			t.Errorf("%s is not a key", key)
		}
	}
}
