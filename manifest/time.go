package manifest

import "time"

// epoch is the date of an activated image without any date (spec 1.5).
const epoch = "1970-01-01T00:00:00Z"

// isV2Time tells that s has the form of a v2 timestamp: YYYY-MM-DDTHH:MM:SSZ
// or with exactly three fraction digits.
func isV2Time(s string) bool {
	const form = "dddd-dd-ddTdd:dd:dd"
	if len(s) != len(form)+1 && len(s) != len(form)+5 || s[len(s)-1] != 'Z' {
		return false
	}
	for i := range len(form) {
		if form[i] == 'd' && (s[i] < '0' || s[i] > '9') || form[i] != 'd' && s[i] != form[i] {
			return false
		}
	}
	if len(s) == len(form)+1 {
		return true
	}
	_, ok := digits(s[len(form)+1 : len(s)-1])
	return ok && s[len(form)] == '.'
}

// parseTime reads the timestamps of spec 1.5 (RFC 3339 with 0 to 9 fraction digits and any
// offset; without seconds; without zone, which means UTC) and dates without a
// time of day. The result is in UTC, cut to the millisecond; Go's zero time counts as no date.
func parseTime(s string) (t time.Time, fraction, ok bool) {
	var n [6]int // year month day hour minute second
	n[1], n[2] = 1, 1
	part := func(i, width, lo, hi int) bool {
		if len(s) < width {
			return false
		}
		v, ok := digits(s[:width])
		n[i], s = v, s[width:]
		return ok && lo <= v && v <= hi
	}
	sep := func(set string) bool {
		for i := range len(set) {
			if len(s) > 0 && s[0] == set[i] {
				s = s[1:]
				return true
			}
		}
		return false
	}
	fail := func() (time.Time, bool, bool) { return time.Time{}, false, false }

	if !part(0, 4, 0, 9999) || sep("-") && (!part(1, 2, 1, 12) || sep("-") && !part(2, 2, 1, 31)) {
		return fail()
	}
	nano := 0
	offset := time.Duration(0)
	if sep("Tt ") {
		if !part(3, 2, 0, 23) || !sep(":") || !part(4, 2, 0, 59) || sep(":") && !part(5, 2, 0, 59) {
			return fail()
		}
		if sep(".") {
			k := 0
			for ; k < len(s) && '0' <= s[k] && s[k] <= '9'; k++ {
			}
			v, ok := digits(s[:k])
			if !ok || k > 9 {
				return fail()
			}
			for i := k; i < 9; i++ {
				v *= 10
			}
			nano, s = v, s[k:]
		}
		var zone bool
		if offset, zone = parseZone(s); !zone {
			return fail()
		}
		s = ""
	}
	if s != "" {
		return fail()
	}
	t = time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], nano, time.UTC)
	if t.Day() != n[2] { // 30 February
		return fail()
	}
	t = t.Add(-offset)
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return fail()
	}
	return t.Truncate(time.Millisecond), nano != 0, true
}

// parseZone reads the text behind the time of day: nothing or Z for UTC, +hh:mm, +hhmm or +hh.
func parseZone(s string) (offset time.Duration, ok bool) {
	if s == "" || s == "Z" || s == "z" {
		return 0, true
	}
	if s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	var hm string
	switch {
	case len(s) == 6 && s[3] == ':':
		hm = s[1:3] + s[4:]
	case len(s) == 5:
		hm = s[1:]
	case len(s) == 3:
		hm = s[1:] + "00"
	}
	v, ok := digits(hm)
	if !ok || v/100 > 23 || v%100 > 59 {
		return 0, false
	}
	offset = time.Duration(v/100)*time.Hour + time.Duration(v%100)*time.Minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// digits reads a non-empty run of at most 18 decimal digits.
func digits(s string) (int, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	v := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		v = v*10 + int(s[i]-'0')
	}
	return v, true
}

// normalTime gives the v2 form of a timestamp: s itself if s has that form, else UTC, with three
// fraction digits if s has a fraction. ok is false when s is no date.
func normalTime(s string) (text string, t time.Time, ok bool) {
	t, fraction, ok := parseTime(s)
	switch {
	case !ok:
		return "", time.Time{}, false
	case isV2Time(s):
		return s, t, true
	case fraction:
		return t.Format("2006-01-02T15:04:05.000Z"), t, true
	default:
		return t.Format("2006-01-02T15:04:05Z"), t, true
	}
}
