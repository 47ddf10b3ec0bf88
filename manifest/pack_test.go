package manifest

import (
	"bytes"
	"slices"
	"testing"
)

// mixedList has manifests whose V2 is the source's text, and manifests that were rewritten.
func mixedList(t *testing.T) []Manifest {
	t.Helper()
	images := append(mustList(t, manyImages(20, false)), mustList(t, manyImages(40, true))[20:]...)
	images = append(images, image(t, idA, sha1A, `,"channels":["dev"]`), image(t, idB, "", ""))
	return images
}

// sameTexts fails unless both have the same texts, byte for byte.
func sameTexts(t *testing.T, got, want []Manifest) {
	t.Helper()
	for i := range want {
		if !bytes.Equal(got[i].Raw(), want[i].Raw()) || !bytes.Equal(got[i].V2(), want[i].V2()) {
			t.Fatalf("manifest %d: got %s\n%s\nwant %s\n%s", i, got[i].Raw(), got[i].V2(), want[i].Raw(), want[i].V2())
		}
	}
}

func TestPackList(t *testing.T) {
	images := mixedList(t)
	packed := slices.Clone(images)
	list := PackList(packed, nil)
	if !bytes.Equal(list, BuildList(images)) {
		t.Fatalf("another list:\n%s\n%s", list, BuildList(images))
	}
	sameTexts(t, packed, images)
	at := 1
	for i := range packed {
		m := &packed[i]
		if &m.v2[0] != &list[at] {
			t.Errorf("manifest %d does not lie in the list", i)
		}
		if one := images[i].oneText(); m.oneText() != one || !one && &m.raw[0] == &images[i].raw[0] {
			t.Errorf("manifest %d: one text %v, was %v; or it is still where it was", i, m.oneText(), one)
		}
		at += len(m.v2) + 2
	}

	// The same list again stays where it is; any other is made anew.
	again := slices.Clone(images)
	if got := PackList(again, list); !inPlace(got, list) || !inPlace(again[3].v2, packed[3].v2) {
		t.Error("the same list was made twice")
	}
	for name, others := range map[string][]Manifest{
		"one less": images[:len(images)-1], "none": nil, "one more": append(slices.Clone(images), images[0]),
		"another order": append(slices.Clone(images[1:]), images[0]),
	} {
		others = slices.Clone(others)
		if got := PackList(others, list); inPlace(got, list) || !bytes.Equal(got, BuildList(others)) {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestShareText(t *testing.T) {
	images := mixedList(t)
	packed := slices.Clone(images)
	PackList(packed, nil)
	for i := range images {
		m, changed := images[i].ShareText(&packed[i])
		if !changed || !inPlace(m.raw, packed[i].raw) || !inPlace(m.v2, packed[i].v2) {
			t.Errorf("manifest %d: changed %v, raw shared %v, v2 shared %v", i, changed, inPlace(m.raw, packed[i].raw), inPlace(m.v2, packed[i].v2))
		}
		sameTexts(t, []Manifest{m}, images[i:i+1])
		if _, changed := m.ShareText(&packed[i]); changed {
			t.Errorf("manifest %d: shared twice", i)
		}
		other := &packed[(i+1)%len(packed)]
		if m, changed := images[i].ShareText(other); changed || !inPlace(m.raw, images[i].raw) || !inPlace(m.v2, images[i].v2) {
			t.Errorf("manifest %d shares the text of another", i)
		}
		own := m.CloneText()
		if inPlace(own.raw, m.raw) || inPlace(own.v2, m.v2) || own.oneText() != m.oneText() {
			t.Errorf("manifest %d: its text is not its own", i)
		}
		sameTexts(t, []Manifest{own}, images[i:i+1])
	}
	// What was learned of a file is in V2 only: Raw is shared for all that.
	bare := parse(t, v2With(`,"files":[{"size":42,"compression":"gzip"}]`))
	facts := Facts{Size: 42}
	facts.SHA1[0] = 1
	learned, known := bare.CloneText().WithFacts(0, facts)
	shared, _ := bare.ShareText(&learned)
	if !known || !inPlace(shared.raw, learned.raw) || !shared.oneText() {
		t.Errorf("of one with facts: shared %v, one text %v", inPlace(shared.raw, learned.raw), shared.oneText())
	}
	sameTexts(t, []Manifest{shared}, []Manifest{bare})
}
