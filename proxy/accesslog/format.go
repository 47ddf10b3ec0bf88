package accesslog

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// format writes lines as slog's handlers do, byte for byte, and allocates nothing. The tests compare
// the two.
type format struct {
	json   bool
	bunyan bool   // json, with UTC times and with durations as text
	begin  string // of a line, before the time
	common string // what all lines have after the time
	keys   keys
}

// keys are the names of the fields with what stands around them.
type keys struct{ method, path, status, bytes, duration, received, cache, remote, id, agent, err string }

// newFormat makes the format with this name; line is Options.Common.
func newFormat(name, line string) (format, error) {
	line = strings.TrimSuffix(line, "\n")
	switch name {
	case Text:
		return format{begin: "time=", common: " " + line, keys: newKeys(" ", "=")}, nil
	case JSON, Bunyan:
		inner := strings.TrimSuffix(strings.TrimPrefix(line, "{"), "}")
		return format{
			json: true, bunyan: name == Bunyan,
			begin: `{"time":"`, common: `",` + inner, keys: newKeys(`,"`, `":`),
		}, nil
	}
	return format{}, fmt.Errorf("access log: the format %q is not text, json or bunyan", name)
}

func newKeys(before, after string) keys {
	key := func(name string) string { return before + name + after }
	return keys{
		method: key("method"), path: key("path"), status: key("status"), bytes: key("bytes"), duration: key("duration"),
		received: key("received"), cache: key("cache"), remote: key("remote"), id: key("request_id"),
		agent: key("user_agent"), err: key("error"),
	}
}

// append appends the line of a request to b; texts are those of e.
func (f *format) append(b []byte, c *clock, e *facts, texts []byte) []byte {
	next := func(kind int) (text []byte) {
		text, texts = texts[:e.lengths[kind]], texts[e.lengths[kind]:]
		return text
	}
	b = append(b, f.begin...)
	b = f.time(b, c, e.end)
	b = append(b, f.common...)
	b = f.text(append(b, f.keys.method...), next(textMethod))
	b = f.text(append(b, f.keys.path...), next(textPath))
	b = strconv.AppendInt(append(b, f.keys.status...), int64(e.status), 10)
	b = strconv.AppendInt(append(b, f.keys.bytes...), e.bytes, 10)
	b = f.duration(append(b, f.keys.duration...), e.duration)
	if e.received > 0 {
		b = strconv.AppendInt(append(b, f.keys.received...), e.received, 10)
	}
	if cache := next(textCache); len(cache) > 0 {
		b = f.text(append(b, f.keys.cache...), cache)
	}
	b = f.address(append(b, f.keys.remote...), e, next(textRemote))
	b = f.text(append(b, f.keys.id...), next(textID))
	b = f.text(append(b, f.keys.agent...), next(textAgent))
	if e.failed {
		b = f.text(append(b, f.keys.err...), next(textErr))
	}
	if f.json {
		b = append(b, '}')
	}
	return append(b, '\n')
}

// clock is the last time that was told, for lines of the same millisecond. The owner is one goroutine.
type clock struct {
	milli int64 // since 1970
	text  []byte
}

// time appends at: slog's text has exactly three digits of a second, its JSON as many as are needed,
// bunyan three digits in UTC.
func (f *format) time(b []byte, c *clock, at instant) []byte {
	t := time.Unix(at.sec, int64(at.nano))
	if f.json && !f.bunyan {
		return t.AppendFormat(b, time.RFC3339Nano)
	}
	if milli := t.UnixMilli(); milli != c.milli || len(c.text) == 0 {
		c.milli, c.text = milli, f.millisecond(c.text[:0], t)
	}
	return append(b, c.text...)
}

// millisecond appends t with three digits of a second.
func (f *format) millisecond(b []byte, t time.Time) []byte {
	if f.bunyan {
		t = t.UTC()
	}
	// RFC3339Nano is the layout that package time formats fastest, and drops zeros at the end: a digit
	// that is none is put behind the three, and taken out again.
	digit := len(b) + len("2006-01-02T15:04:05.000")
	b = t.Truncate(time.Millisecond).Add(time.Millisecond/10).AppendFormat(b, time.RFC3339Nano)
	return append(b[:digit], b[digit+1:]...)
}

func (f *format) duration(b []byte, d time.Duration) []byte {
	switch {
	case f.bunyan:
		b = append(append(b, '"'), d.Round(time.Microsecond).String()...)
		return append(b, '"')
	case f.json:
		return strconv.AppendInt(b, int64(d), 10)
	}
	return append(b, d.String()...)
}

// address appends the address of e's client, or the address's text. An address has nothing to escape or to quote.
func (f *format) address(b []byte, e *facts, text []byte) []byte {
	if !e.isTCP {
		return f.text(b, text)
	}
	remote := netip.AddrPortFrom(netip.AddrFrom16(e.ip).Unmap(), e.port)
	if !f.json {
		return remote.AppendTo(b)
	}
	return append(remote.AppendTo(append(b, '"')), '"')
}

func (f *format) text(b, s []byte) []byte {
	switch {
	case f.json && plain(s, inJSON):
		return append(append(append(b, '"'), s...), '"')
	case f.json:
		return appendJSON(b, string(s))
	case len(s) == 0 || !plain(s, inText) && bytes.ContainsFunc(s, odd):
		return strconv.AppendQuote(b, string(s))
	}
	return append(b, s...)
}

// plainBytes tells of each byte whether it stands for itself, inText or inJSON.
var plainBytes = func() (all [256]uint8) {
	for b := rune(' '); b < utf8.RuneSelf; b++ {
		if !odd(b) {
			all[b] |= inText
		}
		if b != '"' && b != '\\' {
			all[b] |= inJSON
		}
	}
	return all
}()

const (
	inText = 1 << iota
	inJSON
)

// plain tells whether all bytes of s stand for themselves, as in nearly all requests.
func plain(s []byte, where uint8) bool {
	for _, c := range s {
		if plainBytes[c]&where == 0 {
			return false
		}
	}
	return true
}

// odd tells whether a character, or a byte that is none, makes a text need quotes.
func odd(r rune) bool {
	if r < utf8.RuneSelf {
		return r <= ' ' || r == '=' || r == '"'
	}
	return r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsPrint(r)
}

// appendJSON appends s as a string of JSON. Bytes that are no characters become U+FFFD.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0 // bytes of s that are in b
	for i, r := range s {
		if r >= ' ' && r != '"' && r != '\\' && r != '\u2028' && r != '\u2029' && r != utf8.RuneError {
			continue
		}
		b = append(b, s[done:i]...)
		_, size := utf8.DecodeRuneInString(s[i:])
		done = i + size
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == utf8.RuneError && size > 1: // a true U+FFFD
			b = append(b, s[i:done]...)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return append(append(b, s[done:]...), '"')
}
