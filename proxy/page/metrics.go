package page

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Values of labels.
const (
	sideOperators = "operators"
	sideClients   = "clients"

	loginRight   = "right"
	loginWrong   = "wrong"
	loginLimited = "limited" // refused unread: too many tries
)

// metrics are the package's metrics; every series exists from the start.
type metrics struct {
	streams map[string]prometheus.Gauge   // by side
	refused map[string]prometheus.Counter // by side
	logins  map[string]prometheus.Counter // by result
}

func newMetrics(r prometheus.Registerer, p *Page) *metrics {
	auto := promauto.With(r)
	streams := auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "imgmirror_page_streams",
		Help: "Event streams of the web page that are open, by side; at most 64 each.",
	}, []string{"side"})
	refused := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "imgmirror_page_streams_refused_total",
		Help: "Event streams of the web page that were refused, by side: too many were open.",
	}, []string{"side"})
	logins := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "imgmirror_page_logins_total",
		Help: "Tries to sign in, by result: right, wrong, or limited by the number of tries.",
	}, []string{"result"})
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "imgmirror_page_sessions",
		Help: "Sessions of operators on the web page; at most 64.",
	}, func() float64 { return float64(p.sessions.count()) })
	m := &metrics{
		streams: make(map[string]prometheus.Gauge), refused: make(map[string]prometheus.Counter), logins: make(map[string]prometheus.Counter),
	}
	for _, side := range []string{sideOperators, sideClients} {
		m.streams[side], m.refused[side] = streams.WithLabelValues(side), refused.WithLabelValues(side)
	}
	for _, result := range []string{loginRight, loginWrong, loginLimited} {
		m.logins[result] = logins.WithLabelValues(result)
	}
	return m
}
