package e2e

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
)

// image is an image with its bytes. They are no ZFS stream unless the image is
// a sample: a mirror must not care.
type image struct {
	uuid     string
	name     string
	manifest []byte // as the source has it
	file     []byte
	path     string // of the file in the sample folder
}

func (i image) sha1() string {
	sum := sha1.Sum(i.file)
	return hex.EncodeToString(sum[:])
}

func (i image) contentMD5() string {
	sum := md5.Sum(i.file)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// fields parses the manifest.
func (i image) fields(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(i.manifest, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// newImage makes an image of size bytes that follow from its name alone. More
// manifest fields can be given; a nil value takes one away.
func newImage(name string, size int, more ...map[string]any) image {
	img := image{name: name, uuid: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String()}
	img.file = make([]byte, size)
	// Reading from a ChaCha8 never fails.
	_, _ = io.ReadFull(rand.NewChaCha8(sha256.Sum256([]byte(name))), img.file)
	fields := map[string]any{
		"v":            2,
		"uuid":         img.uuid,
		"owner":        "00000000-0000-0000-0000-000000000000",
		"name":         name,
		"version":      "1.0.0",
		"state":        "active",
		"disabled":     false,
		"public":       true,
		"published_at": "2026-03-01T12:00:00Z",
		"type":         "zone-dataset",
		"os":           "smartos",
		"description":  "made for a test – " + name,
		"files":        []any{map[string]any{"sha1": img.sha1(), "size": size, "compression": "gzip"}},
	}
	for _, f := range more {
		maps.Copy(fields, f)
	}
	maps.DeleteFunc(fields, func(_ string, v any) bool { return v == nil })
	img.uuid, _ = fields["uuid"].(string)
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err) // a test gave a value that is no JSON
	}
	img.manifest = text
	return img
}

// sampleDir holds the images that `imgmirror demo` carries; as a source it is
// of kind directory.
const sampleDir = "../cmd/imgmirror/demo"

// The sample images, see its README.md.
const (
	sampleBase  = "5a3b1c2e-7d4f-4e8a-9b60-0c1d2e3f4a51" // gzip
	sampleWeb   = "6b4c2d3f-8e50-4f9b-8c71-1d2e3f4a5b62" // xz, on sampleBase
	sampleApp   = "7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73" // gzip, on sampleWeb
	sampleBzip2 = "8d6e4f51-a072-41bd-ae93-3f4a5b6c7d84" // described as v1
	sampleXZ    = "9e7f5062-b183-42ce-bfa4-4a5b6c7d8e95"
	samplePlain = "af806173-c294-43df-80b5-5b6c7d8e9fa6"
)

var sampleUUIDs = []string{sampleBase, sampleWeb, sampleApp, sampleBzip2, sampleXZ, samplePlain}

// sample reads one of the sample images.
func sample(t testing.TB, uuid string) image {
	t.Helper()
	img := image{uuid: uuid}
	entries, err := os.ReadDir(filepath.Join(sampleDir, uuid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(sampleDir, uuid, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == "manifest.json" {
			img.manifest = data
		} else {
			img.path, img.file = path, data
		}
	}
	img.name, _ = img.fields(t)["name"].(string)
	return img
}

// samples is the configuration of the sample folder as a source.
func samples(t testing.TB) map[string]any {
	t.Helper()
	dir, err := filepath.Abs(sampleDir)
	if err != nil {
		t.Fatal(err)
	}
	return from(dir, settings{"name": "samples", "kind": "directory"})
}
