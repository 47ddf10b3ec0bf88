package catalog

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"
)

// A list keeps the documents that were asked for, each with the text of its own list, image, form and base; and of
// all images no more than it has places for.
func TestDocuments(t *testing.T) {
	a := &fake{t: t, name: "a", listed: []spec{{n: 1, in: []string{"release"}}, {n: 2, in: []string{"dev"}}, {n: 3, noFiles: true, in: []string{"release"}}}}
	for n := 10; n < 2*keptDocuments; n++ {
		a.listed = append(a.listed, spec{n: n, in: []string{"release"}})
	}
	const large = 2 * keptDocuments
	a.listed = append(a.listed, spec{n: large, name: strings.Repeat("n", keptBody), in: []string{"release"}})
	c := newCatalog(t, Options{Sources: sourcesOf(a), Channels: twoChannels})
	refresh(t, c)
	l := c.Current()
	plain, named := l.Document(id(1), false), l.Document(id(1), true)
	if plain == nil || !bytes.Equal(plain.Body, entry(t, c, 1).Manifest.V2()) || !bytes.Equal(named.Body, entry(t, c, 1).Manifest.V2Channels()) || plain.ETag == named.ETag {
		t.Fatalf("%+v, %+v", plain, named)
	}
	if plain.Path != "/images/"+id(1).String() || plain.Headers == nil || l.Document(id(1), false) != plain || l.Document(id(1), true) != named {
		t.Errorf("%q, or the document was made again", plain.Path)
	}
	for what, n := range map[string]int{"an image of another channel": 2, "an image without details": 3, "no image": 4} {
		if d := l.Document(id(n), false); d != nil {
			t.Errorf("%s: %s", what, d.Body)
		}
	}
	m := entry(t, c, 1).Manifest
	here, there := l.Dataset(m, "http://here", ""), l.Dataset(m, "http://there", "dev")
	if !bytes.Equal(here.Body, m.V1("http://here", "")) || !bytes.Equal(there.Body, m.V1("http://there", "dev")) || here.ETag == there.ETag {
		t.Errorf("%s, %s", here.Body, there.Body)
	}

	request := "/datasets/x?channel=dev"
	if kept := l.Dataset(m, "http://kept", request[len(request)-3:]).form.channel; kept != "dev" || unsafe.StringData(kept) == unsafe.StringData(request[len(request)-3:]) {
		t.Errorf("the channel %q is a part of the request, which a kept document keeps whole", kept)
	}

	for range 2 {
		for n := 10; n < 2*keptDocuments; n++ {
			if d := l.Document(id(n), false); d == nil || d.id != id(n) || !bytes.Equal(d.Body, entry(t, c, n).Manifest.V2()) {
				t.Fatalf("image %d: %+v", n, d)
			}
		}
	}

	if n := l.documents.kept(); n == 0 {
		t.Error("no document is kept")
	}
	if d := l.Document(id(large), false); d == nil || d.Headers != nil || len(d.Body) <= keptBody || l.Document(id(large), false) == d {
		t.Errorf("a large document: %+v, or the list keeps the document", d)
	}

	a.set(func(f *fake) { f.listed[0].name = "other" })
	refresh(t, c)
	if d := c.Current().Document(id(1), false); d == nil || !bytes.Contains(d.Body, []byte(`"other"`)) {
		t.Errorf("after a change: %+v", d)
	}
	if d := c.Current().Dataset(m, "http://here", ""); !bytes.Equal(d.Body, here.Body) {
		t.Errorf("the form of an older manifest: %s", d.Body)
	}
	if d := c.Current().Dataset(entry(t, c, 1).Manifest, "http://here", ""); !bytes.Contains(d.Body, []byte(`"other"`)) {
		t.Errorf("the form after that: %s", d.Body)
	}
	if d := l.Document(id(1), false); !bytes.Equal(d.Body, plain.Body) {
		t.Errorf("the list before: %+v", d)
	}
}
