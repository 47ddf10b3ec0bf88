package config

import (
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	f := func(text string, want time.Duration, again string) {
		t.Helper()
		got, err := ParseDuration(text)
		if err != nil || got != want || short(got) != again {
			t.Errorf("%q: %v (%v), written %q", text, got, err, short(got))
		}
	}
	f("30d", 720*time.Hour, "30d")
	f("168h", 7*day, "7d")
	f("24h", day, "24h")
	f("1d", day, "24h")
	f("1d12h", 36*time.Hour, "36h")
	f("2d0s", 2*day, "2d")
	f("-3d", -3*day, "-72h")
	f("0", 0, "0s")
	f("0d", 0, "0s")
	f("90s", 90*time.Second, "1m30s")
	f("106751d", 106751*day, "106751d")
	for _, bad := range []string{"", "d", "1", "1.5d", "d1", "1dd", "1d1d", "1h1d", "1d-1h", "1d+1h", "1d 2h", "--1d", "- 1d", "106752d", "106751d24h", "99999999999999999999d"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, got)
		}
	}
}

// TestEveryDurationTakesDays: no key has a reader of durations of its own.
func TestEveryDurationTakesDays(t *testing.T) {
	tried := 0
	for key, value := range leaves(Defaults()) {
		if _, ok := value.(time.Duration); !ok {
			continue
		}
		tried++
		_, err := Load(LoadOptions{Environ: []string{EnvName(key) + "=7d"}})
		if err != nil && strings.Contains(err.Error(), errDuration.Error()) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if tried < 6 {
		t.Errorf("%d durations are keys", tried)
	}
	c := mustLoad(t, "sources: [{url: http://a.example, refresh: 7d}]\nverify: {scrub_every: 7d}", LoadOptions{})
	if c.Sources[0].Refresh != 7*day || c.Verify.ScrubEvery != 7*day {
		t.Errorf("%v, %v", c.Sources[0].Refresh, c.Verify.ScrubEvery)
	}
}
