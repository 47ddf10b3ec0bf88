package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// BenchmarkBundle is export and import of many bytes, each against cp and sha1sum of the same in the
// same round. E2E_BUNDLE_MB sets the number of megabytes. The ratios are of the medians of three rounds.
func BenchmarkBundle(b *testing.B) {
	megabytes, rounds := 512, 3
	if text := os.Getenv("E2E_BUNDLE_MB"); text != "" {
		var err error
		if megabytes, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	sha1sum, cp := need(b, "sha1sum"), need(b, "cp")
	const each = 128 // MB of an image
	count := max(1, megabytes/each)
	// The images come from a folder that goes when they are in the cache: what they
	// take of the memory is the disks' to use while it is measured.
	source := filepath.Join(b.TempDir(), "source")
	var total int64
	for i := range count {
		img := newImage("speed-"+strconv.Itoa(i), min(megabytes, each)<<20)
		folder := filepath.Join(source, img.uuid)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			b.Fatal(err)
		}
		for name, data := range map[string][]byte{"manifest.json": img.manifest, "image.zfs.gz": img.file} {
			if err := os.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
				b.Fatal(err)
			}
		}
		total += int64(len(img.file))
	}
	m := startMirror(b, nil, from(source, settings{"kind": "directory"}))
	m.awaitList(count)
	m.verb("fetch", "-q", "os=smartos").want(b)
	if err := os.RemoveAll(source); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	timed := func(do func()) time.Duration {
		began := time.Now()
		do()
		return time.Since(began)
	}
	run := func(name string, args ...string) {
		b.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			b.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	var plain, exports, imports []time.Duration
	for range rounds {
		copied, file := filepath.Join(dir, "copy"), filepath.Join(dir, "all.tar")
		plain = append(plain, timed(func() {
			run(cp, "-r", m.data("files"), copied)
			files, err := filepath.Glob(filepath.Join(copied, "*", "*"))
			if err != nil || len(files) != count {
				b.Fatalf("%d files, %v", len(files), err)
			}
			run(sha1sum, files...)
		}))
		if err := os.RemoveAll(copied); err != nil {
			b.Fatal(err)
		}
		exports = append(exports, timed(func() { m.verb("bundle", "export", "-q", "-o", file, "name=~speed").want(b) }))
		far := startMirror(b, nil)
		imports = append(imports, timed(func() { far.verb("bundle", "import", "-q", file).want(b) }))
		far.stop()
		for _, path := range []string{file, far.data()} {
			if err := os.RemoveAll(path); err != nil {
				b.Fatal(err)
			}
		}
	}
	median := func(all []time.Duration) time.Duration { slices.Sort(all); return all[len(all)/2] }
	base := median(plain)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(total)/1e6/base.Seconds(), "MB/s-by-cp+sha1sum")
	b.ReportMetric(float64(median(exports))/float64(base), "export/cp+sha1sum")
	b.ReportMetric(float64(median(imports))/float64(base), "import/cp+sha1sum")
}
