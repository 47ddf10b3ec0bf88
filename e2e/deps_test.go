package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	pathlib "path"
	"slices"
	"strings"
	"testing"
)

// module is the prefix of our own import paths.
const module = "imgmirror/"

// imports is who may import what of ours: what a package's shipped code does
// not find here it may not use, and a package that is not here may not be.
// A package need not exist yet. Siblings (cache, proxy/upstream, proxy/catalog,
// proxy/own, proxy/nodes, zfsimport) never import each other: each declares what it needs, and
// proxy/mirror is where they meet.
var imports = map[string][]string{
	"verify":                      {},
	"race":                        {},
	"manifest":                    {"verify"},
	"cache":                       {"verify", "manifest", "race", "cache/disk", "cache/index", "cache/ranges"},
	"cache/ranges":                {"verify"},
	"cache/index":                 {"verify", "manifest", "cache/disk"},
	"cache/disk":                  {},
	"cache/bundle":                {"verify", "manifest", "cache", "cache/disk"},
	"cache/s3":                    {"verify", "manifest"},
	"proxy/via":                   {},
	"proxy/upstream":              {"verify", "manifest", "proxy/via"},
	"proxy/upstream/upstreamtest": {"verify", "manifest"},
	"proxy/catalog":               {"verify", "manifest", "race", "proxy/via", "proxy/catalog/browse"},
	"proxy/catalog/browse":        {"manifest"},
	"proxy/history":               {},
	"proxy/own":                   {"verify", "manifest", "cache/disk"},
	"proxy/nodes":                 {},
	"proxy/ring":                  {},
	"proxy/sender":                {},
	"proxy/eventloop":             {},
	"proxy/accesslog":             {"proxy/ring"},
	"zfsimport":                   {"verify", "manifest"},
	"proxy/meaning":               {"verify", "manifest", "cache", "proxy/catalog"},
	"proxy/mirror":                {"verify", "manifest", "proxy/nodes", "cache", "cache/bundle", "proxy/upstream", "proxy/catalog", "proxy/catalog/browse", "proxy/via", "proxy/own", "proxy/history", "zfsimport"},
	"proxy":                       {"verify", "manifest", "proxy/accesslog", "proxy/sender", "proxy/eventloop", "proxy/nodes", "cache", "proxy/upstream", "proxy/catalog", "proxy/via", "proxy/meaning", "proxy/mirror"},
	"proxy/admin":                 {"verify", "manifest", "proxy/nodes", "cache", "cache/disk", "cache/bundle", "proxy/catalog", "proxy/catalog/browse", "proxy/own", "proxy/history", "proxy/meaning", "proxy/mirror", "zfsimport"},
	"proxy/page":                  {"proxy/meaning", "proxy/admin"},
	"config":                      {},
	"docs/film":                   {},
	"cmd/imgmirror/failure":       {"verify", "cache", "cache/bundle", "proxy/admin"},
	"cmd/imgmirror/table":         {"cmd/imgmirror/failure"},
	"cmd/imgmirror/progress":      {"cmd/imgmirror/failure", "cmd/imgmirror/table", "proxy/admin"},
	"cmd/imgmirror/man":           {"config"},
	"cmd/imgmirror/media":         {"cmd/imgmirror/failure", "cache/bundle", "cache/disk"},
	"cmd/imgmirror/memory":        {},
	"cmd/imgmirror/demo":          {"verify", "manifest", "config"},
	"cmd/imgmirror/doctor":        {"manifest", "cache", "cache/disk", "proxy/upstream", "proxy/catalog", "proxy/via", "proxy/admin", "zfsimport", "config"},
	"cmd/imgmirror": {
		"cmd/imgmirror/demo", "cmd/imgmirror/doctor", "cmd/imgmirror/failure", "cmd/imgmirror/man", "cmd/imgmirror/media", "cmd/imgmirror/memory", "cmd/imgmirror/table", "cmd/imgmirror/progress",
		"verify", "manifest", "cache", "cache/disk", "cache/bundle", "cache/s3", "proxy/upstream", "proxy/catalog",
		"proxy/accesslog", "proxy/nodes", "proxy/meaning", "proxy/mirror", "zfsimport", "proxy", "proxy/admin", "proxy/page", "config",
	},
}

// owners is who may import a library that has one place in the tree. An entry counts for all packages below its
// path, as far as no longer path has an entry.
var owners = map[string][]string{
	"github.com/dgraph-io/badger":      {"cache/index"},
	"github.com/valyala/fasthttp":      {"proxy"},
	"github.com/spf13/viper":           {"config"},
	"github.com/go-viper/mapstructure": {"config"},
	"github.com/spf13/cobra":           {"cmd/imgmirror", "cmd/imgmirror/table", "cmd/imgmirror/progress", "cmd/imgmirror/man"},
	"github.com/coreos/go-systemd":     {"cmd/imgmirror"},
	"github.com/minio/minio-go":        {"cache/s3"},

	// A listener in memory, without the server.
	"github.com/valyala/fasthttp/fasthttputil": {"proxy", "cmd/imgmirror"},
}

// testOnly holds packages with nothing but tests, and those that only tests
// use. They may import what they like; no shipped code imports them.
var testOnly = []string{"e2e", "bench", "proxy/upstream/upstreamtest"}

// platforms are those whose build tags may bring imports of their own.
var platforms = []string{"illumos/amd64", "linux/amd64", "freebsd/amd64", "darwin/arm64"}

func TestImports(t *testing.T) {
	for _, platform := range platforms {
		t.Run(strings.ReplaceAll(platform, "/", "_"), func(t *testing.T) {
			packages := listImports(t, platform)
			if len(packages) < 5 {
				t.Fatalf("%d packages found: is this the root of the module?", len(packages))
			}
			for name, imported := range packages {
				for _, fault := range importFaults(name, imported) {
					t.Error(fault)
				}
			}
		})
	}
}

// importFaults is what is wrong with the imports of the package name, given
// below the module.
func importFaults(name string, imported []string) (faults []string) {
	allowed, known := imports[name]
	isTest := slices.Contains(testOnly, name)
	if !known && !isTest {
		return []string{name + ": is not in the table of imports"}
	}
	for _, path := range imported {
		if ours, ok := strings.CutPrefix(path, module); ok {
			if !slices.Contains(allowed, ours) && !isTest {
				faults = append(faults, name+" must not import "+ours)
			}
			continue
		}
		library := path
		for owners[library] == nil && library != "." {
			library = pathlib.Dir(library)
		}
		if users := owners[library]; users != nil && !slices.Contains(users, name) && !isTest {
			faults = append(faults, name+" must not import "+path+": only "+strings.Join(users, ", ")+" may")
		}
	}
	return faults
}

// The rules find what they are there to find.
func TestImportFaults(t *testing.T) {
	f := func(name, imported, want string) {
		t.Helper()
		if got := strings.Join(importFaults(name, strings.Fields(imported)), "; "); got != want {
			t.Errorf("%s importing %s: got %q, want %q", name, imported, got, want)
		}
	}
	f("manifest", "errors imgmirror/verify github.com/google/uuid", "")
	f("verify", "imgmirror/manifest", "verify must not import manifest")
	f("cache", "imgmirror/proxy/catalog", "cache must not import proxy/catalog")
	f("proxy", "imgmirror/zfsimport", "proxy must not import zfsimport")
	f("proxy/catalog", "imgmirror/proxy/mirror", "proxy/catalog must not import proxy/mirror")
	f("proxy", "imgmirror/config github.com/valyala/fasthttp", "proxy must not import config")
	f("proxy/admin", "github.com/valyala/fasthttp/fasthttputil", "proxy/admin must not import github.com/valyala/fasthttp/fasthttputil: only proxy, cmd/imgmirror may")
	f("cmd/imgmirror", "github.com/valyala/fasthttp/fasthttputil", "")
	f("cmd/imgmirror", "github.com/valyala/fasthttp", "cmd/imgmirror must not import github.com/valyala/fasthttp: only proxy may")
	f("cache", "github.com/dgraph-io/badger/v4", "cache must not import github.com/dgraph-io/badger/v4: only cache/index may")
	f("cache/index", "imgmirror/cache/disk github.com/dgraph-io/badger/v4", "")
	f("cache/index", "imgmirror/cache", "cache/index must not import cache")
	f("cache/disk", "imgmirror/verify", "cache/disk must not import verify")
	f("cmd/imgmirror", "imgmirror/proxy/upstream/upstreamtest", "cmd/imgmirror must not import proxy/upstream/upstreamtest")
	f("e2e", "imgmirror/config", "")
	f("util", "", "util: is not in the table of imports")
}

// listImports gives the imports of the shipped code of each of our packages.
func listImports(t *testing.T, platform string) map[string][]string {
	t.Helper()
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	packages := make(map[string][]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
	}
}
