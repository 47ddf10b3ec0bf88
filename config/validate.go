package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The forms that values must have.
var (
	// A filter is FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE. Package manifest knows the fields.
	filterForm  = regexp.MustCompile(`^[a-z_]+(\.[^=!~]+)?(=~|!=|=)`)
	uuidForm    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	channelForm = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
	poolForm    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]*$`)
)

// Limits of values.
const (
	maxName    = 100 // of a source, in bytes
	maxSlots   = 1024
	maxStreams = 16
	minRefresh = 100 * time.Millisecond
	maxRate    = 1_000_000 // questions per second
	maxJournal = 100_000   // nodes, of 3 KB each
)

// Validate checks every rule that can be checked without looking at this
// machine or the network. The error joins a *Fault for each that is broken.
func (c *Config) Validate() error { return errors.Join(c.check(nil)...) }

// check is Validate without faults of keys that known has faults of already: such a key has not the
// value that the user wrote.
func (c *Config) check(known []error) []error {
	k := &checker{places: c.places}
	for _, err := range known {
		if f, ok := errors.AsType[*Fault](err); ok && f.Key != "" {
			k.known = append(k.known, f.Key)
		}
	}
	k.server(c)
	k.sources(c)
	k.images(c)
	k.limits(c)
	k.writes(c)
	k.s3(c.S3)
	return k.faults
}

type checker struct {
	places places
	known  []string
	faults []error
}

// fault records that key, which has value, breaks a rule. An empty value is not shown.
func (k *checker) fault(key string, value any, reason string) {
	for _, known := range k.known {
		if rest, ok := strings.CutPrefix(key, known); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return
		}
	}
	f := &Fault{Key: key, Place: k.places.of(key), Reason: reason}
	if text := fmt.Sprint(value); text != "" {
		f.Value = strconv.Quote(text)
	}
	k.faults = append(k.faults, f)
}

// server checks the listeners and what they log.
func (k *checker) server(c *Config) {
	if c.Listen == "" {
		k.fault("listen", "", "must not be empty")
	} else {
		k.address("listen", c.Listen)
	}
	if c.Admin.Listen != "" && k.address("admin.listen", c.Admin.Listen) &&
		c.Admin.Listen == c.Listen && !strings.HasSuffix(c.Listen, ":0") {
		k.fault("admin.listen", c.Admin.Listen, "is the address of listen too")
	}
	if c.PublicURL != "" {
		if u := k.url("public_url", c.PublicURL, "http", "https"); u != nil && (u.RawQuery != "" || u.Fragment != "") {
			k.fault("public_url", c.PublicURL, "must end with its path")
		}
	}
	k.pair("tls.cert_file", c.TLS.CertFile, "tls.key_file", c.TLS.KeyFile)
	if c.DataDir == "" {
		k.fault("data_dir", "", "must not be empty")
	}
	if c.DistDir != "" && (within(c.DistDir, c.DataDir) || within(c.DataDir, c.DistDir)) {
		k.fault("dist_dir", c.DistDir, "must be apart from data_dir: the data folder has secrets")
	}
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "text", "json", "bunyan")
	k.oneOf("log.requests", c.Log.Requests, "all", "errors", "off")
}

// within tells whether path is dir or below dir, whatever links and relative names they go by.
func within(path, dir string) bool {
	rel, err := filepath.Rel(resolved(dir), resolved(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resolved is the absolute path, without links if it is there.
func resolved(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// images checks the rules about images of any source.
func (k *checker) images(c *Config) {
	defaults := 0
	for i, ch := range c.Channels {
		key := fmt.Sprintf("channels[%d]", i)
		k.channel(key+".name", ch.Name)
		if slices.ContainsFunc(c.Channels[:i], func(other Channel) bool { return other.Name == ch.Name }) {
			k.fault(key+".name", ch.Name, "is the name of an earlier channel")
		}
		if ch.Default {
			if defaults++; defaults > 1 {
				k.fault(key+".default", ch.Default, "another channel is the default already")
			}
		}
	}
	k.oneOf("catalog.retired", c.Catalog.Retired, "keep", "hide")
	k.oneOf("catalog.published", c.Catalog.Published, "first", "last")
	k.filters("cache.pins", c.Cache.Pins)
	for i, p := range c.Prefetch {
		key := fmt.Sprintf("prefetch[%d]", i)
		if len(p.Match) == 0 {
			k.fault(key+".match", "", "needs at least one filter")
		}
		k.filters(key+".match", p.Match)
		k.atLeast(key+".newest", p.Newest, 0)
	}
	z := c.ZFSImport
	if !poolForm.MatchString(z.Pool) {
		k.fault("zfsimport.pool", z.Pool, "must be the name of a pool")
	}
	for i, s := range z.Images {
		if !uuidForm.MatchString(s) {
			k.filter(fmt.Sprintf("zfsimport.images[%d]", i), s)
		}
	}
	if z.ZFSPath != "" && !filepath.IsAbs(z.ZFSPath) {
		k.fault("zfsimport.zfs_path", z.ZFSPath, "must be an absolute path")
	}
	if !filepath.IsAbs(z.DBDir) {
		k.fault("zfsimport.db_dir", z.DBDir, "must be an absolute path")
	}
	if c.Bundle.RequireSignature && len(c.Bundle.TrustedKeys) == 0 {
		k.fault("bundle.require_signature", true, "needs bundle.trusted_keys, or nothing can ever be imported")
	}
	for i, s := range c.Bundle.TrustedKeys {
		if strings.TrimSpace(s) == "" {
			k.fault(fmt.Sprintf("bundle.trusted_keys[%d]", i), "", "must not be empty")
		}
	}
}

// leastMemory is the least clients.memory: room for single replies of the usual kinds.
const leastMemory = megabyte

// leastLimit is the least memory.limit: what a mirror of a small list needs.
const leastLimit = 64 * megabyte

// limits checks sizes, numbers and times.
func (k *checker) limits(c *Config) {
	k.size("cache.max_size", c.Cache.MaxSize)
	k.size("cache.min_free", c.Cache.MinFree)
	k.between("cache.fill_slots", c.Cache.FillSlots, 1, maxSlots)
	k.oneOf("cache.on_unreachable", c.Cache.OnUnreachable, "error", "notfound")
	k.positive("fill.stall_timeout", c.Fill.StallTimeout)
	k.size("fill.min_rate", c.Fill.MinRate)
	k.positive("fill.deadline", c.Fill.Deadline)
	if c.Fill.Deadline > 0 && c.Fill.Deadline < c.Fill.StallTimeout {
		k.fault("fill.deadline", short(c.Fill.Deadline), "is below fill.stall_timeout")
	}
	k.between("fill.streams", c.Fill.Streams, 1, maxStreams)
	k.positive("clients.stall_timeout", c.Clients.StallTimeout)
	k.positive("clients.drain_timeout", c.Clients.DrainTimeout)
	k.atLeast("clients.max_connections", c.Clients.MaxConnections, 1)
	k.atLeast("clients.max_per_address", c.Clients.MaxPerAddress, 0)
	if c.Clients.Memory < leastMemory {
		k.fault("clients.memory", c.Clients.Memory, "must be at least "+leastMemory.String())
	}
	if c.Nodes.Keep < 0 {
		k.fault("nodes.keep", short(c.Nodes.Keep), "must not be negative (0 = no journal)")
	}
	k.between("nodes.max", c.Nodes.Max, 0, maxJournal)
	k.size("memory.limit", c.Memory.Limit)
	if l := c.Memory.Limit; l > 0 && l < leastLimit {
		k.fault("memory.limit", l.String(), "must be at least "+leastLimit.String())
	}
	if c.Verify.ScrubEvery < 0 {
		k.fault("verify.scrub_every", short(c.Verify.ScrubEvery), "must not be negative (0s = never)")
	}
	k.size("verify.scrub_rate", c.Verify.ScrubRate)
}

func (k *checker) s3(s S3) {
	if s.Endpoint == "" {
		for _, f := range [][2]string{{"bucket", s.Bucket}, {"access_key_file", s.AccessKeyFile}, {"secret_key_file", s.SecretKeyFile}} {
			if f[1] != "" {
				k.fault("s3."+f[0], f[1], "needs s3.endpoint")
			}
		}
		return
	}
	k.url("s3.endpoint", s.Endpoint, "http", "https")
	if s.Bucket == "" {
		k.fault("s3.bucket", "", "is missing beside s3.endpoint")
	}
	k.pair("s3.access_key_file", s.AccessKeyFile, "s3.secret_key_file", s.SecretKeyFile)
}

// pair checks two keys that are set together or not at all.
func (k *checker) pair(a, valueA, b, valueB string) {
	if valueA == "" && valueB != "" {
		k.fault(a, "", "is missing beside "+b)
	}
	if valueB == "" && valueA != "" {
		k.fault(b, "", "is missing beside "+a)
	}
}

// url checks an absolute URL; nil when it is none.
func (k *checker) url(key string, s URL, schemes ...string) *url.URL {
	u, err := url.Parse(string(s))
	if err != nil {
		k.fault(key, s, "not a URL: "+urlReason(s, err))
		return nil
	}
	if !slices.Contains(schemes, u.Scheme) || u.Hostname() == "" {
		k.fault(key, s, "must be "+strings.Join(schemes, ":// or ")+":// and a host")
		return nil
	}
	if !goodPort(u) {
		k.fault(key, s, "no such port")
		return nil
	}
	return u
}

// urlReason is why s did not parse, unless telling could give a password away.
func urlReason(s URL, err error) string {
	var e *url.Error
	if strings.Contains(string(s), "@") || !errors.As(err, &e) {
		return "bad syntax"
	}
	return e.Err.Error()
}

func goodPort(u *url.URL) bool {
	if u.Port() == "" {
		return true
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

// address checks a host:port to listen on.
func (k *checker) address(key, s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		k.fault(key, s, "must be HOST:PORT or :PORT")
		return false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		k.fault(key, s, "the port must be a number up to 65535")
		return false
	}
	return true
}

func (k *checker) oneOf(key, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		last := len(allowed) - 1
		k.fault(key, s, "must be "+strings.Join(allowed[:last], ", ")+" or "+allowed[last]+didYouMean(s, allowed))
	}
}

func (k *checker) channel(key, s string) {
	if !channelForm.MatchString(s) {
		k.fault(key, s, "must be a lower-case letter, then such letters, digits, - or _")
	}
}

func (k *checker) filters(key string, filters []string) {
	for i, s := range filters {
		k.filter(fmt.Sprintf("%s[%d]", key, i), s)
	}
}

func (k *checker) filter(key, s string) {
	if !filterForm.MatchString(s) {
		k.fault(key, s, "not a filter: write FIELD=VALUE, FIELD=~SUBSTRING or FIELD!=VALUE")
	}
}

func (k *checker) positive(key string, d time.Duration) {
	if d <= 0 {
		k.fault(key, short(d), "must be above 0s")
	}
}

func (k *checker) size(key string, s Size) {
	if s < 0 {
		k.fault(key, s, "must not be negative")
	}
}

func (k *checker) atLeast(key string, n, least int) {
	if n < least {
		k.fault(key, n, fmt.Sprintf("must be at least %d", least))
	}
}

func (k *checker) between(key string, n, least, most int) {
	if n < least || n > most {
		k.fault(key, n, fmt.Sprintf("must be %d to %d", least, most))
	}
}

// importSockets is the number of connections that one imgadm import of an image with origins has
// open: five for files, one for manifests.
const importSockets = 6

// narrowLimits warns of limits that cut off well-behaved clients.
func narrowLimits(c Config) (warnings []string) {
	for _, limit := range []struct {
		key string
		n   int
	}{{"clients.max_connections", c.Clients.MaxConnections}, {"clients.max_per_address", c.Clients.MaxPerAddress}} {
		if limit.n > 0 && limit.n < importSockets {
			warnings = append(warnings, fmt.Sprintf("%s: %d is too few: imgadm opens up to %d connections at once for an image with origins, and its import fails",
				limit.key, limit.n, importSockets))
		}
	}
	return warnings
}
