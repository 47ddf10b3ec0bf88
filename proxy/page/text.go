package page

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// functions are what templates may call.
var functions = template.FuncMap{
	"asset":     assetPath,
	"size":      size,
	"rate":      func(n int64) string { return size(n) + "/s" },
	"count":     count,
	"percent":   percent,
	"time":      moment,
	"age":       age,
	"date":      date,
	"less":      func(n int) int { return n - 1 },
	"reason":    reasonText,
	"short":     short,
	"duration":  duration,
	"badge":     badge,
	"join":      strings.Join,
	"dict":      dict,
	"counted":   counted,
	"counted64": func(n int64, noun string) string { return counted(int(n), noun) },
	"served":    func(by map[string]int64) int64 { return by["hit"] + by["miss"] + by["join"] },
	"seconds":   seconds,
	"hours":     hours,
	"toned":     toned,
	"share":     share,
}

// size is a number of bytes as the verbs print it; a negative one is not known.
func size(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return humanize.Bytes(uint64(n))
}

// count is a whole number with commas between thousands.
func count(n any) string {
	switch n := n.(type) {
	case int:
		return humanize.Comma(int64(n))
	case int64:
		return humanize.Comma(n)
	}
	return fmt.Sprint(n)
}

// percent is part of whole: "94.2 %"; "–" without a whole.
func percent(part, whole int64) string {
	if whole <= 0 {
		return "–"
	}
	p := 100 * float64(part) / float64(whole)
	if p > 99.9 && part < whole {
		p = 99.9
	}
	if p == 100 || p == 0 {
		return fmt.Sprintf("%.0f %%", p)
	}
	return fmt.Sprintf("%.1f %%", p)
}

const (
	day        = 24 * time.Hour
	timeLayout = "2006-01-02 15:04 UTC"
)

// stamp is a <time> element with a text of its own.
func stamp(t time.Time, text string) template.HTML {
	full := t.UTC().Format(time.RFC3339)
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, full, full, template.HTMLEscapeString(text))) //nolint:gosec // the text is escaped
}

// moment is a date and time in UTC; "never" for the zero time.
func moment(t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	return stamp(t, t.UTC().Format(timeLayout))
}

// date is a day in UTC; "never" for the zero time.
func date(t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	return stamp(t, t.UTC().Format(time.DateOnly))
}

// age is how long ago, or how far ahead, t is; "never" for the zero time.
func age(t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	switch past := time.Since(t); {
	case past <= -time.Minute:
		return stamp(t, "in "+span(-past))
	case past < 0:
		return stamp(t, "in less than a minute")
	case past < time.Minute: // parts that show an age do not change each second
		return stamp(t, "just now")
	default:
		return stamp(t, span(past)+" ago")
	}
}

// span is a duration in its largest unit: "12 min", "3 h", "9 days".
func span(d time.Duration) string {
	switch {
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%s days", humanize.Comma(int64(d/day)))
}

// duration is a number of seconds as bars print it: "2:03", "1:02:03"; "–" for a negative one.
func duration(seconds int64) string {
	switch {
	case seconds < 0:
		return "–"
	case seconds >= 3600:
		return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// short is the begin of a uuid or a sum, with the whole as its title.
func short(id string) template.HTML {
	begin := id
	if len(id) > 8 {
		begin = id[:8]
	}
	return template.HTML(fmt.Sprintf(`<code title="%s">%s</code>`, template.HTMLEscapeString(id), template.HTMLEscapeString(begin))) //nolint:gosec // both are escaped
}

// tones are the states that a badge has a tone for; other states are neutral. The tone is a class of
// page.css, and the badge's text tells the same.
var tones = map[string]string{
	"up": "good", "done": "good", "cached": "good", "present": "good", "healed": "good", "restored": "good", "repaired": "good", "ok": "good", "ready": "good",
	"running": "info", "filling": "info", "verifying": "info", "refreshing": "info", "pinned": "info",
	"waiting": "warn", "unknown": "warn", "resting": "warn", "cancelled": "warn", "skipped": "warn", "hidden": "warn", "offline": "warn", "retired": "warn", "old": "warn",
	"down": "bad", "failed": "bad", "quarantined": "bad", "conflict": "bad", "not ready": "bad", "expired": "bad",
}

// badge shows a state.
func badge(state string) template.HTML {
	tone := tones[state]
	if tone == "" {
		tone = "plain"
	}
	return toned(tone, state)
}

// toned is a badge of a tone: good, info, warn, bad or plain.
func toned(tone, text string) template.HTML {
	return template.HTML(fmt.Sprintf(`<span class="badge %s">%s</span>`, template.HTMLEscapeString(tone), template.HTMLEscapeString(text))) //nolint:gosec // both are escaped
}

// counted is a number with its noun: "1 image", "2,000 images".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(n) + " " + noun + "s"
}

// seconds is a number of milliseconds as one reads it: "30 ms", "1.3 s", "12 s", "2:03".
func seconds(millis int64) string {
	switch {
	case millis < 1000:
		return fmt.Sprintf("%d ms", millis)
	case millis < 10_000:
		return fmt.Sprintf("%.1f s", float64(millis)/1000)
	case millis < 60_000:
		return fmt.Sprintf("%d s", millis/1000)
	}
	return duration(millis / 1000)
}

// hours is a long time as one reads it: "12 min", "3.4 h", "12 days".
func hours(seconds int64) string {
	switch {
	case seconds < 60:
		return fmt.Sprintf("%d s", max(seconds, 0))
	case seconds < 3600:
		return fmt.Sprintf("%d min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%.1f h", float64(seconds)/3600)
	}
	return humanize.Comma(seconds/86400) + " days"
}

// dict makes a map of names and values, for a template that needs several.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict: a name without a value")
	}
	m := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: %v is no name", pairs[i])
		}
		m[name] = pairs[i+1]
	}
	return m, nil
}
