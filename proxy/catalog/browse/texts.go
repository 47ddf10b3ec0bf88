package browse

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

const (
	maxText         = 256     // bytes of one text that are searched
	maxDescriptions = 8 << 20 // bytes of all descriptions that are searched: names come first
)

// texts are the distinct texts of a table, in lower case, so that a word is looked for once in each.
type texts struct {
	all    []byte   // each text ends with a zero byte
	starts []uint32 // of the texts in all
}

// intake gathers texts.
type intake struct {
	got       texts
	places    map[string]uint32 // by the texts in lower case
	written   map[string]uint32 // by the descriptions as sources write them: many are alike
	described int               // bytes of descriptions so far
}

func newIntake() *intake {
	in := &intake{places: make(map[string]uint32), written: make(map[string]uint32)}
	in.add("") // place 0
	return in
}

// add gives the place of a text.
func (in *intake) add(text string) uint32 {
	place, _ := in.take(text)
	return place
}

// describe is add for a description: those beyond maxDescriptions are not searched.
func (in *intake) describe(text []byte) uint32 {
	text = text[:min(len(text), maxText)]
	if place, ok := in.written[string(text)]; ok {
		return place
	}
	if in.described >= maxDescriptions {
		return 0
	}
	place, size := in.take(string(text))
	in.written[string(text)] = place
	in.described += size
	return place
}

// take gives the place of a text, and the bytes that it adds.
func (in *intake) take(text string) (place uint32, size int) {
	text = strings.ToLower(cut(text))
	if place, ok := in.places[text]; ok {
		return place, 0
	}
	place = uint32(len(in.got.starts))
	in.places[text] = place
	in.got.starts = append(in.got.starts, uint32(len(in.got.all)))
	in.got.all = append(append(in.got.all, text...), 0)
	return place, len(text) + 1
}

// texts gives what was gathered, in no more memory than needed.
func (in *intake) texts() texts {
	return texts{all: bytes.Clone(in.got.all), starts: append([]uint32(nil), in.got.starts...)}
}

// cut is the first maxText bytes of a text, or a few less, to end with a whole rune.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// get gives the text at a place.
func (t *texts) get(place uint32) []byte {
	end := len(t.all)
	if int(place)+1 < len(t.starts) {
		end = int(t.starts[place+1])
	}
	return t.all[t.starts[place] : end-1]
}

// containing gives the places of the texts that contain word, which is not empty, in lower case and
// without a zero byte.
func (t *texts) containing(word string) Set {
	found := NewSet(len(t.starts))
	place := 0
	for at := 0; ; {
		next := bytes.Index(t.all[at:], []byte(word))
		if next < 0 {
			return found
		}
		at += next
		for place+1 < len(t.starts) && int(t.starts[place+1]) <= at {
			place++
		}
		found.Add(place)
		if place+1 == len(t.starts) {
			return found
		}
		at = int(t.starts[place+1])
	}
}
