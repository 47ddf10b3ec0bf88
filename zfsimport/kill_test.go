package zfsimport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Variables of the processes that tests start of themselves.
const (
	killDir  = "IMGMIRROR_TEST_KILL_DIR"  // install what is in the folder
	killPool = "IMGMIRROR_TEST_KILL_POOL" // into that pool
	lockDir  = "IMGMIRROR_TEST_LOCK_DIR"  // hold a lock in the folder
	lockID   = "IMGMIRROR_TEST_LOCK_ID"   // the image's

	imgadmDir = "IMGMIRROR_TEST_IMGADM_DIR" // import what is in the folder as imgadm does
)

// stored are images in a folder: what one process gives to another to install.
type stored string

func (dir stored) put(t *testing.T, n int, i image) {
	t.Helper()
	for name, data := range map[string][]byte{"json": i.V2(), "file": i.file} {
		if err := os.WriteFile(filepath.Join(string(dir), fmt.Sprint(n, ".", name)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// images are those in the folder, in their order. Their files come as fast as
// pace lets them, or else at once.
func (dir stored) images(t *testing.T, pace func()) (list []manifest.Manifest, open Open) {
	t.Helper()
	list, paths, err := dir.read()
	if err != nil {
		t.Fatal(err)
	}
	return list, func(_ context.Context, m manifest.Manifest) (io.ReadCloser, error) {
		f, err := os.Open(paths[m.UUID])
		return pacedFile{f, pace}, err
	}
}

// read gives the images in the folder, in their order, and where their files are.
func (dir stored) read() (list []manifest.Manifest, paths map[uuid.UUID]string, err error) {
	paths = make(map[uuid.UUID]string)
	for n := 0; ; n++ {
		path := filepath.Join(string(dir), fmt.Sprint(n))
		text, err := os.ReadFile(path + ".json")
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		m, err := manifest.Parse(text, manifest.ParseOptions{})
		if err != nil {
			return nil, nil, err
		}
		list = append(list, m)
		paths[m.UUID] = path + ".file"
	}
	return list, paths, nil
}

type pacedFile struct {
	*os.File
	pace func()
}

func (f pacedFile) Read(p []byte) (int, error) {
	if f.pace != nil {
		f.pace()
		p = p[:min(len(p), 30_000)]
	}
	return f.File.Read(p)
}

// An importer that is killed at any moment of an install leaves nothing half-made
// under an image's name, and what it leaves is put right by the next one.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" { // the one to be killed
		images, open := stored(dir).images(t, func() { time.Sleep(time.Millisecond) })
		im := killedImporter(t, dir, os.Getenv(killPool), open)
		os.Stdout.WriteString("begins\n")
		batch := im.Batch("", images)
		for _, m := range images {
			if _, err := batch.Install(context.Background(), m, nil); err != nil {
				t.Fatal(err)
			}
		}
		os.Stdout.WriteString("\nends\n")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	s := needSamples(t)
	p := newPool(t, 128)
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	var whole time.Duration    // that an install takes
	counts := map[string]int{} // what was there after the kill, how often
	for round := -1; round < rounds; round++ {
		format := []string{"gzip", "xz", "bzip2", "none"}[(round+4)%4]
		dir := t.TempDir()
		for n, sample := range []sample{s.base, s.middle, s.top} {
			stored(dir).put(t, n, sample.image(t, format))
		}
		child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		child.Env = append(os.Environ(), killDir+"="+dir, killPool+"="+p.name)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdin, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		wait := func(want string) {
			for lines.Scan() {
				if lines.Text() == want {
					return
				}
			}
			t.Errorf("the child never said %q", want)
		}
		wait("begins")
		began := time.Now()
		if round < 0 { // how long does it take when nobody kills it?
			wait("ends")
			whole = time.Since(began)
		} else {
			time.Sleep(rand.N(whole))
		}
		child.Process.Kill()
		child.Wait()
		stdin.Close()

		images, open := stored(dir).images(t, nil)
		im := killedImporter(t, dir, p.name, open)
		if round >= 0 {
			counts[fmt.Sprint(strings.Count(p.list(), final+"\n"), " images, ", strings.Count(p.list(), partial), " in part")]++
		}
		p.wantConsistent(im)
		noneLeft(t, p.name+"/")
		if err := im.Recover(t.Context(), ""); err != nil {
			t.Errorf("round %d: recover: %v", round, err)
		}
		p.wantConsistent(im)
		if list := p.list(); strings.Contains(list, partial) || strings.Contains(p.records(im), ".new") {
			t.Errorf("round %d: recovered, the pool holds\n%s\nrecords %s", round, list, p.records(im))
		}
		for _, m := range images {
			if _, err := im.Install(t.Context(), "", m, nil); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		p.wantImages(im, s.base, s.middle, s.top)
		p.wantFiles(s.top)
		for _, sample := range []sample{s.top, s.middle, s.base} {
			if err := im.destroy(t.Context(), p.name+"/"+sample.id.String()); err != nil {
				t.Fatal(err)
			}
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("an install takes %s; killed at random it left %v", whole.Round(time.Millisecond), counts)
}

func killedImporter(t *testing.T, dir, pool string, open Open) *Importer {
	im := newImporter(t, nil, nil)
	im.o.Pool, im.o.Open, im.o.DBDir, im.o.LockDir = pool, open, filepath.Join(dir, "imgadm"), dir
	return im
}

// wantConsistent checks what must hold at every moment: whatever has an image's
// name is a whole image, and a record speaks of one.
func (p *pool) wantConsistent(im *Importer) {
	p.t.Helper()
	list := p.list()
	for line := range strings.Lines(list + "\n") {
		name, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if len(name) == len("/")+36 && !strings.Contains(list, name+final) {
			p.t.Errorf("%s is no whole image:\n%s", name, list)
		}
	}
	for _, record := range strings.Fields(p.records(im)) {
		if id, ok := recordedID("POOL", record); ok && !strings.Contains(list, id.String()+final) {
			p.t.Errorf("record %s has no image:\n%s", record, list)
		}
	}
}

// noneLeft checks that no program is left that was started for that pool.
func noneLeft(t *testing.T, pool string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	var left []byte
	for range 100 {
		left = nil
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil || len(processes) == 0 {
			t.Fatal("no processes: ", err)
		}
		for _, path := range processes {
			if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(pool)) {
				left = append(left, line...)
			}
		}
		if left == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("still running: %q", left)
}
