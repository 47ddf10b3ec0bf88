package e2e

import (
	"cmp"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pool is a zpool of the test's own, on a file, and imgadm's database beside it.
type pool struct {
	t     testing.TB
	name  string
	mount string
	db    string // zfsimport.db_dir
}

// newPool makes a pool with size bytes. It is destroyed at the end of the test.
// Its name begins with $IMGMIRROR_TEST_POOL, or "imgm": a host's own pool is never touched.
func newPool(t testing.TB, size int64) *pool {
	t.Helper()
	need(t, "zfs")
	zpool := need(t, "zpool")
	if os.Geteuid() != 0 {
		missing(t, "root, who may make a zpool")
	}
	if err := startZFS(); err != nil {
		missing(t, "a working ZFS: "+err.Error())
	}
	var random [4]byte
	rand.Read(random[:]) //nolint:errcheck // it never fails
	dir := t.TempDir()
	p := &pool{
		t: t, name: cmp.Or(os.Getenv("IMGMIRROR_TEST_POOL"), "imgm") + hex.EncodeToString(random[:]),
		mount: filepath.Join(dir, "mnt"), db: filepath.Join(dir, "imgadm"),
	}
	disk := filepath.Join(dir, "disk")
	file, err := os.Create(disk)
	if err == nil {
		err = file.Truncate(size)
		file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(zpool, "create", "-f", "-o", "cachefile=none", "-m", p.mount, p.name, disk).CombinedOutput(); err != nil {
		t.Fatalf("zpool create: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		deadline := time.Now().Add(10 * time.Second)
		for {
			out, err := exec.Command(zpool, "destroy", "-f", p.name).CombinedOutput()
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("zpool destroy: %v\n%s", err, out)
				return
			}
		}
	})
	return p
}

// startZFS starts the daemon of zfs-fuse where nothing else answers for ZFS. It
// stays: there can be one on a machine, and others may have begun to use it.
var startZFS = sync.OnceValue(func() error {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "imgmirror-zfs-fuse.lock"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer lock.Close()
	// The tests of zfsimport do the same.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	answers := func() error {
		out, err := exec.Command("zpool", "list").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("zpool list: %w: %s", err, out)
		}
		return err
	}
	err = answers()
	daemon, lookErr := exec.LookPath("zfs-fuse")
	if err == nil || lookErr != nil {
		return err
	}
	if out, err := exec.Command(daemon).CombinedOutput(); err != nil { // it goes into the background
		return fmt.Errorf("zfs-fuse: %w: %s", err, out)
	}
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); {
		err = answers()
	}
	return err
})

// settings are those of a mirror that installs into the pool.
func (p *pool) settings() settings {
	return settings{"zfsimport.pool": p.name, "zfsimport.db_dir": p.db}
}

// zfs runs zfs and gives what it says.
func (p *pool) zfs(args ...string) string {
	p.t.Helper()
	out, err := exec.Command("zfs", args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("zfs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// listing is all that is in the pool, without the pool's name.
func (p *pool) listing() string {
	p.t.Helper()
	_, below, _ := strings.Cut(p.zfs("list", "-H", "-r", "-t", "all", "-o", "name,origin,refer", p.name), "\n")
	return strings.ReplaceAll(below, p.name, "POOL")
}

// datasets are the names below the pool, without it.
func (p *pool) datasets() []string {
	p.t.Helper()
	var names []string
	for name := range strings.FieldsSeq(p.zfs("list", "-H", "-r", "-t", "filesystem", "-o", "name", p.name)) {
		if below, ok := strings.CutPrefix(name, p.name+"/"); ok {
			names = append(names, below)
		}
	}
	slices.Sort(names)
	return names
}

// record is one of imgadm's.
type record struct {
	Manifest json.RawMessage `json:"manifest"`
	Pool     string          `json:"zpool"`
	Source   string          `json:"source"`
}

// records are imgadm's, by uuid. Files that imgadm does not look at are left out.
func (p *pool) records() map[string]record {
	p.t.Helper()
	all := make(map[string]record)
	entries, err := os.ReadDir(filepath.Join(p.db, "images"))
	if err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		id, ours := strings.CutPrefix(strings.TrimSuffix(e.Name(), ".json"), p.name+"-")
		if !ours || filepath.Ext(e.Name()) != ".json" {
			p.t.Errorf("in imgadm's database: %s", e.Name())
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.db, "images", e.Name()))
		if err != nil {
			p.t.Fatal(err)
		}
		var r record
		if err := json.Unmarshal(text, &r); err != nil {
			p.t.Errorf("%s: %v in %q", e.Name(), err, text)
		}
		if r.Pool != p.name {
			p.t.Errorf("%s: zpool is %q", e.Name(), r.Pool)
		}
		all[id] = r
	}
	return all
}

// holds fails the test unless exactly these images are installed and recorded.
func (p *pool) holds(uuids ...string) {
	p.t.Helper()
	want := slices.Sorted(slices.Values(uuids))
	if got := p.datasets(); !slices.Equal(got, want) {
		p.t.Errorf("the pool holds %q, want %q", got, want)
	}
	if got := slices.Sorted(maps.Keys(p.records())); !slices.Equal(got, want) {
		p.t.Errorf("imgadm's records are of %q, want %q", got, want)
	}
	if left, _ := filepath.Glob(filepath.Join(p.db, "images", ".*")); len(left) > 0 {
		p.t.Errorf("left in imgadm's database: %q", left)
	}
}

// clear destroys all images.
func (p *pool) clear() {
	p.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for left := p.datasets(); len(left) > 0; left = p.datasets() {
		var said []byte
		for _, name := range left {
			// zfs-fuse keeps what is mounted busy for a while. -R takes clones along, which are images, too.
			_ = exec.Command("zfs", "unmount", p.name+"/"+name).Run()
			if out, err := exec.Command("zfs", "destroy", "-R", p.name+"/"+name).CombinedOutput(); err != nil {
				said = out
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("zfs destroy: %s", said)
		}
	}
	if err := os.RemoveAll(p.db); err != nil {
		p.t.Fatal(err)
	}
}

// contents are the files of a mounted image, by their paths.
func (p *pool) contents(id string) map[string]string {
	p.t.Helper()
	root := filepath.Join(p.mount, id)
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha1.Sum(data))
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + to
		}
		name, err := filepath.Rel(root, path)
		all[name] = text
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

// importAsImgadm does with an image what imgadm does once it has the file.
func (p *pool) importAsImgadm(img image) {
	p.t.Helper()
	dataset := p.name + "/" + img.uuid
	var files []struct{ Compression string }
	text, err := json.Marshal(img.fields(p.t)["files"])
	if err == nil {
		err = json.Unmarshal(text, &files)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	compression := files[0].Compression
	if compression == "" { // as of a v1 manifest: by the name
		compression = map[string]string{".gz": "gzip", ".bz2": "bzip2"}[filepath.Ext(img.path)]
	}
	receive := exec.Command("zfs", "receive", "-u", dataset+"-partial")
	receive.Stdin = strings.NewReader(string(decompress(p.t, compression, img.file)))
	if out, err := receive.CombinedOutput(); err != nil {
		p.t.Fatalf("zfs receive: %v\n%s", err, out)
	}
	snapshot := strings.TrimSpace(p.zfs("list", "-H", "-r", "-t", "snapshot", "-o", "name", dataset+"-partial"))
	if !strings.HasSuffix(snapshot, "@final") {
		p.zfs("rename", snapshot, dataset+"-partial@final")
	}
	p.zfs("rename", dataset+"-partial", dataset)
	p.zfs("mount", dataset)
}
