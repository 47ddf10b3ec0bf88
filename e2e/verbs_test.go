package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imgmirror/proxy/upstream/upstreamtest"
)

// said is what one command line did.
type said struct {
	stdout, stderr string
	code           int
}

// verb runs a verb on this mirror's configuration.
func (m *mirror) verb(args ...string) said {
	m.t.Helper()
	return m.imgmirror(append(args, "--config", m.configFile())...)
}

// remote runs a verb as from another machine: by the admin listener and the token.
func (m *mirror) remote(args ...string) said {
	m.t.Helper()
	return m.imgmirror(append(args, "--server", m.admin, "--token-file", m.data("admin.token"))...)
}

func (m *mirror) imgmirror(args ...string) said {
	m.t.Helper()
	cmd, out := m.command(args...)
	return out(cmd.Run())
}

// command is a command line, and what makes its outcome of what Run or Wait said.
func (m *mirror) command(args ...string) (*exec.Cmd, func(error) said) {
	m.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(imgmirror, args...)
	cmd.Env, cmd.Dir = m.env, m.t.TempDir()
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	return cmd, func(err error) said {
		m.t.Helper()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			m.t.Fatal(err)
		}
		return said{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	}
}

// want fails the test unless the verb succeeded and printed this.
func (s said) want(t testing.TB, parts ...string) {
	t.Helper()
	if s.code != 0 || s.stderr != "" {
		t.Errorf("exit %d: %s", s.code, s.stderr)
	}
	for _, p := range parts {
		if !strings.Contains(s.stdout, p) {
			t.Errorf("%q is not in\n%s", p, s.stdout)
		}
	}
}

// wantError fails the test unless the verb failed with this code.
func (s said) wantError(t testing.TB, verb, code string) {
	t.Helper()
	if s.code != 1 || !strings.Contains(s.stderr, "imgmirror "+verb+": error ("+code+"): ") {
		t.Errorf("exit %d: %s", s.code, s.stderr)
	}
}

// volatile is what differs from run to run: times of day, durations.
var volatile = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z|\b[0-9.]+(µs|ms|s)\b`)

// TestVerbsAlike: every verb gives the same answer of a mirror that runs here,
// of none, and of one far away.
func TestVerbsAlike(t *testing.T) {
	t.Parallel()
	const unknown = "00000000-0000-4000-8000-000000000000"
	own := newImage("own", 3000)
	own.manifest = bytes.Replace(own.manifest, []byte(`"gzip"`), []byte(`"none"`), 1)
	dir := t.TempDir()
	manifest, file := filepath.Join(dir, "own.json"), filepath.Join(dir, "own.zfs")
	for name, data := range map[string][]byte{manifest: own.manifest, file: own.file} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	day := [][]string{
		{"sources", "-o", "name,kind,state,images,refreshed,error"},
		{"sources", "-c"},
		{"sources", "-j"},
		{"avail"},
		{"avail", "-H", "-o", "name,size,compression,sources,cached", "-s", "-size"},
		{"avail", "-j", "name=~sample", "type!=lx-dataset"},
		{"show", sampleApp},
		{"show", "--sources", sampleApp},
		{"show", unknown},
		{"ancestry", sampleApp},
		{"ancestry", unknown},
		{"list"},
		{"fetch", "-n", sampleApp},
		{"fetch", sampleApp, "name=sample-xz"}, // the uuid, and what matches
		{"fetch", "-q", sampleApp},
		{"fetch", unknown},
		{"list", "-o", "uuid,name,version,type,os,size,pinned,origin,source,sha1", "-s", "name"},
		{"list", "name=sample-xz"},
		{"pin", sampleApp},
		{"pin", sampleApp},
		{"delete", sampleApp},
		{"list", "-H", "-o", "name,pinned", "-s", "name"},
		{"vacuum", "-n"},
		{"vacuum", "-q"},
		{"verify"},
		{"verify", sampleBase},
		{"verify", unknown},
		{"unpin", sampleApp},
		{"unpin", sampleApp},
		{"delete", "-n", sampleApp},
		{"delete", sampleApp},
		{"list", "-H", "-o", "name", "-s", "name"},
		{"publish", "-m", manifest, "-f", file},
		{"publish", "-m", manifest, "-f", file}, // it is there already
		{"publish", "-m", manifest, "-f", manifest},
		{"show", "--sources", own.uuid},
		{"sources", "-H", "-o", "name,images"},
		{"list", "-H", "-o", "name,source", "-s", "name"},
		{"unpublish", own.uuid},
		{"unpublish", own.uuid},
		{"show", own.uuid},
		{"list", "-H", "-o", "name", "-s", "name"},
		{"avail", "-o", "colour"},
	}
	here, none, far := startMirror(t, nil, samples(t)), newMirror(t, nil, samples(t)), startMirror(t, nil, samples(t))
	none.start() // so that the folder is there
	none.stop()
	for _, args := range day {
		answers := []said{here.verb(args...), none.verb(args...), far.remote(args...)}
		for i := range answers {
			answers[i].stdout = volatile.ReplaceAllString(answers[i].stdout, "-")
			answers[i].stdout = regexp.MustCompile(` +`).ReplaceAllString(answers[i].stdout, " ")
			if args[0] == "fetch" { // images are told as they arrive
				lines := strings.SplitAfter(answers[i].stdout, "\n")
				slices.Sort(lines)
				answers[i].stdout = strings.Join(lines, "")
			}
		}
		for i, other := range []string{"no mirror", "a mirror far away"} {
			if diff := cmp.Diff(answers[0], answers[i+1], cmp.AllowUnexported(said{})); diff != "" {
				t.Errorf("%q: a mirror that runs here, and %s:\n%s", args, other, diff)
			}
		}
	}
	here.verb("list", "-H", "-o", "name", "-s", "name").want(t, "sample-base\nsample-web\nsample-xz\n")
	far.imgmirror("list", "--server", far.admin).wantError(t, "list", "UnauthorizedError")
	far.imgmirror("list", "--server", freeAddr(t)).wantError(t, "list", "NoAnswer")
}

// TestAvailTellsOfSilence: avail lists what the other sources have, and names the source that has never answered; once
// that has, it says nothing.
func TestAvailTellsOfSilence(t *testing.T) {
	t.Parallel()
	here, gone := newImage("here", 1000), newImage("gone", 1000)
	src, silent := newSource(t, here), newSource(t, gone)
	silent.Stop()
	m := newMirror(t, nil, from(src.URL(), nil), from(silent.URL(), settings{"name": "silent"}))
	verb := func() said { return m.verb("avail", "-H", "-o", "name", "-s", "name") }
	if got := verb(); got.code != 0 || got.stdout != "here\n" || !strings.HasPrefix(got.stderr, "warning: source silent has not answered yet: its images may be missing (") {
		t.Errorf("%+v", got)
	}
	m.launch()
	m.until("the mirror has what there is", func() bool { return m.verb("avail", "-q", "-H", "-o", "name").stdout == "here\n" })
	const warning = "warning: source silent has not answered yet: its images may be missing"
	for _, args := range [][]string{{"avail"}, {"sources"}, {"fetch", "name=here"}} {
		if got := m.verb(args...); got.code != 0 || !strings.HasPrefix(got.stderr, warning) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%q: %+v", args, got)
		}
		m.verb(append(args, "-q")...).want(t)
	}
	m.verb("fetch", here.uuid).want(t) // nothing is missing that was asked for
	if err := silent.Start(); err != nil {
		t.Fatal(err)
	}
	m.verb("refresh", "-H", "-o", "name,added,result", "silent").want(t, "silent  1  ok\n")
	m.verb("avail", "-H", "-o", "name", "-s", "name").want(t, "gone\nhere\n")
	m.verb("sources", "-H", "-o", "name").want(t, "silent\n")
}

// TestVerbsNoFolder: what reads the sources' lists leaves nothing behind, and
// what reads the folder says that there is none.
func TestVerbsNoFolder(t *testing.T) {
	t.Parallel()
	m := newMirror(t, nil, samples(t))
	m.verb("avail", "-H", "-o", "name").want(t, "sample-app\n")
	m.verb("fetch", "-n", sampleWeb).want(t, "sample-web", "sample-base")
	m.verb("list").wantError(t, "list", "NoDataFolder")
	m.verb("fetch", sampleWeb).wantError(t, "fetch", "NoDataFolder")
	if _, err := os.Stat(m.data()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a data folder: %v", err)
	}
	m.folder().verb("fetch", sampleWeb).want(t, "sample-web@1.0.0: fetched")
	m.verb("list", "-H", "-o", "name", "-s", "name").want(t, "sample-base\nsample-web\n")
}

// TestVerbFetchInterrupted: Ctrl-C in the middle of a download, and the same
// command again, with and without a mirror running.
func TestVerbFetchInterrupted(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{false, true} {
		t.Run(map[bool]string{false: "none", true: "running"}[running], func(t *testing.T) {
			t.Parallel()
			img := newImage("big", 4<<20)
			src := newSource(t, img)
			src.rate(2 << 20)
			m := newMirror(t, nil, from(src.URL())).folder()
			if running {
				m.start()
				m.awaitList(1)
			}
			cmd, outcome := m.command("fetch", img.uuid, "--config", m.configFile())
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			err := src.Await(t.Context(), func(all []upstreamtest.Request) bool {
				for _, r := range all {
					if strings.HasSuffix(r.Path, "/file") && r.Bytes > 1<<20 {
						return true
					}
				}
				return false
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			outcome(cmd.Wait()).wantError(t, "fetch", "Interrupted")
			src.Heal()
			m.verb("fetch", img.uuid).want(t, "big@1.0.0: fetched")
			if got, most := src.Bytes("/file"), int64(len(img.file))*11/10; got > most {
				t.Errorf("the source sent %d bytes, more than %d", got, most)
			}
			m.verb("verify", img.uuid).want(t, "big@1.0.0: ok")
		})
	}
}

// TestVerbFetchOnTerminal: bars on a terminal, none in what is redirected.
func TestVerbFetchOnTerminal(t *testing.T) {
	t.Parallel()
	script := need(t, "script")
	img := newImage("slow", 1<<20)
	src := newSource(t, img)
	src.rate(1 << 20)
	m := newMirror(t, nil, from(src.URL())).folder()
	cmd := exec.Command(script, "-qec", imgmirror+" fetch "+img.uuid+" --config "+m.configFile(), "/dev/null")
	cmd.Env, cmd.Dir = m.env, t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bar := regexp.MustCompile(`slow@1\.0\.0 +\d+% \[=* *\] [0-9.]+ [kM]B/1\.0 MB  [0-9.]+ [kM]?B/s  `)
	if !bar.Match(out) || !bytes.HasSuffix(out, []byte("\x1b[J"+img.uuid+" slow@1.0.0: fetched, 1.0 MB\r\n")) {
		t.Errorf("the terminal got %q", out)
	}
}

// TestVerbDoctor asks the mirror that runs, and the configuration when none does.
func TestVerbDoctor(t *testing.T) {
	t.Parallel()
	img := newImage("one", 1000)
	src := newSource(t, img)
	m := newMirror(t, nil, from(src.URL(), settings{"name": "src"}))
	out := m.verb("doctor")
	out.want(t, "no mirror runs on "+m.data(), "source src: list", "1 images in", "imgadm sources -a "+m.url)
	m.start()
	m.awaitList(1)
	started := time.Now()
	m.verb("doctor").want(t, m.url+" answers, and offers 1 images", "source src: file", "1.0 kB, as its manifest says")
	m.remote("doctor", "-q").want(t, "on this machine only")
	if took := time.Since(started); took > 20*time.Second {
		t.Errorf("two calls took %s", took)
	}
	src.Stop()
	out = m.verb("doctor", "-q", "-H")
	out.wantError(t, "doctor", "ChecksFailed")
	if !strings.Contains(out.stdout, "failed   source src: ping") {
		t.Errorf("printed\n%s", out.stdout)
	}
}
