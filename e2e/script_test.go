package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs the stories of testdata/script: what the command line says
// and how it exits. Beyond testscript's own commands there is
//
//	exits CODE PROGRAM [ARG…]
//
// which runs a program and wants that exit code, and
//
//	untilready PROGRAM [ARG…]
//
// which runs it again and again until it exits with 0, for 20 seconds at most.
// $FREE1 and $FREE2 are free loopback addresses, $SAMPLES is the folder of sample images.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(imgmirror)+string(os.PathListSeparator)+os.Getenv("PATH"))
			samples, err := filepath.Abs(sampleDir)
			if err != nil {
				return err
			}
			env.Setenv("SAMPLES", samples)
			env.Setenv("FREE1", freeAddr(t))
			env.Setenv("FREE2", freeAddr(t))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"untilready": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) == 0 {
					ts.Fatalf("usage: untilready PROGRAM [ARG...]")
				}
				for deadline := time.Now().Add(20 * time.Second); ts.Exec(args[0], args[1:]...) != nil; {
					if time.Now().After(deadline) {
						ts.Fatalf("not ready after 20 seconds")
					}
				}
			},
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				code := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					var exit *exec.ExitError
					if !errors.As(err, &exit) {
						ts.Fatalf("%v", err)
					}
					code = exit.ExitCode()
				}
				if code != want {
					ts.Fatalf("exit code %d, want %d", code, want)
				}
			},
		},
	})
}
