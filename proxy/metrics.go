package proxy

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// statuses are the values of the label "code"; any other status counts as "other".
var statuses = []int{
	200, 204, 206, 304,
	400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 415, 416, 422, 429, statusGone,
	500, 503,
}

// metrics are the package's metrics; every series exists from the start.
type metrics struct {
	routes      map[*route]*routeMetrics
	connections prometheus.Gauge
	refused     map[string]prometheus.Counter // by limit
	displaced   map[string]prometheus.Counter // by limit
	waiting     prometheus.Gauge
	left        prometheus.Counter

	writes         map[string]prometheus.Counter // by request and result
	uploads        prometheus.Gauge
	uploadsRefused prometheus.Counter

	bodies        prometheus.Gauge
	bodiesRefused map[string]prometheus.Counter // by reason: memory, old_list
}

// routeMetrics are the metrics of one route.
type routeMetrics struct {
	codes    [600]prometheus.Counter // by status; those not of statuses are the one counter "other"
	duration prometheus.Observer
}

func newMetrics(r prometheus.Registerer) *metrics {
	auto := promauto.With(r)
	requests := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "imgmirror_http_requests_total",
		Help: "Requests answered, by route and status.",
	}, []string{"route", "code"})
	durations := auto.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "imgmirror_http_request_duration_seconds",
		Help:    "From a request's header to the end of its reply's body.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
	}, []string{"route"})
	bodiesRefused := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "imgmirror_http_bodies_refused_total",
		Help: "Replies refused or cut to bound the memory of replies, by reason: memory is a 503 to a new request, old_list the end of a reply with a list that newer lists have replaced.",
	}, []string{"reason"})
	m := &metrics{
		routes: make(map[*route]*routeMetrics),
		connections: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_http_connections",
			Help: "Client connections that are open.",
		}),
		refused: byLimit(auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_http_connections_refused_total",
			Help: "Client connections refused, by the limit that was reached.",
		}, []string{"limit"})),
		displaced: byLimit(auto.NewCounterVec(prometheus.CounterOpts{
			Name: "imgmirror_http_connections_displaced_total",
			Help: "Idle client connections closed for new ones, by the limit that was reached.",
		}, []string{"limit"})),
		waiting: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_http_clients_waiting",
			Help: "Clients that wait: for a place in the queue of downloads, a source's answer or the next bytes.",
		}),
		left: auto.NewCounter(prometheus.CounterOpts{
			Name: "imgmirror_http_clients_left_total",
			Help: "Clients that hung up while they waited.",
		}),
		bodies: auto.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_http_body_bytes",
			Help: "Memory that replies under way hold of clients.memory: bodies made for one reply, and lists that newer lists have replaced.",
		}),
		bodiesRefused: map[string]prometheus.Counter{
			"memory":   bodiesRefused.WithLabelValues("memory"),
			"old_list": bodiesRefused.WithLabelValues("old_list"),
		},
	}
	m.writeMetrics(auto)
	for _, rt := range allRoutes {
		rm := &routeMetrics{
			duration: durations.WithLabelValues(rt.name),
		}
		other := requests.WithLabelValues(rt.name, "other")
		for status := range rm.codes {
			rm.codes[status] = other
		}
		for _, status := range statuses {
			rm.codes[status] = requests.WithLabelValues(rt.name, strconv.Itoa(status))
		}
		m.routes[rt] = rm
	}
	return m
}

// writeMetrics makes the metrics of writes.
func (m *metrics) writeMetrics(auto promauto.Factory) {
	writes := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "imgmirror_http_writes_total",
		Help: "Requests of clients that write images, by request and by what became of the request.",
	}, []string{"request", "result"})
	m.writes = make(map[string]prometheus.Counter)
	for _, w := range allWrites {
		for _, result := range results {
			m.writes[w.name+" "+result] = writes.WithLabelValues(w.name, result)
		}
	}
	m.uploads = auto.NewGauge(prometheus.GaugeOpts{
		Name: "imgmirror_http_uploads",
		Help: "Files that clients are sending.",
	})
	auto.NewGauge(prometheus.GaugeOpts{
		Name: "imgmirror_http_uploads_limit",
		Help: "Limit of imgmirror_http_uploads; one address may have half.",
	}).Set(maxUploads)
	m.uploadsRefused = auto.NewCounter(prometheus.CounterOpts{
		Name: "imgmirror_http_uploads_refused_total",
		Help: "Files of clients that were refused because too many were coming.",
	})
}

// wrote counts a write, refused with e; nil: accepted.
func (m *metrics) wrote(w *write, e *apiError) { m.writes[w.name+" "+resultOf(e)].Inc() }

// limitMetrics registers what the bounds of a server with these options are. crowd gives the most
// connections of one address.
func limitMetrics(o Options, crowd func() float64) {
	auto := promauto.With(o.Registerer)
	limits := auto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "imgmirror_http_connections_limit",
		Help: "Client connections that may be open, in all and from one address; 0 = no limit.",
	}, []string{"limit"})
	limits.WithLabelValues(limitTotal).Set(float64(o.MaxConnections))
	limits.WithLabelValues(limitAddress).Set(float64(o.MaxPerAddress))
	auto.NewGauge(prometheus.GaugeOpts{
		Name: "imgmirror_http_body_limit_bytes",
		Help: "Limit of imgmirror_http_body_bytes (clients.memory).",
	}).Set(float64(o.Memory))
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "imgmirror_http_connections_of_one_address",
		Help: "The most client connections that one address has open; 0 without a limit for addresses.",
	}, crowd)
}

// byLimit are the counters of each limit.
func byLimit(v *prometheus.CounterVec) map[string]prometheus.Counter {
	return map[string]prometheus.Counter{
		limitTotal:   v.WithLabelValues(limitTotal),
		limitAddress: v.WithLabelValues(limitAddress),
	}
}

// observe counts one reply.
func (m *metrics) observe(rt *route, status int, took time.Duration) {
	rm := m.routes[rt]
	rm.codes[status].Inc() // a fasthttp reply has no other status
	rm.duration.Observe(took.Seconds())
}
