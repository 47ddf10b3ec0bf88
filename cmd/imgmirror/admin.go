package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/imported"
	"imgmirror/proxy/published"
	"imgmirror/proxy/upstream"
)

// newAdmin makes the operator's side of the mirror and opens what it listens on:
// the admin listener, for those with the token, and the socket in the data
// folder, for those with its owner's rights. A verb's own mirror has neither.
func (m *mirror) newAdmin(cfg *config.Config) error {
	log := m.log.With("component", "admin")
	options := admin.Options{
		Gatherer:  m.registry,
		Ready:     m.server.Ready,
		Logger:    log,
		Catalog:   m.catalog,
		Store:     m.store,
		Blob:      proxy.BlobOf,
		Check:     m.checkSource,
		Publisher: m.own,
		Importer:  m.imported,
		Installer: installer{m.importer, log},
		Config:    m.configJSON,
		Doctor:    m.diagnose,
	}
	var err error
	if options.Trust, err = trust(cfg); err != nil {
		return err
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
			m.adminSocket = socket
		}
	}
	if cfg.Admin.Listen != "" {
		token, warnings, err := admin.ReadToken(cfg.AdminTokenFile())
		if err != nil {
			return &verbError{code: codeConfig, err: err}
		}
		for _, w := range warnings {
			log.Warn(w)
		}
		options.Token = token
		if m.adminLn, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
			return fmt.Errorf("admin.listen: %w", err)
		}
	}
	m.admin = admin.New(options)
	return nil
}

// checkSource asks one source for its list, as its refresh does, and takes
// nothing from the answer.
func (m *mirror) checkSource(ctx context.Context, name string) error {
	cfg := m.cfg.Load()
	if name == published.Name || name == imported.Name {
		return nil // it is in this process
	}
	if cfg.Offline {
		return errors.New("the mirror is offline: it asks no source")
	}
	for _, s := range cfg.Sources {
		if s.Name != name {
			continue
		}
		o, err := newSource(cfg, s, nil, m.log)
		if err != nil {
			return err
		}
		if c, ok := o.Source.(io.Closer); ok { // its connections are its own
			defer c.Close()
		}
		before, err := m.store.Listing(name)
		if err != nil {
			before = manifest.Listing{Source: name}
		}
		if _, err = o.Source.List(ctx, before); errors.Is(err, upstream.ErrNotModified) {
			err = nil
		}
		return err
	}
	return fmt.Errorf("source %s is not configured any more", name)
}

// configJSON is the configuration in force, as config show prints it, in JSON.
func (m *mirror) configJSON() (json.RawMessage, error) {
	text, err := m.cfg.Load().YAML()
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
func (m *mirror) diagnose(ctx context.Context) []admin.Finding {
	serving := ""
	if addr := m.server.Addr(); addr != nil {
		serving = addr.String()
	}
	return diagnose(ctx, m.cfg.Load(), serving)
}
