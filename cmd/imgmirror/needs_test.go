package main

import (
	"testing"

	"imgmirror/cmd/imgmirror/doctor"
	"imgmirror/cmd/imgmirror/memory"
	"imgmirror/config"
)

// TestMemoryOf: a machine of 4 GB can bear the defaults, and a small limit the bounds that follow it.
func TestMemoryOf(t *testing.T) {
	const mb, machine = 1 << 20, 3_900_000_000
	f := func(limit, machine int64, connections int, secure, fits bool, from string) {
		t.Helper()
		cfg := config.Defaults()
		cfg.Clients.MaxConnections = connections
		if secure {
			cfg.TLS.CertFile = "cert.pem"
		}
		bound := memory.Bound{Bytes: limit}
		if limit > 0 {
			bound.From = "memory.limit"
			cfg.Clients.Memory = config.Size(min(limit/16, 64<<20))
		}
		m := memoryOf(&cfg, bound, machine)
		sum, lowerable := int64(0), false
		for _, p := range m.Parts {
			sum += p.Most
			lowerable = lowerable || p.Key == "clients.max_connections"
			if p.Most <= 0 || p.Key == "memory.limit" && limit > 0 && from != "this machine" {
				t.Errorf("limit %d: %+v", limit, p)
			}
		}
		if (sum <= m.Limit) != fits || m.From != from || !lowerable {
			t.Errorf("limit %d, %d connections: %d of %d (%s), want it to fit: %t", limit, connections, sum, m.Limit, m.From, fits)
		}
	}
	f(0, machine, 10_000, false, true, "this machine")
	f(0, machine, 10_000, true, false, "this machine")
	f(2<<30, machine, 5_000, false, true, "memory.limit")
	f(1<<40, machine, 10_000, false, true, "this machine")
	f(1<<40, machine, 50_000, false, false, "this machine")
	f(1<<30, machine, 1000, true, true, "memory.limit")
	f(512*mb, machine, 380, false, true, "memory.limit")
	f(256*mb, machine, 10_000, false, false, "memory.limit")
	one, cfg := sumOf(memoryOf(new(config.Config), memory.Bound{}, 0)), new(config.Config)
	cfg.Fill.Streams = 2
	if more := sumOf(memoryOf(cfg, memory.Bound{}, 0)) - one; more != (memory.Bound{}).Ranges() {
		t.Errorf("with streams: %d bytes more", more)
	}
	if m := memoryOf(new(config.Config), memory.Bound{}, 0); m.Limit != 0 {
		t.Errorf("without a known limit: %d", m.Limit)
	}
}

func sumOf(m doctor.Memory) (sum int64) {
	for _, p := range m.Parts {
		sum += p.Most
	}
	return sum
}
