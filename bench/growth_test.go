//go:build linux

package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The exponent is that of the power of n, and a start that costs the same at each size does not hide the last step.
func TestExponent(t *testing.T) {
	n := []float64{1000, 10_000, 100_000}
	f := func(want float64, cost func(float64) float64) {
		t.Helper()
		costs := []float64{cost(n[0]), cost(n[1]), cost(n[2])}
		if got := exponent(n, costs); math.Abs(got-want) > 0.01 {
			t.Errorf("exponent %.3f, want %.3f", got, want)
		}
	}
	f(0, func(float64) float64 { return 7 })
	f(1, func(n float64) float64 { return 3 * n })
	f(2, func(n float64) float64 { return n * n / 5 })
	f(1.11, func(n float64) float64 { return n * math.Log(n) })
}

// The table of growth has a row for each cost, and its exponents.
func TestExponents(t *testing.T) {
	grown := func(name string, seconds ...float64) result {
		r := result{scenario: scenario{name: name, measures: []measure{starting, listing}}, samples: map[string][]sample{}}
		for _, s := range seconds {
			r.samples[ours] = append(r.samples[ours], sample{starting.name: s, listing.name: 4})
		}
		return r
	}
	text := exponents([]result{
		grown("growth/images/10", 1, 1, 9), grown("growth/images/100", 10), grown("growth/files/10", 1), grown("start/10 files, 20 images", 1),
	})
	for _, want := range []string{"| images | 10 | 100 | exponent |", "| start s | 1.000 | 10.000 | 1.00 | 1.00 |\n", "| list ms | 4.00 | 4.00 | 0.00 | 0.00 |\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "| files |") {
		t.Errorf("one size has a table:\n%s", text)
	}
}

// What a benchmark of e2e reports is read by its units.
func TestReported(t *testing.T) {
	got := reported("goos: linux\nBenchmarkBundleOther-2 1 9 a/b\nBenchmarkBundle-2   \t 1\t  812.0 MB/s-by-cp\t 1.250 export/cp+sha1sum\nPASS\n", "Bundle")
	if len(got) != 2 || got["export/cp+sha1sum"] != 1.25 || got["MB/s-by-cp"] != 812 {
		t.Errorf("%v", got)
	}
}

// The copy of a data folder has all that the mirror reads, and what is replaced there does not change the original.
func TestCopyFolder(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	for _, name := range []string{"files/ab/cd", "index/MANIFEST", "format"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyFolder(from, to); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"files/ab/cd", "index/MANIFEST", "format"} {
		if text, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(text) != name {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if err := os.WriteFile(filepath.Join(to, "index/MANIFEST"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(from, "index/MANIFEST")); err != nil || string(text) != "index/MANIFEST" {
		t.Errorf("the original is now %q, %v", text, err)
	}
}
