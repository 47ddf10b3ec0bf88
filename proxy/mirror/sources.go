package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/upstream"
)

// ownRefresh is how often the catalogue asks for the mirror's own images of its own accord: the
// catalogue is told when they change.
const ownRefresh = 24 * time.Hour

// Sources is what the catalogue is made of. Replace changes it while the mirror runs.
type Sources struct {
	List    []Source // in order of priority; names are unique
	Offline bool     // no source is asked: the saved lists are all there is
	// Channels of the catalogue; none: channels are off.
	Channels []catalog.Channel
	// PublishedLast: published images stand behind those of List, not before them.
	PublishedLast    bool
	HideBrokenChains bool // an image with an ancestor that no source has is not listed
	HideRetired      bool // an image that only the cache has is not listed
	// ListMemory bounds the memory for the lists of all sources, in bytes; 0 = upstream's default.
	ListMemory int64
}

// Source is one image server, with how the catalogue treats its images.
type Source struct {
	// Server says how the server is reached. ID, UserAgent, Metrics, Lists and Logger are set by the
	// mirror.
	Server     upstream.Options
	URL        string            // of the server, as the status shows it: without a password
	Refresh    time.Duration     // between lists; 0 = 10m
	Include    []manifest.Filter // see catalog.SourceOptions
	Exclude    []manifest.Filter
	AsChannels []string
	LookupRate int
}

func (s Sources) names() []string {
	names := make([]string, len(s.List))
	for i, source := range s.List {
		names[i] = source.Server.Name
	}
	return names
}

// ownChannels are those of published and imported images whose manifests name none: the default
// channel, or where there is no default, all.
func (s Sources) ownChannels() []string {
	var all []string
	for _, c := range s.Channels {
		if c.Default {
			return []string{c.Name}
		}
		all = append(all, c.Name)
	}
	return all
}

// Client makes a client for the server of s, on behalf of the mirror of that id and version; it asks
// nothing. metrics and log may be nil.
func (s Source) Client(id, version string, metrics *upstream.Metrics, log *slog.Logger) (*upstream.Client, error) {
	o := s.Server
	o.ID, o.UserAgent, o.Metrics, o.Logger = id, "imgmirror/"+version, metrics, log
	return upstream.New(o)
}

// newGeneration makes a catalogue over the sources, with metrics of its own, from what the store has
// saved of them.
func (m *Mirror) newGeneration(s Sources) (*generation, error) {
	g := &generation{registry: prometheus.NewRegistry()}
	own := func(source catalog.Source) catalog.SourceOptions {
		return catalog.SourceOptions{Source: source, Refresh: ownRefresh, ServePrivate: true, AsChannels: s.ownChannels(), Withdraws: true}
	}
	var all []catalog.SourceOptions
	if !s.PublishedLast {
		all = append(all, own(m.published))
	}
	metrics := upstream.NewMetrics(g.registry, s.names())
	memory := cmp.Or(s.ListMemory, upstream.DefaultListMemory)
	lists := upstream.NewListMemory(memory, len(s.List))
	promauto.With(g.registry).NewGauge(prometheus.GaugeOpts{
		Name: "imgmirror_upstream_list_limit_bytes", Help: "Memory for the lists of all sources.",
	}).Set(float64(memory))
	var faults []error
	for _, source := range s.List {
		source.Server.Lists = lists
		client, err := source.Client(m.id, m.version, metrics, m.log)
		if err != nil {
			faults = append(faults, fmt.Errorf("source %s: %w", source.Server.Name, err))
			continue
		}
		all = append(all, catalog.SourceOptions{
			Source:       client,
			URL:          source.URL,
			Refresh:      source.Refresh,
			Include:      source.Include,
			Exclude:      source.Exclude,
			ServePrivate: source.Server.ServePrivate,
			Channel:      client.Channel(),
			AsChannels:   source.AsChannels,
			LookupRate:   source.LookupRate,
		})
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	// Configured sources come before imported images: the manifest in a bundle may be old.
	all = append(all, own(m.imported))
	if s.PublishedLast {
		all = append(all, own(m.published))
	}
	var err error
	g.Catalog, err = catalog.New(catalog.Options{
		Sources:          all,
		Index:            m.store.Lists(),
		Offline:          s.Offline,
		Channels:         s.Channels,
		HideBrokenChains: s.HideBrokenChains,
		Cached:           m.cached,
		Stored:           m.stored,
		HideRetired:      s.HideRetired,
		OnChange:         func(*catalog.List) { m.wakeLoops() },
		Logger:           m.log.With("component", "catalog"),
		Registerer:       g.registry,
	})
	return g, err
}
