package verify

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"unicode/utf8"
)

// KindZFS is the kind of a ZFS stream; KindEmpty that of a file without a byte.
const (
	KindZFS   = "zfs"
	KindEmpty = "empty"
)

// kindLen is the number of first bytes that tell nearly all kinds.
const kindLen = 2 << 10

// kinds are recognised by the first bytes, in this order: the first match counts.
var kinds = []struct {
	name string
	what string // for people: "the file is …"
	is   func(head []byte) bool
}{
	{KindEmpty, "empty", func(b []byte) bool { return len(b) == 0 }},
	{KindZFS, "a ZFS stream", isZFS},
	{"gzip", "gzip-compressed data", magic(0, "\x1f\x8b\x08")},
	{"bzip2", "bzip2-compressed data", magic(0, "BZh")},
	{"xz", "xz-compressed data", magic(0, "\xfd7zXZ\x00")},

	{"zstd", "zstd-compressed data", isZstd},
	{"lz4", "lz4-compressed data", magic(0, "\x04\x22\x4d\x18", "\x02\x21\x4c\x18")},
	{"lzma", "lzma-compressed data", isLZMA},
	{"lzip", "lzip-compressed data", magic(0, "LZIP")},
	{"lzop", "lzop-compressed data", magic(0, "\x89LZO\x00\r\n\x1a\n")},
	{"lrzip", "lrzip-compressed data", magic(0, "LRZI")},
	{"snappy", "snappy-compressed data", magic(0, "\xff\x06\x00\x00sNaPpY")},
	{"compress", "data compressed by compress(1)", func(b []byte) bool {
		return len(b) > 2 && b[0] == 0x1f && b[1] == 0x9d && b[2]&0x60 == 0 && b[2]&0x1f >= 9 && b[2]&0x1f <= 16
	}},

	{"zip", "a zip archive", magic(0, "PK\x03\x04", "PK\x05\x06", "PK\x07\x08")},
	{"7z", "a 7z archive", magic(0, "7z\xbc\xaf\x27\x1c")},
	{"rar", "a rar archive", magic(0, "Rar!\x1a\x07")},
	{"tar", "a tar archive", isTar},
	{"cpio", "a cpio archive", magic(0, "070701", "070702", "070707")},
	{"ar", "an ar archive or Debian package", magic(0, "!<arch>\n")},
	{"rpm", "an RPM package", magic(0, "\xed\xab\xee\xdb")},

	{"qcow", "a QCOW disk image", magic(0, "QFI\xfb")},
	{"vmdk", "a VMDK disk image", magic(0, "KDMV", "COWD", "# Disk DescriptorFile")},
	{"vhd", "a VHD disk image", magic(0, "conectix", "vhdxfile")},
	{"vdi", "a VDI disk image", magic(64, "\x7f\x10\xda\xbe")},
	{"iso", "an ISO 9660 image", magic(32769, "CD001")},
	{"squashfs", "a squashfs image", magic(0, "hsqs", "sqsh")},
	{"luks", "a LUKS volume", magic(0, "LUKS\xba\xbe")},
	{"xfs", "an XFS filesystem", magic(0, "XFSB\x00\x00")},
	{"ext", "an ext2, ext3 or ext4 filesystem", isExt},
	{"disk", "a raw disk image", isDisk},

	{"elf", "an ELF binary", magic(0, "\x7fELF")},
	{"pdf", "a PDF document", magic(0, "%PDF-")},
	{"png", "a PNG picture", magic(0, "\x89PNG\r\n\x1a\n")},
	{"jpeg", "a JPEG picture", magic(0, "\xff\xd8\xff")},
	{"html", "a saved web page (HTML)", isHTML},
	{"xml", "XML text", func(b []byte) bool { return isText(b) && bytes.HasPrefix(text(b), []byte("<?xml")) }},
	{"json", "JSON text", isJSON},
	{"text", "plain text", isText},
	{"zeros", "nothing but zero bytes", func(b []byte) bool {
		return len(b) >= 512 && len(bytes.Trim(b, "\x00")) == 0
	}},
}

// KindOf names the kind of the file that begins with head: "gzip", "zfs", "zstd", "tar", …; "" when
// the first bytes tell nothing. A partial head must be long enough: see kindLen.
func KindOf(head []byte) string {
	for _, k := range kinds {
		if k.is(head) {
			return k.name
		}
	}
	return ""
}

// DescribeKind is the text for people on a kind; the text follows "the file is …".
func DescribeKind(kind string) string {
	for _, k := range kinds {
		if k.name == kind {
			return k.what
		}
	}
	return "data of an unknown kind"
}

// CompressionOf is the compression, of the four that clients know, of a file of that kind: gzip, bzip2, xz, else none.
func CompressionOf(kind string) string {
	switch kind {
	case "gzip", "bzip2", "xz":
		return kind
	}
	return "none"
}

// magic tells that b has one of the numbers at that offset.
func magic(at int, any ...string) func([]byte) bool {
	return func(head []byte) bool {
		if len(head) <= at {
			return false
		}
		for _, m := range any {
			if bytes.HasPrefix(head[at:], []byte(m)) {
				return true
			}
		}
		return false
	}
}

// zfsMagic is DMU_BACKUP_MAGIC.
const zfsMagic = 0x2F5bacbac

// isZFS finds the begin record of a stream: type 0, the length of the payload, the magic number,
// all in the byte order of the sending machine.
func isZFS(b []byte) bool {
	if len(b) < 16 {
		return false
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(b) == 0 && order.Uint64(b[8:]) == zfsMagic {
			return true
		}
	}
	return false
}

// isZstd knows today's frames, frames of versions before 0.8, and skippable frames, which some
// programs begin with.
func isZstd(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch string(b[1:4]) {
	case "\xb5\x2f\xfd":
		return b[0] == 0x28 || b[0] == 0x1e || b[0] >= 0x22 && b[0] <= 0x27
	case "\x2a\x4d\x18":
		return b[0]&0xf0 == 0x50
	}
	return false
}

// isLZMA knows the .lzma files of xz and of its forerunners: the usual properties, a usual size of
// the dictionary, the size of the data.
func isLZMA(b []byte) bool {
	if len(b) < 13 || b[0] != 0x5d {
		return false
	}
	dict, size := binary.LittleEndian.Uint32(b[1:]), binary.LittleEndian.Uint64(b[5:])
	return dict >= 1<<12 && dict&0xffff == 0 && (size == 1<<64-1 || size < 1<<40)
}

// isTar compares the checksum of the first header, which archives of all ages have.
func isTar(b []byte) bool {
	const block, at, length = 512, 148, 8
	if len(b) < block || b[0] == 0 {
		return false
	}
	stated, err := strconv.ParseInt(string(bytes.Trim(b[at:at+length], " \x00")), 8, 32)
	if err != nil {
		return false
	}
	sum := int64(length * ' ')
	for i, c := range b[:block] {
		if i < at || i >= at+length {
			sum += int64(c)
		}
	}
	return sum == stated
}

// isExt finds the superblock: its magic number, and valid values of state and error behaviour.
func isExt(b []byte) bool {
	const super = 1024
	if len(b) < super+64 {
		return false
	}
	word := func(at int) uint16 { return binary.LittleEndian.Uint16(b[super+at:]) }
	return word(56) == 0xef53 && word(58) <= 7 && word(60) >= 1 && word(60) <= 3
}

// isDisk finds a partition table: four entries, each active or inactive, or GPT's.
func isDisk(b []byte) bool {
	if len(b) >= 520 && string(b[512:520]) == "EFI PART" {
		return true
	}
	if len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa {
		return false
	}
	for at := 446; at < 510; at += 16 {
		if b[at]&0x7f != 0 {
			return false
		}
	}
	return true
}

// text is b without a byte order mark and without leading white space.
func text(b []byte) []byte {
	return bytes.TrimLeft(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), " \t\r\n\f")
}

// isHTML looks for the beginning of a page, behind comments and an XML declaration.
func isHTML(b []byte) bool {
	rest := bytes.ToLower(text(b))
	for _, skip := range []struct{ from, to string }{{"<?xml", "?>"}, {"<!--", "-->"}} {
		for bytes.HasPrefix(rest, []byte(skip.from)) {
			_, after, found := bytes.Cut(rest, []byte(skip.to))
			if !found {
				return false
			}
			rest = text(after)
		}
	}
	return magic(0, "<!doctype html", "<html", "<head", "<body", "<title", "<script", "<meta")(rest)
}

// isJSON tells that text opens an object or an array.
func isJSON(b []byte) bool {
	rest := text(b)
	if len(rest) == 0 || !isText(b) {
		return false
	}
	switch next := bytes.TrimLeft(rest[1:], " \t\r\n"); rest[0] {
	case '{':
		return len(next) == 0 || next[0] == '"' || next[0] == '}'
	case '[':
		return len(next) == 0 || bytes.IndexByte([]byte(`"[{]-0123456789tfn`), next[0]) >= 0
	}
	return false
}

// isText tells that b is UTF-8 without control characters; a character that the end of head cuts
// does not count.
func isText(b []byte) bool {
	b = b[:min(len(b), 512)]
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			return !utf8.FullRune(b) && len(b) < utf8.UTFMax
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' && r != '\f' && r != 0x1b, r == 0x7f:
			return false
		}
		b = b[n:]
	}
	return true
}
