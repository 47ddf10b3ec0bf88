package upstream

import (
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics of all sources: made once, shared by their Clients.
type Metrics struct {
	received *prometheus.CounterVec
	requests *prometheus.CounterVec
	up       *prometheus.GaugeVec
	breaker  *prometheus.GaugeVec
	lists    *prometheus.GaugeVec
	refusals *prometheus.CounterVec
	resting  *prometheus.GaugeVec
	keptOff  *prometheus.CounterVec
	ends     *prometheus.GaugeVec
}

// codes are the values of the label "code": the statuses that mean something
// here; any other is counted by its class, and no answer as "error".
var codes = []string{
	"200", "206", "304", "400", "401", "403", "404", "410", "416", "429", "500", "502", "503", "504",
	"1xx", "2xx", "3xx", "4xx", "5xx", "error",
}

// The values of the label "what".
const (
	whatLookups = "lookups"
	whatFiles   = "files" // and icons
)

// NewMetrics registers the metrics with r; nil means unregistered metrics. NewMetrics panics when r
// has the metrics already. The series of the named sources are present from the start.
func NewMetrics(r prometheus.Registerer, sources []string) *Metrics {
	auto := promauto.With(r)
	m := &Metrics{
		received: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_upstream_received_bytes_total",
			Help: "Bytes of bodies received from a source as they came: files, lists, manifests, icons.",
		}, []string{"source"}),
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_upstream_requests_total",
			Help: "Requests to a source by status of the answer; error: no answer.",
		}, []string{"source", "code"}),
		up: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_upstream_up",
			Help: "1 when the source's last answer was of use, 0 when there was none yet, or it could not be asked.",
		}, []string{"source"}),
		breaker: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_upstream_breaker_open",
			Help: "1 while the source has failed again and again with that, so that it is asked for it less and less.",
		}, []string{"source", "what"}),
		lists: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_upstream_list_bytes",
			Help: "Memory for the lists of a source: its last good one, and the one that is being read.",
		}, []string{"source"}),
		refusals: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_upstream_refusals_total",
			Help: "Answers of a source that were more than is taken, by the bound.",
		}, []string{"source", "reason"}),
		resting: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_upstream_resting_images",
			Help: "Images that the source fails to give again and again, so that it is asked for them less and less.",
		}, []string{"source", "what"}),
		keptOff: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_upstream_kept_off_total",
			Help: "Questions that were not put to a source because it fails again and again: with that image, or altogether (source).",
		}, []string{"source", "what", "reason"}),
		ends: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_upstream_certificate_end_timestamp_seconds",
			Help: "When the certificate ends that the source showed at the last TLS handshake; 0 = none was shown.",
		}, []string{"source"}),
	}
	auto.NewGauge(prometheus.GaugeOpts{
		Name: "imgmirror_upstream_resting_images_limit",
		Help: "Images of one source, and of one kind of question, that can rest.",
	}).Set(maxFailing)
	for _, s := range sources {
		m.source(s)
	}
	return m
}

// source gives the metrics of one source, present at zero.
func (m *Metrics) source(name string) sourceMetrics {
	s := sourceMetrics{
		received: m.received.WithLabelValues(name),
		requests: m.requests.MustCurryWith(prometheus.Labels{"source": name}),
		up:       m.up.WithLabelValues(name),
		lookups:  m.breakerOf(name, whatLookups),
		files:    m.breakerOf(name, whatFiles),
		lists:    m.lists.WithLabelValues(name),
		refusals: m.refusals.MustCurryWith(prometheus.Labels{"source": name}),

		certificate: m.ends.WithLabelValues(name),
	}
	for _, reason := range refusalReasons {
		s.refusals.WithLabelValues(reason)
	}
	for _, code := range codes {
		s.requests.WithLabelValues(code)
	}
	return s
}

// sourceMetrics are the metrics of one source.
type sourceMetrics struct {
	received prometheus.Counter
	requests *prometheus.CounterVec
	up       prometheus.Gauge
	lookups  breakerMetrics
	files    breakerMetrics
	lists    prometheus.Gauge
	refusals *prometheus.CounterVec

	certificate prometheus.Gauge // when it ends
}

// breakerMetrics are the metrics of one kind of question to one source.
type breakerMetrics struct {
	open    prometheus.Gauge       // 1: the breaker is open
	resting prometheus.Gauge       // images
	keptOff *prometheus.CounterVec // by reason
}

// breakerOf gives the metrics of one kind of question to one source, present at zero.
func (m *Metrics) breakerOf(source, what string) breakerMetrics {
	b := breakerMetrics{
		open:    m.breaker.WithLabelValues(source, what),
		resting: m.resting.WithLabelValues(source, what),
		keptOff: m.keptOff.MustCurryWith(prometheus.Labels{"source": source, "what": what}),
	}
	for _, reason := range []string{keptOffForImage, keptOffForSource} {
		b.keptOff.WithLabelValues(reason)
	}
	return b
}

// answered counts one request; status 0 means that none came.
func (m sourceMetrics) answered(status int) {
	code := "error"
	if status >= 100 && status <= 599 {
		code = strconv.Itoa(status)
		if !slices.Contains(codes, code) {
			code = code[:1] + "xx"
		}
	}
	m.requests.WithLabelValues(code).Inc()
}
