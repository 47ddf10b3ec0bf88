package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// span is a part of a body.
type span struct{ start, length int64 }

// contentRange is the header of a 206.
func (p span) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", p.start, p.start+p.length-1, size)
}

// wantedSpan reads the Range and If-Range headers of a GET against a body of size bytes. part is
// the part to send. whole asks for a 200 with the whole body. satisfiable is false for a 416.
func wantedSpan(h *fasthttp.RequestHeader, size int64, v validators) (part span, whole, satisfiable bool) {
	all := span{0, size}
	header := h.PeekBytes(headRange)
	if len(header) == 0 || !h.IsGet() {
		return all, true, true
	}
	if cond := h.PeekBytes(headIfRange); len(cond) > 0 && !rangeStillValid(cond, v) {
		return all, true, true
	}
	part, ok, satisfiable := parseRange(string(header), size)
	if !ok {
		return all, true, true
	}
	return part, false, satisfiable
}

// rangeStillValid evaluates If-Range. A tag must be strong and equal to the body's tag; a date must
// be the second of the body's date.
func rangeStillValid(cond []byte, v validators) bool {
	if date, ok := httpDate(cond); ok {
		return !v.modified.IsZero() && v.modified.Unix() == date.Unix()
	}
	tag := string(cond)
	return !strings.HasPrefix(tag, "W/") && tag != "*" && matchTags(cond, v.etag)
}

// parseRange reads one byte range (RFC 9110 14.1.2) of a body of size bytes. ok is false for a
// header to ignore: another unit, several ranges, bad syntax.
func parseRange(header string, size int64) (part span, ok, satisfiable bool) {
	unit, set, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return span{}, false, false
	}
	first, last, found := strings.Cut(strings.TrimSpace(set), "-")
	if !found {
		return span{}, false, false
	}
	if first == "" { // the last n bytes
		n, ok := parsePos(last)
		if !ok {
			return span{}, false, false
		}
		n = min(n, size)
		return span{size - n, n}, true, n > 0
	}
	start, ok := parsePos(first)
	if !ok {
		return span{}, false, false
	}
	end := size - 1
	if last != "" {
		e, ok := parsePos(last)
		if !ok || e < start {
			return span{}, false, false
		}
		end = min(end, e)
	}
	if start >= size {
		return span{}, true, false
	}
	return span{start, end - start + 1}, true, true
}

// parsePos reads digits; a number beyond 62 bits gives the greatest of 62 bits.
func parsePos(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 62)
	return int64(n), err == nil || errors.Is(err, strconv.ErrRange) //nolint:gosec // of 62 bits
}
