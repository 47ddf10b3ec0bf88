package zfsimport

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

const failed = "failed" // as a result, beside the outcomes

type metrics struct {
	installs *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	inflight prometheus.Gauge
	duration prometheus.Histogram
}

// newMetrics makes the metrics and registers them, unless reg is nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		installs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_zfsimport_installs_total", Help: "Installs into the local zpool by what came of them."}, []string{"result"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_zfsimport_bytes_total", Help: "Bytes of image files read, and of the ZFS streams in them given to zfs."}, []string{"kind"}),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_zfsimport_inflight", Help: "Images being received into the local zpool."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "imgmirror_zfsimport_duration_seconds", Help: "Time from the first byte of an image to its being installed.",
			Buckets: []float64{1, 3, 10, 30, 100, 300, 1000, 3000}}),
	}
	for _, o := range []Outcome{Done, Present, Repaired, Skipped, failed} {
		m.installs.WithLabelValues(string(o))
	}
	for _, kind := range []string{"file", "stream"} {
		m.bytes.WithLabelValues(kind)
	}
	if reg == nil {
		return m, nil
	}
	var err error
	for _, c := range []prometheus.Collector{m.installs, m.bytes, m.inflight, m.duration} {
		err = errors.Join(err, reg.Register(c))
	}
	return m, err
}

func (m *metrics) ended(o Outcome) {
	if o == "" {
		o = failed
	}
	m.installs.WithLabelValues(string(o)).Inc()
}

func (m *metrics) moved(r *reception) {
	if r.file != nil {
		m.bytes.WithLabelValues("file").Add(float64(r.file.n.Load()))
	}
	m.bytes.WithLabelValues("stream").Add(float64(r.written))
}
