package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgmirror/config"
)

// manPages writes the pages and gives their texts without the formatter's escapes, by file name.
func manPages(t *testing.T) (dir string, pages map[string]string) {
	t.Helper()
	dir = t.TempDir()
	if code := run([]string{"man", dir}, os.Stdout, os.Stderr); code != 0 {
		t.Fatalf("exit %d", code)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	pages = make(map[string]string)
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer(`\-`, "-", `\&`, "", `\\`, `\`, `\fB`, "", `\fR`, "", `\fP`, "", `\fI`, "").Replace(string(data))
		pages[file.Name()] = strings.Join(strings.Fields(text), " ")
	}
	return dir, pages
}

// TestManPages: every verb has its page with all its words and options, and every key its entry.
func TestManPages(t *testing.T) {
	dir, pages := manPages(t)
	has := func(page, text string) {
		t.Helper()
		if text = strings.Join(strings.Fields(text), " "); !strings.Contains(pages[page], text) {
			t.Errorf("%s: no %q", page, text)
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		has(name+".8", name+" - "+c.Short)
		for paragraph := range strings.SplitSeq(c.Long, "\n\n") {
			has(name+".8", paragraph)
		}
		has(name+".8", c.Example)
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				has(name+".8", "--"+f.Name)
			}
		})
		for _, sub := range c.Commands() {
			if !sub.Hidden && sub.Name() != "help" {
				has(name+".8", name+"-"+sub.Name()+"(8)")
				walk(sub)
			}
		}
	}
	walk(newRootCmd())
	for _, text := range []string{
		".SH FILES", config.DefaultFile, "DATA/admin.sock", "DATA/admin.token", "imgmirror.yaml(5)", ".SH ENVIRONMENT",
		".SH EXIT STATUS", ".TP 0 success", ".TP 1 failure", ".TP 2 the command", ".TP 95, 96", "--config", "--data-dir",
	} {
		has("imgmirror.8", text)
	}
	for _, key := range config.Keys() {
		has("imgmirror.yaml.5", ".TP "+key+" ")
		has("imgmirror.yaml.5", "("+config.EnvName(key)+")")
	}
	has("imgmirror.yaml.5", "Default: 10GB.")
	groff, err := exec.LookPath("groff")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("missing: groff (e2e/install.sh installs it)")
	}
	if err != nil {
		t.Skip("missing: groff")
	}
	for page := range pages {
		out, err := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z", filepath.Join(dir, page)).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

// TestManPagesDate: each page has a date, that of the commit where SOURCE_DATE_EPOCH tells it, and the
// same text whenever it is made.
func TestManPagesDate(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1789000000")
	_, pages := manPages(t)
	if len(pages) < 30 {
		t.Errorf("%d pages", len(pages))
	}
	for name, text := range pages {
		if head, _, _ := strings.Cut(text, " .SH"); !strings.Contains(head, `"2026-09-10"`) {
			t.Errorf("%s: %s", name, head)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if code, _, stderr := verb("man", t.TempDir()); code == 0 || !strings.Contains(stderr, `SOURCE_DATE_EPOCH "yesterday"`) {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
