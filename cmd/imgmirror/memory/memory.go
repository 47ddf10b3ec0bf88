// Package memory finds out how much memory the process may take, and has Go keep to the bound.
package memory

import (
	"math"
	"os"
	"runtime/debug"
)

// Bound is how much memory the process may take.
type Bound struct {
	Bytes int64  // 0: no bound is known
	From  string // memory.limit, cgroup or GOMEMLIMIT
	// Soft is the bound of Go's runtime, which collects garbage more often near it; 0: none.
	Soft int64
}

// Parts of a bound. What is not the heap's is for stacks, and for what Go's runtime frees late.
const (
	heapPart = 0.85
	listPart = 4 // the lists of all sources take a quarter: reading and keeping take it twice

	rangePart = 8  // what downloads in ranges hold ahead of their readers
	headPart  = 32 // the head of a bundle, and the open imports: each takes two and a half times that

	leastLists  = 8 << 20
	mostLists   = 1 << 30
	leastRanges = 16 << 20
	mostRanges  = 256 << 20
	leastHeads  = 8 << 20
	mostHeads   = 130 << 20 // the largest head
)

// Find gives the bound: configured, in bytes, if it is not 0, else that of the cgroup. A GOMEMLIMIT
// of the operator's is the soft bound, and the bound where there is no other, or none as low.
func Find(configured int64) Bound {
	_, set := os.LookupEnv("GOMEMLIMIT")
	return find(configured, cgroupLimit("/"), set, debug.SetMemoryLimit(-1))
}

func find(configured, cgroup int64, set bool, soft int64) Bound {
	var b Bound
	switch {
	case configured > 0:
		b = Bound{Bytes: configured, From: "memory.limit"}
	case cgroup > 0:
		b = Bound{Bytes: cgroup, From: "cgroup"}
	}
	switch {
	case set && soft < math.MaxInt64:
		b.Soft = soft
		if b.Bytes == 0 || soft < b.Bytes { // what may be kept must fit into what Go keeps to
			b.Bytes, b.From = soft, "GOMEMLIMIT"
		}
	case !set && b.Bytes > 0:
		b.Soft = int64(heapPart * float64(b.Bytes))
	}
	return b
}

// Apply has Go's runtime keep to the soft bound.
func (b Bound) Apply() {
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set && b.Soft > 0 {
		debug.SetMemoryLimit(b.Soft)
	}
}

// Lists is what the lists of all sources may take, in bytes.
func (b Bound) Lists() int64 {
	if b.Bytes == 0 {
		return mostLists
	}
	return min(max(b.Bytes/listPart, leastLists), mostLists)
}

// Ranges is what the ranges of all downloads may hold ahead of their readers, in bytes.
func (b Bound) Ranges() int64 {
	if b.Bytes == 0 {
		return mostRanges
	}
	return min(max(b.Bytes/rangePart, leastRanges), mostRanges)
}

// Heads is what the heads of bundles on their way in may have, in bytes of their texts; the imports
// that are open may have as much.
func (b Bound) Heads() int64 {
	if b.Bytes == 0 {
		return mostHeads
	}
	return min(max(b.Bytes/headPart, leastHeads), mostHeads)
}
