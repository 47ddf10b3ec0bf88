package mirror

import (
	"fmt"
	"math"

	dto "github.com/prometheus/client_model/go"
)

// Bound is one thing that is bounded.
type Bound struct {
	Name    string
	Key     string // of the configuration; "" = fixed
	Used    int64
	Limit   int64 // 0 = none
	Refused int64 // since the start
}

// measure is a number that the metrics have: of one family, the series with that label.
type measure struct {
	metric       string
	label, value string // "" = all series
	most         bool   // the largest of the series, not their sum
}

// bounded says where the metrics of the mirror tell of a bound.
type bounded struct {
	name, key            string
	used, limit, refused measure
}

// bounds are the rows of "What is bounded" in docs/design.md that have a number. Each package has
// the metrics of its own bounds, and the mirror's registry has all of them.
var bounds = []bounded{
	{"downloads at the same time", "cache.fill_slots",
		measure{metric: "imgmirror_fill_slots_used"}, measure{metric: "imgmirror_fill_slots"}, measure{metric: "imgmirror_fill_slots_refused_total"}},
	{"bytes of the cache", "cache.max_size",
		measure{metric: "imgmirror_cache_size_bytes"}, measure{metric: "imgmirror_cache_limit_bytes"},
		measure{metric: "imgmirror_cache_room_refused_total", label: "reason", value: "full"}},
	{"bytes of ranges ahead of their readers", "memory.limit",
		measure{metric: "imgmirror_fill_range_bytes"}, measure{metric: "imgmirror_fill_range_limit_bytes"}, measure{metric: "imgmirror_fill_ranges_refused_total"}},
	{"downloads with a verdict and without a record", "",
		measure{metric: "imgmirror_fill_unrecorded"}, measure{metric: "imgmirror_fill_unrecorded_limit"}, measure{}},
	{"bytes removed for downloads without a verdict", "",
		measure{metric: "imgmirror_cache_unverified_removed_bytes"}, measure{metric: "imgmirror_cache_unverified_share_bytes"},
		measure{metric: "imgmirror_cache_room_refused_total", label: "reason", value: "unverified"}},
	{"images that fail, of one source", "",
		measure{metric: "imgmirror_upstream_resting_images", most: true}, measure{metric: "imgmirror_upstream_resting_images_limit"}, measure{}},
	{"questions for images under way, of one source", "",
		measure{metric: "imgmirror_catalog_lookups_in_flight", label: "asker", value: "client", most: true},
		measure{metric: "imgmirror_catalog_lookups_in_flight_limit"}, measure{metric: "imgmirror_catalog_lookups_refused_total", label: "reason", value: "source_busy"}},
	{"questions for images in line, of one source", "sources.lookup_rate",
		measure{metric: "imgmirror_catalog_lookups_waiting", most: true}, measure{metric: "imgmirror_catalog_lookups_waiting_limit"},
		measure{metric: "imgmirror_catalog_lookups_refused_total", label: "reason", value: "rate"}},
	{"bytes of all lists", "memory.limit",
		measure{metric: "imgmirror_upstream_list_bytes"}, measure{metric: "imgmirror_upstream_list_limit_bytes"},
		measure{metric: "imgmirror_upstream_refusals_total", label: "reason", value: "budget"}},
	{"prepared replies with a manifest", "",
		measure{metric: "imgmirror_catalog_documents"}, measure{metric: "imgmirror_catalog_documents_limit"}, measure{}},
	{"bytes of replies under way", "clients.memory",
		measure{metric: "imgmirror_http_body_bytes"}, measure{metric: "imgmirror_http_body_limit_bytes"},
		measure{metric: "imgmirror_http_bodies_refused_total", label: "reason", value: "memory"}},
	{"connections of clients", "clients.max_connections",
		measure{metric: "imgmirror_http_connections"}, measure{metric: "imgmirror_http_connections_limit", label: "limit", value: "total"},
		measure{metric: "imgmirror_http_connections_refused_total", label: "limit", value: "total"}},
	{"connections of one address", "clients.max_per_address",
		measure{metric: "imgmirror_http_connections_of_one_address"}, measure{metric: "imgmirror_http_connections_limit", label: "limit", value: "address"},
		measure{metric: "imgmirror_http_connections_refused_total", label: "limit", value: "address"}},
	{"lines that wait for the log", "",
		measure{metric: "imgmirror_http_log_lines"}, measure{metric: "imgmirror_http_log_lines_limit"}, measure{metric: "imgmirror_http_log_lost_total"}},
	{"files that clients are sending", "",
		measure{metric: "imgmirror_http_uploads"}, measure{metric: "imgmirror_http_uploads_limit"}, measure{metric: "imgmirror_http_uploads_refused_total"}},
	{"images that wait for their activation", "",
		measure{metric: "imgmirror_drafts"}, measure{metric: "imgmirror_drafts_limit"}, measure{}},
	{"bytes of images that wait for their activation", "",
		measure{metric: "imgmirror_draft_bytes"}, measure{metric: "imgmirror_draft_limit_bytes"}, measure{}},
	{"jobs", "",
		measure{metric: "imgmirror_jobs"}, measure{metric: "imgmirror_jobs_limit"}, measure{metric: "imgmirror_jobs_refused_total", label: "reason", value: "jobs"}},
	{"event streams", "",
		measure{metric: "imgmirror_event_streams"}, measure{metric: "imgmirror_event_streams_limit"}, measure{metric: "imgmirror_jobs_refused_total", label: "reason", value: "streams"}},
	{"bytes of heads of bundles", "memory.limit",
		measure{metric: "imgmirror_import_head_bytes"}, measure{metric: "imgmirror_import_head_limit_bytes"}, measure{metric: "imgmirror_jobs_refused_total", label: "reason", value: "heads"}},
	{"bytes of open imports", "memory.limit",
		measure{metric: "imgmirror_import_bytes"}, measure{metric: "imgmirror_import_limit_bytes"}, measure{metric: "imgmirror_jobs_refused_total", label: "reason", value: "imports"}},
	{"connections of operators", "",
		measure{metric: "imgmirror_admin_connections"}, measure{metric: "imgmirror_admin_connections_limit"}, measure{metric: "imgmirror_admin_connections_refused_total"}},
}

// Bounds tells how far the bounds are used. It leaves out those whose fronts are not there: a mirror of
// a verb serves no clients.
func (m *Mirror) Bounds() []Bound {
	families, err := m.registry.Gather()
	if err != nil {
		m.log.Debug("some bounds cannot be told", "error", err)
	}
	all := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		all[f.GetName()] = f
	}
	out := make([]Bound, 0, len(bounds))
	for _, b := range bounds {
		used, ok := b.used.of(all)
		limit, limited := b.limit.of(all)
		if !ok || !limited {
			continue
		}
		refused, _ := b.refused.of(all)
		out = append(out, Bound{Name: b.name, Key: b.key, Used: used, Limit: limit, Refused: refused})
	}
	if used, limit, dropped := m.nodes.Room(); limit > 0 {
		out = append(out, Bound{Name: "addresses in the journal of nodes", Key: "nodes.max", Used: int64(used), Limit: int64(limit), Refused: dropped})
	}
	return out
}

// of gives the number; false: there is no such metric.
func (at measure) of(all map[string]*dto.MetricFamily) (int64, bool) {
	family, ok := all[at.metric]
	if !ok {
		return 0, false
	}
	var n float64
	for _, m := range family.GetMetric() {
		if at.label != "" && labelOf(m, at.label) != at.value {
			continue
		}
		v := m.GetGauge().GetValue() + m.GetCounter().GetValue() // one of them is there
		if at.most {
			n = max(n, v)
		} else {
			n += v
		}
	}
	return int64(min(n, math.MaxInt64)), true
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// refusal is how an event tells of a bound.
func (b Bound) refusal() string {
	if b.Key == "" {
		return "refused: " + b.Name
	}
	return fmt.Sprintf("refused: %s (%s)", b.Name, b.Key)
}
