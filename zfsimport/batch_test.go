package zfsimport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"imgmirror/manifest"
)

// playImgadm imports the images of a folder, base first, in the steps of imgadm: it
// decides what is missing, locks that from the top to the base, looks again at the top
// only, receives, and destroys what it can not give its name. It tells of each step, and waits for a line
// before it locks, and again before it looks.
func playImgadm(dir stored, pool string) int {
	images, paths, err := dir.read()
	if err != nil {
		return 2
	}
	zfs := func(args ...string) error {
		cmd := exec.Command("zfs", args...)
		cmd.Stderr = os.Stderr
		return cmd.Run()
	}
	dataset := func(m manifest.Manifest) string { return pool + "/" + m.UUID.String() }
	there := func(m manifest.Manifest) bool { return exec.Command("zfs", "list", "-H", dataset(m)).Run() == nil }
	in := bufio.NewReader(os.Stdin)
	next := func(done string) {
		fmt.Println(done)
		in.ReadString('\n') //nolint:errcheck // its end is a word to go on, too
	}
	missing := slices.DeleteFunc(images, there)
	next("decided")
	for _, m := range slices.Backward(missing) {
		f, err := os.OpenFile(filepath.Join(string(dir), "img."+m.UUID.String()+".import.lock"), os.O_RDWR|os.O_CREATE, 0o644)
		if err == nil {
			err = unix.FcntlFlock(f.Fd(), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		}
		if err != nil {
			return 2
		}
	}
	next("locked")
	if len(missing) == 0 || there(missing[len(missing)-1]) {
		return 0
	}
	for _, m := range missing {
		file, err := os.Open(paths[m.UUID])
		if err != nil {
			return 2
		}
		receive := exec.Command("zfs", "receive", "-u", dataset(m)+partial)
		receive.Stdin = file
		if err = receive.Run(); err == nil {
			err = zfs("rename", dataset(m)+partial+"@v1", dataset(m)+partial+final)
		}
		if err == nil {
			err = zfs("rename", dataset(m)+partial, dataset(m))
		}
		if err != nil {
			zfs("destroy", "-r", dataset(m))         //nolint:errcheck // it is left then
			zfs("destroy", "-r", dataset(m)+partial) //nolint:errcheck // it is left then
			return 1
		}
	}
	return 0
}

// other is a process that the test has started of itself.
type other struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// startOther starts the test program with one more variable, for a pool.
func startOther(t *testing.T, p *pool, variable, dir string, args ...string) *other {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), variable+"="+dir, killPool+"="+p.name)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it may have been waited for
	})
	return &other{t, cmd, in, bufio.NewScanner(out)}
}

// says waits for a line.
func (o *other) says(want string) {
	o.t.Helper()
	for o.lines.Scan() {
		if o.lines.Text() == want {
			return
		}
	}
	o.t.Errorf("the other process never says %q", want)
}

func (o *other) goOn() { fmt.Fprintln(o.in) } //nolint:errcheck // it may have ended

// ends waits for its good end.
func (o *other) ends() {
	o.t.Helper()
	o.in.Close()
	for o.lines.Scan() { // to the end, before Wait
	}
	if err := o.cmd.Wait(); err != nil {
		o.t.Errorf("the other process ends with %v", err)
	}
}

// installAll installs images as one Batch.
func installAll(ctx context.Context, im *Importer, images []manifest.Manifest) (outcomes []Outcome, err error) {
	b := im.Batch("", images)
	defer b.Close()
	for _, m := range images {
		o, err := b.Install(ctx, m, nil)
		outcomes = append(outcomes, o)
		if err != nil {
			return outcomes, err
		}
	}
	return outcomes, nil
}

// newChain stores a chain of three in a folder, which has the locks too.
func newChain(t *testing.T, p *pool) (dir stored, im *Importer, images []manifest.Manifest, f *files) {
	t.Helper()
	s := needSamples(t)
	dir = stored(t.TempDir())
	f = newFiles()
	for n, sample := range []sample{s.base, s.middle, s.top} {
		i := sample.image(t, "none")
		dir.put(t, n, i)
		images = append(images, i.Manifest)
		f.images[i.UUID] = i.file
	}
	im = killedImporter(t, string(dir), p.name, f.open)
	return dir, im, images, f
}

// imgadm, which has found the whole chain missing, comes to its locks while the base
// is being received: it waits for the top, and finds it.
func TestImgadmAfterUs(t *testing.T) {
	p := newPool(t, 128)
	dir, im, images, f := newChain(t, p)
	imgadm := startOther(t, p, imgadmDir, string(dir))
	imgadm.says("decided")
	f.gate = make(chan struct{})
	half := make(chan struct{})
	f.half = sync.OnceFunc(func() { close(half) })
	ended := make(chan error, 1)
	go func() {
		_, err := installAll(t.Context(), im, images)
		ended <- err
	}()
	<-half
	imgadm.goOn()
	imgadm.goOn() // it is not held up between lock and look
	for _, m := range images {
		if !im.holds(m) {
			t.Errorf("while the base is received the lock of %s is free", m.UUID)
		}
	}
	close(f.gate)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	imgadm.says("locked")
	imgadm.ends()
	s := needSamples(t)
	p.wantImages(im, s.base, s.middle, s.top)
}

// imgadm, which has found the base of another image missing, comes to its locks while we install that base for an image
// of ours: imgadm waits for the top that both install, and finds all of it.
func TestImgadmSiblingAfterUs(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 192)
	base, middle := s.base.image(t, "none"), s.middle.image(t, "none")
	f := newFiles(base, middle)
	dir := stored(t.TempDir())
	im := killedImporter(t, string(dir), p.name, f.open)
	if _, err := im.Install(t.Context(), "", base.Manifest, nil); err != nil {
		t.Fatal(err)
	}
	sibling := p.laden(t, base.UUID, nil, nil)
	f.images[sibling.UUID] = sibling.file
	for _, id := range []uuid.UUID{sibling.UUID, base.UUID} {
		if err := im.destroy(t.Context(), p.name+"/"+id.String()); err != nil {
			t.Fatal(err)
		}
	}
	dir.put(t, 0, base)
	dir.put(t, 1, sibling)

	imgadm := startOther(t, p, imgadmDir, string(dir))
	imgadm.says("decided")
	f.gate = make(chan struct{})
	half := make(chan struct{})
	f.half = sync.OnceFunc(func() { close(half) })
	ended := make(chan error, 1)
	go func() {
		_, err := installAll(t.Context(), im, Families([]manifest.Manifest{base.Manifest, middle.Manifest, sibling.Manifest}, itself))
		ended <- err
	}()
	<-half
	imgadm.goOn()
	imgadm.goOn()
	if !im.holds(sibling.Manifest) {
		t.Error("while the base is received the lock of the other image on it is free")
	}
	close(f.gate)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	imgadm.says("locked")
	imgadm.ends()
	p.wantImages(im, s.base, s.middle, sample{id: sibling.UUID, origin: base.UUID})
}

func itself(m manifest.Manifest) manifest.Manifest { return m }

func TestFamilies(t *testing.T) {
	image := func(n, origin byte) manifest.Manifest {
		m := manifest.Manifest{UUID: uuid.UUID{n}}
		if origin > 0 {
			m.Origin = uuid.UUID{origin}
		}
		return m
	}
	var got []byte
	for _, m := range Families([]manifest.Manifest{image(1, 0), image(2, 0), image(3, 1), image(4, 9), image(5, 2), image(6, 3), image(7, 1)}, itself) {
		got = append(got, m.UUID[0])
	}
	if want := []byte{1, 3, 6, 7, 2, 5, 4}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

// imgadm comes first: what it has imported while we wait is there, and none of it is
// fetched.
func TestImgadmBeforeUs(t *testing.T) {
	p := newPool(t, 128)
	dir, im, images, f := newChain(t, p)
	imgadm := startOther(t, p, imgadmDir, string(dir))
	imgadm.says("decided")
	imgadm.goOn()
	imgadm.says("locked")
	waits := make(chan struct{}, 100)
	type result struct {
		outcomes []Outcome
		err      error
	}
	ended := make(chan result, 1)
	go func() {
		b := im.Batch("", images)
		defer b.Close()
		var r result
		for _, m := range images {
			o, err := b.Install(t.Context(), m, func(Progress) { waits <- struct{}{} })
			r.outcomes, r.err = append(r.outcomes, o), errors.Join(r.err, err)
		}
		ended <- r
	}()
	<-waits
	imgadm.goOn()
	imgadm.ends()
	// imgadm has written its record by then; the player leaves that to us.
	r := <-ended
	if r.err != nil || !slices.Equal(r.outcomes, []Outcome{Repaired, Repaired, Repaired}) || f.opened > 0 {
		t.Errorf("%v, %v, %d files opened", r.outcomes, r.err, f.opened)
	}
	s := needSamples(t)
	p.wantImages(im, s.base, s.middle, s.top)
}

// Chains that share images are installed at the same time, by Importers of their own,
// by one, and by another process: none waits in a circle, none fails.
func TestChainsAtTheSameTime(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 192)
	dir, im, images, f := newChain(t, p)
	base, middle, top := images[0], images[1], images[2]
	if _, err := im.Install(t.Context(), "", base, nil); err != nil {
		t.Fatal(err)
	}
	sibling := p.laden(t, base.UUID, nil, nil)
	f.images[sibling.UUID] = sibling.file
	for range 3 {
		for _, id := range []uuid.UUID{top.UUID, middle.UUID, sibling.UUID, base.UUID} {
			if err := im.destroy(t.Context(), p.name+"/"+id.String()); err != nil {
				t.Fatal(err)
			}
		}
		if err := im.Recover(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		process := startOther(t, p, killDir, string(dir), "-test.run=^TestKilled$") // the chain of three
		process.says("begins")
		var running sync.WaitGroup
		twin := killedImporter(t, string(dir), p.name, f.open)
		for n, chain := range [][]manifest.Manifest{
			{base, middle, top}, {base, sibling.Manifest}, {base, middle}, {base}, {base, sibling.Manifest, middle, top},
		} {
			running.Go(func() {
				if outcomes, err := installAll(t.Context(), []*Importer{im, twin}[n%2], chain); err != nil {
					t.Errorf("chain %d: %v, %v", n, outcomes, err)
				}
			})
		}
		running.Wait()
		process.says("ends")
		process.ends()
		p.wantImages(im, s.base, s.middle, s.top, sample{id: sibling.UUID, origin: base.UUID})
	}
}

// Who waits for the lock of the base has those above, and gives them back: when the wait is
// given up, and when the process is killed.
func TestGivenUpWaiting(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 128)
	dir, im, images, f := newChain(t, p)
	aside := s.other.image(t, "none")
	f.images[aside.UUID] = aside.file
	release := lockedElsewhere(t, im, images[0].UUID)
	free := func() {
		t.Helper()
		for _, m := range images[1:] {
			l, err := im.lock(t.Context(), m.UUID, false)
			if err != nil {
				t.Fatalf("lock of %s: %v", m.UUID, err)
			}
			l.release()
		}
	}
	held := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !im.holds(images[1]) || !im.holds(images[2]); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the locks above are never taken")
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := installAll(ctx, im, images)
		ended <- err
	}()
	held()
	// It has the turn no more.
	if o, err := im.Install(t.Context(), "", aside.Manifest, nil); err != nil || o != Done {
		t.Error(o, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	free()

	process := startOther(t, p, killDir, string(dir), "-test.run=^TestKilled$")
	process.says("begins")
	held()
	process.cmd.Process.Signal(syscall.SIGKILL)
	process.cmd.Wait()
	free()

	// Who does not wait has nothing either.
	b := im.Batch("", images)
	b.NoWait = true
	if _, err := b.Install(t.Context(), images[0], nil); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	free()
	release()
	if _, err := installAll(t.Context(), im, images); err != nil {
		t.Error(err)
	}
	free()
	p.wantImages(im, s.base, s.middle, s.top, s.other)
}

// A chain whose middle fails gives its locks back, and the next one can begin.
func TestChainFails(t *testing.T) {
	s := needSamples(t)
	p := newPool(t, 128)
	_, im, images, f := newChain(t, p)
	aside := s.other.image(t, "none")
	f.images[aside.UUID] = aside.file
	delete(f.images, images[1].UUID)
	b := im.Batch("", append(slices.Clone(images), aside.Manifest))
	if o, err := b.Install(t.Context(), images[0], nil); err != nil || o != Done || !im.holds(images[0]) || !im.holds(images[2]) {
		t.Error(o, err)
	}
	if _, err := b.Install(t.Context(), images[1], nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if slices.ContainsFunc(images, im.holds) {
		t.Error("a chain that has failed has its locks")
	}
	if o, err := b.Install(t.Context(), aside.Manifest, nil); err != nil || o != Done || im.holds(aside.Manifest) {
		t.Error(o, err)
	}
	b.Close()
	p.wantImages(im, s.base, s.other)
}

// holds tells that the lock of an image is taken.
func (im *Importer) holds(m manifest.Manifest) bool {
	l, err := im.lock(context.Background(), m.UUID, false)
	if err == nil {
		l.release()
	}
	return err != nil
}
