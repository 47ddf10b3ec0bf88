package zfsimport

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// poolVariable names the pools that tests make, which end in a number.
const poolVariable = "IMGMIRROR_TEST_POOL"

// pool is a zpool on a file, made and destroyed by its test.
type pool struct {
	t    testing.TB
	name string
	dir  string // where it is mounted
}

// newPool makes a pool of so many MiB.
func newPool(t testing.TB, size int64) *pool {
	t.Helper()
	needZFS(t)
	prefix := os.Getenv(poolVariable)
	if prefix == "" {
		prefix = "imgm"
	}
	p := &pool{t: t, name: fmt.Sprintf("%s%08x", prefix, rand.Uint32()), dir: filepath.Join(t.TempDir(), "pool")}
	file := filepath.Join(t.TempDir(), "vdev")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size<<20); err != nil {
		t.Fatal(err)
	}
	p.run("zpool", "create", "-f", "-o", "cachefile=none", "-m", p.dir, p.name, file)
	t.Cleanup(func() {
		for range 50 {
			out, err := exec.Command(need(t, "zpool"), "destroy", "-f", p.name).CombinedOutput()
			if err == nil {
				return
			}
			if !bytes.Contains(out, []byte("busy")) {
				t.Errorf("zpool destroy: %s", out)
				return
			}
			time.Sleep(busyPoll)
		}
		t.Errorf("pool %s stays busy", p.name)
	})
	return p
}

// needZFS starts zfs-fuse where that is the ZFS of the machine and it does not
// run. It is left running: there is one daemon for all.
func needZFS(t testing.TB) {
	t.Helper()
	zpool := need(t, "zpool")
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "imgmirror-zfs-fuse.lock"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { // tests of other packages do the same
		t.Fatal(err)
	}
	if exec.Command(zpool, "list").Run() == nil {
		return
	}
	if os.Getuid() != 0 {
		missing(t, "a ZFS that this user may use")
	}
	if out, err := exec.Command(need(t, "zfs-fuse")).CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("a ZFS that works: zfs-fuse: %v: %s", err, out))
	}
	for deadline := time.Now().Add(10 * time.Second); exec.Command(zpool, "list").Run() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			missing(t, "a ZFS that answers")
		}
	}
}

// run runs a program that must not fail.
func (p *pool) run(program string, args ...string) string {
	p.t.Helper()
	var stderr bytes.Buffer
	var out []byte
	var err error
	for range 100 { // a dataset may be busy for a moment, as when another program looks at it
		stderr.Reset()
		cmd := exec.Command(need(p.t, program), args...)
		cmd.Stderr = &stderr
		if out, err = cmd.Output(); err == nil || !bytes.Contains(stderr.Bytes(), []byte("dataset is busy")) {
			break
		}
		time.Sleep(busyPoll)
	}
	if err != nil {
		p.t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// list is all that the pool holds, without its name: "/dataset origin".
func (p *pool) list() string {
	p.t.Helper()
	out := p.run("zfs", "list", "-H", "-r", "-t", "all", "-o", "name,origin", p.name)
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(out, p.name, "")) {
		name, origin, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if origin != "" && origin != "-" {
			name += " " + origin
		}
		if name != "-" { // the pool itself
			lines = append(lines, name)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// sample is an image: its stream, and what is in it.
type sample struct {
	id, origin uuid.UUID
	stream     []byte
	files      map[string][]byte // all, those of its origins too
}

// samples are images made once: a chain of three, another that stands alone, and
// streams that are no images.
type samples struct {
	base, middle, top, other sample
	two                      []byte // a stream of two snapshots
}

var (
	samplesOnce sync.Once
	theSamples  samples
)

// needSamples makes the samples, in a pool that is gone when it returns.
func needSamples(t *testing.T) samples {
	t.Helper()
	samplesOnce.Do(func() {
		t.Run("samples", func(t *testing.T) {
			p := newPool(t, 256)
			theSamples = p.samples()
		})
	})
	if theSamples.base.stream == nil {
		missing(t, "the sample images")
	}
	return theSamples
}

func (p *pool) samples() (s samples) {
	files := map[string][]byte{}
	make1 := func(name, from string, size int, seed uint64) sample {
		image := sample{id: uuid.New()}
		dataset := p.name + "/" + name
		if from == "" {
			p.run("zfs", "create", dataset)
			clear(files)
		} else {
			p.run("zfs", "clone", p.name+"/"+from+"@v1", dataset)
		}
		file := "file-" + name
		files[file] = content(seed, size)
		files["changed"] = []byte("by " + name)
		image.files = make(map[string][]byte)
		for f, data := range files {
			image.files[f] = data
			if f == file || f == "changed" {
				if err := os.WriteFile(filepath.Join(p.dir, name, f), data, 0o644); err != nil {
					p.t.Fatal(err)
				}
			}
		}
		p.run("zfs", "snapshot", dataset+"@v1")
		if from == "" {
			image.stream = []byte(p.run("zfs", "send", dataset+"@v1"))
		} else {
			image.stream = []byte(p.run("zfs", "send", "-i", p.name+"/"+from+"@v1", dataset+"@v1"))
		}
		return image
	}
	s.base = make1("base", "", 3_000_000, 1)
	s.middle = make1("middle", "base", 700_000, 2)
	s.middle.origin = s.base.id
	s.top = make1("top", "middle", 400_000, 3)
	s.top.origin = s.middle.id
	s.other = make1("other", "", 1_000_000, 4)
	p.run("zfs", "snapshot", p.name+"/other@v2")
	s.two = []byte(p.run("zfs", "send", "-R", p.name+"/other@v2"))
	return s
}

// image is a manifest with its file.
type image struct {
	manifest.Manifest
	file []byte
}

// newImage makes an image of a stream. Members replace those of the manifest.
func newImage(t testing.TB, id, origin uuid.UUID, format string, stream []byte, members map[string]any) image {
	t.Helper()
	file := compress(t, format, stream)
	m := map[string]any{
		"v": 2, "uuid": id, "owner": "00000000-0000-0000-0000-000000000000", "name": "sample", "version": "1.0.0", "state": "active",
		"disabled": false, "public": true, "published_at": "2026-01-02T03:04:05Z", "type": "zone-dataset", "os": "smartos",
		"unknown": map[string]any{"kept": []any{}},
		"files":   []any{map[string]any{"sha1": fmt.Sprintf("%x", sha1.Sum(file)), "size": len(file), "compression": format}},
	}
	if origin != uuid.Nil {
		m["origin"] = origin
	}
	for k, v := range members {
		m[k] = v
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := manifest.Parse(text, manifest.ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return image{parsed, file}
}

func (s sample) image(t testing.TB, format string) image {
	return newImage(t, s.id, s.origin, format, s.stream, nil)
}

// memory is a file of bytes that ends as it is told to.
type memory struct {
	ctx  context.Context
	data *bytes.Reader
	size int64
	end  error         // nil = io.EOF
	gate chan struct{} // not nil: the last half waits until it is closed
	half func()        // called when it is waited for, if not nil
}

func (m *memory) Read(p []byte) (int, error) {
	if m.gate != nil && int64(m.data.Len()) <= m.size/2 {
		if m.half != nil {
			m.half()
		}
		select {
		case <-m.gate:
		case <-m.ctx.Done():
		}
	}
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.data.Read(p[:min(len(p), 10_000)])
	if errors.Is(err, io.EOF) && m.end != nil {
		err = m.end
	}
	return n, err
}

func (m *memory) Close() error { return nil }

// files is an Open for images; end and gate are those of their files.
type files struct {
	mu     sync.Mutex
	images map[uuid.UUID][]byte
	end    error
	gate   chan struct{}
	half   func()
	opened int
}

func newFiles(images ...image) *files {
	f := &files{images: make(map[uuid.UUID][]byte)}
	for _, i := range images {
		f.images[i.UUID] = i.file
	}
	return f
}

func (f *files) open(ctx context.Context, m manifest.Manifest) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	data, ok := f.images[m.UUID]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &memory{ctx: ctx, data: bytes.NewReader(data), size: int64(len(data)), end: f.end, gate: f.gate, half: f.half}, nil
}

// newImporter is one with folders of its own.
func newImporter(t testing.TB, p *pool, f *files) *Importer {
	t.Helper()
	dir := t.TempDir()
	o := Options{
		DBDir: filepath.Join(dir, "imgadm"), LockDir: dir, StageDir: filepath.Join(dir, "downloads"),
		Source: "http://mirror.example:8080",
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if f != nil {
		o.Open = f.open
	}
	if p != nil {
		o.Pool = p.name
	}
	im, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// records lists the names in imgadm's database, with the pool called POOL.
func (p *pool) records(im *Importer) string {
	p.t.Helper()
	entries, err := os.ReadDir(im.imagesDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.ReplaceAll(e.Name(), p.name, "POOL"))
	}
	return strings.Join(names, " ")
}

// wantImages checks that the pool holds these samples, with a record each, and
// nothing else.
func (p *pool) wantImages(im *Importer, images ...sample) {
	p.t.Helper()
	var datasets, records []string
	for _, s := range images {
		line := "/" + s.id.String()
		datasets = append(datasets, line+final)
		if s.origin != uuid.Nil {
			line += " /" + s.origin.String() + final
		}
		datasets = append(datasets, line)
		records = append(records, "POOL-"+s.id.String()+".json")
	}
	slices.Sort(datasets)
	slices.Sort(records)
	if got, want := p.list(), strings.Join(datasets, "\n"); got != want {
		p.t.Errorf("the pool holds\n%s\nwant\n%s", got, want)
	}
	if got, want := p.records(im), strings.Join(records, " "); got != want {
		p.t.Errorf("records %s\nwant %s", got, want)
	}
}

// wantFiles checks what is in a mounted image.
func (p *pool) wantFiles(s sample) {
	p.t.Helper()
	dir := filepath.Join(p.dir, s.id.String())
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(s.files) {
		p.t.Errorf("%s: %d files, %v; want %d", dir, len(entries), err, len(s.files))
	}
	for name, want := range s.files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			p.t.Errorf("%s: %d bytes, %v; want %d others", name, len(got), err, len(want))
		}
	}
}
