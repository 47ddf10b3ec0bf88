package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// lineRate is the line to the source, in bytes per second.
const lineRate = 50_000_000

// BenchmarkInstall is the install of an image that is not cached, against the slower of its two steps,
// download and receive, by itself: the image is received while it is downloaded.
// IMGMIRROR_TEST_INSTALL_MB is the size of the image, 256 when it is not set.
func BenchmarkInstall(b *testing.B) {
	size := int64(256_000_000)
	if text := os.Getenv("IMGMIRROR_TEST_INSTALL_MB"); text != "" {
		mb, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		size = mb * 1_000_000
	}
	p := newPool(b, 5*size+200_000_000)
	img := p.largeImage(size)
	src := newSource(b, img)
	m := newMirror(b, p.settings(), from(src.link(lineRate), settings{"refresh": "1h"}))

	timed := func(args ...string) time.Duration {
		b.Helper()
		began := time.Now()
		m.verb(append(args, "-q", img.uuid)...).want(b)
		return time.Since(began)
	}
	fresh := func() {
		b.Helper()
		m.kill()
		if err := os.RemoveAll(m.data()); err != nil {
			b.Fatal(err)
		}
		p.clear()
		m.start()
		m.awaitList(1)
	}
	// Each step by itself, then both at once, three times over: the machine may
	// be busy with something else at any moment, so only neighbours are compared.
	var ratios []float64
	for range 3 {
		fresh()
		download := timed("fetch")
		receive := timed("install")
		p.holds(img.uuid)
		fresh()
		both := timed("install")
		p.holds(img.uuid)
		ratio := both.Seconds() / max(download, receive).Seconds()
		ratios = append(ratios, ratio)
		b.Logf("%d MB at %d MB/s: download %.1f s, receive %.1f s, both at once %.1f s: %.2f times the slower one, %.2f times their sum",
			len(img.file)/1_000_000, lineRate/1_000_000, download.Seconds(), receive.Seconds(), both.Seconds(),
			ratio, both.Seconds()/(download+receive).Seconds())
	}
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratios[1], "install/slower-step")
}

// largeImage makes an image whose file has about size bytes, compressed with gzip,
// of a dataset whose content cannot be compressed.
func (p *pool) largeImage(size int64) image {
	p.t.Helper()
	dataset := p.name + "/large"
	p.zfs("create", dataset)
	content, err := os.Create(filepath.Join(p.mount, "large", "content"))
	if err == nil {
		_, err = io.CopyN(content, rand.NewChaCha8([32]byte{1}), size)
		content.Close()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.zfs("snapshot", dataset+"@final")
	send := exec.Command("zfs", "send", dataset+"@final")
	var file, stderr bytes.Buffer
	file.Grow(int(size + size/50))
	pack, err := gzip.NewWriterLevel(&file, gzip.BestSpeed)
	if err != nil {
		p.t.Fatal(err)
	}
	send.Stdout, send.Stderr = pack, &stderr
	if err := send.Run(); err != nil {
		p.t.Fatalf("zfs send: %v\n%s", err, &stderr)
	}
	if err := pack.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.clear()
	sum := sha1.Sum(file.Bytes())
	return newImageOf(p.t, "large", file.Bytes(), hex.EncodeToString(sum[:]))
}

// newImageOf is an image with a file of one's own.
func newImageOf(t testing.TB, name string, file []byte, sum string) image {
	t.Helper()
	img := newImage(name+"-"+uuid.NewString(), 0, map[string]any{
		"name":  name,
		"files": []any{map[string]any{"sha1": sum, "size": len(file), "compression": "gzip"}},
	})
	if !strings.HasPrefix(img.name, name) {
		t.Fatal(img.name)
	}
	img.file = file
	return img
}
