package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// read reads b with a fresh keeper.
func read(b []byte) (*keeper, Head, error) {
	k := &keeper{}
	h, err := Read(context.Background(), bytes.NewReader(b), k)
	return k, h, err
}

// entryAt is the entry of h that offset at lies in; "" behind the last.
func entryAt(h Head, at int64) Entry {
	for _, e := range h.Entries() {
		if at < e.end() {
			return e
		}
	}
	return Entry{}
}

// Every byte of a bundle counts. A flipped bit outside of files is found, and the entry is named that has the bit. A
// flipped bit of a file is for the sink to find, and changes no other file.
func TestReadFlippedBit(t *testing.T) {
	s := newShelf(t).put(1, 0, 600, 3)
	x := s.plan(options())
	f := func(h Head, until string) {
		t.Helper()
		whole, head, end := s.tar(h), int64(0), h.Size()
		for _, e := range h.Entries() {
			if e.File < 0 {
				head = e.end()
			}
			if e.Path == until {
				end = e.At
			}
		}
		for at := range whole[:end] {
			if t.Failed() {
				return // one is enough to see
			}
			b := bytes.Clone(whole)
			b[at] ^= 1 << (at % 8)
			k, _, err := read(b)
			e := entryAt(h, int64(at))
			if e.File >= 0 && int64(at) >= e.Data && int64(at) < e.Data+e.Size && e.Path != "" {
				key := fmt.Sprintf("%d/%d", e.Image, e.File)
				if err != nil || len(k.wrong) != 1 || k.wrong[key] == nil || len(k.files) != 1 {
					t.Errorf("byte %d, in %s: %v; %d files came through, wrong are %v", at, e.Path, err, len(k.files), k.wrong)
				}
				continue
			}
			name := e.Path
			if name == "" {
				name = "behind its last entry"
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) || len(k.wrong) > 0 {
				t.Errorf("byte %d, in %s: %v; wrong are %v", at, name, err, k.wrong)
			}
			if int64(at) < head && k.begun > 0 {
				t.Errorf("byte %d: Begin was called", at)
			}
		}
	}
	f(Head{Index: x, Volume: 1}, "")
	f(Head{Index: x, Volume: 1, Sig: []byte("untrusted comment: x\nRW\n")}, WebName)
}

// A bundle that ends early is refused wherever it ends.
func TestReadTruncated(t *testing.T) {
	s := newShelf(t).put(1, 0, 700, 512)
	h := Head{Index: s.plan(options()), Volume: 1, Sig: []byte("sig")}
	whole := s.tar(h)
	for n := 0; n < len(whole); n += 1 + n%13 {
		_, _, err := read(whole[:n])
		if !errors.Is(err, ErrInvalid) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if last := h.Entries()[len(h.Entries())-1]; int(last.Data) < n && n < int(last.Data+last.Size) && strings.Count(err.Error(), last.Path) != 1 {
			t.Fatalf("%d bytes: the file is not named once: %v", n, err)
		}
		if _, err := ReadHead(bytes.NewReader(whole[:n])); err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("%d bytes: ReadHead: %v", n, err)
		}
	}
	broke := errors.New("the line broke")
	for _, n := range []int{0, 5, 512, 3000, len(whole) - 700, len(whole)} {
		_, err := Read(context.Background(), io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broke)), &keeper{})
		if !errors.Is(err, broke) || errors.Is(err, ErrInvalid) {
			t.Errorf("broken after %d bytes: %v", n, err)
		}
	}
}

// block is a header and its bytes, of any kind.
func block(t *testing.T, h tar.Header, body string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h.Size = int64(len(body))
	if h.Typeflag != tar.TypeXGlobalHeader {
		h.Mode = 0o644
	}
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What has no place in a bundle is refused by its name, wherever it stands, and
// nothing of it comes through.
func TestReadHostile(t *testing.T) {
	s, x := small(t)
	h := Head{Index: x, Volume: 1}
	whole, entries := s.tar(h), h.Entries()
	now := time.Unix(1e9, 0)
	raw := func(name string, size int64, kind byte, body string) []byte {
		b := append(ustar(name, size, now, kind), body...)
		return append(b, make([]byte, padding(int64(len(body))))...)
	}
	sparse := raw("sparse-file", 10, 'S', "0123456789")
	for _, c := range []struct {
		entry []byte
		says  []string
	}{
		{block(t, tar.Header{Name: "../../etc/passwd"}, "x"), []string{"../../etc/passwd", "a regular file"}},
		{block(t, tar.Header{Name: "/etc/passwd"}, "x"), []string{"/etc/passwd"}},
		{block(t, tar.Header{Name: id(1).String() + "/../../x"}, "x"), []string{id(1).String() + "/../../x"}},
		{block(t, tar.Header{Name: "evil", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, ""), []string{"evil", "a symbolic link"}},
		{block(t, tar.Header{Name: "evil", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}, ""), []string{"evil", "a hard link"}},
		{block(t, tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""), []string{"null", "a character device"}},
		{block(t, tar.Header{Name: "disk", Typeflag: tar.TypeBlock}, ""), []string{"disk", "a block device"}},
		{block(t, tar.Header{Name: "pipe", Typeflag: tar.TypeFifo}, ""), []string{"pipe", "a pipe"}},
		{block(t, tar.Header{Name: "folder/", Typeflag: tar.TypeDir}, ""), []string{"folder/", "a folder"}},
		{block(t, tar.Header{Name: "../" + strings.Repeat("p", 200), Format: tar.FormatPAX}, "x"), []string{"../ppppp", "a pax header"}},
		{block(t, tar.Header{Name: "l", Linkname: "../" + strings.Repeat("p", 200), Typeflag: tar.TypeSymlink, Format: tar.FormatPAX}, ""), []string{"../ppppp", "a pax header"}},
		{block(t, tar.Header{Name: "../" + strings.Repeat("g", 200), Format: tar.FormatGNU}, "x"), []string{"../ggggg", "a GNU long name"}},
		{block(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "../../global"}}, ""), []string{"../../global", "a global pax header"}},
		{sparse, []string{"sparse-file", "a sparse file"}},
		{raw("what", 1, 'Z', "x"), []string{"what", "type 'Z'"}},
		{raw("bomb", 1<<33-1, '0', ""), []string{"bomb"}},
		{raw("name\x1b[2J\n", 1, '0', "x"), []string{`"name\x1b[2J\n"`}},
		{block(t, tar.Header{Name: id(1).String() + "/manifest.json"}, "{}"), []string{id(1).String() + "/manifest.json"}},
	} {
		for i, e := range append(slices.Clone(entries), Entry{At: int64(len(whole)) - trailer, Path: "end"}) {
			for _, instead := range []bool{false, true} {
				rest := whole[e.At:]
				if instead && e.Path != "end" {
					rest = whole[e.end():]
				}
				k, _, err := read(slices.Concat(whole[:e.At], c.entry, rest))
				if !errors.Is(err, ErrInvalid) {
					t.Fatalf("%q at entry %d: %v", c.says, i, err)
				}
				ours := strings.HasSuffix(c.says[0], "manifest.json") // is named in any case, but it may be at its place
				for _, want := range c.says {
					if !strings.Contains(err.Error(), want) && !ours {
						t.Errorf("at entry %d: %v; want %q", i, err, want)
					}
				}
				if len(k.wrong) > 0 || len(k.files) > max(0, i-3-len(x.Images)) {
					t.Errorf("%q at entry %d: %d files came through, %v", c.says, i, len(k.files), k.wrong)
				}
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	s, x := small(t)
	h := Head{Index: x, Volume: 1}
	whole, entries := s.tar(h), h.Entries()
	part := func(i int) []byte { return whole[entries[i].At:entries[i].end()] }
	tail := whole[len(whole)-trailer:]
	first, web, files := 3, 2, 3+len(x.Images) // first manifest, first file

	f := func(b []byte, says ...string) {
		t.Helper()
		_, _, err := read(b)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%v; want %q", err, says)
			return
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%v; want %q", err, s)
			}
		}
	}
	f(nil, "shorter")
	f([]byte("hello"), "shorter")
	f(noise(1, 5000), "does not begin as a tar")
	f(make([]byte, 5000), "does not begin as a tar")
	f(append([]byte{0x1f, 0x8b, 8}, noise(1, 5000)...), "compressed")
	f(append([]byte("\x28\xb5\x2f\xfd"), noise(1, 5000)...), "compressed")

	f(slices.Concat(part(1), whole), "imgmirror-bundle.sha256", "first of all")
	f(whole[entries[1].At:], "imgmirror-bundle.sha256", "first of all")
	f(slices.Concat(part(0), whole[entries[2].At:]), "index.html", "stands where the index has imgmirror-bundle.sha256")
	f(slices.Concat(whole[:entries[web].At], whole[entries[first].At:]), "stands where the index has index.html")
	f(slices.Concat(whole[:entries[1].At], whole), IndexName, "stands where")              // the index twice
	f(slices.Concat(whole[:entries[files].end()], part(files), tail), entries[files].Path) // a file twice
	f(slices.Concat(whole[:entries[first].At], part(first+1), part(first), whole[entries[first+2].At:]), entries[first+1].Path)
	f(slices.Concat(whole[:entries[first].At], part(files), whole[entries[first].At:]), entries[files].Path, "stands where the index has "+entries[first].Path) // a file before its manifest
	f(slices.Concat(whole[:entries[files].At], tail), "the tar ends before it", entries[files].Path)
	f(append(bytes.Clone(whole), 0), "more behind its end")
	f(append(bytes.Clone(whole), whole...), "more behind its end")
	f(slices.Concat(whole[:len(whole)-trailer], whole), IndexName, "is not in the index")

	size := func(e Entry, n int64) []byte {
		b := bytes.Clone(whole)
		copy(b[e.At:], ustar(e.Path, n, x.Created, '0'))
		return b
	}
	e := entries[files]
	f(size(e, e.Size+1), e.Path, fmt.Sprintf("its header says %d bytes, the index %d", e.Size+1, e.Size))
	f(size(e, 0), e.Path, "its header says 0 bytes")
	f(size(entries[0], maxIndex+1), IndexName, "must be 2 to")
	f(size(entries[0], 0), IndexName, "must be 2 to")
	f(size(entries[0], entries[0].Size-1), IndexName)
	f(size(entries[0], maxIndex), IndexName, "ends there")

	repacked := bytes.Clone(whole)
	copy(repacked[e.At:], ustar(e.Path, e.Size, x.Created.Add(time.Second), '0'))
	f(repacked, e.Path, "repacked")

	sig := func(n int) []byte {
		entry := append(ustar(SignatureName, int64(n), x.Created, '0'), make([]byte, int64(n)+padding(int64(n)))...)
		return slices.Concat(whole[:entries[web].At], entry, whole[entries[web].At:])
	}
	f(sig(0), SignatureName, "0 bytes")
	f(sig(maxSignature+1), SignatureName, "4097 bytes")
	signed := Head{Index: x, Volume: 1, Sig: []byte("sig")}
	b := s.tar(signed)
	at := signed.Entries()
	f(slices.Concat(b[:at[2].At], b[at[3].At:]), "index.html", SignatureName) // the signature was taken out
	short := slices.Concat(b[:at[1].At], part(1), b[at[3].At:])               // taken out, and of the list of sums too: unsigned
	if _, h, err := read(short); err != nil || h.Sig != nil {
		t.Errorf("an unsigned bundle: %v, signature %q", err, h.Sig)
	}
}

// Manifests that are not those of the images that the index names, although their sums are right.
func TestReadManifests(t *testing.T) {
	f := func(change func(*Index), says string) {
		t.Helper()
		s := newShelf(t).put(1, 0, 10).put(2, 1, 20).put(3, 1, 30, 31)
		x := s.plan(options())
		change(&x)
		b, err := encode(x)
		if err != nil {
			t.Fatal(err)
		}
		if x, err = ParseIndex(b); err != nil {
			t.Fatal(err)
		}
		k, _, err := read(s.tar(Head{Index: x, Volume: 1}))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), id(3).String()+"/manifest.json: "+says) {
			t.Errorf("%v; want %q", err, says)
		}
		if k.begun != 0 {
			t.Errorf("%s: Begin was called", says)
		}
	}
	f(func(x *Index) { x.Images[2].Origin = id(2) }, "its origin is "+id(1).String())
	f(func(x *Index) { x.Images[2].Name = "other" }, "it is that of image-3 1.3")

	// An original that is no manifest, or another image's, is refused like manifest.json.
	o := func(original, says string) {
		t.Helper()
		s := newShelf(t).put(1, 0, 10)
		x := s.plan(options())
		was := Head{Index: x, Volume: 1}
		tar := s.tar(was)
		x.Images[0].Original = original
		b, err := encode(x)
		if err != nil {
			t.Fatal(err)
		}
		if x, err = ParseIndex(b); err != nil {
			t.Fatal(err)
		}
		h := Head{Index: x, Volume: 1}
		rest := was.Entries()[2].At
		_, _, err = read(slices.Concat(header(IndexName, int64(len(b)), x.Created), b, zeros[:padding(int64(len(b)))],
			header(sumsName(1, 1), int64(len(h.sums())), x.Created), h.sums(), zeros[:padding(int64(len(h.sums())))], tar[rest:]))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), IndexName+": original of image "+id(1).String()+": "+says) {
			t.Errorf("%v; want %q", err, says)
		}
	}
	o("{", "")
	o(string(newShelf(t).put(2, 0, 10).exports[0].Manifest.Raw()), "it is that of image "+id(2).String())

	s := newShelf(t).put(3, 0, 30, 31)
	g := func(change func(*Image), says string) {
		t.Helper()
		im := s.plan(options()).Images[0]
		if _, err := parseManifest(s.exports[0].Manifest.Raw(), im); err != nil {
			t.Fatal(err)
		}
		change(&im)
		if _, err := parseManifest(s.exports[0].Manifest.Raw(), im); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q", err, says)
		}
	}
	g(func(im *Image) { im.UUID = id(4) }, "it is that of image "+id(3).String())
	g(func(im *Image) { im.Version = "" }, "it is that of image-3 1.3")
	g(func(im *Image) { im.Files = im.Files[:1] }, "it has 2 files")
	g(func(im *Image) { im.Files[1].SHA1[0] ^= 1 }, "sha1 of file 1")
	g(func(im *Image) { im.Files[1].Size++ }, "size of file 1")
	if _, err := parseManifest([]byte("{}"), Image{}); err == nil {
		t.Error("no manifest: no error")
	}
}

// A Sink that refuses ends Read with its error. An end that comes too early ends Read even if the sink looks away.
func TestReadSink(t *testing.T) {
	s, x := small(t)
	h := Head{Index: x, Volume: 1}
	whole := s.tar(h)
	refused := errors.New("no")

	k := &keeper{begin: func(Head) error { return refused }}
	if _, err := Read(context.Background(), bytes.NewReader(whole), k); !errors.Is(err, refused) || len(k.files) > 0 {
		t.Errorf("Begin refuses: %v", err)
	}
	k = &keeper{file: func(p *Piece) error { return refused }}
	if _, err := Read(context.Background(), bytes.NewReader(whole), k); !errors.Is(err, refused) || !strings.Contains(err.Error(), "image-1") {
		t.Errorf("File refuses: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	k = &keeper{file: func(p *Piece) error { cancel(); return nil }}
	if _, err := Read(ended, bytes.NewReader(whole), k); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}

	e := h.Entries()[len(h.Entries())-2] // 1300 bytes
	for name, file := range map[string]func(p *Piece) error{
		"reads nothing":   func(p *Piece) error { return nil },
		"reads a little":  func(p *Piece) error { _, err := p.Read(make([]byte, 10)); return err },
		"takes no notice": func(p *Piece) error { io.Copy(io.Discard, p); return nil },
		"says its own":    func(p *Piece) error { io.Copy(io.Discard, p); return refused },
	} {
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return struct{ io.Reader }{r} }, iotest.OneByteReader, iotest.DataErrReader} {
			k := &keeper{file: func(p *Piece) error {
				if p.Path != e.Path {
					return nil
				}
				return file(p)
			}}
			_, err := Read(context.Background(), wrap(bytes.NewReader(whole[:e.Data+1000])), k)
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), e.Path+", at byte 1000 of 1300") {
				t.Errorf("a sink that %s: %v", name, err)
			}
		}
	}
}

// What is not wanted of a bundle that can be sought in is not read.
func TestReadSkips(t *testing.T) {
	s := newShelf(t).put(1, 0, 1<<20).put(2, 0, 1<<20+5)
	h := Head{Index: s.plan(options()), Volume: 1}
	whole := s.tar(h)
	var got []byte
	f := func(r io.Reader, file func(*Piece) error) (int64, error) {
		t.Helper()
		c := &counter{r: r}
		var in io.Reader = c
		if s, ok := r.(io.Seeker); ok {
			in = struct {
				io.Reader
				io.Seeker
			}{c, s}
		}
		_, err := Read(context.Background(), in, &keeper{file: file})
		return c.n, err
	}
	unwanted := func(*Piece) error { return nil }
	if n, err := f(bytes.NewReader(whole), unwanted); err != nil || n > 300<<10 {
		t.Errorf("unwanted: %d of %d bytes were read, %v", n, len(whole), err)
	}
	if n, err := f(struct{ io.Reader }{bytes.NewReader(whole)}, unwanted); err != nil || n != int64(len(whole)) {
		t.Errorf("unwanted, no seeker: %d of %d bytes were read, %v", n, len(whole), err)
	}
	latter := func(p *Piece) error {
		if err := p.Skip(900 << 10); err != nil {
			return err
		}
		b, err := io.ReadAll(p)
		got = append(got, b...)
		return err
	}
	var want []byte
	for _, im := range h.Index.Images {
		want = append(want, s.files[im.Files[0].SHA1][900<<10:]...)
	}
	for _, r := range []io.Reader{bytes.NewReader(whole), struct{ io.Reader }{bytes.NewReader(whole)}} {
		got = nil
		if n, err := f(r, latter); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the latter part: %d bytes, %d were read, %v", len(got), n, err)
		}
	}
	if n, err := f(bytes.NewReader(whole[:len(whole)-trailer-5000]), unwanted); !errors.Is(err, ErrInvalid) {
		t.Errorf("cut short: %d bytes, %v", n, err)
	}
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// Sizes that a stranger claims cost nothing until the bytes come.
func TestReadMemory(t *testing.T) {
	s, x := small(t)
	whole := s.tar(Head{Index: x, Volume: 1})
	lies := append(ustar(IndexName, maxIndex, x.Created, '0'), whole[blockSize:]...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		if _, _, err := read(lies); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / 10; n > 1<<20 {
		t.Errorf("%d bytes of memory for %d bytes of input", n, len(lies))
	}
}
