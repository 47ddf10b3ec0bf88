package bundle

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A bundle's tar headers are plain POSIX ustar, every byte of them fixed by name, size and time: a
// reader makes the one it must find and compares. Of the extensions there is one only, the pax
// record of a size that ustar has no room for.
const (
	blockSize = 512
	trailer   = 2 * blockSize // zeros, the end of a tar
	maxOctal  = 1<<33 - 1     // the largest size that ustar can say: 11 octal digits
)

// header gives the blocks before the bytes of a file: one, or three for a size over 8 GiB.
func header(name string, size int64, mtime time.Time) []byte {
	if size <= maxOctal {
		return ustar(name, size, mtime, '0')
	}
	record := paxRecord("size", strconv.FormatInt(size, 10))
	folder, base := splitName(name)
	out := ustar(joinName(folder, "PaxHeaders/"+base), int64(len(record)), mtime, 'x')
	out = append(out, record...)
	out = append(out, make([]byte, padding(int64(len(record))))...)
	return append(out, ustar(name, 0, mtime, '0')...) // a reader that knows no pax must not take a wrong size for right
}

// headerSize is the length of header's result.
func headerSize(size int64) int64 {
	if size <= maxOctal {
		return blockSize
	}
	return 3 * blockSize
}

// padding is how many zeros follow size bytes.
func padding(size int64) int64 { return -size & (blockSize - 1) }

// paxRecord is "LENGTH KEY=VALUE\n", where LENGTH counts itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	for len(strconv.Itoa(n))+len(rest) != n {
		n++
	}
	return strconv.Itoa(n) + rest
}

func splitName(name string) (folder, base string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}

func joinName(folder, base string) string {
	if folder == "" {
		return base
	}
	return folder + "/" + base
}

// The fields of a header that are looked at or written, by POSIX.
const (
	atMode, atUID, atGID    = 100, 108, 116
	atSize, atMtime, atSum  = 124, 136, 148
	atType, atLink, atMagic = 156, 157, 257
	atMajor, atMinor        = 329, 337
	atPrefix, endPrefix     = 345, 500
)

// ustar gives one header block.
func ustar(name string, size int64, mtime time.Time, kind byte) []byte {
	b := make([]byte, blockSize)
	folder, base := splitName(name)
	if folder != "" && strings.HasSuffix(folder, "PaxHeaders") { // that folder belongs to the name
		folder, base = strings.TrimSuffix(folder, "/PaxHeaders"), "PaxHeaders/"+base
	}
	copy(b[:atMode], base)
	copy(b[atMode:], "0000644")
	copy(b[atUID:], "0000000")
	copy(b[atGID:], "0000000")
	copy(b[atSize:], fmt.Sprintf("%011o", size))
	copy(b[atMtime:], fmt.Sprintf("%011o", mtime.Unix()))
	b[atType] = kind
	copy(b[atMagic:], "ustar\x0000")
	copy(b[atMajor:], "0000000")
	copy(b[atMinor:], "0000000")
	copy(b[atPrefix:endPrefix], folder)
	copy(b[atSum:], fmt.Sprintf("%06o\x00 ", checksum(b)))
	return b
}

// checksum is the sum of all bytes, those of the field itself taken as spaces.
func checksum(b []byte) int {
	n := 0
	for i, c := range b[:blockSize] {
		if atSum <= i && i < atType {
			c = ' '
		}
		n += int(c)
	}
	return n
}

// found is what a header block says, of a bundle or of another tar.
type found struct {
	name string
	kind byte
	size int64 // -1: not a number
	ok   bool  // it is a tar header, with the right checksum
}

func parseHeader(b []byte) found {
	f := found{name: text(b[:atMode]), kind: b[atType], size: octal(b[atSize:atMtime])}
	if bytes.HasPrefix(b[atMagic:], []byte("ustar\x00")) {
		f.name = joinName(text(b[atPrefix:endPrefix]), f.name)
	}
	f.ok = octal(b[atSum:atType]) == int64(checksum(b))
	return f
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func octal(b []byte) int64 {
	n, err := strconv.ParseInt(strings.Trim(text(b), " "), 8, 64)
	if err != nil {
		return -1
	}
	return n
}

// kinds are the types of entries that tars may have, in the words of an error.
var kinds = map[byte]string{
	0: "a regular file", '0': "a regular file", '1': "a hard link", '2': "a symbolic link", '3': "a character device",
	'4': "a block device", '5': "a folder", '6': "a pipe", '7': "a reserved type", 'x': "a pax header", 'g': "a global pax header",
	'X': "a pax header", 'L': "a GNU long name", 'K': "a GNU long link", 'S': "a sparse file", 'D': "a GNU dump folder",
	'M': "a continued file", 'N': "a GNU long name", 'V': "a volume label",
}

// describe names an entry that should not be there. next is what follows its
// header, as far as it is known: the real name may be in it.
func (f found) describe(next []byte) string {
	kind, known := kinds[f.kind]
	if !known {
		kind = fmt.Sprintf("an entry of type %q", f.kind)
	}
	name := f.name
	next = next[:max(0, min(f.size, int64(len(next))))]
	switch f.kind {
	case 'L', 'K', 'N':
		name = text(next)
	case 'x', 'g', 'X':
		for record := range strings.Lines(string(next)) {
			_, record, _ = strings.Cut(record, " ")
			if key, value, ok := strings.Cut(record, "="); ok && strings.HasSuffix(key, "path") { // path, linkpath
				name = strings.TrimSuffix(value, "\n")
			}
		}
	}
	return quoteName(name) + ", " + kind
}
