//go:build linux

package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// tiny is a plan that measures nothing of use, in seconds.
var tiny = plan{rounds: 1, hit: 30 * time.Millisecond, small: 20 * time.Millisecond, hitSize: 4 << 20, coldSize: 4 << 20, images: 50,
	grownImages: []int{20, 40}, grownFiles: []int{20, 40}, startFiles: 10, startImages: 40, connections: 20, few: 1}

// Every scenario runs: the contenders start, answer the right bytes, and have a row with all figures in the report.
func TestScenarios(t *testing.T) {
	for _, program := range []string{"gcc", "nginx", "varnishd"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("missing: %s (e2e/install.sh installs what the tests need)", program)
			}
			t.Skipf("missing: %s (e2e/install.sh installs what the tests need)", program)
		}
	}
	done, err := compare(t.Context(), options{plan: tiny, only: regexp.MustCompile("")})
	if err != nil {
		t.Fatal(err)
	}
	rep := report{"a machine", "a run", done}
	text := rep.markdown()
	for _, g := range groups(tiny) {
		for _, s := range g.scenarios {
			for _, c := range s.contenders {
				if !strings.Contains(text, "| "+s.name+" | "+c.name+" | ") && c.name != ours+", no log" {
					t.Errorf("no row for %s of %s", c.name, s.name)
				}
			}
			at := slices.IndexFunc(done, func(d groupResult) bool { return d.group.title == g.title })
			if at < 0 {
				t.Fatalf("no group %s", g.title)
			}
			for _, r := range done[at].results {
				for _, m := range r.scenario.measures {
					if all := r.values(ours, m); r.scenario.name == s.name && (len(all) != 1 || all[0] < 0) {
						t.Errorf("%s: %s of the mirror is %v", s.name, m.name, all)
					}
				}
			}
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Two binaries of the mirror run pair by pair.
func TestPairs(t *testing.T) {
	l := &lab{mirror: "/new/imgmirror"}
	pairs := l.pairs(groups(tiny), "v1", "/old/imgmirror")
	var scenarios int
	for _, g := range pairs {
		for _, s := range g.scenarios {
			scenarios++
			if len(s.contenders) != 2 || s.contenders[0].name != ours || s.contenders[1].name != "imgmirror of v1" || s.base != "imgmirror of v1" {
				t.Errorf("%s: %+v", s.name, s.contenders)
			}
		}
	}
	if scenarios < 16 {
		t.Errorf("%d scenarios", scenarios)
	}
}

// Rounds begin with another contender each, and the mirror's figures are compared within rounds.
func TestRounds(t *testing.T) {
	var order []string
	fake := func(name string, values ...float64) contender {
		return contender{name, func(_ context.Context, _ *lab, round int) (sample, error) {
			order = append(order, name[:1])
			if round < 0 {
				return nil, nil
			}
			return sample{seconds.name: values[round]}, nil
		}}
	}
	s := scenario{
		name: "fake/1", base: "nginx", measures: []measure{seconds},
		goals:      []goal{{measure: seconds, to: "nginx", limit: 1}, {measure: seconds, to: "nginx", limit: 1, minus: true}},
		contenders: []contender{fake(ours, 2, 30, 4), fake("nginx", 1, 20, 4), {"new", func(context.Context, *lab, int) (sample, error) { return nil, errUnsupported }}},
	}
	skipped := scenario{name: "fake/skipped", contenders: []contender{{"skipped", func(_ context.Context, _ *lab, round int) (sample, error) {
		if round < 0 {
			return nil, nil
		}
		return nil, errUnsupported
	}}}}
	l := &lab{plan: plan{rounds: 3}}
	done, err := l.measure(t.Context(), []group{{title: "Fakes", scenarios: []scenario{s, skipped, {name: "other"}}}}, regexp.MustCompile("^fake"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "inininni" && got != "ininniin" {
		t.Errorf("order %s", got)
	}
	r := report{"a machine", "a run", done}
	if got := r.verdict(); got != "1 goal met, 1 missed." {
		t.Error(got)
	}
	text := r.markdown()
	for _, want := range []string{
		"| fake/1 | imgmirror | 4.00 (2.00–30.00) × 1.50 |\n",
		"| fake/1 | nginx | 4.00 (1.00–20.00) |\n",
		"| fake/1 | s, to nginx | 1.50 (1.00–2.00), missed | ≤ 1 |\n",
		"| fake/1 | s, minus that of nginx | 1.00 (0.00–10.00) | ≤ 1 |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| new |") || strings.Contains(text, "| skipped |") {
		t.Errorf("a row without figures in\n%s", text)
	}
}

// The quick plan has each group, the mirror in each scenario, and each contender that a goal compares the mirror with.
func TestQuick(t *testing.T) {
	all := groups(quick)
	if len(all) != len(groups(full)) {
		t.Errorf("%d groups", len(all))
	}
	for _, g := range all {
		if len(g.scenarios) == 0 {
			t.Errorf("%s: no scenario", g.title)
		}
		for _, s := range g.scenarios {
			has := func(name string) bool {
				return slices.ContainsFunc(s.contenders, func(c contender) bool { return c.name == name })
			}
			if !has(ours) && !has(byE2E) || s.base != "" && !has(s.base) {
				t.Errorf("%s: %+v", s.name, s.contenders)
			}
			for _, goal := range s.goals {
				if goal.to != "" && !has(goal.to) {
					t.Errorf("%s: no %s", s.name, goal.to)
				}
			}
			if strings.HasPrefix(s.name, "start/") && len(s.goals) > 0 {
				t.Errorf("%s has the goal of more images", s.name)
			}
		}
	}
}

// A run tells its rounds, and a quick one the sizes.
func TestDescribe(t *testing.T) {
	f := func(p plan, want string) {
		t.Helper()
		if got := p.describe(90 * time.Second); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	f(plan{rounds: 1}, "1 round, 1m30s in all")
	f(plan{rounds: 5}, "5 rounds, 1m30s in all")
	f(plan{rounds: 3, lean: true, hitSize: 1 << 20, coldSize: 2 << 20},
		"quick, 3 rounds at most, hits of 1 MiB, cold files of 2 MiB; goals are those of 256 MiB and 256 MiB, 1m30s in all")
}

// A contender that has other bytes is an error, and so is a load that meets an error.
func TestWrongBytes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("wrong")) }))
	defer server.Close()
	const sum = "a9993e364706816aba3e25717850c26c9cd0d89d" // of abc
	if err := check(t.Context(), server.URL, "", 3, sum); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("check: %v", err)
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("missing: gcc")
	}
	l := &lab{dir: t.TempDir()}
	var err error
	if l.tools.load, err = l.compile(t.Context(), "load"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []request{
		{url: server.URL + "/", clients: 2, length: 3},
		{url: server.URL + "/", clients: 2, length: 5, status: 304},
	} {
		if got, err := l.ask(t.Context(), r); err == nil {
			t.Errorf("%+v: %+v", r, got)
		}
	}
	got, err := l.ask(t.Context(), request{url: server.URL + "/", clients: 3, length: 5})
	if err != nil || got.Requests != 3 || got.Bytes != 15 {
		t.Errorf("3 clients that ask once: %+v, %v", got, err)
	}
}

// The report replaces its own part of a document, and nothing else.
func TestPublish(t *testing.T) {
	document := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(document, []byte("# Before\n\n"+reportBegins+"old\n"+reportEnds+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	if err := (report{machine: "a machine", plan: "a run"}).publish(options{report: document}, &printed); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	generated, ok := strings.CutSuffix(printed.String(), "\nNo goal is judged.\n")
	if want := "# Before\n\n" + reportBegins + "\n" + generated + "\n" + reportEnds + "after\n"; !ok || string(text) != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
	if err := os.WriteFile(document, []byte("# no marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (report{}).publish(options{report: document}, &printed); err == nil {
		t.Error("a document without marks is taken")
	}
}

// An interrupted benchmark leaves no process behind.
func TestTogether(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := read.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := together(exec.CommandContext(ctx, "sh", "-c", "sleep 60 & echo there; wait"))
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if _, err := read.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = cmd.Wait() // the signal
	if _, err := io.ReadAll(read); err != nil {
		t.Errorf("a process is left that has the output: %v", err)
	}
}
