package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/proxy/admin"
)

const (
	labelWidth = 10 // of the first column
	// The most rows of each part; what is left of the screen is for the events. All parts together fit 24 rows.
	mostTrouble  = 2
	mostSources  = 4
	mostFills    = 4
	mostJobs     = 2
	mostRefusals = 2
	leastEvents  = 2
)

// statusText is a status in at most width columns, and in about height rows, less one row for the
// prompt; local: no mirror runs.
func statusText(st admin.Status, local bool, width, height int) string {
	t := &screenText{width: width}
	if local {
		t.row("imgmirror", "%s, no mirror runs: this is what is on disk", st.Version)
	} else {
		t.row("imgmirror", "%s, up %s, %s", st.Version, span(st.Now.Sub(st.Started)), readiness(st))
	}
	if len(st.Trouble) > 0 {
		listPart(t, "trouble", st.Trouble, mostTrouble, func(s string) string { return s })
	}
	if c := st.Certificate; c != nil && c.NotAfter.Sub(st.Now) < certificateSoon {
		t.row("TLS", "the certificate of %s %s", c.Name, ends(st.Now, c.NotAfter))
	}
	traffic(t, st)
	room(t, st)
	c := st.Catalog
	images := fmt.Sprintf("%d listed, %d cached, %d pinned", c.Listed, c.Cached, c.Pinned)
	if hidden := total(c.Hidden); hidden > 0 {
		images += fmt.Sprintf(", %d hidden", hidden)
	}
	if c.Conflicts > 0 {
		images += fmt.Sprintf(", %d in conflict", c.Conflicts)
	}
	if st.Nodes > 0 {
		images += fmt.Sprintf("; nodes seen: %d", st.Nodes)
	}
	t.row("images", "%s", images)
	scrubRow(t, st)
	listPart(t, "sources", slices.DeleteFunc(slices.Clone(st.Sources), idle), mostSources, func(s admin.Source) string { return sourceRow(st.Now, s) })
	listPart(t, "filling", st.Fills, mostFills, func(f admin.Fill) string { return fillRow(f, width-labelWidth) })
	listPart(t, "jobs", st.Jobs, mostJobs, func(j admin.Job) string { return jobRow(st.Now, j) })
	refusing := slices.DeleteFunc(slices.Clone(st.Bounds), func(b admin.Bound) bool { return b.Refused == 0 })
	if len(refusing) > 0 {
		listPart(t, "refused", refusing, mostRefusals, func(b admin.Bound) string {
			return fmt.Sprintf("%d: %s%s", b.Refused, b.Name, inBrackets(b.Key))
		})
	}
	left := max(height-1-len(t.rows), leastEvents)
	if len(st.Events) == 0 {
		t.row("events", "none")
	}
	for i, e := range st.Events[:min(len(st.Events), left)] {
		t.row(first(i, "events"), "%s", eventRow(st.Now, e))
	}
	return strings.Join(t.rows, "\n") + "\n"
}

// screenText is rows of a label and a text.
type screenText struct {
	width int
	rows  []string
}

// row adds a row, cut to the screen.
func (t *screenText) row(label, format string, args ...any) {
	text := table.Printable(fmt.Sprintf("%-*s", labelWidth, label) + fmt.Sprintf(format, args...))
	if utf8.RuneCountInString(text) > t.width {
		text = string([]rune(text)[:t.width-1]) + "…"
	}
	t.rows = append(t.rows, strings.TrimRight(text, " "))
}

// listPart adds a row for each of all, most at most; one says that there are none.
func listPart[T any](t *screenText, label string, all []T, most int, text func(T) string) {
	if len(all) == 0 {
		t.row(label, "none")
	}
	shown := all
	if len(all) > most {
		shown = all[:most-1]
	}
	for i, v := range shown {
		t.row(first(i, label), "%s", text(v))
	}
	if more := len(all) - len(shown); more > 0 {
		t.row("", "… %d more", more)
	}
}

// first is label in front of the first row of a part.
func first(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}

func readiness(st admin.Status) string {
	switch {
	case st.Offline && st.Ready:
		return "ready, offline"
	case st.Ready:
		return "ready"
	}
	return "not ready"
}

// traffic tells what clients were given.
func traffic(t *screenText, st admin.Status) {
	tr := st.Traffic
	requests, served := sum(tr.Requests), sum(tr.Served)
	if requests == 0 {
		t.row("clients", "none since %s", tr.Since.UTC().Format(time.DateOnly))
	} else {
		t.row("clients", "hit ratio %s of bytes, %s of %s, since %s",
			share(tr.Saved, served), share(requests-tr.Requests["miss"], requests), plural(requests, "request"), tr.Since.UTC().Format(time.DateOnly))
	}
	t.row("traffic", "%s served, %s fetched; saved %s and %s", bytesOf(served), bytesOf(tr.Fetched), bytesOf(tr.Saved),
		span(time.Duration(tr.SavedSeconds)*time.Second))
}

// room tells of the disk.
func room(t *screenText, st admin.Status) {
	d := st.Disk
	if d.Limit <= 0 {
		t.row("disk", "%s in %s; the disk does not tell its room", bytesOf(d.Size), plural(int64(d.Files), "file"))
		return
	}
	t.row("disk", "%s %s of %s in %s; %s of disk free", meterOf(d.Size, d.Limit), bytesOf(d.Size), bytesOf(d.Limit), plural(int64(d.Files), "file"), bytesOf(d.Free))
}

func scrubRow(t *screenText, st admin.Status) {
	s := st.Scrub
	if s.Total == 0 {
		return
	}
	t.row("scrub", "%d of %d files in this round; last complete %s", s.Checked, s.Total, age(st.Now, s.LastComplete))
}

// idle tells of a source of the mirror's own without an image.
func idle(s admin.Source) bool {
	return s.Images == 0 && (s.Name == "published" || s.Name == "imported")
}

func sourceRow(now time.Time, s admin.Source) string {
	state := s.State
	if now.Before(s.AskedFrom) {
		state = "resting"
	}
	noun := "images"
	if s.Images == 1 {
		noun = "image"
	}
	text := fmt.Sprintf("%-16s %-8s %7s %s", s.Name, state, humanize.Comma(int64(s.Images)), noun)
	if !s.LastSuccess.IsZero() {
		text += ", list " + age(now, s.LastSuccess)
	}
	if !s.Certificate.IsZero() && s.Certificate.Sub(now) < certificateSoon {
		text += ", certificate " + ends(now, s.Certificate)
	}
	if s.LastError != "" {
		text += ": " + strings.TrimPrefix(s.LastError, "list of source "+s.Name+": ")
	}
	return text
}

// certificateSoon is the time before the end of a certificate from which a status tells of the end.
const certificateSoon = 30 * 24 * time.Hour

// ends tells when a certificate ends, or that it has ended.
func ends(now, end time.Time) string {
	if end.Before(now) {
		return "ended " + age(now, end)
	}
	return "ends in " + span(end.Sub(now))
}

func fillRow(f admin.Fill, width int) string {
	tail := " " + plural(int64(f.Readers), "reader")
	if f.State != "filling" {
		tail = " " + f.State
	}
	if from := ", " + f.Source; f.Source != "" && width-utf8.RuneCountInString(tail+from) >= progress.ShortWidth {
		tail += from
	}
	item := admin.Item{UUID: f.UUID, Name: f.Name, Version: f.Version, Done: f.Have, Total: max(f.Size, 0)}
	return strings.TrimRight(progress.Short(item, f.Rate, width-utf8.RuneCountInString(tail)), " ") + tail
}

func jobRow(now time.Time, j admin.Job) string {
	text := fmt.Sprintf("%-8s %s, for %s", j.Kind, j.ID[:min(len(j.ID), 8)], span(now.Sub(j.Started)))
	if j.Total > 0 {
		text += fmt.Sprintf(", %s of %s, %s", bytesOf(j.Done), bytesOf(j.Total), share(j.Done, j.Total))
	}
	return text
}

func eventRow(now time.Time, e admin.Event) string {
	at := e.Time.UTC().Format("15:04")
	if now.Sub(e.Time) > 24*time.Hour {
		at = e.Time.UTC().Format("Jan _2")
	}
	text := fmt.Sprintf("%-6s %s", at, strings.ReplaceAll(e.Kind, "_", " "))
	if e.Source != "" {
		text += " " + e.Source
	}
	if e.Text != "" {
		text += ": " + e.Text
	}
	if e.Count > 1 {
		text += fmt.Sprintf(" (%d times)", e.Count)
	}
	return text
}

// meterOf is a bar for a part of a whole.
func meterOf(part, whole int64) string {
	const room = 20
	full := int(min(max(float64(part)/float64(whole), 0), 1) * room)
	return "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "]"
}

func share(part, whole int64) string {
	if whole <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", part*100/whole)
}

// plural is a number of things.
func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return humanize.Comma(n) + " " + thing + "s"
}

func bytesOf(n int64) string { return humanize.Bytes(uint64(max(n, 0))) } //nolint:gosec // not negative

func sum(counts map[string]int64) (n int64) {
	for _, v := range counts {
		n += v
	}
	return n
}

func total(counts map[string]int) (n int) {
	for _, v := range counts {
		n += v
	}
	return n
}

func inBrackets(key string) string {
	if key == "" {
		return ""
	}
	return " (" + key + ")"
}

// span is a duration in its largest unit.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d d", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", max(int64(d/time.Second), 0))
}
