package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"imgmirror/proxy/admin"
)

func sampleStatus() admin.Status {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	return admin.Status{
		Version: "1.0", Started: ago(76 * time.Hour), Now: now, Ready: true,
		Traffic: admin.Traffic{
			Since: ago(240 * time.Hour), Requests: map[string]int64{"hit": 900, "join": 100, "miss": 1000},
			Served: map[string]int64{"hit": 60e9, "join": 20e9, "miss": 20e9}, Fetched: 21e9, Saved: 80e9, SavedSeconds: 9 * 3600,
		},
		Fills: []admin.Fill{
			{UUID: "u", Name: "base-64", Version: "21.4.0", Have: 450e6, Size: 1e9, Rate: 40e6, Readers: 3, Source: "joyent", State: "filling"},
			{UUID: "v", Name: "evil\x1b[2J\u202e", Size: -1, State: "waiting"},
		},
		Jobs:    []admin.Job{{ID: "0123456789", Kind: "fetch", State: "running", Started: ago(5 * time.Minute), Done: 1e9, Total: 4e9}},
		Sources: []admin.Source{{Name: "published"}, {Name: "joyent", State: "up", Images: 1234, LastSuccess: ago(3 * time.Minute)}, {Name: "lab", State: "up", Images: 1}, {Name: "mnx", State: "down", LastSuccess: ago(50 * time.Hour), LastError: "dial tcp: refused"}},
		Disk:    admin.Disk{Size: 812e9, Limit: 900e9, Free: 120e9, Files: 900},
		Scrub:   admin.Scrub{LastComplete: ago(72 * time.Hour), Checked: 812, Total: 900},
		Catalog: admin.Counts{Listed: 1234, Cached: 56, Pinned: 3, Conflicts: 2, Hidden: map[string]int{"private": 12, "refused": 1}},
		Bounds:  []admin.Bound{{Name: "jobs", Used: 1, Limit: 16}, {Name: "bytes of replies under way", Key: "clients.memory", Limit: 64e6, Refused: 12}},
		Events: []admin.Event{
			{Time: ago(time.Minute), Kind: "wrong_bytes", Source: "mnx", Text: "base-64 21.4.0: digest", Count: 3},
			{Time: ago(50 * time.Hour), Kind: "evicted", Text: "old 1.0, 2.0 GB, for max_size", Count: 1},
		},
		Nodes: 400, Certificate: &admin.Certificate{Name: "mirror.example", NotAfter: ago(-20 * 24 * time.Hour)},
	}
}

func TestStatusText(t *testing.T) {
	got := statusText(sampleStatus(), false, 100, 24)
	for _, want := range []string{
		"imgmirror 1.0, up 3 d, ready",
		"clients   hit ratio 80% of bytes, 50% of 2,000 requests, since 2026-11-19",
		"traffic   100 GB served, 21 GB fetched; saved 80 GB and 9 h",
		"disk      [================== ",
		"images    1234 listed, 56 cached, 3 pinned, 13 hidden, 2 in conflict; nodes seen: 400",
		"scrub     812 of 900 files in this round; last complete 3 d ago",
		"sources   joyent           up         1,234 images, list 3 min ago",
		"          lab              up             1 image\n",
		"          mnx              down           0 images, list 2 d ago: dial tcp: refused",
		"filling   base-64@21.4.0    45% [========          ] 450 MB/1.0 GB  40 MB/s  0:14 3 readers, joyent",
		"          evil?[2J?        0 B  0 B/s waiting",
		"TLS       the certificate of mirror.example ends in 20 d",
		"jobs      fetch    01234567, for 5 min, 1.0 GB of 4.0 GB, 25%",
		"refused   12: bytes of replies under way (clients.memory)",
		"events    11:59  wrong bytes mnx: base-64 21.4.0: digest (3 times)",
		"          Nov 27 evicted: old 1.0, 2.0 GB, for max_size",
	} {
		if !strings.Contains(got, "\n"+want) && !strings.HasPrefix(got, want) {
			t.Errorf("there is no row %q", want)
		}
	}
	if strings.Contains(got, "published") || strings.Contains(got, "trouble") {
		t.Error("the status tells of what is not there")
	}
	if t.Failed() {
		t.Log("\n" + got)
	}
	if narrow := statusText(sampleStatus(), false, 80, 24); !strings.Contains(narrow, "\nfilling   base-64@21.4.0    45% [==    ] 450 MB/1.0 GB  40 MB/s  0:14 3 readers\n") {
		t.Errorf("in 80 columns: %s", narrow)
	}
	local := statusText(sampleStatus(), true, 80, 24)
	if !strings.HasPrefix(local, "imgmirror 1.0, no mirror runs: ") {
		t.Errorf("without a mirror: %s", local)
	}
}

// A long status fits the screen. The last row of the screen is for the prompt.
func TestStatusFitsTheScreen(t *testing.T) {
	st := sampleStatus()
	for n := range 50 {
		st.Trouble = append(st.Trouble, strings.Repeat("x", 300))
		st.Sources = append(st.Sources, admin.Source{Name: fmt.Sprint("source", n), State: "down", Images: 1, LastError: strings.Repeat("é", 300)})
		st.Fills = append(st.Fills, st.Fills[0])
		st.Jobs = append(st.Jobs, st.Jobs[0])
		st.Events = append(st.Events, st.Events[0])
		st.Bounds = append(st.Bounds, admin.Bound{Name: "one more", Refused: 1})
	}
	for _, width := range []int{40, 80, 100} {
		for _, height := range []int{24, 40} {
			lines := strings.Split(strings.TrimSuffix(statusText(st, false, width, height), "\n"), "\n")
			if len(lines) > height-1 {
				t.Errorf("%d rows on a screen of %d", len(lines), height)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > width {
					t.Errorf("width %d: %q", width, l)
				}
			}
		}
	}
	if n := strings.Count(statusText(sampleStatus(), false, 80, 24), "\n"); n > 23 {
		t.Errorf("%d rows of a usual status", n)
	}
}
