package main

import (
	"testing"

	"imgmirror/config"
)

// Each bound that has a number is told, with its limit: the metrics that Bounds reads are there once
// all parts of a process are.
func TestBoundsAreTold(t *testing.T) {
	cfg := testConfig(t)
	cfg.Sources = []config.Source{sampleSource(t)}
	cfg.Clients.MaxConnections, cfg.Clients.MaxPerAddress = 77, 33
	m, _ := runProcess(t, cfg)
	limits := make(map[string]int64)
	for _, b := range m.Bounds() {
		if b.Limit <= 0 || b.Used < 0 || b.Refused != 0 {
			t.Errorf("%+v", b)
		}
		limits[b.Name] = b.Limit
	}
	if limits["connections of clients"] != 77 || limits["connections of one address"] != 33 {
		t.Errorf("limits are %v", limits)
	}
	for _, name := range []string{
		"downloads at the same time", "bytes of the cache", "bytes of ranges ahead of their readers", "downloads with a verdict and without a record",
		"bytes removed for downloads without a verdict", "images that fail, of one source",
		"questions for images under way, of one source", "questions for images in line, of one source", "bytes of all lists",
		"bytes of replies under way", "connections of clients", "connections of one address", "jobs", "event streams",
		"bytes of heads of bundles", "bytes of open imports", "connections of operators", "lines that wait for the log",
		"addresses in the journal of nodes", "prepared replies with a manifest",
	} {
		if _, ok := limits[name]; !ok {
			t.Errorf("%s: not told", name)
		}
	}
}
