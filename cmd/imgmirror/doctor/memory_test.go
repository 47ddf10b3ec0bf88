package doctor

import "testing"

func TestDoctorMemory(t *testing.T) {
	f := func(limit int64, want string) {
		t.Helper()
		d := &doctor{}
		d.memory(Memory{From: "cgroup", Limit: limit, Parts: []MemoryPart{
			{"index", 60e6, ""}, {"replies", 64e6, "clients.memory"}, {"connections", 600e6, "clients.max_connections"}, {"lists", 1e9, "memory.limit"},
		}})
		if got := found(d.findings)["memory"]; got != want {
			t.Errorf("%d:\n got %q\nwant %q", limit, got, want)
		}
	}
	const largest = "(cgroup): lists 1.0 GB, connections 600 MB, replies 64 MB, …"
	f(0, "")
	f(1724e6, "ok: at most 1.7 GB of 1.7 GB (cgroup) can be needed: lists 1.0 GB, connections 600 MB, replies 64 MB, …")
	f(1723e6, "warning: if every bound were reached, 1.7 GB would be needed, of 1.7 GB "+largest+"; lower memory.limit")
	f(500e6, "warning: if every bound were reached, 1.7 GB would be needed, of 500 MB "+largest+"; lower memory.limit and clients.max_connections")
}
