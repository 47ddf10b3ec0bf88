package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestBundleUnpacked: unpacked by tar alone, a bundle is an image server: over
// nginx for a source of kind static, as a folder for one of kind directory.
// sha256sum finds it right.
func TestBundleUnpacked(t *testing.T) {
	t.Parallel()
	nginx, tar := need(t, "nginx"), need(t, "tar")
	images := bundleImages("web", 8, 80_000)
	m := carrier(t, images...)
	dir, root := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "all.tar")
	m.verb("bundle", "export", "-q", "-o", file, "name=~web").want(t)
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	run(tar, "-xf", file)
	run(need(t, "sha256sum"), "-c", "--quiet", "imgmirror-bundle.sha256")

	url := "http://" + startNginx(t, nginx, root)
	for kind, source := range map[string]map[string]any{
		"static":    from(url+"/", settings{"kind": "static"}),
		"directory": from(root, settings{"kind": "directory", "name": "disk"}),
	} {
		far := startMirror(t, nil, source)
		far.awaitList(len(images))
		for i := 3; i < len(images); i += 4 {
			c := newImgadm(t, far, "imgapi")
			got, err := c.importImage(images[i].uuid)
			if err != nil || len(got) != 4 {
				t.Fatalf("%s: %d images, %v", kind, len(got), err)
			}
			for j, im := range got {
				if want := images[i-3+j]; im.uuid != want.uuid || !bytes.Equal(im.file, want.file) {
					t.Errorf("%s: %s is not what it was", kind, want.name)
				}
			}
		}
	}
}

// startNginx serves a folder until the end of the test, and tells the address.
func startNginx(t *testing.T, nginx, root string) string {
	t.Helper()
	dir, addr := t.TempDir(), freeAddr(t)
	for _, path := range []string{dir, root} { // a master started by root serves as nobody
		for p := path; p != filepath.Dir(p) && p != os.TempDir(); p = filepath.Dir(p) {
			if err := os.Chmod(p, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server { listen %[2]s; root %[3]s; }
}
`, dir, addr, root)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-c", config)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("nginx: %s", out.String())
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		resp, err := http.Get("http://" + addr + "/")
		if err == nil {
			resp.Body.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not answer: %v\n%s", err, out.String())
		}
	}
}
