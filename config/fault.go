package config

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with the settings. The error of Load and of
// Validate is a join of Faults, unless a file cannot be read at all.
type Fault struct {
	Key    string // "cache.max_size", "sources[1].url"; "" for a fault of the whole file
	Value  string // the given value, quoted, passwords masked; "" when there is nothing to show
	Place  string // where the value was given: "FILE:LINE", the environment variable, "command line"; "" when unknown
	Reason string
}

// Error is "PLACE: KEY: VALUE: REASON" without the parts that are empty.
func (f *Fault) Error() string {
	parts := slices.DeleteFunc([]string{f.Place, f.Key, f.Value, f.Reason}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// places tells where a key, or an entry of a list and its keys, was set.
type places map[string]string

// of gives the place of key, or of the nearest thing around it.
func (p places) of(key string) string {
	for key != "" {
		if place, ok := p[key]; ok {
			return place
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return ""
}

// override forgets the places of key and of all keys in it, and notes place for key.
func (p places) override(key, place string) {
	for k := range p {
		if k == key || strings.HasPrefix(k, key+"[") || strings.HasPrefix(k, key+".") {
			delete(p, k)
		}
	}
	p[key] = place
}

// didYouMean is "; did you mean X?" for the candidate nearest to name, or "".
func didYouMean(name string, candidates []string) string {
	best, least := "", 3 // two slips at most
	for _, c := range candidates {
		last := c[strings.LastIndexByte(c, '.')+1:]
		for _, known := range []string{c, last} {
			if d := distance(name, known); d < least && d < len(known)/2+1 {
				best, least = c, d
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance counts the single-byte edits between a and b, a swap of neighbours being one.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return 3 // above the limit of every caller
	}
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
