package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// day is the unit d of durations.
const day = 24 * time.Hour

var errDuration = errors.New("not a duration: write it like 30s, 10m, 24h or 7d")

// ParseDuration reads the durations of time.ParseDuration, which may begin with days of 24 hours:
// "30d", "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	rest, negative := strings.CutPrefix(s, "-")
	number, rest, ok := strings.Cut(rest, "d")
	if !ok {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, errDuration
		}
		return d, nil
	}
	days, err := strconv.ParseUint(number, 10, 31)
	if err != nil || days > uint64(math.MaxInt64/day) {
		return 0, errDuration
	}
	d := time.Duration(days) * day
	if rest != "" {
		more, err := time.ParseDuration(rest)
		if err != nil || strings.ContainsAny(rest[:1], "+-") || more > math.MaxInt64-d {
			return 0, errDuration
		}
		d += more
	}
	if negative {
		d = -d
	}
	return d, nil
}

// short is d as a person writes it: 10m and not 10m0s, 7d and not 168h.
func short(d time.Duration) string {
	if d%day == 0 && d >= 2*day {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
