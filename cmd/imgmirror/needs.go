package main

import (
	"imgmirror/cache"
	"imgmirror/cmd/imgmirror/doctor"
	"imgmirror/cmd/imgmirror/memory"
	"imgmirror/config"
	"imgmirror/proxy"
	"imgmirror/proxy/nodes"
)

// What memory is multiplied by beside the bounds that it has.
const (
	listCopies = 2        // of lists: while one is read, and as it is served
	headCopies = 5        // of the heads of bundles: half for what is read, half for open imports
	processOwn = 64 << 20 // the index, 32 MiB at most, and the program; see docs/sizing.md
)

// needs is the most memory that a mirror of cfg takes, by use.
func needs(cfg *config.Config, bound memory.Bound) []doctor.MemoryPart {
	connection := int64(proxy.ConnectionMemory)
	if cfg.TLS.CertFile != "" {
		connection = proxy.ConnectionMemoryTLS
	}
	downloads := int64(cache.MaxFills(cfg.Cache.FillSlots, len(cfg.Sources)))
	parts := []doctor.MemoryPart{
		{Name: "lists", Most: listCopies * bound.Lists(), Key: "memory.limit"},
		{Name: "bundles on their way in", Most: headCopies * bound.Heads(), Key: "memory.limit"},
		{Name: "connections", Most: int64(cfg.Clients.MaxConnections) * connection, Key: "clients.max_connections"},
		{Name: "replies", Most: int64(cfg.Clients.Memory), Key: "clients.memory"},
		{Name: "downloads", Most: downloads * cache.FillMemory, Key: "cache.fill_slots"},
		{Name: "the journal of nodes", Most: int64(cfg.Nodes.Max) * nodes.NodeMemory, Key: "nodes.max"},
		{Name: "the process itself", Most: processOwn},
	}
	if cfg.Fill.Streams > 1 {
		parts = append(parts, doctor.MemoryPart{Name: "ranges of downloads", Most: bound.Ranges(), Key: "fill.streams"})
	}
	return parts
}

// memoryOf is what doctor judges: what cfg needs, and the least of the limits that hold.
func memoryOf(cfg *config.Config, bound memory.Bound, machine int64) doctor.Memory {
	m := doctor.Memory{Parts: needs(cfg, bound), Limit: bound.Bytes, From: bound.From}
	if machine > 0 && (m.Limit == 0 || machine < m.Limit) {
		m.Limit, m.From = machine, "this machine"
	}
	if bound.Bytes == 0 || m.From == "this machine" {
		return m
	}
	// Lists and bundles follow the limit: to lower the limit does not help.
	for i := range m.Parts {
		if m.Parts[i].Key == "memory.limit" {
			m.Parts[i].Key = ""
		}
	}
	return m
}
