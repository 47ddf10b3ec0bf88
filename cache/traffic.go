package cache

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// By tells who reads. Clients are what a mirror is for: the metrics and Traffic count the other
// readers apart.
type By int

// The readers.
const (
	ByClient   By = iota // a node, or any other client
	ByPeer               // another mirror, on behalf of its clients
	ByFetch              // an operator's fetch
	ByPrefetch           // what the mirror brings by itself, the rest of former downloads included
	ByInstall            // an install into a pool of this machine
	ByBundle             // an export or an import of a bundle
	ByPublish            // the upload of an image that is published here
	ByHeal               // a file that was found wrong, and is brought anew

	readers int = iota
)

// String is the label by in the metrics.
func (b By) String() string {
	return [...]string{"client", "peer", "fetch", "prefetch", "install", "bundle", "publish", "heal"}[b]
}

var results = [...]Result{Hit, Miss, Join}

// Tally is what one kind of request has come to since the store was opened.
type Tally struct {
	Requests int64
	Bytes    int64 // given out
}

// Traffic counts since the store was opened.
type Traffic struct {
	Clients map[Result]Tally // requests of ByClient
	Fetched int64            // bytes that sources sent; uploads and bundles are no sources
	// Brought and Took are of the downloads that are complete: bytes that came, and the time from
	// the answers of the sources to the last bytes.
	Brought int64
	Took    time.Duration
}

// tally is a Tally that requests add to.
type tally struct{ requests, bytes atomic.Int64 }

// traffic counts requests and bytes; it costs a reader one atomic addition for each piece that is
// sent.
type traffic struct {
	of      [readers][len(results)]tally
	fetched atomic.Int64
	brought atomic.Int64
	took    atomic.Int64 // nanoseconds
}

// tally gives where a request is counted.
func (t *traffic) tally(by By, result Result) *tally {
	for i, r := range results {
		if r == result {
			return &t.of[by][i]
		}
	}
	panic("cache: no such result: " + result)
}

// Traffic tells what clients were given, and what the sources sent, since the store was opened.
func (s *Store) Traffic() Traffic {
	t := &s.metrics.traffic
	all := Traffic{
		Clients: make(map[Result]Tally), Fetched: t.fetched.Load(),
		Brought: t.brought.Load(), Took: time.Duration(t.took.Load()),
	}
	for i, r := range results {
		c := &t.of[ByClient][i]
		all.Clients[r] = Tally{Requests: c.requests.Load(), Bytes: c.bytes.Load()}
	}
	return all
}

var (
	requestsDesc = prometheus.NewDesc("imgmirror_cache_requests_total", "Requests of clients for files by how they were met.", []string{"result"}, nil)
	servedDesc   = prometheus.NewDesc("imgmirror_cache_served_bytes_total", "Bytes of files given to clients by how the request was met.", []string{"result"}, nil)
	savedDesc    = prometheus.NewDesc("imgmirror_saved_bytes_total", "Bytes given to clients from the disk, or from a download that another request began.", nil, nil)

	internalRequestsDesc = prometheus.NewDesc("imgmirror_cache_internal_requests_total", "Requests for files of readers other than clients, by reader and by how they were met.", []string{"by", "result"}, nil)
	internalServedDesc   = prometheus.NewDesc("imgmirror_cache_internal_served_bytes_total", "Bytes of files given to readers other than clients, by reader and by how the request was met.", []string{"by", "result"}, nil)
)

// Describe implements prometheus.Collector.
func (t *traffic) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, servedDesc, savedDesc, internalRequestsDesc, internalServedDesc} {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (t *traffic) Collect(all chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		all <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	var saved int64
	for by := range t.of {
		for i, r := range results {
			requests, bytes, result := t.of[by][i].requests.Load(), t.of[by][i].bytes.Load(), strings.ToLower(string(r))
			if By(by) != ByClient {
				count(internalRequestsDesc, requests, By(by).String(), result)
				count(internalServedDesc, bytes, By(by).String(), result)
				continue
			}
			count(requestsDesc, requests, result)
			count(servedDesc, bytes, result)
			if r != Miss {
				saved += bytes
			}
		}
	}
	count(savedDesc, saved)
}
