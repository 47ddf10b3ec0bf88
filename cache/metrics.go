package cache

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Where a verification failure was seen.
const (
	whereSize      = "size"      // more or fewer bytes than wanted, or claimed to be so
	whereDigest    = "digest"    // the digests of a whole body differ
	whereMixed     = "mixed"     // the same, when it came from several sources of which any may be to blame
	whereUnchecked = "unchecked" // there was nothing to check the bytes against

	whereUnreadable = "unreadable" // the disk does not give the bytes of a file; or there is no file in its place
)

// sourceDisk stands for a source in failures of bytes that were found on disk.
const sourceDisk = "disk"

// Why a running download gave its slot away.
const (
	handedLeft   = "left"   // its clients have left, and another download waited
	handedAhead  = "ahead"  // it was ahead of need
	handedJob    = "job"    // of a job, and a client waited
	handedSource = "source" // another source took it over, which had its share already
)

func handedReason(r rank) string {
	switch r {
	case rankAhead:
		return handedAhead
	case rankLeft:
		return handedLeft
	}
	return handedJob
}

type metrics struct {
	traffic      traffic
	resumes      *prometheus.CounterVec
	failures     *prometheus.CounterVec
	inflight     prometheus.Gauge
	slotsWaiting prometheus.Gauge
	slotsRefused prometheus.Counter
	slotsHanded  *prometheus.CounterVec
	slow         *prometheus.CounterVec
	takeovers    *prometheus.CounterVec
	evictions    map[Reason]prometheus.Counter      // read only
	roomRefused  map[string]prometheus.Counter      // read only
	scrubbed     map[CheckResult]prometheus.Counter // read only
}

func newMetrics(reg prometheus.Registerer, sources []string, stats func() Stats, limit func() int64, slots *slots) (*metrics, error) {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	evictions := counters("imgmirror_evictions_total", "Files and unfinished downloads that were removed.", "reason")
	scrubbed := counters("imgmirror_scrub_files_total", "Files that were read again by what came of it.", "result")
	m := &metrics{
		evictions: make(map[Reason]prometheus.Counter), scrubbed: make(map[CheckResult]prometheus.Counter),
		resumes:  counters("imgmirror_fill_resumes_total", "Downloads that a source was asked to go on with in mid-file.", "source"),
		failures: counters("imgmirror_verify_failures_total", "Times that bytes were not what they should be.", "source", "where"),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_fills_inflight", Help: "Downloads under way."}),
		slotsWaiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "imgmirror_fill_slots_waiting", Help: "Downloads that wait for a slot."}),
		slotsHanded: counters("imgmirror_fill_slots_handed_total", "Slots that a running download gave away, by the reason.", "reason"),
		slow:        counters("imgmirror_fill_slow_total", "Minutes in which a source sent a file slower than fill.min_rate.", "source"),
		takeovers:   counters("imgmirror_fill_takeovers_total", "Downloads that left a slow source for another one.", "source"),
		slotsRefused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "imgmirror_fill_slots_refused_total", Help: "Downloads that got no slot before their deadline."}),
	}
	for _, reason := range []string{handedLeft, handedAhead, handedJob, handedSource} {
		m.slotsHanded.WithLabelValues(reason)
	}
	for _, r := range []Reason{ReasonMaxSize, ReasonMinFree, ReasonDelete} {
		m.evictions[r] = evictions.WithLabelValues(string(r))
	}
	for _, r := range []CheckResult{CheckOK, CheckHealed, CheckRestored, CheckQuarantined, CheckAbsent, CheckUnreadable} {
		m.scrubbed[r] = scrubbed.WithLabelValues(string(r))
	}
	for _, s := range sources {
		m.resumes.WithLabelValues(s)
		m.slow.WithLabelValues(s)
		m.takeovers.WithLabelValues(s)
		for _, w := range []string{whereSize, whereDigest, whereMixed, whereUnchecked} {
			m.failures.WithLabelValues(s, w)
		}
	}
	m.failures.WithLabelValues(sourceDisk, whereDigest)
	m.failures.WithLabelValues(sourceDisk, whereSize)
	m.failures.WithLabelValues(sourceDisk, whereUnreadable)
	var err error
	for _, c := range []prometheus.Collector{
		&m.traffic, m.resumes, m.failures, m.inflight, m.slotsWaiting, m.slotsRefused, m.slotsHanded, m.slow, m.takeovers, &slotGauges{slots, sources}, evictions, scrubbed,
		gauge("imgmirror_cache_size_bytes", "Bytes stored, unfinished downloads included.", func() float64 { return float64(stats().Bytes()) }),
		gauge("imgmirror_cache_limit_bytes", "Bytes that may be stored as things are.", func() float64 { return float64(limit()) }),
		gauge("imgmirror_cache_files", "Files stored.", func() float64 { return float64(stats().Files) }),
	} {
		err = errors.Join(err, reg.Register(c))
	}
	return m, err
}

// Why a download got no room.
const (
	noRoomFull       = "full"       // all that may go would not be enough
	noRoomAhead      = "ahead"      // no client waits for the download, and free room is all that it takes
	noRoomUnverified = "unverified" // no more verified files go for what the source sends
)

// roomMetrics are about the room of bytes without a verdict.
func (m *metrics) roomMetrics(reg prometheus.Registerer, removed, lent, share func() int64) error {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imgmirror_cache_room_refused_total", Help: "Times that a download got no room."}, []string{"reason"})
	m.roomRefused = make(map[string]prometheus.Counter)
	for _, reason := range []string{noRoomFull, noRoomAhead, noRoomUnverified} {
		m.roomRefused[reason] = refused.WithLabelValues(reason)
	}
	gauge := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	var err error
	for _, c := range []prometheus.Collector{
		refused,
		gauge("imgmirror_cache_unverified_removed_bytes", "Bytes of verified files that were removed for downloads which are not verified yet.", removed),
		gauge("imgmirror_cache_unverified_share_bytes", "Limit of imgmirror_cache_unverified_removed_bytes as things are.", share),
		gauge("imgmirror_cache_unverified_lent_bytes", "Bytes beyond max_size that downloads have until they are verified.", lent),
	} {
		err = errors.Join(err, reg.Register(c))
	}
	return err
}

// noRoom counts err, if it is about room.
func (m *metrics) noRoom(err error) {
	switch {
	case errors.Is(err, errNoRoomAhead):
		m.roomRefused[noRoomAhead].Inc()
	case errors.Is(err, errNoAdvance):
		m.roomRefused[noRoomUnverified].Inc()
	case errors.Is(err, ErrNoSpace):
		m.roomRefused[noRoomFull].Inc()
	}
}

var (
	slotsDesc     = prometheus.NewDesc("imgmirror_fill_slots", "Downloads that may run at the same time (cache.fill_slots).", nil, nil)
	slotsLentDesc = prometheus.NewDesc("imgmirror_fill_slots_lent_total", "Slots given beyond cache.fill_slots, to a source below its share.", nil, nil)
	slotsUsedDesc = prometheus.NewDesc("imgmirror_fill_slots_used", "Slots in use by the downloads of a source.", []string{"source"}, nil)
	slotsWaitDesc = prometheus.NewDesc("imgmirror_fill_slots_wanted", "Downloads of a source that wait for a slot.", []string{"source"}, nil)
)

// slotGauges show the slots and the accounts of the sources.
type slotGauges struct {
	*slots
	sources []string // that are there at zero
}

// Describe implements prometheus.Collector.
func (g *slotGauges) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{slotsDesc, slotsLentDesc, slotsUsedDesc, slotsWaitDesc} {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (g *slotGauges) Collect(all chan<- prometheus.Metric) {
	used, waiting := make(map[string]int), make(map[string]int)
	for _, s := range g.sources {
		used[s] = 0
	}
	g.mu.Lock()
	total, lent := g.total, g.lent
	for _, a := range g.accounts {
		used[a.name], waiting[a.name] = a.used, len(a.queue)
	}
	g.mu.Unlock()
	all <- prometheus.MustNewConstMetric(slotsDesc, prometheus.GaugeValue, float64(total))
	all <- prometheus.MustNewConstMetric(slotsLentDesc, prometheus.CounterValue, float64(lent))
	for s := range used {
		all <- prometheus.MustNewConstMetric(slotsUsedDesc, prometheus.GaugeValue, float64(used[s]), s)
		all <- prometheus.MustNewConstMetric(slotsWaitDesc, prometheus.GaugeValue, float64(waiting[s]), s)
	}
}

func (m *metrics) failure(source, where string) { m.failures.WithLabelValues(source, where).Inc() }
