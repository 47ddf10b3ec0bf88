package e2e

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"imgmirror/manifest"
)

// TestSampleImages checks the images that the binary carries: that manifests
// and files agree, and that they are ZFS streams which fit on one another.
func TestSampleImages(t *testing.T) {
	t.Parallel()
	guids := map[string]uint64{} // by uuid: the guid of its @final snapshot
	total := 0
	for _, id := range sampleUUIDs { // origins first
		img := sample(t, id)
		total += len(img.file)
		m, err := manifest.Parse(img.manifest, manifest.ParseOptions{})
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if m.UUID.String() != id || m.State != "active" || !m.Public || len(m.Files) != 1 {
			t.Errorf("%s: uuid %s, state %s, public %t, %d files", id, m.UUID, m.State, m.Public, len(m.Files))
		}
		file := m.Files[0]
		if file.SHA1.String() != img.sha1() || file.Size != int64(len(img.file)) {
			t.Errorf("%s: the manifest says sha1 %s, %d bytes; %s has %s, %d",
				img.name, file.SHA1, file.Size, img.path, img.sha1(), len(img.file))
		}
		if got := filepath.Base(img.path); got != m.FilePath(0) {
			t.Errorf("%s: its file is called %s, want %s", img.name, got, m.FilePath(0))
		}

		to, from := snapshotGUIDs(t, decompress(t, file.Compression, img.file))
		guids[id] = to
		if stated, ok := img.fields(t)["files"].([]any)[0].(map[string]any)["dataset_guid"]; ok && stated != strconv.FormatUint(to, 10) {
			t.Errorf("%s: dataset_guid %v, the stream has %d", img.name, stated, to)
		}
		if want := guids[m.Origin.String()]; from != want {
			t.Errorf("%s: an increment on snapshot %d, its origin is %d", img.name, from, want)
		}
	}
	if total > 600<<10 {
		t.Errorf("the samples have %d bytes, which is much to carry in a binary", total)
	}
}

// decompress is what imgadm does: by the manifest's word only.
func decompress(t testing.TB, compression string, data []byte) []byte {
	t.Helper()
	var (
		r   io.Reader = bytes.NewReader(data)
		err error
	)
	switch compression {
	case "none":
		return data
	case "gzip":
		r, err = gzip.NewReader(r)
	case "bzip2":
		r = bzip2.NewReader(r)
	case "xz":
		cmd := exec.Command(need(t, "xz"), "-dc")
		cmd.Stdin = r
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("xz: %v", err)
		}
		return out
	default:
		t.Fatalf("compression %q", compression)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// snapshotGUIDs reads the begin record of a ZFS stream: the guid of the
// snapshot it makes, and of the one it goes on from (0: none).
func snapshotGUIDs(t testing.TB, stream []byte) (to, from uint64) {
	t.Helper()
	const magic = 0x2F5bacbac
	if len(stream) < 56 || binary.LittleEndian.Uint32(stream) != 0 || binary.LittleEndian.Uint64(stream[8:]) != magic {
		t.Fatal("not a ZFS stream")
	}
	return binary.LittleEndian.Uint64(stream[40:]), binary.LittleEndian.Uint64(stream[48:])
}
