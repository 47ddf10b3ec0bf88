package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes, or of bytes per second where the key is a rate. In text it has a unit,
// decimal (10GB) or binary (64MiB). A number without a unit is bytes, and the empty text is 0.
type Size int64

const (
	megabyte Size = 1000 * 1000
	gigabyte Size = 1000 * megabyte
)

// units in which a Size may be written without loss, largest first.
var units = []struct {
	name string
	size Size
}{
	{"EiB", 1 << 60}, {"EB", 1e18},
	{"PiB", 1 << 50}, {"PB", 1e15},
	{"TiB", 1 << 40}, {"TB", 1e12},
	{"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6},
	{"KiB", 1 << 10}, {"kB", 1e3},
}

// ParseSize reads the texts of String and other usual forms: "10GB", "1.5 TiB", "500000000". The
// error does not repeat s.
func ParseSize(s string) (Size, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, nil
	}
	// Plain bytes stay exact beyond what a float holds.
	if n, err := strconv.ParseInt(strings.TrimSuffix(s, "B"), 10, 64); err == nil && n >= 0 {
		return Size(n), nil
	}
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("not a size: write it like 500GB, 64MiB or 1000000")
	}
	return Size(n), nil
}

// String writes s exactly, in the largest unit of which s is a whole number: "10GB", "64MiB",
// "1500MB", "0B".
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
