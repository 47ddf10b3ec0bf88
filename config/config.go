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

// Config is one complete set of settings; its fields mirror the keys of the YAML file, and the tag
// help is the text of a key in the manual. A Config from Load has passed Validate and never changes:
// a reload makes a new one.
type Config struct {
	Listen    string     `yaml:"listen" help:"address of the client listener"`
	PublicURL URL        `yaml:"public_url" help:"base of the file URLs in DSAPI replies, and of node.sh; empty: as the client asked"`
	TLS       TLS        `yaml:"tls"`
	DataDir   string     `yaml:"data_dir" help:"the data folder: index, files, partial files, quarantine"`
	DistDir   string     `yaml:"dist_dir" help:"folder whose files nodes may fetch below /dist, the program for node.sh --prewarm; empty: none"`
	Log       Log        `yaml:"log"`
	Admin     Admin      `yaml:"admin"`
	Sources   []Source   `yaml:"sources" help:"image servers in order of priority: where several have an image, the manifest of the first is served. An empty list asks none. Each entry is a URL, or has the keys that follow"`
	Channels  []Channel  `yaml:"channels" help:"channels that the mirror offers; none: channels are off. Each entry is a name, or has the keys that follow"`
	Catalog   Catalog    `yaml:"catalog"`
	Offline   bool       `yaml:"offline" help:"true: no source is ever asked"`
	Cache     Cache      `yaml:"cache"`
	Fill      Fill       `yaml:"fill"`
	Clients   Clients    `yaml:"clients"`
	Page      Page       `yaml:"page"`
	Nodes     Nodes      `yaml:"nodes"`
	Writes    Writes     `yaml:"writes"`
	Memory    Memory     `yaml:"memory"`
	Verify    Verify     `yaml:"verify"`
	Bundle    Bundle     `yaml:"bundle"`
	Prefetch  []Prefetch `yaml:"prefetch" help:"what is fetched before a client asks. Each entry is a filter, or has the keys that follow"`
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
	CertFile string `yaml:"cert_file" help:"certificate chain of the client listener, PEM; with key_file, or neither"`
	KeyFile  string `yaml:"key_file" help:"private key of the certificate, PEM"`
}

// Log says how much is logged and in which form.
type Log struct {
	Level  string `yaml:"level" help:"debug, info, warn or error"`
	Format string `yaml:"format" help:"text, json or bunyan"`
	// Requests says which requests of clients have a line.
	Requests string `yaml:"requests" help:"requests with a line in the log: all, errors (statuses from 400 on, and replies that broke off) or off; at log.level warn and error there are none"`
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
	Listen    string `yaml:"listen" help:"address of the admin listener: metrics, health, API; empty: the socket in the data folder only"`
	TokenFile string `yaml:"token_file" help:"file of the API's token; empty: admin.token in the data folder, made at the first start"`
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
	Name         string        `yaml:"name" help:"unique; left out: the host and port of the url"`
	URL          URL           `yaml:"url" help:"address of the server, or of a folder on this machine"`
	Kind         string        `yaml:"kind" help:"auto, imgapi, dsapi, static or directory"`
	Channel      string        `yaml:"channel" help:"channel asked for; empty: the server's default, *: all"`
	Refresh      time.Duration `yaml:"refresh" help:"how often the list is fetched"`
	Include      []string      `yaml:"include" help:"filters: images that match all of them are taken"`
	Exclude      []string      `yaml:"exclude" help:"filters: images that match one of them are not"`
	Insecure     bool          `yaml:"insecure" help:"true: the server's certificate is not checked"`
	CAFile       string        `yaml:"ca_file" help:"certificates that are trusted beside the system's, PEM"`
	Username     string        `yaml:"username" help:"user for basic authentication"`
	PasswordFile string        `yaml:"password_file" help:"file with the password"`
	TokenFile    string        `yaml:"token_file" help:"file with a bearer token; not beside username"`
	Proxy        URL           `yaml:"proxy" help:"URL of a proxy; empty: HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the environment"`
	RateLimit    Size          `yaml:"rate_limit" help:"bytes per second for all files of this source, like 40MB; empty: no limit"`
	LookupRate   int           `yaml:"lookup_rate" help:"questions for single manifests that clients may cause, per second; waiting clients take turns by address; 0: no limit"`
	ServePrivate bool          `yaml:"serve_private" help:"true: its private images are served to everyone"`
	AsChannels   []string      `yaml:"as_channels" help:"channels of its images whose manifests name none, when channels are on"`
}

// Channel is one channel that the mirror offers.
type Channel struct {
	Name        string `yaml:"name" help:"what clients ask for"`
	Description string `yaml:"description" help:"what clients are shown"`
	Default     bool   `yaml:"default" help:"true: the channel of clients that name none"`
}

// Catalog says what the merged list shows.
type Catalog struct {
	Retired          string `yaml:"retired" help:"keep or hide: images that left their source but are cached"`
	HideBrokenChains bool   `yaml:"hide_broken_chains" help:"true: images whose origin is nowhere to be had are not listed"`
	Published        string `yaml:"published" help:"first or last: where the mirror's own images stand among the sources"`
}

// Cache limits what is kept on disk.
type Cache struct {
	MaxSize       Size     `yaml:"max_size" help:"limit of what is on disk, like 500GB; empty: all of the file system but min_free"`
	MinFree       Size     `yaml:"min_free" help:"bytes of the file system that no download may take"`
	FillSlots     int      `yaml:"fill_slots" help:"downloads at the same time, in even shares for the sources; others wait"`
	StreamOnMiss  bool     `yaml:"stream_on_miss" help:"false: a client waits until the whole file is verified"`
	OnUnreachable string   `yaml:"on_unreachable" help:"error: 503 for the file of an image whose sources are all down; notfound: 404 for manifest and file, and imgadm asks its next source"`
	Pins          []string `yaml:"pins" help:"filters: images that are never evicted"`
}

// Fill bounds one download.
type Fill struct {
	StallTimeout time.Duration `yaml:"stall_timeout" help:"how long a source may send nothing before the download goes on elsewhere"`
	MinRate      Size          `yaml:"min_rate" help:"bytes per second, over a minute, below which a source is left for a much faster one; 0: no limit"`
	Deadline     time.Duration `yaml:"deadline" help:"of one download, with all its tries"`
	Streams      int           `yaml:"streams" help:"ranges of one large file that each source is asked for at the same time; 1: one request for all of it"`
}

// Clients bounds what clients may take.
type Clients struct {
	StallTimeout   time.Duration `yaml:"stall_timeout" help:"how long a client may take nothing before it is cut off"`
	DrainTimeout   time.Duration `yaml:"drain_timeout" help:"how long open replies may go on when the mirror stops"`
	MaxConnections int           `yaml:"max_connections" help:"connections of clients at the same time; when all are taken, the one that has been idle longest is closed"`
	MaxPerAddress  int           `yaml:"max_per_address" help:"the same for one address; 0: no limit; imgadm needs 6 for an image with origins, so allow 6 for each node behind NAT"`
	Memory         Size          `yaml:"memory" help:"what replies under way may hold beside the lists themselves; a reply beyond it gets a 503"`
}

// Page is the web page of the mirror.
type Page struct {
	Public bool `yaml:"public" help:"true: the web page is at /ui/ of the client listener too, without actions, private images and addresses of nodes; false: at /ui/ of the admin listener only"`
}

// Nodes bounds the journal of the addresses that ask.
type Nodes struct {
	Keep time.Duration `yaml:"keep" help:"how long the journal of nodes knows an address that asks no more; 0: there is no journal"`
	Max  int           `yaml:"max" help:"addresses in the journal of nodes; the one that has not been seen for longest goes first; 0: there is no journal"`
}

// Memory bounds the process.
type Memory struct {
	Limit Size `yaml:"limit" help:"memory that the process may take, like 512MB; empty: that of the cgroup, if one is set"`
}

// Verify steers checks of what is on disk, and what may enter unchecked.
type Verify struct {
	ScrubEvery      time.Duration `yaml:"scrub_every" help:"how often every file on disk is hashed again; 0: never"`
	ScrubRate       Size          `yaml:"scrub_rate" help:"bytes per second that the scrub reads; empty: no limit"`
	AllowUnverified bool          `yaml:"allow_unverified" help:"true: a file that nothing can be checked against is accepted"`
}

// Bundle says which archives are trusted.
type Bundle struct {
	TrustedKeys      []string `yaml:"trusted_keys" help:"public keys, or files with one: a signed bundle is taken only if one of them has signed it"`
	RequireSignature bool     `yaml:"require_signature" help:"true: a bundle without a signature is refused"`
}

// Prefetch is one rule for images that are fetched before a client asks: images that match all
// filters, only the newest ones when Newest is above 0.
type Prefetch struct {
	Match  []string `yaml:"match" help:"filters: all must match"`
	Newest int      `yaml:"newest" help:"how many of the newest matching images; 0: all"`
}

// ZFSImport is the installation of images into the local pool. Enabled is for
// automatic installs only.
type ZFSImport struct {
	Enabled bool     `yaml:"enabled" help:"true: images are installed into the local pool without being asked for"`
	Pool    string   `yaml:"pool" help:"the pool"`
	Images  []string `yaml:"images" help:"UUIDs or filters of the images to install"`
	ZFSPath string   `yaml:"zfs_path" help:"the folder of zfs and zpool, or the zfs command; empty: PATH, then the usual folders"`
	DBDir   string   `yaml:"db_dir" help:"imgadm's folder"`
}

// S3 is the shared second tier; without an endpoint there is none.
type S3 struct {
	Endpoint      URL    `yaml:"endpoint" help:"URL of an S3 server that is the shared second tier; empty: none"`
	Bucket        string `yaml:"bucket" help:"its bucket"`
	Prefix        string `yaml:"prefix" help:"what object names begin with"`
	AccessKeyFile string `yaml:"access_key_file" help:"file with the access key"`
	SecretKeyFile string `yaml:"secret_key_file" help:"file with the secret key"`
	Region        string `yaml:"region" help:"its region"`
	PathStyle     bool   `yaml:"path_style" help:"true: the bucket is in the path of the URL and not in the host name"`
}

// Defaults is what runs when nothing is set. Its lists are the caller's own.
func Defaults() Config {
	return Config{
		Listen:  ":8080",
		DataDir: "./imgmirror-data",
		Log:     Log{Level: "info", Format: "text", Requests: "all"},
		Admin:   Admin{Listen: "127.0.0.1:8081"},
		Sources: []Source{{
			Name:       "smartos",
			URL:        "https://images.smartos.org",
			Kind:       defaultKind,
			Refresh:    defaultRefresh,
			LookupRate: defaultLookupRate,
		}},
		Catalog: Catalog{Retired: "keep", Published: "first"},
		Cache: Cache{
			MinFree:       10 * gigabyte,
			FillSlots:     8,
			StreamOnMiss:  true,
			OnUnreachable: "error",
		},
		Fill: Fill{StallTimeout: 20 * time.Second, MinRate: 10_000, Deadline: 24 * time.Hour, Streams: 1},
		Clients: Clients{
			StallTimeout:   60 * time.Second,
			DrainTimeout:   30 * time.Second,
			MaxConnections: 10000,
			MaxPerAddress:  256,
			Memory:         64 * megabyte,
		},
		Page:      Page{Public: true},
		Nodes:     Nodes{Keep: 30 * day, Max: 10000},
		Verify:    Verify{ScrubEvery: 7 * day, ScrubRate: 50 * megabyte},
		ZFSImport: ZFSImport{Pool: "zones", DBDir: "/var/imgadm"},
		S3:        S3{Prefix: "imgmirror/", PathStyle: true},
	}
}

// The values of a source whose entry names none.
const (
	defaultKind       = "auto"
	defaultRefresh    = 10 * time.Minute
	defaultLookupRate = 200
)
