package manifest

import "bytes"

// PackList is BuildList, with the texts of images in the memory of the list, and the rest of Raw in
// one more block. The images keep no other text in memory afterwards, their source's answer
// included. The result is before, the result of an earlier call or nil, when the list is the same.
func PackList(images []Manifest, before []byte) []byte {
	list := before
	if !isList(before, images) {
		list = BuildList(images)
	}
	room := 0
	for i := range images {
		if !images[i].oneText() {
			room += len(images[i].raw)
		}
	}
	raws := make([]byte, 0, room)
	at := len("[")
	for i := range images {
		m := &images[i]
		one, end := m.oneText(), at+len(m.v2)
		m.v2 = list[at:end:end]
		if one {
			m.raw = m.v2
		} else {
			begin := len(raws)
			raws = append(raws, m.raw...)
			m.raw = raws[begin:len(raws):len(raws)]
		}
		at = end + len(",\n")
	}
	return list
}

// LieIn tells that list is BuildList of images, and that their texts for clients lie in it: PackList would change nothing.
func LieIn(list []byte, images []Manifest) bool {
	if !isList(list, images) {
		return false
	}
	at := len("[")
	for i := range images {
		v2 := images[i].v2
		if !inPlace(list[at:at+len(v2)], v2) {
			return false
		}
		at += len(v2) + len(",\n")
	}
	return true
}

// isList tells that list is BuildList of images.
func isList(list []byte, images []Manifest) bool {
	rest, ok := bytes.CutPrefix(list, []byte("["))
	for i := range images {
		if ok && i > 0 {
			rest, ok = bytes.CutPrefix(rest, []byte(",\n"))
		}
		if ok {
			rest, ok = bytes.CutPrefix(rest, images[i].v2)
		}
		if !ok {
			return false
		}
	}
	return ok && string(rest) == "]"
}

// ShareText is m with its texts in the memory of other's texts, as far as both are the same, byte
// for byte. The second result tells that a text has moved.
func (m Manifest) ShareText(other *Manifest) (_ Manifest, changed bool) {
	one, was := m.oneText(), m
	if bytes.Equal(m.raw, other.raw) {
		m.raw = other.raw
	}
	switch {
	case one:
		m.v2 = m.raw
	case bytes.Equal(m.v2, other.v2):
		m.v2 = other.v2
	}
	return m, !inPlace(m.raw, was.raw) || !inPlace(m.v2, was.v2)
}

// CloneText is m with texts of its own, for an image that outlives its list.
func (m Manifest) CloneText() Manifest {
	one := m.oneText()
	m.v2 = bytes.Clone(m.v2)
	if one {
		m.raw = m.v2
	} else {
		m.raw = bytes.Clone(m.raw)
	}
	return m
}

// oneText tells that V2 is Raw, in the same memory.
func (m *Manifest) oneText() bool { return inPlace(m.raw, m.v2) }

// inPlace tells that a and b are the same memory.
func inPlace(a, b []byte) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }
