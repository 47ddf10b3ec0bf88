package man

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"imgmirror/config"
)

// keyHelp is the text on each key of the configuration, and on each key of an entry of sources, channels and prefetch.
var keyHelp = map[string]string{
	"listen":     "address of the client listener",
	"public_url": "base of the file URLs in DSAPI replies; empty: as the client asked",
	"data_dir":   "the data folder: index, files, partial files, quarantine",
	"offline":    "true: no source is ever asked",

	"tls.cert_file": "certificate chain of the client listener, PEM; with key_file, or neither",
	"tls.key_file":  "private key of the certificate, PEM",

	"log.level":  "debug, info, warn or error",
	"log.format": "text, json or bunyan",

	"admin.listen":     "address of the admin listener: metrics, health, API; empty: the socket in the data folder only",
	"admin.token_file": "file of the API's token; empty: admin.token in the data folder, made at the first start",

	"sources":                 "image servers in order of priority: where several have an image, the manifest of the first is served. An empty list asks none. Each entry is a URL, or has the keys that follow",
	"sources[].name":          "unique; left out: the host and port of the url",
	"sources[].url":           "address of the server, or of a folder on this machine",
	"sources[].kind":          "auto, imgapi, dsapi, static or directory",
	"sources[].channel":       "channel asked for; empty: the server's default, *: all",
	"sources[].refresh":       "how often the list is fetched",
	"sources[].include":       "filters: images that match all of them are taken",
	"sources[].exclude":       "filters: images that match one of them are not",
	"sources[].insecure":      "true: the server's certificate is not checked",
	"sources[].ca_file":       "certificates that are trusted beside the system's, PEM",
	"sources[].username":      "user for basic authentication",
	"sources[].password_file": "file with the password",
	"sources[].token_file":    "file with a bearer token; not beside username",
	"sources[].proxy":         "URL of a proxy; empty: HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the environment",
	"sources[].rate_limit":    "bytes per second for all files of this source, like 40MB; empty: no limit",
	"sources[].serve_private": "true: its private images are served to everyone",
	"sources[].as_channels":   "channels of its images whose manifests name none, when channels are on",

	"channels":               "channels that the mirror offers; none: channels are off. Each entry is a name, or has the keys that follow",
	"channels[].name":        "what clients ask for",
	"channels[].description": "what clients are shown",
	"channels[].default":     "true: the channel of clients that name none",

	"catalog.retired":            "keep or hide: images that left their source but are cached",
	"catalog.hide_broken_chains": "true: images whose origin is nowhere to be had are not listed",
	"catalog.published":          "first or last: where the mirror's own images stand among the sources",

	"cache.max_size":       "limit of what is on disk, like 500GB; empty: all of the file system but min_free",
	"cache.min_free":       "bytes of the file system that no download may take",
	"cache.fill_slots":     "downloads at the same time; others wait",
	"cache.stream_on_miss": "false: a client waits until the whole file is verified",
	"cache.on_unreachable": "error: 503 for the file of an image whose sources are all down; notfound: 404 for manifest and file, and imgadm asks its next source",
	"cache.pins":           "filters: images that are never evicted",

	"fill.stall_timeout": "how long a source may send nothing before the download goes on elsewhere",
	"fill.deadline":      "of one download, with all its tries",
	"fill.streams":       "ranges of one file that are fetched at once",

	"clients.stall_timeout":   "how long a client may take nothing before it is cut off",
	"clients.drain_timeout":   "how long open replies may go on when the mirror stops",
	"clients.max_connections": "connections of clients at the same time",
	"clients.max_per_address": "connections from one address; 0: no limit; imgadm needs 6 for an image with origins",

	"verify.scrub_every":      "how often every file on disk is hashed again; 0: never",
	"verify.scrub_rate":       "bytes per second that the scrub reads; empty: no limit",
	"verify.allow_unverified": "true: a file that nothing can be checked against is accepted",

	"bundle.trusted_keys":      "public keys, or files with one: a signed bundle is taken only if one of them has signed it",
	"bundle.require_signature": "true: a bundle without a signature is refused",

	"prefetch":          "what is fetched before a client asks. Each entry is a filter, or has the keys that follow",
	"prefetch[].match":  "filters: all must match",
	"prefetch[].newest": "how many of the newest matching images; 0: all",

	"zfsimport.enabled":  "true: images are installed into the local pool without being asked for",
	"zfsimport.pool":     "the pool",
	"zfsimport.images":   "UUIDs or filters of the images to install",
	"zfsimport.zfs_path": "the folder of zfs and zpool, or the zfs command; empty: PATH, then the usual folders",
	"zfsimport.db_dir":   "imgadm's folder",

	"s3.endpoint":        "URL of an S3 server that is the shared second tier; empty: none",
	"s3.bucket":          "its bucket",
	"s3.prefix":          "what object names begin with",
	"s3.access_key_file": "file with the access key",
	"s3.secret_key_file": "file with the secret key",
	"s3.region":          "its region",
	"s3.path_style":      "true: the bucket is in the path of the URL and not in the host name",
}

// entryTypes are the lists of the configuration whose entries have keys.
var entryTypes = map[string]reflect.Type{
	"sources":  reflect.TypeFor[config.Source](),
	"channels": reflect.TypeFor[config.Channel](),
	"prefetch": reflect.TypeFor[config.Prefetch](),
}

// configPage is imgmirror.yaml(5) in the form that cobra's writer takes.
func configPage() (*cobra.Command, error) {
	defaults := config.Defaults()
	text, err := defaults.YAML()
	if err != nil {
		return nil, err
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("The file is YAML, at " + config.DefaultFile + ` or where --config says. Keys that are left out keep their
defaults; unknown ones are errors. Sizes are written like 500GB or 64MiB, durations like 20s, 10m or 24h.
"imgmirror config check" tells everything that is wrong at once, "imgmirror config show" prints what is in effect.

Each key may also come from the environment, under the name given with it; lists as JSON or with commas between
their values. An empty variable counts as not set, two quotes ("") set the empty text. Options on the command
line win over the environment, the environment over the file.

A filter is FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE, with the fields uuid, name, version, os, type, state,
owner, public, origin, published_at, description and tag.KEY. Secrets are named by file and never printed.

# KEYS
`)
	item := func(key, help string) { fmt.Fprintf(&b, "**%s**\n: %s\n\n", key, strings.ReplaceAll(help, "*", `\*`)) }
	for _, key := range config.Keys() {
		help := keyHelp[key]
		if help == "" {
			return nil, fmt.Errorf("no text for the key %s", key)
		}
		entry := entryTypes[key]
		if entry == nil {
			help += ". Default: " + defaultText(values, key) + "."
		}
		item(key, help+" ("+config.EnvName(key)+")")
		if entry != nil {
			for i := range entry.NumField() {
				name := key + "[]." + entry.Field(i).Tag.Get("yaml")
				item(name, keyHelp[name])
			}
		}
	}
	b.WriteString("# DEFAULTS\nWhat runs without any file:\n\n```\n" + string(text) + "```\n\n# SEE ALSO\n**imgmirror(8)**\n")
	page := &cobra.Command{Use: "imgmirror.yaml", Short: "Configuration of imgmirror", Long: b.String(), DisableAutoGenTag: true}
	page.Flags().Bool("help", false, "") // in the place of cobra's own: a file has no options
	return page, page.Flags().MarkHidden("help")
}

// defaultText is the value of key, "section.name", in values.
func defaultText(values map[string]any, key string) string {
	section, name, found := strings.Cut(key, ".")
	v := values[section]
	if sub, ok := v.(map[string]any); ok && found {
		v = sub[name]
	}
	switch v := v.(type) {
	case string:
		if v == "" {
			return "empty"
		}
		return v
	case []any:
		if len(v) == 0 {
			return "none"
		}
	}
	return fmt.Sprint(v)
}
