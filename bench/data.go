//go:build linux

package main

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what image manifests have
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// data is the source's folder: index files for the C server, an image server's answers under their paths.
type data struct {
	dir    string
	hit    image   // of the hits
	cold   []image // one a round, and one for round -1, which comes first
	listed int     // images in the list
}

// image is an image with a file.
type image struct {
	uuid, sha1 string
	size       int64
}

func (i image) path() string { return "/images/" + i.uuid + "/file" }

// makeData writes ping, the list, each manifest, and the files of the images that have one. The plan decides all of the data.
func makeData(dir string, p plan) (*data, error) {
	d := &data{dir: dir}
	var texts [][]byte
	write := func(id, text, index string) error {
		folder := filepath.Join(dir, "images", id)
		if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // served to everyone
			return err
		}
		return os.WriteFile(filepath.Join(folder, index), []byte(text), 0o644) //nolint:gosec // served to everyone
	}
	numbers := rand.New(rand.NewChaCha8([32]byte{1})) //nolint:gosec // the same images each time
	add := func(n int, size int64) (image, error) {
		var id [16]byte
		binary.LittleEndian.PutUint64(id[:], numbers.Uint64())
		binary.LittleEndian.PutUint64(id[8:], numbers.Uint64())
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
		img := image{uuid: fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]), size: size}
		sum := sha1.Sum(id[:]) //nolint:gosec // as above
		img.sha1 = hex.EncodeToString(sum[:])
		if size > 0 {
			if err := write(img.uuid, "", "index"); err != nil {
				return img, err
			}
			var err error
			if img.sha1, err = writeFile(filepath.Join(dir, img.path()), uint64(n), size); err != nil { //nolint:gosec // n counts
				return img, err
			}
		}
		text := manifestText(n, img)
		texts = append(texts, text)
		return img, write(img.uuid, string(text), "index")
	}
	var err error
	if d.hit, err = add(0, p.hitSize); err != nil {
		return nil, err
	}
	for round := range p.rounds + 1 {
		img, err := add(1+round, p.coldSize)
		if err != nil {
			return nil, err
		}
		d.cold = append(d.cold, img)
	}
	for len(texts) < p.images {
		if _, err := add(len(texts), 0); err != nil {
			return nil, err
		}
	}
	d.listed = len(texts)
	if err := write("", "["+string(bytes.Join(texts, []byte(",")))+"]", "index"); err != nil {
		return nil, err
	}
	ping := `{"ping":"pong","version":"1.0.0","imgapi":true}`
	return d, os.WriteFile(filepath.Join(dir, "ping"), []byte(ping), 0o644) //nolint:gosec // served to everyone
}

// writeFile writes a file of random bytes, and tells its sha1.
func writeFile(path string, seed uint64, size int64) (string, error) {
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{2})
	_, _ = random.Read(block) // never fails
	sum := sha1.New()         //nolint:gosec // what image manifests have
	for at := int64(0); at < size; at += int64(len(block)) {
		binary.LittleEndian.PutUint64(block, seed)
		binary.LittleEndian.PutUint64(block[8:], uint64(at)) //nolint:gosec // at counts
		piece := block[:min(int64(len(block)), size-at)]
		_, _ = sum.Write(piece) // never fails
		if _, err := file.Write(piece); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), file.Close()
}

// manifestText is a manifest of the size that those of images.smartos.org have: 1.6 KB.
func manifestText(n int, img image) []byte {
	published := time.Unix(1_330_560_000+int64(n)*400_000, 0).UTC().Format(time.RFC3339)
	size := img.size
	if size == 0 { // nobody asks for the file
		size = 100_000_000 + int64(n)
	}
	return fmt.Appendf(nil, `{"v":2,"uuid":%q,"owner":"9dce1460-0c4c-4417-ab8b-25ca478c5a78","name":"bench-64-%d","version":"%d.%d.0",`+
		`"state":"active","disabled":false,"public":true,"published_at":%q,"type":"zone-dataset","os":"smartos",`+
		`"files":[{"sha1":%q,"size":%d,"compression":"gzip"}],`+
		`"description":"A 64-bit SmartOS image with just essential packages installed. Ideal for users who are comfortable with setting up their own environment and tools, and for those who build images of their own upon this one. The image has the package manager, a mail transport agent, a shell with its completions, and the agents that a data centre of this kind expects; its packages are of quarterly branch %d.",`+
		`"homepage":"https://docs.example.com/images/smartos/bench-64-%d","urn":"sdc:bench:bench-64-%d:%d.%d.0",`+
		`"requirements":{"networks":[{"name":"net0","description":"public"},{"name":"net1","description":"private"}],"min_platform":{"7.0":"20141030T081701Z"},"min_ram":256,"max_ram":32768,"brand":"joyent"},`+
		`"users":[{"name":"root"},{"name":"admin"}],"generate_passwords":true,"inherited_directories":[],"traits":{"ssd":false,"generation":%d},`+
		`"metadata_info":[{"title":"root public key","description":"The ssh keys by which the superuser signs in; one key a line, in the format of authorized_keys","type":"text"},{"title":"user script","description":"A script that the zone runs at its first boot, and at each boot after that","type":"text"}],`+
		`"tags":{"role":"os","group":"bench-64-%d","channel":"release","maintainer":"images@example.com"},"acl":[]}`,
		img.uuid, n%60, 10+n/200, n%4, published, img.sha1, size, n%40, n%60, n%60, 10+n/200, n%4, n%7, n%60)
}
