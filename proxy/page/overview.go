package page

import (
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"imgmirror/proxy/admin"
)

// overview is the value of overview.html.
type overview struct {
	admin.Status
	Attention []string // what someone should look at
	Hits      ratio    // in requests
	HitBytes  ratio
	Log       []eventRow
	Strained  []boundRow // near their limit, or with refusals
	Eased     []boundRow // the others
	Hidden    []reason
	Used      int64 // of the disk's room, in percent
}

// ratio is how much of the whole came without a download of its own.
type ratio struct{ Part, Whole int64 }

// eventRow is an event with what the page adds.
type eventRow struct {
	admin.Event
	Badge template.HTML
}

// boundRow is a bound with what the page adds.
type boundRow struct {
	admin.Bound
	Bytes bool // of the numbers
}

// Amount is a number of the bound.
func (b boundRow) Amount(n int64) string {
	if b.Bytes {
		return size(n)
	}
	return count(n)
}

const (
	shownEvents = 20
	// certificateSoon is how long before its end a certificate needs attention.
	certificateSoon = 30 * day
)

func (p *Page) overview(v *visit) (any, error) {
	l := v.look()
	o, err := l.overview()
	if err != nil {
		return nil, err
	}
	graphs, err := l.graphs()
	return struct {
		*overview
		Graphs []graph
	}{o, graphs}, err
}

// overview looks once, and gives the same value again.
func (l *look) overview() (*overview, error) {
	if l.seen != nil {
		return l.seen, nil
	}
	st, err := l.status()
	if err != nil {
		return nil, err
	}
	o := &overview{
		Status: st, Hits: ratioOf(st.Traffic.Requests), HitBytes: ratioOf(st.Traffic.Served),
		Hidden: reasons(st.Catalog.Hidden), Used: share(st.Disk.Size, st.Disk.Limit),
	}
	for _, b := range st.Bounds {
		row := boundRow{b, strings.HasPrefix(b.Name, "bytes ")}
		switch {
		case b.Key == "cache.max_size": // a full cache is as it should be, and stands beside
		case b.Refused > 0 || share(b.Used, b.Limit) >= 80:
			o.Strained = append(o.Strained, row)
		default:
			o.Eased = append(o.Eased, row)
		}
	}
	for _, e := range st.Events[:min(len(st.Events), shownEvents)] {
		o.Log = append(o.Log, eventRow{e, eventBadge(e.Kind)})
	}
	o.attend()
	l.seen = o
	return o, nil
}

// attend fills Attention.
func (o *overview) attend() {
	say := func(format string, args ...any) { o.Attention = append(o.Attention, fmt.Sprintf(format, args...)) }
	for _, t := range o.Trouble {
		say("%s", t)
	}
	if !o.Ready {
		say("The mirror is not ready to serve.")
	}
	if o.Offline {
		say("The mirror is offline by its configuration: no source is asked.")
	}
	for _, s := range o.Sources {
		switch {
		case s.State == "down" && s.LastSuccess.IsZero():
			say("Source %s has never answered.", s.Name)
		case s.State == "down":
			say("Source %s is down. Its list is from %s.", s.Name, s.LastSuccess.UTC().Format(timeLayout))
		case !s.AskedFrom.IsZero():
			say("Source %s fails again and again, and rests until %s.", s.Name, s.AskedFrom.UTC().Format(timeLayout))
		}
		o.attendCertificate("The certificate of source "+s.Name, s.Certificate)
	}
	if c := o.Certificate; c != nil {
		o.attendCertificate("The certificate of the clients' listener", c.NotAfter)
	}
	if n := o.Catalog.Conflicts; n > 0 {
		say("Sources disagree about %s: the first source's files are served.", counted(n, "image"))
	}
	for _, b := range o.Strained {
		if b.Limit > 0 && b.Used >= b.Limit {
			say("The limit of %s is reached.", b.Name)
		}
	}
}

func (o *overview) attendCertificate(what string, end time.Time) {
	if end.IsZero() {
		return
	}
	switch left := end.Sub(o.Now); {
	case left <= 0:
		o.Attention = append(o.Attention, what+" has ended.")
	case left < certificateSoon:
		o.Attention = append(o.Attention, what+" ends in "+span(left)+".")
	}
}

// ratioOf sums what has the keys hit, miss and join.
func ratioOf(m map[string]int64) (r ratio) {
	r.Part = m["hit"] + m["join"]
	r.Whole = r.Part + m["miss"]
	return r
}

// share is part of whole in percent, at most 100; 0 without a whole.
func share(part, whole int64) int64 {
	if whole <= 0 {
		return 0
	}
	return min(int64(100*float64(part)/float64(whole)), 100)
}

// reasons are the reasons for which images are hidden, in the order of their names.
func reasons(hidden map[string]int) (all []reason) {
	for _, name := range slices.Sorted(maps.Keys(hidden)) {
		if n := hidden[name]; n > 0 {
			all = append(all, reason{name, n})
		}
	}
	return all
}

// eventBadge shows the kind of an event.
func eventBadge(kind string) template.HTML {
	text, ok := eventKinds[kind]
	if !ok {
		return badge(kind)
	}
	return toned(text.tone, text.text)
}

// eventKinds are the kinds of events, with their texts on badges.
var eventKinds = map[string]struct{ text, tone string }{
	"brought":     {"brought", "good"},
	"healed":      {"healed", "good"},
	"published":   {"published", "info"},
	"unpublished": {"unpublished", "info"},
	"evicted":     {"evicted", "plain"},
	"deleted":     {"deleted", "plain"},
	"source_up":   {"source is back", "good"},
	"source_down": {"source is down", "bad"},
	"wrong_bytes": {"wrong bytes", "bad"},
	"quarantined": {"quarantined", "bad"},
	"conflict":    {"conflict", "warn"},
	"refused":     {"refused", "warn"},
}
