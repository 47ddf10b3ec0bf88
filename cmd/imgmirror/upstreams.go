package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/upstream"
)

// sources makes a client for each configured source; the published images are
// one more, and so are the imported ones.
func (m *mirror) sources(cfg *config.Config, registry prometheus.Registerer) ([]catalog.SourceOptions, error) {
	names := make([]string, len(cfg.Sources))
	for i, s := range cfg.Sources {
		names[i] = s.Name
	}
	metrics := upstream.NewMetrics(registry, names)
	var all []catalog.SourceOptions
	var faults []error
	for _, s := range cfg.Sources {
		o, err := newSource(cfg, s, metrics, m.log, m.id)
		if err != nil {
			faults = append(faults, fmt.Errorf("source %s: %w", s.Name, err))
			continue
		}
		all = append(all, o)
	}
	if len(faults) > 0 {
		return nil, &failure.Error{Code: failure.CodeConfig, Err: errors.Join(faults...)}
	}
	own := catalog.SourceOptions{Source: m.own, Refresh: publishedRefresh, ServePrivate: true, AsChannels: ownChannels(cfg), Withdraws: true}
	// Who configures a source wants its word on an image; a bundle's is as old as it is.
	all = append(all, catalog.SourceOptions{Source: m.imported, Refresh: importedRefresh, ServePrivate: true, AsChannels: ownChannels(cfg), Withdraws: true})
	if cfg.Catalog.Published == "last" {
		return append(all, own), nil
	}
	return append([]catalog.SourceOptions{own}, all...), nil
}

// newSource makes a client for one configured source, for the mirror of that id; it asks nothing.
func newSource(cfg *config.Config, s config.Source, metrics *upstream.Metrics, log *slog.Logger, id string) (catalog.SourceOptions, error) {
	var o catalog.SourceOptions
	secret := func(file string) (string, error) {
		if file == "" {
			return "", nil
		}
		return config.ReadSecret(file)
	}
	password, err := secret(s.PasswordFile)
	if err != nil {
		return o, fmt.Errorf("password_file: %w", err)
	}
	token, err := secret(s.TokenFile)
	if err != nil {
		return o, fmt.Errorf("token_file: %w", err)
	}
	include, err := filters(s.Include)
	if err != nil {
		return o, fmt.Errorf("include: %w", err)
	}
	exclude, err := filters(s.Exclude)
	if err != nil {
		return o, fmt.Errorf("exclude: %w", err)
	}
	client, err := upstream.New(upstream.Options{
		Name:         s.Name,
		URL:          string(s.URL),
		Kind:         s.Kind,
		Channel:      s.Channel,
		Insecure:     s.Insecure,
		CAFile:       s.CAFile,
		Username:     s.Username,
		Password:     password,
		Token:        token,
		Proxy:        string(s.Proxy),
		RateLimit:    int64(s.RateLimit),
		StallTimeout: cfg.Fill.StallTimeout,
		ServePrivate: s.ServePrivate,
		ID:           id,
		UserAgent:    "imgmirror/" + version,
		Metrics:      metrics,
		Logger:       log,
	})
	if err != nil {
		return o, err
	}
	return catalog.SourceOptions{
		Source:       client,
		URL:          s.URL.String(),
		Refresh:      s.Refresh,
		Include:      include,
		Exclude:      exclude,
		ServePrivate: s.ServePrivate,
		Channel:      client.Channel(),
		AsChannels:   s.AsChannels,
	}, nil
}

// ownChannels are those of published and imported images whose manifests name none: the
// default channel, or where there is no default, all.
func ownChannels(cfg *config.Config) []string {
	var all []string
	for _, c := range cfg.Channels {
		if c.Default {
			return []string{c.Name}
		}
		all = append(all, c.Name)
	}
	return all
}

// channels are the configured ones as the catalogue takes them.
func channels(cfg *config.Config) []catalog.Channel {
	var all []catalog.Channel
	for _, c := range cfg.Channels {
		all = append(all, catalog.Channel{Name: c.Name, Description: c.Description, Default: c.Default})
	}
	return all
}

func filters(texts []string) ([]manifest.Filter, error) {
	var all []manifest.Filter
	for _, t := range texts {
		f, err := manifest.ParseFilter(t)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}
