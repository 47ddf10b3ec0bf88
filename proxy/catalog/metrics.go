package catalog

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the catalogue.
type metrics struct {
	images      prometheus.Gauge
	conflicts   prometheus.Gauge
	broken      prometheus.Gauge
	retired     prometheus.Gauge
	lastSuccess *prometheus.GaugeVec   // source
	interval    *prometheus.GaugeVec   // source
	refreshes   *prometheus.CounterVec // source, result
	lookups     *prometheus.CounterVec // result
	searches    prometheus.Gauge
	asking      *prometheus.GaugeVec   // source, asker
	waiting     *prometheus.GaugeVec   // source
	refused     *prometheus.CounterVec // reason
}

// doorMetrics are those of one source.
type doorMetrics struct {
	asking, own, waiting prometheus.Gauge
	refused              *prometheus.CounterVec // reason
}

func (m *metrics) door(source string) doorMetrics {
	return doorMetrics{
		asking:  m.asking.WithLabelValues(source, askerClient),
		own:     m.asking.WithLabelValues(source, askerCatalog),
		waiting: m.waiting.WithLabelValues(source),
		refused: m.refused,
	}
}

// The values of the label "result".
const (
	resultChanged     = "changed"
	resultUnchanged   = "unchanged"
	resultFailed      = "failed"
	resultFound       = "found"
	resultAbsent      = "absent"
	resultUnavailable = "unavailable"
	resultRefused     = "refused"
)

// The values of the label "asker".
const (
	askerClient  = "client"
	askerCatalog = "catalog"
)

// newMetrics registers the metrics with r; nil = unregistered metrics. newMetrics panics when r has
// the metrics already. Series of the given sources are present at zero.
func newMetrics(r prometheus.Registerer, sources []string) *metrics {
	auto := promauto.With(r)
	m := &metrics{
		images: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_images",
			Help: "Images in the list now being served.",
		}),
		conflicts: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_conflicts",
			Help: "Images of which a source now has other bytes than the source they are served from.",
		}),
		broken: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_broken_chains",
			Help: "Images now with an ancestor that no source has, or a chain of origins that does not end.",
		}),
		retired: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_retired_images",
			Help: "Images that no source has any more, kept because their files are cached.",
		}),
		lastSuccess: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_last_success_timestamp_seconds",
			Help: "When the source last gave or confirmed its list; 0 = never.",
		}, []string{"source"}),
		interval: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_refresh_interval_seconds",
			Help: "Time between two questions for the list of a source that answers (sources[].refresh); 0 = the source is not asked.",
		}, []string{"source"}),
		refreshes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_catalog_refreshes_total",
			Help: "Times a source was asked for its list.",
		}, []string{"source", "result"}),
		lookups: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_catalog_lookups_total",
			Help: "Images looked for at the sources by uuid because no list has them.",
		}, []string{"result"}),
		searches: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_searches",
			Help: "Images now being looked for at the sources by uuid.",
		}),
		asking: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_lookups_in_flight",
			Help: "Questions for single images that the source has now to answer, for clients or for the catalogue itself.",
		}, []string{"source", "asker"}),
		waiting: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_catalog_lookups_waiting",
			Help: "Questions for single images that now wait for their turn at the source.",
		}, []string{"source"}),
		refused: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_catalog_lookups_refused_total",
			Help: "Questions for single images that were not put to a source, by the bound that was reached.",
		}, []string{"reason"}),
	}
	for name, bound := range map[string]struct {
		limit float64
		help  string
	}{
		"imgmirror_catalog_lookups_in_flight_limit": {maxAsking, "Questions of clients for single images that one source may have to answer."},
		"imgmirror_catalog_lookups_waiting_limit":   {maxWaiting, "Questions for single images that may wait for their turn at one source."},
		"imgmirror_catalog_documents_limit":         {keptDocuments, "Limit of imgmirror_catalog_documents."},
	} {
		auto.NewGauge(prometheus.GaugeOpts{Name: name, Help: bound.help}).Set(bound.limit)
	}
	for _, reason := range []string{refusedAddress, refusedRate, refusedBusy, refusedSearches, refusedLooks} {
		m.refused.WithLabelValues(reason)
	}
	for _, s := range sources {
		m.lastSuccess.WithLabelValues(s)
		for _, result := range []string{resultChanged, resultUnchanged, resultFailed} {
			m.refreshes.WithLabelValues(s, result)
		}
	}
	for _, result := range []string{resultFound, resultAbsent, resultUnavailable, resultRefused} {
		m.lookups.WithLabelValues(result)
	}
	return m
}

var hiddenDesc = prometheus.NewDesc("imgmirror_catalog_hidden_images",
	"Images on the lists of sources that clients are not shown, by reason; an image on two lists counts twice.", []string{"reason"}, nil)

// hiddenCounts counts what the lists have and clients are not shown.
type hiddenCounts struct{ *Catalog }

func (hiddenCounts) Describe(out chan<- *prometheus.Desc) { out <- hiddenDesc }

func (h hiddenCounts) Collect(out chan<- prometheus.Metric) {
	sum := make(map[string]int)
	for _, st := range h.Status() {
		for reason, n := range st.Hidden {
			sum[reason] += n
		}
	}
	for _, reason := range Reasons {
		out <- prometheus.MustNewConstMetric(hiddenDesc, prometheus.GaugeValue, float64(sum[reason]), reason)
	}
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
