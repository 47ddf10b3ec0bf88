package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/memory"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/nodes"
	"imgmirror/proxy/upstream"
	"imgmirror/zfsimport"
)

// serveFlags maps the flags of serve to their configuration keys.
var serveFlags = map[string]string{
	"listen":       "listen",
	"admin-listen": "admin.listen",
	"source":       "sources",
	"data-dir":     "data_dir",
}

func addServeFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.String("listen", "", "`ADDRESS` of the client listener (default :8080)")
	flags.String("admin-listen", "", "`ADDRESS` of the admin listener (default 127.0.0.1:8081)")
	flags.StringArray("source", nil, "`URL` of an image server; repeat it for several; replaces the configured list")
}

// loadConfig reads file, environment and the flags that cmd was given.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	set := map[string]any{}
	for name, key := range serveFlags {
		f := cmd.Flags().Lookup(name)
		if f == nil || !f.Changed {
			continue
		}
		if name == "source" {
			urls, err := cmd.Flags().GetStringArray(name)
			if err != nil {
				return nil, err
			}
			set[key] = urls
			continue
		}
		set[key] = f.Value.String()
	}
	cfg, err := config.Load(config.LoadOptions{File: file, Environ: os.Environ(), Flags: set})
	if err == nil {
		err = checkFilters(cfg)
	}
	if err != nil {
		return nil, &failure.Error{Code: failure.CodeConfig, Err: err}
	}
	for _, key := range withoutEffect(cfg) {
		cfg.Warnings = append(cfg.Warnings, key+": this version has no such feature yet: the key has no effect")
	}
	return cfg, nil
}

// options are the configuration in the terms of package mirror. Files that the configuration names
// are read: secrets and public keys.
func options(cfg *config.Config) (o mirror.Options, err error) {
	o = mirror.Options{
		Cache: cache.Options{
			Dir:             cfg.DataDir,
			StallTimeout:    cfg.Fill.StallTimeout,
			MinRate:         int64(cfg.Fill.MinRate),
			Streams:         cfg.Fill.Streams,
			RangeMemory:     memory.Find(int64(cfg.Memory.Limit)).Ranges(),
			Deadline:        cfg.Fill.Deadline,
			AllowUnverified: cfg.Verify.AllowUnverified,
			NoSweep:         cfg.Listen == "", // a verb's own mirror removes what it is told to
			ScrubEvery:      cfg.Verify.ScrubEvery,
			ScrubRate:       int64(cfg.Verify.ScrubRate),
		},
		ZFS:       zfsOptions(cfg),
		PublicURL: recordedURL(string(cfg.PublicURL)),
		Version:   version,

		ImportMemory: memory.Find(int64(cfg.Memory.Limit)).Heads(),
	}
	var faults [3]error
	o.Sources, faults[0] = sources(cfg)
	o.Rules, faults[1] = rules(cfg)
	o.Signatures, faults[2] = signatures(cfg)
	if err := errors.Join(faults[:]...); err != nil {
		return o, &failure.Error{Code: failure.CodeConfig, Err: err}
	}
	return o, nil
}

// rules are the limits and the standing wishes of cfg.
func rules(cfg *config.Config) (mirror.Rules, error) {
	r := mirror.Rules{
		MaxSize: int64(cfg.Cache.MaxSize), MinFree: int64(cfg.Cache.MinFree), FillSlots: cfg.Cache.FillSlots,
		Installing: cfg.ZFSImport.Enabled,
		Nodes:      nodes.Limits{Keep: cfg.Nodes.Keep, Max: cfg.Nodes.Max},
	}
	var faults []error
	read := func(key string, texts []string) []manifest.Filter {
		filters, err := manifest.ParseFilters(texts)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
		return filters
	}
	r.Pins = read("cache.pins", cfg.Cache.Pins)
	for i, p := range cfg.Prefetch {
		r.Prefetch = append(r.Prefetch, mirror.Wanted{Filters: read(fmt.Sprintf("prefetch[%d].match", i), p.Match), Newest: p.Newest})
	}
	for i, text := range cfg.ZFSImport.Images {
		if id, ok := manifest.ParseUUID(strings.ToLower(text)); ok {
			r.Install = append(r.Install, mirror.Wanted{UUIDs: []uuid.UUID{id}})
			continue
		}
		r.Install = append(r.Install, mirror.Wanted{Filters: read(fmt.Sprintf("zfsimport.images[%d]", i), []string{text})})
	}
	return r, errors.Join(faults...)
}

// sources are what cfg makes the catalogue of.
func sources(cfg *config.Config) (mirror.Sources, error) {
	all := mirror.Sources{
		Offline:          cfg.Offline,
		PublishedLast:    cfg.Catalog.Published == "last",
		HideBrokenChains: cfg.Catalog.HideBrokenChains,
		HideRetired:      cfg.Catalog.Retired == "hide",
		ListMemory:       memory.Find(int64(cfg.Memory.Limit)).Lists(),
	}
	for _, c := range cfg.Channels {
		all.Channels = append(all.Channels, catalog.Channel{Name: c.Name, Description: c.Description, Default: c.Default})
	}
	var faults []error
	for _, s := range cfg.Sources {
		source, err := newSource(cfg, s)
		if err != nil {
			faults = append(faults, fmt.Errorf("source %s: %w", s.Name, err))
			continue
		}
		all.List = append(all.List, source)
	}
	return all, errors.Join(faults...)
}

// newSource is one configured source with its secrets.
func newSource(cfg *config.Config, s config.Source) (mirror.Source, error) {
	var faults []error
	secret := func(key, file string) string {
		if file == "" {
			return ""
		}
		text, err := config.ReadSecret(file)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
		return text
	}
	include, exclude, err := sourceFilters(s)
	if err != nil {
		faults = append(faults, err)
	}
	source := mirror.Source{
		Server: upstream.Options{
			Name:         s.Name,
			URL:          string(s.URL),
			Kind:         s.Kind,
			Channel:      s.Channel,
			Insecure:     s.Insecure,
			CAFile:       s.CAFile,
			Username:     s.Username,
			Password:     secret("password_file", s.PasswordFile),
			Token:        secret("token_file", s.TokenFile),
			Proxy:        string(s.Proxy),
			RateLimit:    int64(s.RateLimit),
			StallTimeout: cfg.Fill.StallTimeout,
			Streams:      cfg.Fill.Streams,
			ServePrivate: s.ServePrivate,
		},
		URL:        s.URL.String(),
		Refresh:    s.Refresh,
		Include:    include,
		Exclude:    exclude,
		AsChannels: s.AsChannels,
		LookupRate: s.LookupRate,
	}
	return source, errors.Join(faults...)
}

// sourceFilters reads the filters of a source.
func sourceFilters(s config.Source) (include, exclude []manifest.Filter, err error) {
	if include, err = manifest.ParseFilters(s.Include); err != nil {
		return nil, nil, fmt.Errorf("include: %w", err)
	}
	if exclude, err = manifest.ParseFilters(s.Exclude); err != nil {
		return nil, nil, fmt.Errorf("exclude: %w", err)
	}
	return include, exclude, nil
}

// checkFilters finds filters whose fields no image has: config knows their shape only.
func checkFilters(cfg *config.Config) error {
	_, err := rules(cfg)
	for i, s := range cfg.Sources {
		if _, _, fault := sourceFilters(s); fault != nil {
			err = errors.Join(err, fmt.Errorf("sources[%d].%w", i, fault))
		}
	}
	return err
}

// zfsOptions are where pools and imgadm's records are. An Importer of no more can tell what is there.
func zfsOptions(cfg *config.Config) zfsimport.Options {
	z := cfg.ZFSImport
	return zfsimport.Options{Pool: z.Pool, ZFSPath: z.ZFSPath, DBDir: z.DBDir, Logger: slog.New(slog.DiscardHandler)}
}

// recordedURL is the URL of a mirror as imgadm's records, which anyone may read, name the mirror: as
// imgadm writes a URL, and without a password.
func recordedURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	u.User = nil
	return strings.TrimSuffix(u.String(), "/")
}

// signatures are the rules for bundles. A key of bundle.trusted_keys is the text of a public key, or
// the name of its file.
func signatures(cfg *config.Config) (bundle.Policy, error) {
	p := bundle.Policy{Required: cfg.Bundle.RequireSignature}
	for i, text := range cfg.Bundle.TrustedKeys {
		keys, err := readTrusted(text)
		if err != nil {
			return p, fmt.Errorf("bundle.trusted_keys[%d]: %w", i, err)
		}
		p.Keys = append(p.Keys, keys...)
	}
	return p, nil
}

// readTrusted reads a public key, or a file with one.
func readTrusted(text string) (bundle.Trusted, error) {
	keys, err := bundle.ParseTrusted([]string{text})
	if err == nil || !strings.ContainsRune(text, os.PathSeparator) && filepath.Ext(text) != ".pub" {
		return keys, err
	}
	data, fileErr := os.ReadFile(text)
	if fileErr != nil {
		return nil, errors.Join(fmt.Errorf("not a public key: %w", err), fileErr)
	}
	if keys, err = bundle.ParseTrusted([]string{string(data)}); err != nil {
		return nil, fmt.Errorf("%s: %w", text, err)
	}
	return keys, nil
}

// warn logs what is odd about a configuration.
func warn(log *slog.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings {
		log.Warn("configuration: " + w)
	}
}

// withoutEffect lists the keys that are set to more than their default and
// that nothing in this version reads.
func withoutEffect(cfg *config.Config) []string {
	later := map[string]bool{
		"s3.endpoint": true, "s3.bucket": true, "s3.prefix": true, "s3.access_key_file": true,
		"s3.secret_key_file": true, "s3.region": true, "s3.path_style": true,
	}
	var keys []string
	for _, key := range config.Changed(config.Defaults(), *cfg) {
		if later[key] {
			keys = append(keys, key)
		}
	}
	return keys
}
