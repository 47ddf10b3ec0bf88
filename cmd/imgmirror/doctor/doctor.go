// Package doctor checks a set-up as imgadm and a mirror would meet it: the sources, this machine,
// and what compute nodes will find. It asks, and changes nothing.
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"imgmirror/config"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/catalog"
	"imgmirror/zfsimport"
)

// States of a finding.
const (
	OK      = "ok"
	Warning = "warning"
	Failed  = "failed"
)

// limit is how long all checks may take.
const limit = 2 * time.Minute

// Options of Examine.
type Options struct {
	Config  *config.Config
	Sources []Source // those of Config
	ZFS     zfsimport.Options
	Memory  Memory
	Version string
	Running *Running // nil: no mirror runs with Config
}

// Source is a configured source and a client for the source, or what keeps a client from being
// made.
type Source struct {
	Client catalog.Source
	Err    error
}

// Running is what a running mirror knows of itself.
type Running struct {
	Addr     string // of the listener for clients
	Down     error  // why the data folder cannot be used; nil: it can
	Hampered error  // what part of the data folder cannot be used
}

// Examine checks everything, sources side by side, within two minutes.
func Examine(ctx context.Context, o Options) []admin.Finding {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	d := &doctor{cfg: o.Config, version: o.Version}
	if o.Running != nil {
		d.serving = o.Running.Addr
		d.folder(o.Running)
	}
	d.configuration()
	if !d.cfg.Offline {
		d.sources(ctx, o.Sources)
	}
	d.proxies()
	d.disk()
	d.fileLimit()
	d.memory(o.Memory)
	d.pool(ctx, o.ZFS)
	d.nodes(ctx)
	return d.findings
}

// doctor collects findings.
type doctor struct {
	cfg      *config.Config
	version  string
	serving  string // address of the running mirror's listener for clients; "": none runs
	around   surroundings
	findings []admin.Finding
}

func (d *doctor) ok(check, format string, args ...any)   { d.find(check, OK, format, args) }
func (d *doctor) warn(check, format string, args ...any) { d.find(check, Warning, format, args) }
func (d *doctor) fail(check, format string, args ...any) { d.find(check, Failed, format, args) }

func (d *doctor) find(check, state, format string, args []any) {
	d.findings = append(d.findings, admin.Finding{Check: check, State: state, Message: fmt.Sprintf(format, args...)})
}

// folder tells what is wrong with the data folder that is in use.
func (d *doctor) folder(r *Running) {
	const check = "data folder"
	if r.Down != nil {
		d.fail(check, "images cannot be served or stored: %v", r.Down)
	}
	if r.Hampered != nil {
		d.fail(check, "%v", r.Hampered)
	}
	if r.Down == nil && r.Hampered == nil {
		d.ok(check, "every folder can be read and written")
	}
}

// sources checks all sources side by side and tells of them in their order.
func (d *doctor) sources(ctx context.Context, all []Source) {
	each := make([]*doctor, len(all))
	var checks sync.WaitGroup
	for i, s := range all {
		each[i] = &doctor{version: d.version}
		checks.Go(func() { each[i].source(ctx, d.cfg.Sources[i], s) })
	}
	checks.Wait()
	for _, one := range each {
		d.findings = append(d.findings, one.findings...)
	}
}
