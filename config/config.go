// Package config owns the settings of a mirror: names, defaults, rules, and the order in which a
// file, the environment and the command line override one another. The package reads and acts on
// nothing. The users of a value find out whether a certificate loads, a folder can be written or a
// filter names a known field.
package config

import (
	"log/slog"
	"path/filepath"
	"time"
)

// DefaultFile is read when no file is named and DefaultFile exists.
const DefaultFile = "/etc/imgmirror/imgmirror.yaml"

// Config is one complete set of settings; its fields mirror the keys of the YAML file. A Config
// from Load has passed Validate and never changes: a reload makes a new one.
type Config struct {
	Listen    string     `yaml:"listen"`     // address of the client listener
	PublicURL URL        `yaml:"public_url"` // base of the file URLs in DSAPI replies; "" = taken from each request
	TLS       TLS        `yaml:"tls"`
	DataDir   string     `yaml:"data_dir"`
	Log       Log        `yaml:"log"`
	Admin     Admin      `yaml:"admin"`
	Sources   []Source   `yaml:"sources"`  // in order of priority; may be empty
	Channels  []Channel  `yaml:"channels"` // empty: channels are off
	Catalog   Catalog    `yaml:"catalog"`
	Offline   bool       `yaml:"offline"` // never ask a source
	Cache     Cache      `yaml:"cache"`
	Fill      Fill       `yaml:"fill"`
	Clients   Clients    `yaml:"clients"`
	Verify    Verify     `yaml:"verify"`
	Bundle    Bundle     `yaml:"bundle"`
	Prefetch  []Prefetch `yaml:"prefetch"`
	ZFSImport ZFSImport  `yaml:"zfsimport"`
	S3        S3         `yaml:"s3"`

	// File is the file that was read, "" when none was.
	File string `yaml:"-"`
	// Warnings are what Load found odd but not wrong, one sentence each.
	Warnings []string `yaml:"-"`

	places places
}

// TLS names the certificate of the client listener: both files or none.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// Log says how much is logged and in which form.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json, bunyan
}

// SlogLevel is Level as slog has it.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return slog.LevelInfo // ruled out by Validate
	}
	return level
}

// Admin is the listener for metrics, health and actions.
type Admin struct {
	Listen    string `yaml:"listen"`     // "" = the socket in the data folder only
	TokenFile string `yaml:"token_file"` // "" = admin.token in the data folder; see Config.AdminTokenFile
}

// AdminTokenFile is where the admin token is kept.
func (c Config) AdminTokenFile() string {
	if c.Admin.TokenFile != "" {
		return c.Admin.TokenFile
	}
	return filepath.Join(c.DataDir, "admin.token")
}

// Source is one image server, or a folder of images on this machine.
type Source struct {
	Name         string        `yaml:"name"` // unique; Load fills it in from the URL
	URL          URL           `yaml:"url"`  // kind directory: a path or a file:// URL
	Kind         string        `yaml:"kind"` // auto, imgapi, dsapi, static, directory
	Channel      string        `yaml:"channel"`
	Refresh      time.Duration `yaml:"refresh"`
	Include      []string      `yaml:"include"` // filters: FIELD=VALUE, FIELD=~SUBSTRING, FIELD!=VALUE
	Exclude      []string      `yaml:"exclude"`
	Insecure     bool          `yaml:"insecure"` // do not check the source's certificate
	CAFile       string        `yaml:"ca_file"`
	Username     string        `yaml:"username"`
	PasswordFile string        `yaml:"password_file"`
	TokenFile    string        `yaml:"token_file"`
	Proxy        URL           `yaml:"proxy"`      // "" = HTTP(S)_PROXY and NO_PROXY of the environment
	RateLimit    Size          `yaml:"rate_limit"` // bytes per second; 0 = no limit
	ServePrivate bool          `yaml:"serve_private"`
	AsChannels   []string      `yaml:"as_channels"` // channels of images whose manifests name none, when channels are on
}

// Channel is one channel that the mirror offers.
type Channel struct {
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	Default     bool   `yaml:"default"`
}

// Catalog says what the merged list shows.
type Catalog struct {
	Retired          string `yaml:"retired"` // keep, hide: cached images that left their source
	HideBrokenChains bool   `yaml:"hide_broken_chains"`
	Published        string `yaml:"published"` // first, last: where the mirror's own images stand among the sources
}

// Cache limits what is kept on disk.
type Cache struct {
	MaxSize       Size     `yaml:"max_size"` // 0 = all of the file system but MinFree
	MinFree       Size     `yaml:"min_free"`
	FillSlots     int      `yaml:"fill_slots"` // downloads at the same time
	StreamOnMiss  bool     `yaml:"stream_on_miss"`
	OnUnreachable string   `yaml:"on_unreachable"` // error (503), notfound (404)
	Pins          []string `yaml:"pins"`           // filters: never evicted
}

// Fill bounds one download.
type Fill struct {
	StallTimeout time.Duration `yaml:"stall_timeout"` // without a byte from the source
	Deadline     time.Duration `yaml:"deadline"`      // of all tries together
	Streams      int           `yaml:"streams"`       // ranges of one file at once
}

// Clients bounds what clients may take.
type Clients struct {
	StallTimeout   time.Duration `yaml:"stall_timeout"` // without a byte taken by the client
	DrainTimeout   time.Duration `yaml:"drain_timeout"` // for open replies when the mirror stops
	MaxConnections int           `yaml:"max_connections"`
	MaxPerAddress  int           `yaml:"max_per_address"` // 0 = no limit
}

// Verify steers checks of what is on disk, and what may enter unchecked.
type Verify struct {
	ScrubEvery      time.Duration `yaml:"scrub_every"` // 0 = never
	ScrubRate       Size          `yaml:"scrub_rate"`  // bytes per second; 0 = no limit
	AllowUnverified bool          `yaml:"allow_unverified"`
}

// Bundle says which archives are trusted.
type Bundle struct {
	TrustedKeys      []string `yaml:"trusted_keys"`
	RequireSignature bool     `yaml:"require_signature"`
}

// Prefetch is one rule for images that are fetched before a client asks: images that match all
// filters, only the newest ones when Newest is above 0.
type Prefetch struct {
	Match  []string `yaml:"match"`
	Newest int      `yaml:"newest"`
}

// ZFSImport is the installation of images into the local pool. Enabled is for
// automatic installs only.
type ZFSImport struct {
	Enabled bool     `yaml:"enabled"`
	Pool    string   `yaml:"pool"`
	Images  []string `yaml:"images"`   // UUIDs or filters
	ZFSPath string   `yaml:"zfs_path"` // "" = found in PATH
	DBDir   string   `yaml:"db_dir"`
}

// S3 is the shared second tier; without an endpoint there is none.
type S3 struct {
	Endpoint      URL    `yaml:"endpoint"`
	Bucket        string `yaml:"bucket"`
	Prefix        string `yaml:"prefix"`
	AccessKeyFile string `yaml:"access_key_file"`
	SecretKeyFile string `yaml:"secret_key_file"`
	Region        string `yaml:"region"`
	PathStyle     bool   `yaml:"path_style"`
}

// Defaults is what runs when nothing is set. Its lists are the caller's own.
func Defaults() Config {
	return Config{
		Listen:  ":8080",
		DataDir: "./imgmirror-data",
		Log:     Log{Level: "info", Format: "text"},
		Admin:   Admin{Listen: "127.0.0.1:8081"},
		Sources: []Source{{
			Name:    "smartos",
			URL:     "https://images.smartos.org",
			Kind:    defaultKind,
			Refresh: defaultRefresh,
		}},
		Catalog: Catalog{Retired: "keep", Published: "first"},
		Cache: Cache{
			MinFree:       10 * gigabyte,
			FillSlots:     8,
			StreamOnMiss:  true,
			OnUnreachable: "error",
		},
		Fill: Fill{StallTimeout: 20 * time.Second, Deadline: 24 * time.Hour, Streams: 1},
		Clients: Clients{
			StallTimeout:   60 * time.Second,
			DrainTimeout:   30 * time.Second,
			MaxConnections: 10000,
		},
		Verify:    Verify{ScrubEvery: 168 * time.Hour, ScrubRate: 50 * megabyte},
		ZFSImport: ZFSImport{Pool: "zones", DBDir: "/var/imgadm"},
		S3:        S3{Prefix: "imgmirror/", PathStyle: true},
	}
}

// The values of a source whose entry names none.
const (
	defaultKind    = "auto"
	defaultRefresh = 10 * time.Minute
)
