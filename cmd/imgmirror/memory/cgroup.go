package memory

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// unlimited is from where a limit of cgroup v1 means none: its kernels tell "none" as the largest
// number of whole pages.
const unlimited = 1 << 60

// cgroupLimit gives the lowest memory limit of the process's cgroup and those above it, v2 or v1; 0
// where none is set, or there are no cgroups. root is the folder of proc and sys.
func cgroupLimit(root string) int64 {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	lowest := int64(0)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		folder, file := "", ""
		switch {
		case fields[0] == "0" && fields[1] == "":
			folder, file = "sys/fs/cgroup", "memory.max"
		case contains(fields[1], "memory"):
			folder, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// Inside a container the path may be the host's: the limit is then at the top.
		for at := path.Clean("/" + fields[2]); ; at = path.Dir(at) {
			if n := readLimit(filepath.Join(root, folder, at, file)); n > 0 && (lowest == 0 || n < lowest) {
				lowest = n
			}
			if at == "/" {
				break
			}
		}
	}
	return lowest
}

// contains tells that a list with commas has the word.
func contains(list, word string) bool {
	return strings.Contains(","+list+",", ","+word+",")
}

// readLimit reads a limit; 0: there is none.
func readLimit(name string) int64 {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n >= unlimited {
		return 0
	}
	return n
}
