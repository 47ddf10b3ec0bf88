package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
)

// Memory is what the mirror may take, and what the machine gives.
type Memory struct {
	Parts []MemoryPart
	Limit int64  // of the process; 0: the limit is not known, and nothing is checked
	From  string // which sets Limit: a key, or "this machine"
}

// MemoryPart is one use of memory with a bound.
type MemoryPart struct {
	Name string
	Most int64  // bytes
	Key  string // that lowers the bound; "": none does
}

// memory tells whether all bounds together are within what the process may take. Honest use reaches
// no bound, so more than that is a warning.
func (d *doctor) memory(m Memory) {
	const check = "memory"
	if m.Limit == 0 {
		return
	}
	parts := slices.SortedFunc(slices.Values(m.Parts), func(a, b MemoryPart) int { return cmp.Compare(b.Most, a.Most) })
	sum := int64(0)
	var texts []string
	for _, p := range parts {
		if sum += p.Most; len(texts) < 3 {
			texts = append(texts, fmt.Sprintf("%s %s", p.Name, bytesOf(p.Most)))
		}
	}
	largest := strings.Join(texts, ", ")
	if sum <= m.Limit {
		d.ok(check, "at most %s of %s (%s) can be needed: %s, …", bytesOf(sum), bytesOf(m.Limit), m.From, largest)
		return
	}
	d.warn(check, "if every bound were reached, %s would be needed, of %s (%s): %s, …; %s",
		bytesOf(sum), bytesOf(m.Limit), m.From, largest, advice(parts, sum-m.Limit))
}

// advice says which keys to lower for so many bytes less: those of the largest parts, as many as
// have the bytes.
func advice(parts []MemoryPart, over int64) string {
	var keys []string
	for _, p := range parts {
		if over > 0 && p.Key != "" && !slices.Contains(keys, p.Key) {
			keys = append(keys, p.Key)
			over -= p.Most
		}
	}
	return "lower " + strings.Join(keys, " and ")
}

func bytesOf(n int64) string { return humanize.Bytes(uint64(max(0, n))) } //nolint:gosec // not negative
