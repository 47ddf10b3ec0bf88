package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestSendfile: a hit moves its bytes with sendfile(2), whole or in part. strace sees the calls and
// the bytes that the calls moved.
func TestSendfile(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("strace is of Linux")
	}
	strace := need(t, "strace")
	const size = 16 << 20
	img := newImage("sendfile", size)
	src := newSource(t, img)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	url := m.url + "/images/" + img.uuid + "/file"
	get(t, url).wantFile(t, img)
	m.awaitStored(1)

	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-C", "-e", "trace=sendfile,splice,write,writev,pwrite64,sendto,sendmsg", "-s", "0",
		"-o", trace, "-p", strconv.Itoa(m.cmd.Process.Pid))
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	m.until("strace is attached", func() bool {
		select {
		case err := <-ended:
			missing(t, fmt.Sprintf("the right to strace a process (%v: %s)", err, stderr.String()))
		default:
		}
		return strings.Contains(stderr.String(), "attached")
	})
	get(t, url).wantFile(t, img)
	if part := get(t, url, "Range", "bytes=4194304-"); part.status != 206 || len(part.body) != size-4<<20 {
		t.Fatalf("range: status %d, %d bytes", part.status, len(part.body))
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil { // it detaches and prints its summary
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatal("strace does not end")
	}

	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	moved := map[string]int64{}
	// PID CALL(…) = N, or PID <... CALL resumed>…) = N.
	call := regexp.MustCompile(`^\d+ +(?:<\.\.\. )?(\w+)[( ].*= (\d+)$`)
	var summary []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if match := call.FindStringSubmatch(lines.Text()); match != nil {
			n, _ := strconv.ParseInt(match[2], 10, 64)
			moved[match[1]] += n
		} else if strings.Contains(lines.Text(), "%") || len(summary) > 0 {
			summary = append(summary, lines.Text())
		}
	}
	const want = size + size - 4<<20
	t.Logf("strace -C:\n%s", strings.Join(summary, "\n"))
	if moved["sendfile"] != want {
		t.Errorf("sendfile moved %d of %d bytes; all calls: %v", moved["sendfile"], want, moved)
	}
	if other := moved["write"] + moved["writev"] + moved["sendto"] + moved["sendmsg"] + moved["splice"]; other > want/100 {
		t.Errorf("other calls moved %d bytes: %v", other, moved)
	}
}

// TestRSS: a mirror at rest stays below 80 MB, with a catalogue of a thousand
// images and after it has filled and served some.
func TestRSS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc is of Linux")
	}
	images := make([]image, 1000)
	for i := range images {
		images[i] = newImage(fmt.Sprintf("rss-%04d", i), 1000, map[string]any{"published_at": fmt.Sprintf("2020-01-01T00:%02d:%02dZ", i/60, i%60)})
	}
	big := newImage("rss-big", 32<<20)
	src := newSource(t, append(images, big)...)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(len(images) + 1)
	rest := residentMB(t, m)
	for range 4 {
		get(t, m.url+"/images/"+big.uuid+"/file").wantFile(t, big)
		if got := get(t, m.url+"/images"); got.status != 200 {
			t.Fatalf("list: status %d", got.status)
		}
	}
	for _, img := range images[:50] {
		get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
	}
	worked := residentMB(t, m)
	m.restart()
	again := residentMB(t, m)
	t.Logf("VmRSS: %.1f MB with %d images, %.1f MB after fills and hits, %.1f MB after a restart", rest, len(images)+1, worked, again)
	if rest >= 80 || again >= 80 {
		t.Errorf("VmRSS %.1f MB at rest, %.1f MB after a restart; want less than 80", rest, again)
	}
}

// residentMB is the process's VmRSS.
func residentMB(t testing.TB, m *mirror) float64 { return statusMB(t, m, "VmRSS:") }

// lockedBuffer is a buffer that a process writes while the test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
