package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
)

// allVerbs gives each verb of the command line, by the words that lead to the verb.
func allVerbs() map[string]*cobra.Command {
	all := make(map[string]*cobra.Command)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if name, ok := strings.CutPrefix(c.CommandPath(), "imgmirror "); ok && (!c.HasSubCommands() || c.Name() == "jobs") {
			all[name] = c
		}
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(newRootCmd())
	return all
}

// sampleConfig writes the configuration of a mirror of the sample images, on a data folder of its own
// that does not exist yet.
func sampleConfig(t *testing.T) (file, data string) {
	t.Helper()
	dir := t.TempDir()
	file, data = filepath.Join(dir, "imgmirror.yaml"), filepath.Join(dir, "data")
	text := fmt.Sprintf("data_dir: %s\nlisten: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\ncache: {min_free: 1MB}\n"+
		"sources: [{name: samples, url: %s, kind: directory}]\n", data, sampleSource(t).URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, data
}

// TestNoMatch: each verb with filters fails when the filters match nothing, says so, and leaves JSON
// whole, with and without a mirror on the data folder.
func TestNoMatch(t *testing.T) {
	file, data := sampleConfig(t)
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	tried := 0
	try := func() {
		t.Helper()
		for name, c := range allVerbs() {
			if !strings.Contains(c.Use, "FILTER") {
				continue
			}
			want, filters := "no image matches name=nothing os=~smart", []string{"name=nothing", "os=~smart"}
			if name == "nodes" {
				want, filters = "no node matches client=nothing agent=~x", []string{"client=nothing", "agent=~x"}
			}
			lines := [][]string{filters}
			for _, flag := range []string{"dry-run", "json", "quiet"} {
				if c.Flags().Lookup(flag) != nil {
					lines = append(lines, append([]string{"--" + flag}, filters...))
				}
			}
			for _, line := range lines {
				line = append(append(strings.Fields(name), "--config", file), line...)
				if name == "bundle export" {
					line = append(line, "-o", filepath.Join(t.TempDir(), "out.tar"))
				}
				code, stdout, stderr := verb(line...)
				head := "imgmirror " + name + ": error (ResourceNotFound): " + want
				if code != failure.ExitFailure || !strings.Contains(stderr, head) {
					t.Errorf("%v: exit %d, stderr %q, want %q", line, code, stderr, head)
				}
				if stdout != "" && (!slices.Contains(line, "--json") || !json.Valid([]byte(stdout))) {
					t.Errorf("%v: stdout %q", line, stdout)
				}
				tried++
			}
		}
	}
	try()
	cfg, err := config.Load(config.LoadOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	runProcess(t, cfg)
	try()
	if tried < 2*9 {
		t.Errorf("%d command lines were tried", tried)
	}
	// A uuid beside the filters does not hide that these match nothing.
	code, _, stderr := verb("fetch", "--config", file, sampleBase.String(), "name=nothing")
	if code != failure.ExitFailure || !strings.Contains(stderr, "no image matches name=nothing") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}
