package manifest

import (
	"cmp"
	"regexp"
	"time"
)

// epoch is the date of an activated image without any date (spec 1.5).
const epoch = "1970-01-01T00:00:00Z"

// The two forms of a v2 timestamp.
const (
	v2Seconds = "2006-01-02T15:04:05Z"
	v2Millis  = "2006-01-02T15:04:05.000Z"
)

// otherTimes are the forms of spec 1.5 beside v2's: the day, the time of day with its seconds and
// fraction, the zone's hours and minutes.
var otherTimes = regexp.MustCompile(`^(\d{4}(?:-\d\d){0,2})` +
	`(?:[Tt ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?(?:[Zz]|([+-](?:[01]\d|2[0-3]))(?::?([0-5]\d))?)?)?$`)

// parseTime reads the timestamps of spec 1.5 (RFC 3339 with 0 to 9 fraction digits and any
// offset; without seconds; without zone, which means UTC) and dates without a time of day. t is in
// UTC, cut to the millisecond. text is the v2 form: s itself if s has that form, else with three
// fraction digits if s has a fraction. Go's zero time counts as no date.
func parseTime(s string) (text string, t time.Time, ok bool) {
	text = s
	v2 := len(s) == len(v2Seconds) || len(s) == len(v2Millis) && s[len("2006-01-02T15:04:05")] == '.'
	if !v2 || s[len(s)-1] != 'Z' || t.UnmarshalText([]byte(s)) != nil {
		p := otherTimes.FindStringSubmatch(s)
		if p == nil {
			return "", time.Time{}, false
		}
		zone := "Z"
		if p[5] != "" {
			zone = p[5] + ":" + cmp.Or(p[6], "00")
		}
		full := p[1] + "-01-01"[len(p[1])-len("2006"):] + "T" + cmp.Or(p[2], "00:00") + cmp.Or(p[3], ":00") + p[4] + zone
		if t.UnmarshalText([]byte(full)) != nil {
			return "", time.Time{}, false
		}
		t = t.UTC()
		text = t.Format(v2Seconds)
		if t.Nanosecond() != 0 {
			text = t.Format(v2Millis)
		}
	}
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		return "", time.Time{}, false
	}
	return text, t.Truncate(time.Millisecond), true
}
