package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"imgmirror/cmd/imgmirror/doctor"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
	"imgmirror/proxy/admin"
)

// newAdmin makes the operator's side of the mirror and opens what it listens on:
// the admin listener, for those with the token, and the socket in the data
// folder, for those with its owner's rights. A verb's own mirror has neither.
func (p *process) newAdmin(cfg *config.Config) error {
	log := p.log.With("component", "admin")
	options := admin.Options{
		Mirror:   p.Mirror,
		Gatherer: p.Registry(),
		Ready:    p.server.Ready,
		Logger:   log,
		Config:   p.configJSON,
		Doctor:   p.diagnose,
	}
	if name, err := os.Hostname(); err == nil {
		options.Hosts = []string{name}
	}
	if cfg.Listen != "" {
		// The store's lock says that whoever listened on an old one is gone.
		socket, err := admin.ListenSocket(filepath.Join(cfg.DataDir, admin.SocketName))
		if err != nil {
			log.Warn("the verbs on this machine have to use --server", "error", err)
		} else {
			p.adminSocket = socket
		}
	}
	if cfg.Admin.Listen != "" {
		token, warnings, err := admin.ReadToken(cfg.AdminTokenFile())
		if err != nil {
			return &failure.Error{Code: failure.CodeConfig, Err: err}
		}
		for _, w := range warnings {
			log.Warn(w)
		}
		options.Token = token
		if p.adminLn, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
			return fmt.Errorf("admin.listen: %w", err)
		}
	}
	p.admin = admin.New(options)
	return nil
}

// configJSON is the configuration in force, as config show prints it, in JSON.
func (p *process) configJSON() (json.RawMessage, error) {
	text, err := p.cfg.Load().YAML()
	if err != nil {
		return nil, err
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return json.Marshal(settings)
}

// diagnose is doctor in the running mirror.
func (p *process) diagnose(ctx context.Context) []admin.Finding {
	running := &doctor.Running{}
	running.Down, running.Hampered = p.Look()
	if addr := p.server.Addr(); addr != nil {
		running.Addr = addr.String()
	}
	return diagnose(ctx, p.cfg.Load(), p.ID(), running)
}
