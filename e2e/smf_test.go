package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The archive for illumos, with the binary of this machine, is set up in a zone and in the global zone by its script,
// with stubs for what only illumos has. The method starts the mirror, and root's verbs meet the mirror.
func TestSMFSetup(t *testing.T) {
	for _, zone := range []string{"global", "mirror"} {
		t.Run(zone, func(t *testing.T) {
			d := made(t, distSMF)
			l := newLayer(t)
			stub := func(name, script string) {
				l.write("/usr/local/sbin/"+name, "#!/bin/sh\n"+script+"\n")
				if err := os.Chmod(l.path("/usr/local/sbin/"+name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			stub("zonename", "echo "+zone)
			stub("svccfg", `test -f "$2" && echo svccfg "$@" >>/root/calls`)
			// The dataset is there once it has been made.
			stub("zfs", `echo zfs "$@" >>/root/calls; case $1 in create) mkdir -p /var/lib/imgmirror;; esac; test -d /var/lib/imgmirror`)
			if err := copyFile(filepath.Join(d.dir, "imgmirror-1.0.0-illumos-amd64.tar.gz"), l.path("/root/archive.tar.gz")); err != nil {
				t.Fatal(err)
			}
			l.must("mkdir", "-p", "/opt", "/elsewhere")
			l.must("tar", "-xzf", "/root/archive.tar.gz", "-C", "/elsewhere")
			if s := l.run("root", "/elsewhere/imgmirror/smf/setup"); s.code != 1 || !strings.Contains(s.stderr, "unpack the archive in /opt") {
				t.Errorf("elsewhere: exit %d\n%s%s", s.code, s.stdout, s.stderr)
			}
			l.must("tar", "-xzf", "/root/archive.tar.gz", "-C", "/opt")
			l.must("/opt/imgmirror/smf/setup")

			user, kept, manifest := "imgmirror", "/etc/imgmirror/imgmirror.yaml", "/opt/imgmirror/smf/imgmirror.xml"
			if zone == "global" {
				user, kept, manifest = "root", "/opt/custom/etc/imgmirror.yaml", "/opt/custom/smf/imgmirror.xml"
				if got, want := l.read("/root/calls"), "zfs create -o mountpoint="+dataDir+" "; !strings.Contains(got, want) {
					t.Errorf("called were\n%swant %s", got, want)
				}
				if got := l.must("cat", manifest); got != readRoot(t, "deploy/smf/imgmirror-gz.xml") {
					t.Errorf("the manifest for the boot is\n%s", got)
				}
			} else if got := strings.TrimSpace(l.must("stat", "-c", "%U:%G %a", dataDir)); got != "imgmirror:imgmirror 750" {
				t.Errorf("the data folder is %s", got)
			}
			if got := l.read("/root/calls"); !strings.Contains(got, "svccfg import "+manifest+"\n") {
				t.Errorf("called were\n%swant svccfg import %s", got, manifest)
			}

			// An operator's settings stay when setup runs again, after an upgrade.
			settings := "data_dir: " + dataDir + "\nlisten: " + freeAddr(t) + "\nadmin: {listen: \"\"}\ncache: {min_free: 1MB}\nsources: []\n"
			l.write(kept, settings)
			l.must("/opt/imgmirror/smf/setup")
			if got := l.read(kept); got != settings {
				t.Errorf("setup has made the settings\n%s", got)
			}
			if zone == "global" { // a boot: nothing in /etc outlasts it
				l.must("rm", "-r", "/etc/imgmirror")
			}
			s := l.start(map[string]string{"User": user, "Group": user, "ExecStart": "/opt/imgmirror/smf/method"})
			l.must("/opt/imgmirror/bin/imgmirror", "jobs") // which asks a mirror that runs
			if got := l.read("/etc/imgmirror/imgmirror.yaml"); got != settings {
				t.Errorf("verbs read\n%s", got)
			}
			s.stop(t)
		})
	}
}
