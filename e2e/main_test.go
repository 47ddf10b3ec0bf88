// Package e2e tests the built binary from outside, over loopback, with real
// clients where the machine has them: curl, strace, the official node client, a
// browser. Image servers are played by proxy/upstream/upstreamtest and by the sample
// images of cmd/imgmirror/demo.
//
// A missing component skips its test, and fails it when CI=true is set; `make
// test` installs them all. Tests that assert times run one after the other;
// the others run side by side.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// imgmirror is the path of the binary under test, and workDir a folder that goes with the tests. Only TestMain sets them.
var imgmirror, workDir string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "imgmirror-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer endBrowser()
	workDir = dir
	if imgmirror = os.Getenv(binaryEnv); imgmirror != "" {
		return m.Run()
	}
	imgmirror = filepath.Join(dir, "imgmirror")
	// As it is shipped: static, without the race detector, which would change
	// what is measured here. The packages' own tests run with it.
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version="+testVersion, "-o", imgmirror, "../cmd/imgmirror")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building imgmirror: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// binaryEnv names the binary for tests that start the tests again, elsewhere.
const binaryEnv = "E2E_IMGMIRROR"

// testVersion is the version that the binary under test reports.
const testVersion = "1.2.3-e2e"

// need skips the test when program is not installed, or fails it under CI=true.
// It returns the program's path.
func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, "the program "+program)
	}
	return path
}

// missing ends the test for want of a component.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s (e2e/install.sh installs what the tests need)", what)
	}
	t.Skipf("missing: %s (e2e/install.sh installs what the tests need)", what)
}
