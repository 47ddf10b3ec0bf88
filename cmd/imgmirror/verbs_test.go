package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/proxy/admin"
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
			want, filters := "no image matches name=nothing and os=~smart", []string{"name=nothing", "os=~smart"}
			if name == "nodes" {
				want, filters = "no node matches client=nothing and agent=~x", []string{"client=nothing", "agent=~x"}
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

// verbLines is a command line of each verb that finds work to do, without options of all verbs.
var verbLines = map[string][]string{
	"ancestry":        {sampleApp.String()},
	"avail":           {"name=sample-app"},
	"bundle export":   {"--fill", "-o", "OUT/bundle.tar", sampleApp.String()},
	"bundle have":     {"-o", "OUT/have.json"},
	"bundle import":   nil, // makes a data folder
	"bundle keygen":   {"-o", "OUT/key"},
	"bundle show":     {"OUT"},
	"completion":      {"bash"},
	"config check":    {},
	"config show":     {},
	"delete":          {sampleApp.String()},
	"demo":            nil, // has a folder of its own
	"doctor":          {},
	"fetch":           {sampleApp.String()},
	"fills":           {},
	"healthcheck":     {},
	"install":         {sampleApp.String()},
	"installed":       {},
	"jobs":            {},
	"jobs cancel":     {"1"},
	"list":            {},
	"man":             {"OUT"},
	"manifest create": {"-f", "OUT/none", "--name", "n", "--version", "1", "--os", "smartos", "--type", "zone-dataset"},
	"nodes":           {},
	"pin":             {sampleApp.String()},
	"publish":         nil, // makes a data folder
	"refresh":         {},
	"serve":           nil, // makes a data folder
	"show":            {sampleApp.String()},
	"sources":         {},
	"status":          {},
	"token":           {},
	"unpin":           {sampleApp.String()},
	"unpublish":       {sampleApp.String()},
	"vacuum":          {},
	"verify":          {},
	"version":         {},
}

// TestNoVerbMakesDataFolder: a verb in the wrong folder, or with the wrong configuration, leaves nothing
// behind there, and a verb that keeps something there says that no mirror has been run on the folder.
func TestNoVerbMakesDataFolder(t *testing.T) {
	file, data := sampleConfig(t)
	for name, c := range allVerbs() {
		line, known := verbLines[name]
		if !known {
			t.Errorf("%s: verbLines has no command line of this verb", name)
		}
		if line == nil {
			continue
		}
		lines := [][]string{line}
		if c.Flags().Lookup("dry-run") != nil {
			lines = append(lines, append([]string{"--dry-run"}, line...))
		}
		if c.Flags().Lookup("stage") != nil {
			lines = append(lines, append([]string{"--stage"}, line...))
		}
		for _, line := range lines {
			line = append(strings.Fields(name), line...)
			for i := range line {
				line[i] = strings.Replace(line[i], "OUT", t.TempDir(), 1)
			}
			code, _, stderr := verb(append(line, "--config", file)...)
			if code == failure.ExitUsage {
				t.Errorf("%v: %s", line, stderr)
			}
			if slices.Contains([]string{"fetch", "pin", "install"}, name) && !slices.Contains(line, "--dry-run") &&
				(code != failure.ExitFailure || !strings.Contains(stderr, "(NoDataFolder): no mirror has been run on "+data+": start one")) {
				t.Errorf("%v: exit %d, %s", line, code, stderr)
			}
			if _, err := os.Stat(data); err == nil {
				t.Errorf("%v: makes the data folder", line)
				if err := os.RemoveAll(data); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestServerIsListenerOfNodes: --server with the listener for nodes is an error that names both listeners.
func TestServerIsListenerOfNodes(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	m, _ := runProcess(t, cfg)
	server := m.server.Addr().String()
	for _, line := range [][]string{
		{"list"}, {"status"}, {"fetch", sampleApp.String()}, {"nodes", "--forget"}, {"doctor"}, {"installed"}, {"fills"},
	} {
		code, stdout, stderr := verb(append(line, "--server", server)...)
		want := "error (WrongListener): http://" + server + " is the listener that nodes ask (listen); the admin API is on the admin listener (admin.listen, port 8081 by default)"
		if code != failure.ExitFailure || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit %d, %s%s", line, code, stdout, stderr)
		}
	}
}

// TestFromIsAdminListener: install --from the admin listener names the listener that has the images.
func TestFromIsAdminListener(t *testing.T) {
	cfg := testConfig(t)
	cfg.Admin.Listen = "127.0.0.1:0"
	m, _ := runProcess(t, cfg)
	from := m.adminLn.Addr().String()
	for _, what := range []string{sampleApp.String(), "name=sample-app"} {
		code, stdout, stderr := verb("install", "--from", from, "--stage", what)
		want := "error (WrongListener): http://" + from + " is the admin listener (admin.listen); --from wants the listener that nodes ask (listen, port 8080 by default)"
		if code != failure.ExitFailure || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s%s", what, code, stdout, stderr)
		}
	}
}

// TestRateOfNoTime: a file that was sent within a millisecond has no rate, and not the rate 0.
func TestRateOfNoTime(t *testing.T) {
	var out bytes.Buffer
	layout, err := nodeTable.Layout(&table.Flags{NoHeader: true, Fields: "address,took,fetch_rate,rate"})
	if err != nil {
		t.Fatal(err)
	}
	if err := layout.Print(&out, []admin.Node{{Address: "10.0.0.1", Fetch: &admin.NodeFetch{}}, {Address: "10.0.0.2", Rate: 7, Fetch: &admin.NodeFetch{Took: 2000, Rate: 5000}}}); err != nil {
		t.Fatal(err)
	}
	if want := "10.0.0.1  0s  -         -\n10.0.0.2  2s  5.0 kB/s  7 B/s\n"; out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

// TestInstallHelp: each way to install has a line that can be typed.
func TestInstallHelp(t *testing.T) {
	code, stdout, _ := verb("install", "--help")
	for _, line := range []string{"install name=", "install --from http://mirror:8080 7c5d3e40", "install --from http://mirror:8080 --stage name=", "install -m mine.json -f mine.zfs.gz"} {
		if code != 0 || !strings.Contains(stdout, "\n  imgmirror "+line) {
			t.Errorf("no example %q in\n%s", line, stdout)
		}
	}
}
