package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bundleImages are n images of about size bytes: chains of four.
func bundleImages(name string, n, size int) []image {
	var all []image
	for i := range n {
		more := map[string]any{}
		if i%4 != 0 {
			more["origin"] = all[i-1].uuid
		}
		all = append(all, newImage(fmt.Sprintf("%s-%02d", name, i), size+i, more))
	}
	return all
}

// carrier is a mirror with all images of a source in its cache.
func carrier(t *testing.T, images ...image) *mirror {
	t.Helper()
	m := startMirror(t, nil, from(newSource(t, images...).URL()))
	m.awaitList(len(images))
	m.verb("fetch", "-q", "os=smartos").want(t)
	return m
}

// imagesOf are the rows of `bundle import -j`, by uuid.
func (s said) importStates(t *testing.T) map[string]string {
	t.Helper()
	var reports []struct {
		Images []struct{ UUID, State string }
	}
	if err := json.Unmarshal([]byte(s.stdout), &reports); err != nil {
		t.Fatalf("%v: %s %s", err, s.stdout, s.stderr)
	}
	states := make(map[string]string)
	for _, r := range reports {
		for _, i := range r.Images {
			states[i.UUID] = i.State
		}
	}
	return states
}

// wantAll fails the test unless these are the images, and all in that state.
func wantAll(t *testing.T, states map[string]string, images []image, state string) {
	t.Helper()
	if len(states) != len(images) {
		t.Errorf("%d images, want %d", len(states), len(images))
	}
	for _, img := range images {
		if got := states[img.uuid]; got != state {
			t.Errorf("%s: %q, want %s", img.name, got, state)
		}
	}
}

const (
	bundleEnv = "E2E_BUNDLE" // set for the half of TestBundleDark that has no network
	darkImage = 300_000
)

// TestBundleDark: what one mirror exports, another imports that has no network at
// all, and clients there list, get and import every image.
func TestBundleDark(t *testing.T) {
	images := bundleImages("dark", 20, darkImage)
	if file := os.Getenv(bundleEnv); file != "" {
		darkSide(t, file, images)
		return
	}
	t.Parallel()
	unshare := need(t, "unshare")
	need(t, "ip")
	if out, err := exec.Command(unshare, "-n", "true").CombinedOutput(); err != nil {
		missing(t, "the right to make a network namespace: "+string(out))
	}
	m := carrier(t, images...)
	file := filepath.Join(t.TempDir(), "all.tar")
	m.verb("bundle", "export", "-o", file, "name=~dark").want(t, "20 images")

	cmd := exec.Command(unshare, "-n", os.Args[0], "-test.run", "^TestBundleDark$", "-test.v")
	cmd.Env = append(os.Environ(), bundleEnv+"="+file, binaryEnv+"="+imgmirror)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestBundleDark")) {
		t.Fatalf("without a network: %v\n%s", err, out)
	}
}

// darkSide is the other half, in a network namespace of its own.
func darkSide(t *testing.T, file string, images []image) {
	if out, err := exec.Command(need(t, "ip"), "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command(need(t, "ip"), "route").CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("there is a way out: %v %s", err, out)
	}
	if conn, err := net.DialTimeout("tcp", "192.0.2.1:80", time.Second); err == nil {
		conn.Close()
		t.Fatal("there is a way out")
	}
	m := startMirror(t, nil)
	wantAll(t, m.verb("bundle", "import", "-j", file).importStates(t), images, "added")
	for _, when := range []string{"at once", "after a restart", "without its index"} {
		for _, kind := range []string{"imgapi", "dsapi"} {
			c := newImgadm(t, m, kind)
			if err := c.addSource(); err != nil {
				t.Fatal(err)
			}
			if list, err := c.avail(); err != nil || len(list) != len(images) {
				t.Errorf("%s, %s: %d images listed, %v", kind, when, len(list), err)
			}
			for i := 3; i < len(images); i += 4 { // the ends of the chains
				got, err := c.importImage(images[i].uuid)
				if err != nil || len(got) != 4 {
					t.Fatalf("%s, %s: %d images, %v", kind, when, len(got), err)
				}
				for j, im := range got { // against the sums of the side that exported
					if want := images[i-3+j]; im.uuid != want.uuid || !bytes.Equal(im.file, want.file) {
						t.Errorf("%s, %s: %s is not what it was", kind, when, want.name)
					}
				}
			}
		}
		switch when {
		case "at once":
			m.restart()
		case "after a restart":
			m.stop()
			if err := os.RemoveAll(m.data("index")); err != nil {
				t.Fatal(err)
			}
			m.start()
		}
	}
	m.verb("show", "--sources", images[7].uuid).want(t, `"source": "imported"`, `"bundle": "`)
	m.verb("sources", "-H", "-o", "name,images").want(t, "imported   20")
	wantAll(t, m.verb("bundle", "import", "-j", file).importStates(t), images, "present")
	m.verb("delete", images[18].uuid).wantError(t, "delete", "ImagePinned") // another one is built on it
	m.verb("delete", images[19].uuid).want(t, images[19].sha1())
	get(t, m.url+"/images/"+images[19].uuid).wantError(t, 404, "ResourceNotFound")
	m.verb("bundle", "import", file).want(t, images[19].uuid)
	get(t, m.url+filePath(images[19])).wantFile(t, images[19])
}

// killed runs a verb and ends it, or the mirror that it asks, after a while,
// unless it is through before. It tells whether it was killed.
func killed(t *testing.T, m *mirror, after time.Duration, theMirror bool, args ...string) bool {
	t.Helper()
	cmd, outcome := m.command(append(args, "--config", m.configFile())...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		outcome(err).want(t)
		return false
	case <-time.After(after):
	}
	if theMirror {
		m.kill()
		said := outcome(<-done)
		m.start()
		return said.code != 0 // else it was through
	}
	_ = cmd.Process.Kill()
	<-done
	return true
}

// stamps are the files below a folder, each with what changes when it is written anew.
func stamps(t *testing.T, folder string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[path] = fmt.Sprintf("inode %d, written %s", info.Sys().(*syscall.Stat_t).Ino, info.ModTime())
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return all
}

// keptSince fails the test if a file that was there has been written again.
func keptSince(t *testing.T, before map[string]string, folder string) {
	t.Helper()
	now := stamps(t, folder)
	for path, was := range before {
		if now[path] != was {
			t.Errorf("%s was copied again: %s, and now %s", path, was, now[path])
		}
	}
}

// TestBundleKill: kill -9 of the verb or of the mirror, at random moments of
// export and import, then the same command: it goes on, and no file that was
// complete is copied again.
func TestBundleKill(t *testing.T) {
	const kills = 10
	random := rand.New(rand.NewPCG(11, 7))
	images := bundleImages("kill", 12, 4<<20)
	m := carrier(t, images...)
	dir := t.TempDir()
	began := time.Now()
	m.verb("bundle", "export", "-q", "-o", filepath.Join(dir, "first.tar"), "name=~kill").want(t)
	took := time.Since(began)
	whole, err := os.Stat(filepath.Join(dir, "first.tar"))
	if err != nil {
		t.Fatal(err)
	}

	file, resumed := "", 0
	for n, i := 0, 0; n < kills; i++ {
		if file == "" {
			file = filepath.Join(dir, fmt.Sprintf("out-%d.tar", i))
		}
		before := int64(-1)
		if info, err := os.Stat(file + ".partial"); err == nil {
			before = info.Size()
			resumed++
		}
		if killed(t, m, time.Duration(random.Float64()*float64(took)), n%2 == 1, "bundle", "export", "-q", "-o", file, "name=~kill") {
			n++
			if info, err := os.Stat(file + ".partial"); err == nil && info.Size() < before {
				t.Errorf("%s: %d bytes were there, now %d", file, before, info.Size())
			}
			continue
		}
		file = "" // another one
	}
	if file != "" {
		m.verb("bundle", "export", "-q", "-o", file, "name=~kill").want(t)
	}
	if resumed == 0 {
		t.Error("no export had to go on")
	}
	outs, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(outs) == 0 {
		t.Fatalf("%d bundles, %v", len(outs), err)
	}
	for _, out := range outs {
		if info, err := os.Stat(out); err != nil || info.Size() != whole.Size() {
			t.Errorf("%s: %v, want %d bytes", out, err, whole.Size())
		}
	}
	bundle := outs[len(outs)-1]

	far := startMirror(t, nil)
	began = time.Now()
	wantAll(t, far.verb("bundle", "import", "-j", bundle).importStates(t), images, "added")
	took = time.Since(began)
	far.stop()
	far = startMirror(t, nil)
	for n := 0; n < kills; {
		before := stamps(t, far.data("files"))
		if !killed(t, far, time.Duration(random.Float64()*float64(took)), n%2 == 1, "bundle", "import", "-q", bundle) {
			keptSince(t, before, far.data("files"))
			wantAll(t, far.verb("bundle", "import", "-j", bundle).importStates(t), images, "present")
			far.stop()
			far = startMirror(t, nil)
			continue
		}
		n++
		keptSince(t, before, far.data("files"))
	}
	before := stamps(t, far.data("files"))
	far.verb("bundle", "import", "-q", bundle).want(t)
	keptSince(t, before, far.data("files"))
	for _, img := range images {
		get(t, far.url+filePath(img)).wantFile(t, img)
	}
	far.verb("verify", "-q").want(t)
}

// TestBundleDelta: five images later the delta is five images long; who lacks what
// it was made against refuses it and says what.
func TestBundleDelta(t *testing.T) {
	t.Parallel()
	old, late := bundleImages("delta", 6, 50_000), []image(nil)
	for i := range 5 {
		late = append(late, newImage(fmt.Sprintf("delta-late-%d", i), 60_000+i, map[string]any{
			"origin": old[i].uuid, "published_at": "2026-05-01T12:00:00Z",
		}))
	}
	src := newSource(t, old...)
	m := startMirror(t, nil, from(src.URL(), settings{"refresh": "1h"}))
	m.awaitList(len(old))
	dir := t.TempDir()
	full, have := filepath.Join(dir, "full.tar"), filepath.Join(dir, "have.json")
	m.verb("bundle", "export", "-o", full, "name=~delta").wantError(t, "bundle export", "NotCached")
	m.verb("bundle", "export", "-q", "--fill", "-o", full, "name=~delta").want(t)
	far := startMirror(t, nil)
	far.verb("bundle", "import", "-q", full).want(t)
	far.verb("bundle", "have", "-o", have).want(t)

	for _, img := range late {
		src.add(img)
	}
	m.restart()
	m.awaitList(len(old) + len(late))
	for name, since := range map[string]string{"bundle": full, "list": have, "date": "2026-04-01"} {
		delta := filepath.Join(dir, name+".tar")
		m.verb("bundle", "export", "-q", "--fill", "--since", since, "-o", delta, "name=~delta").want(t)
		shown := m.imgmirror("bundle", "show", "-H", "-o", "name", delta)
		shown.want(t)
		if lines := strings.Count(shown.stdout, "\n"); lines != len(late) {
			t.Errorf("since a %s: %d images: %s", name, lines, shown.stdout)
		}
		empty := startMirror(t, nil)
		said := empty.verb("bundle", "import", delta)
		said.wantError(t, "bundle import", "BundleBaseMissing")
		if !strings.Contains(said.stderr, old[0].uuid) {
			t.Errorf("what is missing is not named: %s", said.stderr)
		}
		if n := len(empty.files()) + len(empty.walk("partial")) + len(empty.walk("imported")); n > 0 {
			t.Errorf("%d files were taken of a bundle that was refused", n)
		}
		empty.stop()
	}
	delta := filepath.Join(dir, "bundle.tar")
	wantAll(t, far.verb("bundle", "import", "-j", delta).importStates(t), late, "added")
	for _, img := range late {
		get(t, far.url+filePath(img)).wantFile(t, img)
	}
	// What is left out is required whether or not something new is built on it; of
	// what a date leaves out not all was ever sent.
	own := newImage("delta-own", 70_000, map[string]any{"published_at": "2026-05-02T12:00:00Z"})
	src.add(own)
	m.restart()
	m.awaitList(len(old) + len(late) + 1)
	for since, code := range map[string]string{full: "BundleBaseMissing", "2026-05-02": ""} {
		file := filepath.Join(dir, "own"+filepath.Base(since)+".tar")
		m.verb("bundle", "export", "-q", "--fill", "--since", since, "-o", file, old[0].uuid, own.uuid).want(t)
		empty := startMirror(t, nil)
		said := empty.verb("bundle", "import", "-j", file)
		if code == "" {
			wantAll(t, said.importStates(t), []image{own}, "added")
			continue
		}
		said.wantError(t, "bundle import", code)
		if !strings.Contains(said.stderr, old[0].uuid) || !strings.Contains(said.stderr, file+": ") {
			t.Errorf("what is missing, or for which bundle, is not named: %s", said.stderr)
		}
	}
	// In one command a delta may come before its base.
	fresh := startMirror(t, nil)
	wantAll(t, fresh.verb("bundle", "import", "-j", delta, full).importStates(t), append(late, old...), "added")
}

// TestBundleWrong: one flipped bit is found, named, and nothing of it is served; a
// manifest that was swapped in a signed bundle is found, however cleverly.
func TestBundleWrong(t *testing.T) {
	t.Parallel()
	images := bundleImages("wrong", 3, 100_000)
	m := carrier(t, images...)
	dir := t.TempDir()
	key, folder, file := filepath.Join(dir, "key"), filepath.Join(dir, "signed")+"/", filepath.Join(dir, "plain.tar")
	made := m.imgmirror("bundle", "keygen", "-o", key)
	made.want(t)
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	public := strings.TrimSpace(made.stdout)
	m.verb("bundle", "export", "-q", "--sign", key, "-o", folder, "name=~wrong").want(t)
	m.verb("bundle", "export", "-q", "-o", file, "name=~wrong").want(t)

	// A bit of a file.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[bytes.Index(data, images[1].file[:1000])+500] ^= 1
	flipped := filepath.Join(dir, "flipped.tar")
	if err := os.WriteFile(flipped, data, 0o600); err != nil {
		t.Fatal(err)
	}
	far := startMirror(t, nil)
	said := far.verb("bundle", "import", flipped)
	said.wantError(t, "bundle import", "ChecksumError")
	if !strings.Contains(said.stderr, images[1].uuid) {
		t.Errorf("the file is not named: %s", said.stderr)
	}
	get(t, far.url+filePath(images[1])).wantError(t, 404, "ResourceNotFound")
	get(t, far.url+filePath(images[0])).wantFile(t, images[0])

	// A manifest of a signed bundle: alone, and with an index to match.
	far = startMirror(t, settings{"bundle.trusted_keys": []string{public}, "bundle.require_signature": true})
	refused := func(what, code string) {
		t.Helper()
		said := far.verb("bundle", "import", folder)
		said.wantError(t, "bundle import", code)
		if n := len(far.files()) + len(far.walk("imported")); n > 0 {
			t.Errorf("%s: %d files were taken", what, n)
		}
	}
	far.verb("bundle", "import", file).wantError(t, "bundle import", "BundleNotTrusted")
	manifest := filepath.Join(folder, images[0].uuid, "manifest.json")
	good, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	swapped := bytes.Replace(good, []byte("made for a test"), []byte("made for malice"), 1)
	if err := os.WriteFile(manifest, swapped, 0o600); err != nil || bytes.Equal(good, swapped) {
		t.Fatal("the manifest cannot be swapped", err)
	}
	refused("a swapped manifest", "InvalidBundle")
	if err := os.WriteFile(manifest, good, 0o600); err != nil {
		t.Fatal(err)
	}
	sig := filepath.Join(folder, "imgmirror-bundle.json.minisig")
	signature, err := os.ReadFile(sig)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other") + "/"
	m.verb("bundle", "export", "-q", "-o", other, "name=~wrong").want(t)
	if err := os.WriteFile(filepath.Join(other, filepath.Base(sig)), signature, 0o600); err != nil {
		t.Fatal(err)
	}
	far.verb("bundle", "import", other).wantError(t, "bundle import", "BundleNotTrusted")
	far.verb("bundle", "show", other).wantError(t, "bundle show", "BundleNotTrusted")
	far.verb("bundle", "show", "-j", other).wantError(t, "bundle show", "BundleNotTrusted")
	far.verb("bundle", "show", folder).want(t, "good, key ")
	wantAll(t, far.verb("bundle", "import", "-j", folder).importStates(t), images, "added")
}

// TestBundleVolumes: volumes in any order, in one command or one after the other.
func TestBundleVolumes(t *testing.T) {
	t.Parallel()
	images := []image{newImage("vol-big", 9<<20), newImage("vol-small", 100_000), newImage("vol-middle", 3<<20)}
	m := carrier(t, images...)
	dir := t.TempDir()
	m.verb("bundle", "export", "-q", "--volume", "4MiB", "-o", filepath.Join(dir, "v.tar"), "name=~vol").want(t)
	volumes, err := filepath.Glob(filepath.Join(dir, "v.*.tar"))
	if err != nil || len(volumes) < 3 {
		t.Fatalf("%v, %v", volumes, err)
	}
	for _, v := range volumes {
		if info, err := os.Stat(v); err != nil || info.Size() > 4<<20 {
			t.Errorf("%s: %v, %v", v, info.Size(), err)
		}
	}
	back := []string{"bundle", "import", "-j"}
	for i := range volumes {
		back = append(back, volumes[len(volumes)-1-i])
	}
	wantAll(t, startMirror(t, nil).verb(back...).importStates(t), images, "added")

	far := startMirror(t, nil)
	last := far.verb("bundle", "import", "-j", volumes[len(volumes)-1]).importStates(t)
	if last[images[0].uuid] != "waiting" {
		t.Errorf("the last volume alone: %v", last)
	}
	for _, v := range volumes {
		far.verb("bundle", "import", "-q", v).want(t)
	}
	for _, img := range images {
		get(t, far.url+filePath(img)).wantFile(t, img)
	}
	one := filepath.Join(dir, "one") + "/"
	m.verb("bundle", "export", "-q", "--volume", "4MiB", "-o", one, "name=~vol").want(t)
	wantAll(t, startMirror(t, nil).verb("bundle", "import", "-j", one).importStates(t), images, "added")
}

// TestBundleBusy: two exports do not write to one place.
func TestBundleBusy(t *testing.T) {
	t.Parallel()
	m := carrier(t, bundleImages("busy", 1, 50_000)...)
	dir := t.TempDir()
	for output, locked := range map[string]string{"b.tar": "b.tar.partial", "folder/": "folder/.imgmirror-lock"} {
		path := filepath.Join(dir, locked)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		other, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.FcntlFlock(other.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK}); err != nil {
			t.Fatal(err)
		}
		export := []string{"bundle", "export", "-q", "-o", dir + "/" + output, "name=~busy"}
		m.verb(export...).wantError(t, "bundle export", "Busy")
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		m.verb(export...).want(t)
	}
}

// TestBundleRefusedInMidFile: a file that the mirror cannot take to its end refuses its image alone, also of a client over
// TCP, which is sending when the answer comes.
func TestBundleRefusedInMidFile(t *testing.T) {
	t.Parallel()
	images := []image{newImage("mid-0", 30<<20), newImage("mid-1", 1<<20), newImage("mid-2", 28<<20), newImage("mid-3", 3000)}
	file := filepath.Join(t.TempDir(), "mid.tar")
	carrier(t, images...).verb("bundle", "export", "-q", "-o", file, "name=~mid").want(t)
	far := startMirror(t, nil)
	limit := exec.Command(need(t, "prlimit"), "--pid", fmt.Sprint(far.cmd.Process.Pid), "--fsize=20971520")
	if out, err := limit.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for round := range 4 {
		said := far.remote("bundle", "import", "-j", file)
		states := said.importStates(t)
		small := "added"
		if round > 0 {
			small = "present"
		}
		for i, want := range []string{"refused", small, "refused", small} {
			if got := states[images[i].uuid]; got != want {
				t.Errorf("round %d, %s: %s, want %s (%s)", round, images[i].name, got, want, said.stderr)
			}
		}
	}
}
