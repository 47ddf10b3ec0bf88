package e2e

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// figure is the beginning of a figure's name in the demo, and the value.
type figure struct{ name, value string }

// figures are those of the demo, which itself holds each against what the chapter wants.
func figures(t *testing.T) []figure {
	size := func(id string, part int) string { return humanize.Comma(int64(len(sample(t, id).file) / part)) }
	return []figure{
		{"files that the source has sent", "3"},
		{"requests at the source", "2"},
		{"downloads that the mirror has resumed", "1"},
		{"byte at which the second request begins", size(samplePlain, 2)},
		{"bytes that the source has sent", size(samplePlain, 1)},
		{"verify failures", "1"},
		{"clients with a whole wrong file", "0"},
		{"requests at the honest source", "1"},
		{"files published", "1"},
		{"files published wrong", "0"},
		{"clients with bytes of the one running download", "8"},
		{"clients with the right file", "8"},
		{"requests at the source", "1"},
		{"bytes that the source has sent", size(sampleBzip2, 1)},
		{"files served from the mirror's disk", "3"},
		{"bytes from the source", "0"},
		{"images taken in, signed with the strange key", "0"},
		{"images taken in, signed with the trusted key", "3"},
		{"files served right by the second mirror", "3"},
	}
}

// TestDemo: `imgmirror demo --once` tells its story within 10 seconds, with all figures, and ends with 0,
// whatever settings the environment has.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(imgmirror, "demo", "--once")
	cmd.Dir, cmd.Env = dir, append(cleanEnv(), "TMPDIR="+dir, "IMGMIRROR_LISTEN=nonsense")
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	t.Logf("demo --once, %v:\n%s", took.Round(time.Millisecond), out)
	if err != nil {
		t.Fatalf("demo --once: %v", err)
	}
	if took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, want := range []string{"/ping", "/images", sampleApp[:8], sampleWeb[:8], sampleBase[:8], "MISS", "HIT", "sha1", "BundleNotTrusted"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the story does not have %q", want)
		}
	}
	for _, gone := range []string{"curl", "http://", "\x1b"} { // the mirror has ended; a pipe has no colours
		if bytes.Contains(out, []byte(gone)) {
			t.Errorf("the story has %q", gone)
		}
	}
	for line := range strings.Lines(string(out)) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	shown := regexp.MustCompile(`(?m)^   ok +(.*\S) +([\d,]+)$`).FindAllStringSubmatch(string(out), -1)
	all := figures(t)
	if len(shown) != len(all) {
		t.Fatalf("%d figures, want %d", len(shown), len(all))
	}
	for i, want := range all {
		if !strings.HasPrefix(shown[i][1], want.name) || shown[i][2] != want.value {
			t.Errorf("figure %d is %q, want %v", i, shown[i][1:], want)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it left %v behind", left)
	}
}

// TestDemoServes: without --once the demo serves until it is stopped, and tells where the two pages are.
func TestDemoServes(t *testing.T) {
	m := newMirror(t, nil)
	m.run("demo")
	m.until("the demo serves", func() bool { return strings.Contains(m.log(), "imgadm sources -a") })
	find := func(pattern string) string {
		t.Helper()
		found := regexp.MustCompile(pattern).FindStringSubmatch(m.log())
		if found == nil {
			t.Fatalf("no %s in\n%s", pattern, m.log())
		}
		return found[1]
	}
	get(t, find(`curl -s (http://127\.0\.0\.1:\d+)/images`)+"/ping").has(t, `"imgapi":true`)
	get(t, find(`page +(http://127\.0\.0\.1:\d+/ui/)\n`)).has(t, "imgmirror")
	operators := find(`operators' page +(http://127\.0\.0\.1:\d+)/ui/\n`)
	hint := strings.Fields(find(`its token +imgmirror (.*)`))
	cmd := exec.Command(imgmirror, hint...)
	cmd.Env = cleanEnv()
	token, err := cmd.Output()
	if err != nil {
		t.Fatalf("imgmirror %s: %v", hint, err)
	}
	req, err := http.NewRequest(http.MethodGet, operators+"/api/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the token of the hint: %s", resp.Status)
	}
	m.signal(syscall.SIGINT)
	if code := m.awaitExit(10 * time.Second); code != 0 {
		t.Errorf("Ctrl-C: exit %d", code)
	}
}
