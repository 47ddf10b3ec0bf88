package memory

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Machine gives the memory of this machine, in bytes; 0 on systems other than Linux.
func Machine() int64 { return machine("/") }

func machine(root string) int64 {
	text, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // MemTotal: 16384 kB
		if len(fields) != 3 || fields[0] != "MemTotal:" || fields[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || n < 0 || n > unlimited>>10 {
			return 0
		}
		return n << 10
	}
	return 0
}
