package main

import (
	"net"
	"strings"
	"testing"

	"imgmirror/config"
	"imgmirror/proxy/admin"
)

// finding is the state and the message of the first finding of a check.
func finding(all []admin.Finding, check string) string {
	for _, f := range all {
		if f.Check == check {
			return f.State + ": " + f.Message
		}
	}
	return ""
}

// TestDoctorItself: a source that is the mirror itself is named, whichever of its addresses was written down.
func TestDoctorItself(t *testing.T) {
	cfg := testConfig(t)
	m, _ := runProcess(t, cfg)
	_, port, err := net.SplitHostPort(m.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		source := config.Source{Name: "s", Kind: "auto", URL: config.URL("http://" + net.JoinHostPort(host, port))}
		with := *cfg
		with.Sources = []config.Source{source}
		got := finding(diagnose(t.Context(), &with, m.ID(), nil), "source s: list")
		if !strings.HasPrefix(got, "failed: this source is the mirror itself") {
			t.Errorf("%s: %q", host, got)
		}
	}
}
