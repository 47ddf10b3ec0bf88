package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

func TestParseIndexTwice(t *testing.T) {
	s := newShelf(t).put(1, 0, 5<<20).put(2, 1, 10, 11)
	o := options()
	o.VolumeSize, o.Have, o.Since = 2<<20, []Held{{UUID: id(1), Files: []verify.Sum{{1}}}}, "a list"
	x := s.plan(o)
	y, err := ParseIndex(x.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	b, err := encode(y)
	if err != nil || !bytes.Equal(b, x.Bytes()) {
		t.Errorf("written again: %v\n%s\nwas\n%s", err, b, x.Bytes())
	}
}

// sample is an index with something of everything.
func sample() Index {
	folder := func(n int) string { return id(n).String() + "/" }
	item := func(path string, size int64) Item { return Item{Path: path, Size: size, SHA256: SHA256{1}} }
	return Index{
		Format: indexFormat, Version: indexVersion, ID: id(7), Created: time.Unix(1e9, 0).UTC(), Volumes: 3, Web: item("index.html", 10),
		Images: []Image{
			{UUID: id(1), Origin: id(50), Name: "n", Version: "v", Manifest: item(folder(1)+"manifest.json", 100), Files: []File{
				{Path: folder(1) + "a.gz", Size: 10, SHA1: verify.Sum{1}, SHA256: SHA256{1}, Volume: 1},
				{Path: folder(1) + "b.gz", Size: 30, SHA1: verify.Sum{1}, SHA256: SHA256{1}, Parts: []Part{
					{item(folder(1)+"b.gz.part-001", 10), 1}, {item(folder(1)+"b.gz.part-002", 20), 2},
				}},
			}},
			{UUID: id(2), Origin: id(1), Name: "n", Version: "v", Manifest: item(folder(2)+"manifest.json", 100), Files: []File{
				{Path: folder(2) + "a.gz", Size: 10, SHA1: verify.Sum{1}, SHA256: SHA256{1}, Volume: 3},
			}},
		},
		Requires: []Held{{UUID: id(50), Files: []verify.Sum{{1}}}},
	}
}

func TestParseIndexRefuses(t *testing.T) {
	refused := func(b []byte, says string) {
		t.Helper()
		_, err := ParseIndex(b)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), IndexName) {
			t.Errorf("%v, want %q", err, says)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("the error is %d bytes long", len(err.Error()))
		}
	}
	f := func(change func(x *Index), says string) {
		t.Helper()
		x := sample()
		change(&x)
		b, err := encode(x)
		if err != nil {
			t.Fatal(err)
		}
		refused(b, says)
	}
	good, err := encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseIndex(good); err != nil {
		t.Fatal(err)
	}

	text := string(good)
	replaced := func(old, by string) []byte {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("no %s in %s", old, text)
		}
		return []byte(strings.Replace(text, old, by, 1))
	}
	refused(nil, "")
	refused([]byte("[]"), "")
	refused([]byte("{}"), `format is ""`)
	refused([]byte(text[:len(text)/2]), "")
	refused([]byte(text+"x"), "")
	refused(bytes.Repeat([]byte(" "), maxIndex+1), "at most")
	refused(replaced(`imgmirror-bundle"`, `imgmirror-bundle2"`), "imgmirror-bundle2")
	refused(replaced(`"version": 1`, `"version": 2`), "version 2")
	refused(replaced(`"volumes"`, `"extra": 1, "volumes"`), "extra")
	refused(replaced(`"volumes"`, `"volumes": 3, "volumes"`), "duplicate")
	refused(replaced(`"volumes"`, `"Volumes"`), "Volumes")
	refused(replaced(`"uuid": "`+id(1).String(), `"uuid": "{`+id(1).String()+`}`), "is not a uuid")
	refused(replaced(`"sha1": "01`, `"sha1": "1`), "sha1")
	refused(replaced(`"sha256": "01`, `"sha256": "x1`), "sha256")
	refused(replaced(`"size": 30`, `"size": 1e30`), "")
	refused(replaced(`"size": 30`, `"size": "30"`), "")
	refused(replaced(`"n"`, "\"\xff\""), "")

	f(func(x *Index) { x.ID = uuid.Nil }, "id is missing")
	f(func(x *Index) { x.Created = time.Unix(-1, 0) }, "created")
	f(func(x *Index) { x.Created = time.Unix(1<<33, 0) }, "created")
	f(func(x *Index) { x.Created = time.Unix(1, 1) }, "created")
	f(func(x *Index) { x.Mirror.Name = strings.Repeat("x", maxText+1) }, "mirror")
	f(func(x *Index) { x.Volumes = 0 }, "volumes is 0")
	f(func(x *Index) { x.Volumes = 1000 }, "volumes is 1000")
	f(func(x *Index) { x.Volumes = 2 }, "volume is 3")
	f(func(x *Index) { x.Web.Path = "../index.html" }, `web.path is ../index.html`)
	f(func(x *Index) { x.Web.Size = -1 }, "web.size")
	f(func(x *Index) { x.Images = slices.Repeat(x.Images[:1], MaxImages+1) }, `"/images": more than 10000`)
	f(func(x *Index) { x.Requires = slices.Repeat(x.Requires, MaxImages+1) }, `"/requires": more than 10000`)
	f(func(x *Index) { x.Requires = append(x.Requires, x.Requires[0]) }, "requires[1]: uuid "+id(50).String()+" is there twice")
	f(func(x *Index) { x.Requires[0].Files = nil }, "requires[0]")
	f(func(x *Index) { x.Requires[0].Files[0] = verify.Sum{} }, "requires[0]")
	f(func(x *Index) { x.Requires = nil }, "origin "+id(50).String())
	f(func(x *Index) { x.Images[0], x.Images[1] = x.Images[1], x.Images[0] }, "origin "+id(1).String())
	f(func(x *Index) { x.Images[1].UUID = id(1) }, "twice")
	f(func(x *Index) { x.Images[1].UUID = id(50) }, "twice")
	f(func(x *Index) { x.Images[0].UUID = uuid.Nil }, "images[0]")
	f(func(x *Index) { x.Images[0].Manifest.Path = id(2).String() + "/manifest.json" }, "manifest.path is "+id(2).String())
	f(func(x *Index) { x.Images[0].Manifest.Size = maxManifest + 1 }, "manifest.size")
	f(func(x *Index) { x.Images[0].Files = nil }, "0 files")
	f(func(x *Index) { x.Images[0].Files = slices.Repeat(x.Images[0].Files, maxFiles+1) }, `"/images/0/files": more than 100`)
	f(func(x *Index) { x.Images[1].Files[0].Size = 0 }, "size is 0")
	f(func(x *Index) { x.Images[1].Files[0].Size = -5 }, "size is -5")
	f(func(x *Index) { x.Images[1].Files[0].Size = maxFile + 1 }, "size is")
	f(func(x *Index) { x.Images[1].Files[0].SHA1 = verify.Sum{} }, "sha1")
	f(func(x *Index) { x.Images[1].Files[0].SHA256 = SHA256{} }, "sha256")
	f(func(x *Index) { x.Images[1].Files[0].Volume = 0 }, "in no volume")
	f(func(x *Index) { x.Images[1].Files[0].Volume = -1 }, "volume is -1")
	f(func(x *Index) { x.Images[1].Files[0].Volume = 1 }, "volume is 1") // back
	f(func(x *Index) { x.Images[0].Files[1].Volume = 1 }, "in a volume and in parts")
	f(func(x *Index) { x.Images[0].Files[1].Parts = x.Images[0].Files[1].Parts[:1] }, "1 parts")
	f(func(x *Index) { x.Images[0].Files[1].Parts[1].Volume = 1 }, "volume is 1")
	f(func(x *Index) { x.Images[0].Files[1].Parts[1].Size = 19 }, "1 bytes short")
	f(func(x *Index) { x.Images[0].Files[1].Parts[1].Size = 21 }, "size is 21")
	f(func(x *Index) { x.Images[0].Files[1].Parts[0].Size = -1 }, "size is -1")
	f(func(x *Index) { x.Images[0].Files[1].Parts[1].SHA256 = SHA256{} }, "sha256")
	f(func(x *Index) { x.Images[0].Files[1].Parts[1].Path = "../x" }, "parts[1]: path is ../x")
	f(func(x *Index) {
		for i := range 65 {
			m := x.Images[1]
			m.UUID, m.Origin = id(100+i), uuid.Nil
			m.Manifest = Item{m.UUID.String() + "/manifest.json", maxManifest, SHA256{1}}
			m.Files = []File{m.Files[0]}
			m.Files[0].Path = m.UUID.String() + "/x"
			x.Images = append(x.Images, m)
		}
	}, "together")

	for _, path := range []string{
		"", "a.gz", "/etc/passwd", "../a.gz", id(2).String(), id(2).String() + "/", id(2).String() + "/../a.gz", id(2).String() + "/..",
		id(2).String() + "/x/y", id(1).String() + "/a.gz", id(2).String() + "/manifest.json", id(2).String() + `/a\b`, id(2).String() + "/a\n",
		id(2).String() + "/C:x", id(2).String() + "//x", "{" + id(2).String() + "}/x", id(2).String() + "/" + strings.Repeat("x", 81),
	} {
		f(func(x *Index) { x.Images[1].Files[0].Path = path }, "path is "+quoteName(path))
	}
	f(func(x *Index) { x.Images[0].Files[1].Path = x.Images[0].Files[0].Path }, "twice")
	f(func(x *Index) { x.Images[0].Files[0].Path = id(1).String() + "/B.GZ" }, "twice")
	f(func(x *Index) { x.Images[0].Files[0].Path = fmt.Sprintf("%s/%s", id(1), strings.Repeat("\x00", 500)) }, `\x00`)
}

// TestParseIndexMemory: a list of nothings is refused before it is one in memory.
func TestParseIndexMemory(t *testing.T) {
	f := func(before, element, after, where string) {
		t.Helper()
		text := `{"format":"imgmirror-bundle","version":1,` + before
		text += strings.Repeat(element+",", (1<<20)/(len(element)+1)) + element + after
		var at, end runtime.MemStats
		runtime.ReadMemStats(&at)
		_, err := ParseIndex([]byte(text))
		runtime.ReadMemStats(&end)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), where) {
			t.Errorf("%s: %v, want %q", element[:min(len(element), 30)], err, where)
		}
		if took := end.TotalAlloc - at.TotalAlloc; took > 4*uint64(len(text)) {
			t.Errorf("%s: takes %d bytes, of %d", where, took, len(text))
		}
	}
	f(`"images":[`, `{}`, `]}`, `"/images"`)
	f(`"images":[`, `null`, `]}`, `"/images"`)
	f(`"requires":[`, `{}`, `]}`, `"/requires"`)
	f(`"requires":[{"files":[`, `null`, `]}]}`, `"/requires/0/files"`)
	f(`"images":[{"files":[`, `{}`, `]}]}`, `"/images/0/files"`)
	f(`"images":[{"files":[`, `{"parts":[`+strings.Repeat("{},", 900)+`{}]}`, `]}]}`, `"/images/0/files/0/parts"`)
}
