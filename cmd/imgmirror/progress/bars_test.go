package progress

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"imgmirror/proxy/admin"
)

func TestMeter(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := &meter{}
	f := func(second float64, done, want int64) {
		t.Helper()
		m.add(start.Add(time.Duration(second*float64(time.Second))), done)
		if got := m.rate(); got != want {
			t.Errorf("after %g s: %d, want %d", second, got, want)
		}
	}
	f(0, 5000, 0) // what a resumed download begins with is not its rate
	f(0, 5000, 0)
	f(1, 6000, 1000)
	f(2, 7000, 1000)
	f(5, 15000, 2000)
	f(10, 15000, 0) // 5 s without a byte
	f(11, 21000, 1000)
	f(12, 0, 0) // begun again
	if len(m.samples) > 5 {
		t.Errorf("%d samples are kept", len(m.samples))
	}
}

func TestBar(t *testing.T) {
	item := admin.Item{UUID: "u", Name: "base-64", Version: "21.4.0", Done: 450e6, Total: 1e9}
	f := func(i admin.Item, rate int64, width int, want string) {
		t.Helper()
		got := strings.TrimRight(Bar(i, rate, width), " ")
		if got != want || utf8.RuneCountInString(got) > width {
			t.Errorf("width %d:\n got %q\nwant %q", width, got, want)
		}
	}
	f(item, 40e6, 100, "base-64@21.4.0             45% [=============                 ] 450 MB/1.0 GB  40 MB/s  0:14")
	f(item, 40e6, 70, "base-64@21.4.0             45%  450 MB/1.0 GB  40 MB/s  0:14")
	f(item, 40e6, 20, "base-64@21.4.0")
	f(item, 0, 70, "base-64@21.4.0             45%  450 MB/1.0 GB  0 B/s  --:--")
	item.Total = 0
	f(item, 40e6, 70, "base-64@21.4.0            450 MB  40 MB/s")
	f(admin.Item{UUID: "7c5d3e40-9f61-40ac-9d82-2e3f4a5b6c73"}, 0, 70, "7c5d3e40-9f61-40ac-9d82-  0 B  0 B/s")
	for width := range 120 {
		if n := utf8.RuneCountInString(Bar(item, 1, width)); n > width {
			t.Errorf("width %d: %d columns", width, n)
		}
	}
}

func TestRemaining(t *testing.T) {
	f := func(n, rate int64, want string) {
		t.Helper()
		if got := remaining(n, rate); got != want {
			t.Errorf("%d at %d: %s, want %s", n, rate, got, want)
		}
	}
	f(100, 0, "--:--")
	f(0, 10, "0:00")
	f(101, 10, "0:11")
	f(7384, 1, "2:03:04")
	f(-5, 1, "0:00")
}

// TestProgress follows what a terminal shows.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen, out bytes.Buffer
		p := New(&screen, false)
		p.terminal, p.width = &screen, func() int { return 100 }
		job := admin.Job{Items: []admin.Item{
			{UUID: "a", Name: "one", State: admin.JobRunning, Done: 10, Total: 100},
			{UUID: "b", Name: "two", State: admin.ItemWaiting, Total: 100},
		}}
		p.Paint(job)
		time.Sleep(time.Second)
		job.Items[0].Done = 60
		p.Paint(job)
		p.Say(&out, "one: %s", "fetched\x1b")
		p.Clear()

		first, rest, _ := strings.Cut(screen.String(), "\r\x1b[2A\x1b[J")
		second, end, _ := strings.Cut(rest, "\r\x1b[2A\x1b[J")
		if !strings.Contains(first, "10%") || !strings.Contains(first, "0 B/s") || !strings.HasSuffix(first, "\n1 more to come\n") {
			t.Errorf("first painting: %q", first)
		}
		if !strings.Contains(second, "60%") || !strings.Contains(second, "50 B/s  0:01") {
			t.Errorf("second painting: %q", second)
		}
		if end != "" {
			t.Errorf("after the bars were taken away: %q", end)
		}
		if out.String() != "one: fetched?\n" {
			t.Errorf("said %q", out.String())
		}
	})
}

// TestProgressInstall: of an install, the download and what the pool has taken in.
func TestProgressInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		p := New(&screen, false)
		p.terminal, p.width = &screen, func() int { return 100 }
		job := admin.Job{Kind: "install", Items: []admin.Item{
			{UUID: "a", Name: "one", State: admin.JobRunning, Done: 0, Fetched: 50, Total: 100},
			{UUID: "b", Name: "two", State: admin.ItemWaiting, Fetched: 30, Total: 100}, // ahead of its turn
			{UUID: "c", Name: "three", State: admin.ItemWaiting, Total: 100},
			{UUID: "d", Name: "four", State: admin.ItemWaiting, Fetched: 100, Total: 100}, // cached
		}}
		p.Paint(job)
		time.Sleep(time.Second)
		job.Items[0].Done, job.Items[0].Fetched = 20, 60
		screen.Reset()
		p.Paint(job)
		lines := strings.Split(strings.TrimPrefix(screen.String(), "\r\x1b[4A\x1b[J"), "\n")
		if len(lines) != 5 || lines[4] != "" {
			t.Fatalf("painted %q", lines)
		}
		for i, want := range [][]string{
			{"one ", " 60% ", "60 B/100 B  10 B/s  0:04"},
			{"  into the pool ", " 20% ", "20 B/100 B  20 B/s  0:04"},
			{"two ", " 30% "},
			{"3 more to come"},
		} {
			for _, w := range want {
				if !strings.Contains(lines[i], w) {
					t.Errorf("line %d: %q is not in %q", i, w, lines[i])
				}
			}
		}
	})
}

// TestProgressNoTerminal: bars are for terminals only.
func TestProgressNoTerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := New(f, false)
	p.Paint(admin.Job{Items: []admin.Item{{UUID: "a", State: admin.JobRunning}}})
	p.Clear()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}
