package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imgmirror/proxy/upstream/upstreamtest"
)

// docsEnv names the page whose commands this process is to run, and docsDirEnv an empty folder for the page's machine.
const (
	docsEnv    = "E2E_DOCS_PAGE"
	docsDirEnv = "E2E_DOCS_DIR"
)

// docImages are what the image server of the pages has: the samples, and images named as on SmartOS' own.
func docImages(t *testing.T) []image {
	more := func(id, name, version string) image {
		return asNew(t, sampleBase, nil, map[string]any{"uuid": id, "name": name, "version": version})
	}
	return append(sampleImageList(t),
		more("e75c9d82-3156-11ea-9220-c7a6bb9f41b6", "base-64-lts", "24.4.0"),
		more("f0a6bb9f-41b6-4e58-8b1a-9d823156c7a6", "minimal-64-lts", "24.4.0"))
}

// TestDocsCommands runs the marked blocks of each page as they stand there: each page in one shell, as root, on a
// machine of its own, with namespaces for mounts, processes and the network. On this machine
//
//   - imgmirror is the binary under test, its settings are those of a package: /etc/imgmirror/imgmirror.yaml with
//     data_dir /var/lib/imgmirror, and the mirror runs, unless the page has a `background` block that runs the mirror;
//   - mirror is the name of the machine, and https://images.smartos.org an image server with the samples;
//   - imgadm asks what imgadm asks, by curl (testdata/docs/imgadm);
//   - the shell begins in an empty folder with mine.zfs.gz, a ZFS stream, and new.json with new.zfs.gz, an image that no server has;
//   - UUID is an image of the server whose chain has three images, and DATA is /var/lib/imgmirror;
//   - /media/disk is an empty medium, and each PLACE of a mark is a mirror without a network, in /var/lib/PLACE,
//     which takes bundles signed by bundle.key alone once the page has made this key.
func TestDocsCommands(t *testing.T) {
	if page := os.Getenv(docsEnv); page != "" {
		runDocs(t, page)
		return
	}
	t.Parallel()
	unshare := need(t, "unshare")
	for _, program := range []string{"ip", "mount", "bash", "curl", "openssl", "minisign"} {
		need(t, program)
	}
	space := []string{"-m", "-n", "-p", "-f", "--kill-child", "--mount-proc"}
	if out, err := exec.Command(unshare, append(space, "true")...).CombinedOutput(); err != nil {
		missing(t, "the right to make namespaces: "+string(out))
	}
	ran := 0
	for _, page := range docPages(t) {
		var has bool
		for _, b := range docBlocks(t, page) {
			has = has || b.kind() == "run"
		}
		if !has {
			continue
		}
		ran++
		t.Run(page, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, unshare, append(space, os.Args[0], "-test.run", "^TestDocsCommands$", "-test.v")...)
			cmd.Env = append(cleanEnv(), docsEnv+"="+page, docsDirEnv+"="+t.TempDir(), binaryEnv+"="+imgmirror)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("--- PASS: TestDocsCommands")) {
				t.Errorf("%v\n%s", err, out)
			} else if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
	if ran < 4 {
		t.Errorf("only %d pages have commands that are run", ran)
	}
}

// runDocs makes the machine of a page, and runs the page's commands there.
func runDocs(t *testing.T, page string) {
	dir := os.Getenv(docsDirEnv)
	setUp := func(script string) {
		t.Helper()
		if out, err := exec.Command("bash", "-euc", script, "bash", dir).CombinedOutput(); err != nil {
			t.Fatalf("%s\n%v\n%s", script, err, out)
		}
	}
	// 40 GB, as seen from the inside: cache.min_free is 10 GB.
	setUp(`ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o size=40g docs "$1"
mkdir "$1"/etc "$1"/lib "$1"/media "$1"/srv "$1"/home "$1"/bin "$1"/tls "$1"/tmp
cp -a /etc/. "$1"/etc
mkdir -p "$1"/etc/imgmirror "$1"/media/disk "$1"/lib/imgmirror
echo '127.0.0.1 localhost mirror images.smartos.org' >"$1"/etc/hosts
echo 'data_dir: /var/lib/imgmirror' >"$1"/etc/imgmirror/imgmirror.yaml
for d in lib:/var/lib etc:/etc media:/media srv:/srv tmp:/var/tmp; do mount --bind "$1/${d%%:*}" "${d#*:}"; done`)

	certFile, keyFile := certificateUntil(t, filepath.Join(dir, "tls"), time.Now().Add(time.Hour))
	src := docServer(t, certFile, keyFile)
	fresh := asNew(t, sampleBase, nil, map[string]any{"name": "mine", "version": "2.0.0"})
	home := filepath.Join(dir, "home")
	for name, data := range map[string][]byte{
		"mine.zfs.gz": fresh.file, "new.zfs.gz": fresh.file, "new.json": fresh.manifest,
	} {
		if err := os.WriteFile(filepath.Join(home, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	imgadm, err := filepath.Abs("testdata/docs/imgadm")
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"imgadm": imgadm, "imgmirror": imgmirror} {
		if err := os.Symlink(program, filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", docScript(docBlocks(t, page)))
	cmd.Dir = home
	cmd.Env = append(cleanEnv(), "HOME="+home, "SSL_CERT_FILE="+certFile,
		"PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("%s: %v\nasked of the image server: %d requests", page, err, src.Count(""))
	}
}

// docServer is https://images.smartos.org.
func docServer(t *testing.T, certFile, keyFile string) *source {
	src := newSourceWith(t, upstreamtest.Options{}, docImages(t)...)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: src.Server, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(l, "", "") // ends by Close
	}()
	t.Cleanup(func() { server.Close(); <-served })
	return src
}

// docScript is the shell's script of a page: the first command that fails ends the script and is named.
func docScript(blocks []docBlock) string {
	var s strings.Builder
	s.WriteString(`set -eu -o pipefail
where=beginning
trap 'echo "FAILED: the block $where: $BASH_COMMAND" >&2' ERR
awaitready() {
	for ((k = 0; k < 400; k++)); do
		if curl -sfo /dev/null http://mirror:8080/readyz && imgmirror avail 2>/dev/null | grep -q base-64-lts; then return; fi
		sleep 0.05
	done
	echo "no mirror has become ready"; cat serve.log; return 1
}
`)
	background := false
	for _, b := range blocks {
		background = background || b.mark == "sh run background"
	}
	serve := "{ %s } >>serve.log 2>&1 &\nawaitready\n"
	if !background {
		fmt.Fprintf(&s, serve, "imgmirror serve;")
	}
	for _, b := range blocks {
		if b.kind() != "run" {
			continue
		}
		fmt.Fprintf(&s, "where=%s\n", b)
		text := docUUID.ReplaceAllString(docData.ReplaceAllString(b.text, "/var/lib/imgmirror"), sampleApp)
		switch place := strings.TrimSpace(strings.TrimPrefix(b.mark, "sh run")); place {
		case "":
			s.WriteString(text)
		case "background":
			fmt.Fprintf(&s, serve, "\n"+text)
		default:
			fmt.Fprintf(&s, `export IMGMIRROR_DATA_DIR=/var/lib/%s IMGMIRROR_SOURCES='[]'
if [ -e bundle.key.pub ]; then export IMGMIRROR_BUNDLE_TRUSTED_KEYS=$PWD/bundle.key.pub IMGMIRROR_BUNDLE_REQUIRE_SIGNATURE=true; fi
%sunset ${!IMGMIRROR_@}
`, place, text)
		}
	}
	s.WriteString("where=end\n")
	return s.String()
}

var (
	docUUID = regexp.MustCompile(`\bUUID\b`)
	docData = regexp.MustCompile(`\bDATA\b`)
)
