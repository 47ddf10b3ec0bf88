//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // what image manifests have
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// catalogue is the folder of an image server that has very many images.
type catalogue struct {
	dir   string
	ids   []string // in the order of the list
	texts [][]byte
}

// tinyFile is the size of the files of a catalogue: what grows is their number.
const tinyFile = 4096

// catalogue makes an image server with n images. Every tenth is built on the one before.
func (l *lab) catalogue(n int) (*catalogue, error) {
	if c := l.catalogues[n]; c != nil {
		return c, nil
	}
	c := &catalogue{dir: filepath.Join(l.dir, fmt.Sprintf("catalogue-%d", n))}
	for i := range n {
		sum := sha1.Sum(fmt.Append(nil, i)) //nolint:gosec // as above
		sum[6], sum[8] = sum[6]&0x0f|0x40, sum[8]&0x3f|0x80
		id, origin := fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]), ""
		if i%10 == 9 {
			origin = fmt.Sprintf(`"origin":%q,`, c.ids[i-1])
		}
		published := time.Unix(1_330_560_000+int64(i)*4_600, 0).UTC().Format(time.RFC3339)
		c.ids = append(c.ids, id)
		c.texts = append(c.texts, fmt.Appendf(nil, `{"v":2,"uuid":%q,"owner":"9dce1460-0c4c-4417-ab8b-25ca478c5a78","name":"bench-64-%d","version":"%d.%d.0",`+
			`"state":"active","disabled":false,"public":true,"published_at":%q,"type":"zone-dataset","os":"smartos",%s`+
			`"files":[{"sha1":"%x","size":%d,"compression":"gzip"}],`+
			`"description":"A 64-bit SmartOS image with just essential packages installed. Ideal for users who are comfortable with setting up their own environment.",`+
			`"homepage":"https://docs.example.com/images/smartos/bench","requirements":{"min_platform":{"7.0":"20141030T081701Z"},"networks":[{"name":"net0","description":"public"}]},`+
			`"users":[{"name":"root"},{"name":"admin"}],"tags":{"role":"os","group":"bench-64-%d"}}`,
			id, i%60, 10+i/5000, i%4, published, origin, sha1.Sum(c.file(i)), tinyFile, i%60)) //nolint:gosec // as above
	}
	if err := os.MkdirAll(filepath.Join(c.dir, "images"), 0o755); err != nil { //nolint:gosec // served to everyone
		return nil, err
	}
	for path, text := range map[string][]byte{
		"ping":         []byte(`{"ping":"pong","version":"1.0.0","imgapi":true}`),
		"images/index": append(append([]byte("["), bytes.Join(c.texts, []byte(","))...), ']'),
	} {
		if err := os.WriteFile(filepath.Join(c.dir, path), text, 0o644); err != nil { //nolint:gosec // served to everyone
			return nil, err
		}
	}
	if l.catalogues == nil {
		l.catalogues = map[int]*catalogue{}
	}
	l.catalogues[n] = c
	return c, nil
}

// file is the file of image i.
func (c *catalogue) file(i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%015d\n", i), tinyFile/16)
}

// cached makes the data folder of a mirror that has the files of the first n images of c on disk: the mirror
// takes in the files that it finds there.
func (l *lab) cached(ctx context.Context, c *catalogue, n int) (folder string, err error) {
	folder = filepath.Join(c.dir, fmt.Sprintf("cached-%d", n))
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	s, err := l.grown(ctx, c, func(data string) error { return c.write(data, n) }, "/ping")
	if err != nil {
		return "", err
	}
	defer l.end(s)
	if err := s.await(ctx, "the list", s.has(ctx, c)); err != nil {
		return "", err
	}
	for taken := 0; taken < n; {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-s.exited:
			return "", fmt.Errorf("%v%s", s.cmd.ProcessState, s.tail())
		case <-time.After(200 * time.Millisecond):
		}
		log, err := os.ReadFile(filepath.Join(s.dir, "log"))
		if err != nil {
			return "", err
		}
		taken = bytes.Count(log, []byte("was checked and taken in"))
	}
	s.stop()
	return folder, os.Rename(filepath.Join(s.dir, "data"), folder)
}

// write writes the first n files, with the copies of their manifests, into a data folder.
func (c *catalogue) write(data string, n int) error {
	for i := range n {
		file := c.file(i)
		sum := fmt.Sprintf("%x", sha1.Sum(file)) //nolint:gosec // as above
		for path, text := range map[string][]byte{
			filepath.Join("files", sum[:2], sum):         file,
			filepath.Join("manifests", c.ids[i]+".json"): fmt.Appendf(nil, `{"source":"source0","manifest":%s}`, c.texts[i]),
		} {
			path = filepath.Join(data, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as the mirror does
				return err
			}
			if err := os.WriteFile(path, text, 0o644); err != nil { //nolint:gosec // as the mirror does
				return err
			}
		}
	}
	return nil
}

// copyFolder copies a data folder. Files and manifests, which the mirror replaces and never changes, become links.
func copyFolder(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch copied := filepath.Join(to, name); {
		case entry.IsDir():
			return os.MkdirAll(copied, 0o755) //nolint:gosec // as the mirror does
		case !entry.Type().IsRegular():
			return nil // the socket of a mirror that has ended
		case strings.HasPrefix(name, "files/"), strings.HasPrefix(name, "manifests/"):
			return os.Link(path, copied)
		default:
			return exec.Command("cp", "-p", path, copied).Run()
		}
	})
}
