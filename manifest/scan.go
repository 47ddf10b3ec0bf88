package manifest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// The functions of this file walk JSON text that jsontext has accepted before, or that edits have
// made of such text. They check nothing again.

// member is one name and value of an object; the offsets are into the text around the object.
type member struct {
	name       []byte // without quotes and escapes
	key        int    // of the name's opening quote
	start, end int    // of the value
}

// span is the place of a value in the surrounding text.
type span struct{ start, end int }

// members appends the members of the object that begins at text[at].
func members(dst []member, text []byte, at int) []member {
	at = skipSpace(text, at+1)
	for text[at] != '}' {
		if text[at] == ',' {
			at = skipSpace(text, at+1)
		}
		m := member{key: at}
		at = skipValue(text, at)
		m.name = text[m.key+1 : at-1]
		if bytes.IndexByte(m.name, '\\') >= 0 {
			m.name, _ = jsontext.AppendUnquote(nil, text[m.key:at])
		}
		m.start = skipSpace(text, skipSpace(text, at)+1) // past the colon
		m.end = skipValue(text, m.start)
		at = skipSpace(text, m.end)
		dst = append(dst, m)
	}
	return dst
}

// elements appends the places of the values of the array that begins at text[at].
func elements(dst []span, text []byte, at int) []span {
	at = skipSpace(text, at+1)
	for text[at] != ']' {
		if text[at] == ',' {
			at = skipSpace(text, at+1)
		}
		e := span{start: at, end: skipValue(text, at)}
		at = skipSpace(text, e.end)
		dst = append(dst, e)
	}
	return dst
}

// lookup gives the value of one member of the object text; nil when there is none.
func lookup(text []byte, name string) jsontext.Value {
	if len(text) == 0 {
		return nil
	}
	var room [32]member
	for _, m := range members(room[:0], text, 0) {
		if string(m.name) == name {
			return jsontext.Value(text[m.start:m.end])
		}
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue gives the offset after the value that begins at b[i].
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		for depth := 0; ; i++ {
			switch b[i] {
			case '"':
				i = skipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		}
		i++
	}
	return i
}

// skipString gives the offset after the string that begins at b[i].
func skipString(b []byte, i int) int {
	for i++; ; i++ {
		i += bytes.IndexByte(b[i:], '"')
		escapes := 0
		for b[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}

// unquote gives the text of a JSON string; ok is false for any other value.
// The result aliases v where there is nothing to unescape.
func unquote(v []byte) (text []byte, ok bool) {
	if len(v) < 2 || v[0] != '"' {
		return nil, false
	}
	if text = v[1 : len(v)-1]; bytes.IndexByte(text, '\\') >= 0 {
		text, _ = jsontext.AppendUnquote(nil, v)
	}
	return text, true
}

// isNumber tells that a JSON value is a number.
func isNumber(v []byte) bool { return len(v) > 0 && jsontext.Value(v).Kind() == '0' }

// written gives the text of a JSON string, or of a number with the source's digits (tools write
// "version": 1 for 1.0 on their command line); nothing for any other value.
func written(v []byte) []byte {
	if isNumber(v) {
		return v
	}
	text, _ := unquote(v)
	return text
}

// quote gives s as a JSON string; invalid UTF-8 is replaced.
func quote(s string) string {
	b, _ := jsontext.AppendQuote(make([]byte, 0, len(s)+2), s) // the error tells of invalid UTF-8 only
	return string(b)
}

// truth reads true, false, "true" and "false"; ok is false for anything else.
func truth(v []byte) (value, ok bool) {
	switch string(v) {
	case "true", `"true"`:
		return true, true
	case "false", `"false"`:
		return false, true
	}
	return false, false
}

// number reads a JSON number or numeric string; anything else is 0.
func number(v []byte) float64 {
	if text, ok := unquote(v); ok {
		v = bytes.TrimSpace(text)
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return f
}

// wholeNumber reads a JSON number, or a string with a number, that is whole and within the range
// that every JSON reader holds exactly.
func wholeNumber(v []byte) (n int64, ok bool) {
	const most = 1 << 53
	if text, quoted := unquote(v); quoted {
		v = bytes.TrimSpace(text)
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil || !(-most <= f && f <= most) || f != math.Trunc(f) {
			return 0, false
		}
		n = int64(f)
	}
	return n, -most <= n && n <= most
}

// hexDigest fills dst from a JSON string of as many hex digits, of either case.
func hexDigest(dst, v []byte) bool {
	text, _ := unquote(v)
	if len(text) != hex.EncodedLen(len(dst)) {
		return false
	}
	_, err := hex.Decode(dst, text)
	return err == nil
}
