package memory

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestCgroupLimit(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no cgroups": {nil, 0},
		"v2":         {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "268435456\n"}, 268435456},
		"v2, none":   {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 0},
		"v2, the lowest above": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/memory.max": "2000\n",
		}, 1000},
		"v2 in a container": {map[string]string{"proc/self/cgroup": "0::/docker/x\n", "sys/fs/cgroup/memory.max": "5000\n"}, 5000},
		"v1": {map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/c\n4:memory:/m\n0::/x\n", "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "3000\n",
		}, 3000},
		"v1, none":       {map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"not understood": {map[string]string{"proc/self/cgroup": "x\n0::/a\n", "sys/fs/cgroup/a/memory.max": "many\n"}, 0},
	} {
		root := t.TempDir()
		for file, text := range test.files {
			at := filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := cgroupLimit(root); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestFind(t *testing.T) {
	const none = math.MaxInt64
	f := func(configured, cgroup int64, set bool, soft int64, want Bound, lists int64) {
		t.Helper()
		got := find(configured, cgroup, set, soft)
		if got != want || got.Lists() != lists {
			t.Errorf("%+v with %d for lists, want %+v with %d", got, got.Lists(), want, lists)
		}
	}
	f(0, 0, false, none, Bound{}, mostLists)
	f(256<<20, 0, false, none, Bound{256 << 20, "memory.limit", 228170137}, 64<<20)
	f(0, 256<<20, false, none, Bound{256 << 20, "cgroup", 228170137}, 64<<20)
	f(512<<20, 256<<20, true, 100<<20, Bound{100 << 20, "GOMEMLIMIT", 100 << 20}, 25<<20)
	f(512<<20, 256<<20, true, 600<<20, Bound{512 << 20, "memory.limit", 600 << 20}, 128<<20)
	f(0, 0, true, 100<<20, Bound{100 << 20, "GOMEMLIMIT", 100 << 20}, 25<<20)
	f(0, 256<<20, true, none, Bound{256 << 20, "cgroup", 0}, 64<<20) // GOMEMLIMIT=off
	f(1<<20, 0, false, none, Bound{1 << 20, "memory.limit", 891289}, leastLists)
	f(64<<30, 0, false, none, Bound{64 << 30, "memory.limit", 58411555225}, mostLists)
}

// TestMachine: the memory of a machine is in one line of proc; what cannot be read is unknown.
func TestMachine(t *testing.T) {
	f := func(text string, want int64) {
		t.Helper()
		root := t.TempDir()
		if err := os.MkdirAll(filepath.Join(root, "proc"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := machine(root); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	f("MemFree: 3 kB\nMemTotal:       16384 kB\n", 16<<20)
	f("", 0)
	f("MemTotal: x kB\n", 0)
	f("MemTotal: -7 kB\n", 0)
	f("MemTotal: 9223372036854775807 kB\n", 0)
	if got := machine(t.TempDir()); got != 0 {
		t.Errorf("without proc: %d", got)
	}
}

// TestHeads: the heads of bundles follow the bound, between a usable and the largest one.
func TestHeads(t *testing.T) {
	f := func(bytes, want int64) {
		t.Helper()
		if got := (Bound{Bytes: bytes}).Heads(); got != want {
			t.Errorf("%d bytes: %d for heads, want %d", bytes, got, want)
		}
	}
	f(0, mostHeads)
	f(1<<20, leastHeads)
	f(1<<30, 32<<20)
	f(64<<30, mostHeads)
}

// The ranges of downloads follow the bound, between a usable and the largest room.
func TestRanges(t *testing.T) {
	f := func(bytes, want int64) {
		t.Helper()
		if got := (Bound{Bytes: bytes}).Ranges(); got != want {
			t.Errorf("bound %d: %d for ranges, want %d", bytes, got, want)
		}
	}
	f(0, mostRanges)
	f(1<<20, leastRanges)
	f(1<<30, 128<<20)
	f(64<<30, mostRanges)
}
