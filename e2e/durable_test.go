package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// fileCall is a system call that a power loss may undo, or that keeps others from being undone.
type fileCall struct {
	name string // write, fsync, rename, mkdir, unlink
	path string // of rename: the new one
	from string // of rename
}

// traced runs a verb under strace and gives its calls on files below dir, in the order in which they returned.
func (m *mirror) traced(dir string, args ...string) []fileCall {
	m.t.Helper()
	if runtime.GOOS != "linux" {
		m.t.Skip("strace is of Linux")
	}
	strace := need(m.t, "strace")
	trace := filepath.Join(m.t.TempDir(), "trace")
	verb, _ := m.command(append(args, "--config", m.configFile())...)
	cmd := exec.Command(strace, append([]string{"-f", "-y", "-s", "0", "-o", trace,
		"-e", "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,mkdir,mkdirat"}, verb.Args...)...)
	cmd.Env, cmd.Dir = verb.Env, verb.Dir
	if out, err := cmd.CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("PTRACE")) {
			missing(m.t, "the right to strace a process: "+string(out))
		}
		m.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		m.t.Fatal(err)
	}
	return fileCalls(string(text), dir)
}

var (
	whole     = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	begun     = regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$`)
	resumed   = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)`)
	tracePath = regexp.MustCompile(`<([^<>]*)>|"([^"]*)"`)
)

// fileCalls reads what strace -f -y writes. A call that another thread interrupts stands in two lines.
func fileCalls(text, dir string) []fileCall {
	var calls []fileCall
	open := map[string]string{} // arguments of a call under way, by thread
	for _, line := range strings.Split(text, "\n") {
		var name, args, result string
		if m := whole.FindStringSubmatch(line); m != nil {
			name, args, result = m[2], m[3], m[4]
		} else if m := begun.FindStringSubmatch(line); m != nil {
			open[m[1]] = m[3]
			continue
		} else if m := resumed.FindStringSubmatch(line); m != nil {
			name, args, result = m[2], open[m[1]]+m[3], m[4]
		}
		if name == "" || strings.HasPrefix(result, "-") {
			continue
		}
		call := fileCall{name: strings.TrimRight(strings.TrimPrefix(strings.TrimPrefix(name, "p"), "fdata"), "at264")}
		if name == "fdatasync" {
			call.name = "fsync"
		}
		// An argument is a descriptor with its path, or a text that may be relative to the descriptor before.
		var paths []string
		base := ""
		for _, m := range tracePath.FindAllStringSubmatch(args, -1) {
			switch {
			case m[1] != "":
				base = m[1]
				if call.name == "write" || call.name == "fsync" {
					paths = append(paths, base)
				}
			case filepath.IsAbs(m[2]):
				paths = append(paths, m[2])
			default:
				paths = append(paths, filepath.Join(base, m[2]))
			}
		}
		if len(paths) == 0 {
			continue
		}
		if call.path = paths[len(paths)-1]; call.name == "rename" {
			call.from = paths[0]
		}
		if call.path == dir || strings.HasPrefix(call.path, dir+string(filepath.Separator)) {
			calls = append(calls, call)
		}
	}
	return calls
}

// wantDurable fails the test unless every file that got its name by a rename was synced behind its last byte and
// before the rename, and every name that came or went was synced with the folder that has it.
func wantDurable(t *testing.T, calls []fileCall, names ...string) {
	t.Helper()
	named := map[string]bool{}
	for i, c := range calls {
		if c.name != "rename" && c.name != "mkdir" && c.name != "unlink" {
			continue
		}
		named[c.path] = true
		if c.name == "rename" {
			synced := false
			for _, before := range calls[:i] {
				switch {
				case before.name == "write" && before.path == c.from:
					synced = false
				case before.name == "fsync" && before.path == c.from:
					synced = true
				}
			}
			if !synced {
				t.Errorf("%s got its name before its bytes were synced", c.path)
			}
		}
		folder := false
		for _, after := range calls[i+1:] {
			folder = folder || after.name == "fsync" && after.path == filepath.Dir(c.path)
		}
		if !folder {
			t.Errorf("%s of %s was not synced with its folder", c.name, c.path)
		}
	}
	for _, name := range names {
		if !named[name] {
			t.Errorf("%s was neither made, by a rename, nor removed", name)
		}
	}
	if t.Failed() {
		for _, c := range calls {
			t.Logf("%+v", c)
		}
	}
}

// TestBundleDurable: an export that has ended is on disk, as a tar and as a folder: a medium may be pulled out.
func TestBundleDurable(t *testing.T) {
	t.Parallel()
	images := bundleImages("durable", 2, 5000)
	m := carrier(t, images...)
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "all.tar"), filepath.Join(dir, "may", "all")
	wantDurable(t, m.traced(dir, "bundle", "export", "-q", "-o", file, "name=~durable"), file)
	var names []string
	for _, img := range images {
		names = append(names, filepath.Join(folder, img.uuid), filepath.Join(folder, img.uuid, "manifest.json"))
	}
	wantDurable(t, m.traced(dir, "bundle", "export", "-q", "-o", folder+"/", "name=~durable"), append(names, filepath.Join(folder, "imgmirror-bundle.json"), folder, filepath.Dir(folder))...)
}
