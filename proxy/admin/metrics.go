package admin

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// The kinds of jobs.
const (
	kindFetch   = "fetch"
	kindInstall = "install"
	kindRefresh = "refresh"
	kindStage   = "stage"
	kindVerify  = "verify"
)

// Why work was refused.
const (
	refusedJobs     = "jobs"     // maxRunningJobs are running
	refusedStreams  = "streams"  // maxWatchers event streams are open
	refusedImports  = "imports"  // too many imports are open, or those that are open are too large
	refusedHeads    = "heads"    // the heads of other bundles are being read
	refusedStopping = "stopping" // the mirror is stopping
)

// metrics counts jobs, and callers.
type metrics struct {
	callers        prometheus.Gauge
	callersRefused prometheus.Counter

	jobs    *prometheus.GaugeVec
	ended   *prometheus.CounterVec
	refusal *prometheus.CounterVec
	refused map[string]prometheus.Counter // read only
}

func newMetrics() *metrics {
	m := &metrics{
		callers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_admin_connections", Help: "Open connections of operators, those of the socket included."}),
		callersRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "imgmirror_admin_connections_refused_total", Help: "Connections of operators that were refused: all that may be open had requests."}),
		jobs: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "imgmirror_jobs", Help: "Jobs under way, by what they do and whether they wait for their turn."}, []string{"kind", "state"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_jobs_ended_total", Help: "Jobs that are over, by what they did and how they ended."}, []string{"kind", "state"}),
		refusal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_jobs_refused_total", Help: "Jobs, imports and event streams that were refused."}, []string{"reason"}),
		refused: make(map[string]prometheus.Counter),
	}
	for _, kind := range []string{kindFetch, kindInstall, kindRefresh, kindStage, kindVerify} {
		for _, state := range []string{JobRunning, ItemWaiting} {
			m.jobs.WithLabelValues(kind, state)
		}
		for _, state := range []string{JobDone, JobFailed, JobCancelled} {
			m.ended.WithLabelValues(kind, state)
		}
	}
	for _, reason := range []string{refusedJobs, refusedStreams, refusedImports, refusedHeads, refusedStopping} {
		m.refused[reason] = m.refusal.WithLabelValues(reason)
	}
	return m
}

// register shows the metrics, and what the server tells of its own use.
func (m *metrics) register(reg prometheus.Registerer, s *Server) error {
	if reg == nil {
		return nil
	}
	gauge := func(name, help string, value func() float64) error {
		return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	err := errors.Join(reg.Register(m.callers), reg.Register(m.callersRefused), reg.Register(m.jobs), reg.Register(m.ended), reg.Register(m.refusal),
		gauge("imgmirror_event_streams", "Event streams that are open.", func() float64 { return float64(s.jobs.streams()) }),
		gauge("imgmirror_jobs_limit", "Jobs that may be under way.", func() float64 { return maxRunningJobs }),
		gauge("imgmirror_event_streams_limit", "Event streams that may be open.", func() float64 { return maxWatchers }),
		gauge("imgmirror_admin_connections_limit", "Connections of operators from the network that may be open.", func() float64 { return maxCallers }),
		gauge("imgmirror_import_head_limit_bytes", "Limit of imgmirror_import_head_bytes.", func() float64 { return float64(s.heads.limit) }),
		gauge("imgmirror_import_head_bytes", "Heads of bundles that are being read or judged.", func() float64 { return float64(s.heads.inUse()) }))
	if s.mirror == nil {
		return err
	}
	return errors.Join(err,
		gauge("imgmirror_import_bytes", "Indexes and manifests of the imports that are open.", func() float64 { return float64(s.mirror.ImportBytes()) }),
		gauge("imgmirror_import_limit_bytes", "Limit of imgmirror_import_bytes.", func() float64 { return float64(s.mirror.ImportLimit()) }))
}

// running counts a job of that kind until the func it gives is called.
func (m *metrics) running(kind string) (over func()) { return m.count(kind, JobRunning) }

// waiting is running for a job that waits for its turn.
func (m *metrics) waiting(kind string) (over func()) { return m.count(kind, ItemWaiting) }

func (m *metrics) count(kind, state string) func() {
	g := m.jobs.WithLabelValues(kind, state)
	g.Inc()
	return g.Dec
}
