package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// badger's log of the changes that are in no table yet is a header (the number of a
// key, 0 without encryption, and a random vector), then entries: two bytes of flags, the lengths
// of key and value, a time (all three as varints), key, value, and a CRC of all that. Behind the last
// entry there are zeros.
const (
	logSuffix  = ".mem"
	logHeader  = 8 + 12
	longestKey = 1 << 16

	metaDeleted  = 1 << 0
	metaPointer  = 1 << 1 // the value is elsewhere: where, is the value
	metaTxn      = 1 << 6 // holds only if the entry that ends the transaction follows
	metaEndOfTxn = 1 << 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// logFile is one of badger's logs, as it is found on disk.
type logFile struct {
	path string
	data []byte
	end  int // of what badger will find in it
}

func logName(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("%05d%s", number, logSuffix))
}

// logNumber is the opposite of logName.
func logNumber(name string) (int, bool) {
	digits, ok := strings.CutSuffix(name, logSuffix)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil
}

// readLogs reads all logs in dir, in their order.
func readLogs(dir string) ([]*logFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var logs []*logFile
	for _, e := range entries {
		if _, ok := logNumber(e.Name()); !ok {
			continue
		}
		l := &logFile{path: filepath.Join(dir, e.Name())}
		if l.data, err = os.ReadFile(l.path); err != nil {
			return nil, err
		}
		l.end = l.each(func([]byte, logEntry) {})
		logs = append(logs, l)
	}
	slices.SortFunc(logs, func(a, b *logFile) int { return strings.Compare(a.path, b.path) })
	return logs, nil
}

// logEntry is one change in a log.
type logEntry struct {
	version uint64
	flags   byte
	value   []byte
}

// each calls f with the changes of whole transactions, up to the first that cannot be
// read, and tells where that begins.
func (l *logFile) each(f func(key []byte, e logEntry)) (end int) {
	type change struct {
		key []byte
		e   logEntry
	}
	var open []change // changes of a transaction of which the end was not seen yet
	end = min(logHeader, len(l.data))
	for at := end; ; {
		key, e, length := readEntry(l.data[at:])
		if length == 0 {
			return end
		}
		at += length
		switch {
		case e.flags&metaTxn != 0:
			if len(open) > 0 && open[0].e.version != e.version {
				return end
			}
			open = append(open, change{key, e})
			continue
		case e.flags&metaEndOfTxn != 0:
			if len(open) == 0 || string(e.value) != strconv.FormatUint(open[0].e.version, 10) {
				return end
			}
			for _, c := range open {
				f(c.key, c.e)
			}
			open = open[:0]
		default:
			if len(open) > 0 {
				return end
			}
			f(key, e)
		}
		end = at
	}
}

// readEntry reads the entry that data begins with; its length is 0 if there is none.
func readEntry(data []byte) (key []byte, e logEntry, length int) {
	if len(data) < 2 {
		return nil, e, 0
	}
	at := 2
	var lengths [3]uint64 // the third is a time
	for i := range lengths {
		n, used := binary.Uvarint(data[at:])
		if used <= 0 {
			return nil, e, 0
		}
		lengths[i], at = n, at+used
	}
	const version = 8
	left := uint64(len(data) - at)
	if lengths[0] < version || lengths[0] > longestKey || lengths[1] > left || lengths[0]+lengths[1]+crc32.Size > left {
		return nil, e, 0
	}
	middle, end := at+int(lengths[0]), at+int(lengths[0]+lengths[1])
	if crc32.Checksum(data[:end], castagnoli) != binary.BigEndian.Uint32(data[end:]) {
		return nil, e, 0
	}
	e = logEntry{version: versionOf(data[at:middle]), flags: data[0], value: data[middle:end]}
	return data[at : middle-version], e, end + crc32.Size
}

// versionOf gives the version that badger appends to a key.
func versionOf(key []byte) uint64 { return ^uint64(0) - binary.BigEndian.Uint64(key[len(key)-8:]) }

// mend takes out of dir what would make badger fail, or end the process, although nothing of use is
// in it: the rest of a log behind a damage, where badger might take any number for a length, a
// registry of keys that are not used, and statistics that it makes anew.
func mend(dir string, logs []*logFile, log *slog.Logger) error {
	for _, l := range logs {
		if rest := len(bytes.TrimRight(l.data[l.end:], "\x00")); rest > 0 {
			log.Error("the end of the index's log cannot be read: what was recorded last is made up from the files", "path", l.path, "at", l.end, "bytes", rest)
		}
		if err := l.mend(); err != nil {
			return err
		}
	}
	for name, whole := range map[string]func([]byte) bool{
		"KEYREGISTRY": func(data []byte) bool {
			return len(data) == 16+len(registryText) && bytes.HasSuffix(data, []byte(registryText))
		},
		"DISCARD": func(data []byte) bool { return len(data) >= 1<<20 && len(data)%16 == 0 },
	} {
		if err := mendFile(filepath.Join(dir, name), whole, log); err != nil {
			return err
		}
	}
	return nil
}

// registryText ends a registry in which no key is.
const registryText = "Hello Badger"

// mend leaves of a log what can be read.
func (l *logFile) mend() error {
	if l.end <= logHeader { // there is no change in it
		return os.Remove(l.path)
	}
	if binary.BigEndian.Uint64(l.data) != 0 { // no key is ever used
		f, err := os.OpenFile(l.path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(make([]byte, 8), 0)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if len(l.data) == l.end {
		return nil
	}
	return os.Truncate(l.path, int64(l.end))
}

// mendFile removes what stands in the place of a file of badger's, unless that can
// be opened for writing and is whole.
func mendFile(path string, whole func([]byte) bool, log *slog.Logger) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			f.Close() //nolint:errcheck // nothing was written to it
			data, err := os.ReadFile(path)
			if err == nil && whole(data) {
				return nil
			}
		} else if !errors.Is(err, fs.ErrPermission) { // of the files that may be open, say
			return err
		}
	}
	log.Error("a file of the index is damaged: it is made anew", "path", path)
	return os.RemoveAll(path)
}
