package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// layer is this machine under a layer of its own: what a test installs and writes there is gone after the test.
type layer struct {
	t    *testing.T
	root string
}

func newLayer(t *testing.T) *layer {
	t.Helper()
	need(t, "chroot")
	if os.Getuid() != 0 {
		missing(t, "root, to mount a layer over this machine")
	}
	dir := t.TempDir()
	l := &layer{t, filepath.Join(dir, "root")}
	mount := func(source, target, kind string, flags uintptr, data string) {
		t.Helper()
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			missing(t, "a mount of "+target+": "+err.Error())
		}
		t.Cleanup(func() {
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	mount("tmpfs", dir, "tmpfs", 0, "")
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755), os.Mkdir(l.root, 0o755)); err != nil {
		t.Fatal(err)
	}
	mount("overlay", l.root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work)
	for _, name := range []string{"/proc", "/dev"} {
		mount(name, l.path(name), "", unix.MS_BIND, "")
	}
	return l
}

// path is a path of the layer as the test sees it.
func (l *layer) path(name string) string { return filepath.Join(l.root, name) }

// command is a command line in the layer, of root or of another user.
func (l *layer) command(user string, args ...string) *exec.Cmd {
	l.t.Helper()
	cmd := exec.Command("chroot", append([]string{"--userspec=" + user, l.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	return cmd
}

// run runs a command line in the layer to its end. Its input is empty.
func (l *layer) run(user string, args ...string) said {
	l.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := l.command(user, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return said{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must is run as root, and wants success.
func (l *layer) must(args ...string) string {
	l.t.Helper()
	s := l.run("root", args...)
	if s.code != 0 {
		l.t.Fatalf("%q: exit %d\n%s%s", args, s.code, s.stdout, s.stderr)
	}
	return s.stdout
}

// there tells whether a path of the layer is there.
func (l *layer) there(name string) bool {
	l.t.Helper()
	_, err := os.Lstat(l.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	return err == nil
}

// write puts a file into the layer.
func (l *layer) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(l.path(name), []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// read reads a file of the layer; links in it are followed there.
func (l *layer) read(name string) string {
	l.t.Helper()
	return l.must("cat", name)
}

// service is a process that a service manager would have started in a layer.
type service struct {
	cmd     *exec.Cmd
	systemd *manager
	log     bytes.Buffer
	exited  chan error
}

// start starts the service as the unit says, but for what only systemd can do.
func (l *layer) start(unit map[string]string) *service {
	l.t.Helper()
	socket := "/run/imgmirror-notify"
	if err := os.RemoveAll(l.path(socket)); err != nil {
		l.t.Fatal(err)
	}
	s := &service{systemd: newManager(l.t, l.path(socket)), exited: make(chan error, 1)}
	s.cmd = l.command(unit["User"]+":"+unit["Group"], strings.Fields(unit["ExecStart"])...)
	s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+socket)
	s.cmd.Dir = "/"
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	l.t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // if a failure has left it
		if l.t.Failed() {
			l.t.Logf("the service's log:\n%s", tail(s.log.String(), 4<<10))
		}
	})
	s.systemd.await("READY=1")
	return s
}

// stop ends the service by SIGTERM.
func (s *service) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			t.Errorf("the service ended with %v\n%s", err, tail(s.log.String(), 2<<10))
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the service does not end")
	}
}

// The deb is installed, started, used as root and as its user, upgraded with its data, removed and purged.
func TestDeb(t *testing.T) {
	for _, program := range []string{"dpkg", "systemd-analyze"} {
		need(t, program)
	}
	l := newLayer(t)
	deb := func(d distribution) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(d.dir, "*.deb"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%q: %v", found, err)
		}
		if err := copyFile(found[0], l.path("/root/"+filepath.Base(found[0]))); err != nil {
			t.Fatal(err)
		}
		return "/root/" + filepath.Base(found[0])
	}
	version := func(want string) {
		t.Helper()
		if got := l.must("imgmirror", "--version"); got != "imgmirror "+want+"\n" {
			t.Errorf("the version is %q, want %s", got, want)
		}
	}
	l.must("dpkg", "--no-triggers", "-i", deb(made(t, distOne)))
	version("1.0.0")
	if got := strings.TrimSpace(l.must("stat", "-c", "%U:%G %a", dataDir)); got != "imgmirror:imgmirror 750" {
		t.Errorf("the data folder is %s", got)
	}
	if !l.there("/etc/systemd/system/multi-user.target.wants/imgmirror.service") {
		t.Error("the service is not enabled")
	}
	if s := l.run("root", "systemd-analyze", "verify", "--man=no", "imgmirror.service"); s.code != 0 || s.stdout+s.stderr != "" {
		t.Errorf("systemd-analyze verify: exit %d\n%s%s", s.code, s.stdout, s.stderr)
	}
	if s := l.run("root", "imgmirror", "config", "check"); s.code != 0 {
		t.Errorf("config check: %s%s", s.stdout, s.stderr)
	}

	if err := os.CopyFS(l.path("/srv/images"), os.DirFS("../cmd/imgmirror/demo")); err != nil {
		t.Fatal(err)
	}
	listen, admin := freeAddr(t), freeAddr(t)
	settings := "data_dir: " + dataDir + "\nlisten: " + listen + "\nadmin: {listen: " + admin + "}\n" +
		"cache: {min_free: 1MB}\nsources: [{name: folder, url: /srv/images, kind: directory}]\n"
	l.write("/etc/imgmirror/imgmirror.yaml", settings)
	unit := unitOf(t, l.read("/usr/lib/systemd/system/imgmirror.service"))

	s := l.start(unit)
	wantImage := func(user string) {
		t.Helper()
		said := l.run(user, "imgmirror", "list", "-H", "-o", "uuid,pinned")
		if said.code != 0 || strings.Join(strings.Fields(said.stdout), " ") != sampleBase+" true" {
			t.Errorf("%s: list: exit %d\n%s%s", user, said.code, said.stdout, said.stderr)
		}
	}
	l.must("imgmirror", "fetch", sampleBase)
	l.must("imgmirror", "pin", sampleBase)
	for _, user := range []string{"root", "imgmirror"} {
		wantImage(user)
		if said := l.run(user, "imgmirror", "jobs"); said.code != 0 || !strings.Contains(said.stdout, "fetch") {
			t.Errorf("%s does not meet the mirror that runs: exit %d\n%s%s", user, said.code, said.stdout, said.stderr)
		}
	}
	if said := l.run("nobody", "imgmirror", "list"); said.code != 1 || !strings.Contains(said.stderr, "error (NotAllowed)") {
		t.Errorf("a stranger's list: exit %d\n%s%s", said.code, said.stdout, said.stderr)
	}
	get(t, "http://"+listen+"/images/"+sampleBase+"/file").wantFile(t, sample(t, sampleBase))
	s.stop(t)

	// What root does while no mirror runs is no hindrance for the service.
	l.must("imgmirror", "fetch", samplePlain)
	l.must("imgmirror", "delete", samplePlain)
	s = l.start(unit)
	wantImage("root")
	s.stop(t)
	if foreign := l.must("find", dataDir, "!", "-user", "imgmirror"); foreign != "" {
		t.Errorf("not of the user imgmirror:\n%s", foreign)
	}

	l.must("dpkg", "--no-triggers", "-i", deb(made(t, distTwo)))
	version("1.1.0")
	if got := l.read("/etc/imgmirror/imgmirror.yaml"); got != settings {
		t.Errorf("the upgrade has made the settings\n%s", got)
	}
	s = l.start(unit)
	wantImage("imgmirror")
	s.stop(t)

	data := l.must("find", dataDir, "-type", "f")
	l.must("dpkg", "--no-triggers", "-r", "imgmirror")
	if l.there("/usr/bin/imgmirror") || !l.there("/etc/imgmirror/imgmirror.yaml") || l.must("find", dataDir, "-type", "f") != data {
		t.Error("a removal takes the binary, and keeps settings and data")
	}
	l.must("dpkg", "--no-triggers", "-P", "imgmirror")
	if l.there("/etc/imgmirror") || l.there("/etc/systemd/system/multi-user.target.wants/imgmirror.service") || l.must("find", dataDir, "-type", "f") != data {
		t.Error("a purge takes the settings, and keeps the data")
	}
}

// The rpm is installed, started, upgraded and removed; the data and changed settings stay.
func TestRPM(t *testing.T) {
	need(t, "rpm")
	l := newLayer(t)
	install := func(option string, d distribution) {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(d.dir, "*.rpm"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%q: %v", found, err)
		}
		if err := copyFile(found[0], l.path("/root/imgmirror.rpm")); err != nil {
			t.Fatal(err)
		}
		l.must("rpm", "--nodeps", option, "/root/imgmirror.rpm") // what this machine has, rpm does not know
	}
	install("-i", made(t, distOne))
	if got := strings.TrimSpace(l.must("stat", "-c", "%U:%G %a", dataDir)); got != "imgmirror:imgmirror 750" {
		t.Errorf("the data folder is %s", got)
	}
	settings := "data_dir: " + dataDir + "\nlisten: " + freeAddr(t) + "\nadmin: {listen: \"\"}\ncache: {min_free: 1MB}\nsources: []\n"
	l.write("/etc/imgmirror/imgmirror.yaml", settings)
	unit := unitOf(t, l.read("/usr/lib/systemd/system/imgmirror.service"))
	s := l.start(unit)
	l.must("imgmirror", "jobs") // which asks a mirror that runs
	s.stop(t)
	install("-U", made(t, distTwo))
	if got := l.must("imgmirror", "--version"); got != "imgmirror 1.1.0\n" {
		t.Errorf("the version is %q", got)
	}
	if got := l.read("/etc/imgmirror/imgmirror.yaml"); got != settings {
		t.Errorf("the upgrade has made the settings\n%s", got)
	}
	s = l.start(unit)
	s.stop(t)
	l.must("rpm", "-e", "imgmirror")
	if l.there("/usr/bin/imgmirror") || !l.there(dataDir+"/index") || l.read("/etc/imgmirror/imgmirror.yaml.rpmsave") != settings {
		t.Error("a removal takes the binary, and keeps settings and data")
	}
}
