package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"

	"imgmirror/cache"
	"imgmirror/cache/disk"
	"imgmirror/config"
	"imgmirror/zfsimport"
)

const (
	// littleRoom is about the largest of the public images, twice.
	littleRoom = 5_000_000_000
	// spareFiles are what a mirror has open beside the connections and files of clients.
	spareFiles = 256
)

// configuration tells where the settings are from and what is odd about them.
func (d *doctor) configuration() {
	const check = "configuration"
	for _, w := range d.cfg.Warnings {
		d.warn(check, "%s", w)
	}
	from := d.cfg.File
	if from == "" {
		from = "no file: defaults, environment and flags"
	}
	d.ok(check, "%s", from)
	switch {
	case d.cfg.Offline:
		d.warn("sources", "offline is true: no source is asked, nothing new is fetched")
	case len(d.cfg.Sources) == 0:
		d.warn("sources", "there are none: only what is published or imported here is served")
	}
}

// proxies tells which proxy variables are set, and what is wrong with them.
func (d *doctor) proxies() {
	const check = "proxy variables"
	before := len(d.findings)
	var set []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		upper, lower := os.Getenv(name), os.Getenv(strings.ToLower(name))
		if upper != "" && lower != "" && upper != lower {
			d.warn(check, "%s and %s differ; programs do not agree on which one counts", name, strings.ToLower(name))
		}
		value := upper
		if value == "" {
			value = lower
		}
		if value == "" {
			continue
		}
		if name == "NO_PROXY" {
			set = append(set, name+"="+value)
			continue
		}
		u, err := parseProxy(value)
		if err != nil {
			d.fail(check, "%s is not the URL of a proxy", name)
			continue
		}
		set = append(set, name+"="+u.Redacted())
	}
	choose := httpproxy.FromEnvironment().ProxyFunc()
	for _, s := range d.cfg.Sources {
		if s.Kind == "directory" {
			continue
		}
		u, err := url.Parse(config.WithScheme(string(s.URL)))
		if err != nil {
			continue // the source's own checks tell
		}
		if s.Proxy != "" {
			d.ok(check, "source %s is asked through %s, as configured", s.Name, s.Proxy)
		} else if proxy, err := choose(u); err == nil && proxy != nil {
			d.ok(check, "source %s is asked through %s", s.Name, proxy.Redacted())
		}
	}
	switch {
	case len(set) > 0:
		d.ok(check, "%s; imgadm on a node where http_proxy is set asks that proxy for the mirror too, whatever no_proxy says", strings.Join(set, " "))
	case len(d.findings) == before:
		d.ok(check, "none is set")
	}
}

// parseProxy reads a proxy variable, which may lack its scheme.
func parseProxy(s string) (*url.URL, error) {
	u, err := url.Parse(config.WithScheme(s))
	if err == nil && u.Hostname() == "" {
		err = errors.New("no host")
	}
	return u, err
}

// disk tells whether the data folder can be written, and how much.
func (d *doctor) disk() {
	const check = "disk"
	dir, err := filepath.Abs(d.cfg.DataDir)
	if err != nil {
		dir = d.cfg.DataDir
	}
	at := dir // the folder, or the nearest one above it that exists
	for {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			d.fail(check, "data_dir %s: %s is not a folder", dir, at)
			return
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || filepath.Dir(at) == at {
			d.fail(check, "data_dir: %v", err)
			return
		}
		at = filepath.Dir(at)
	}
	if err := cache.CheckFormat(dir); err != nil {
		d.fail(check, "%v", err)
		return
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		d.fail(check, "%s cannot be written: %v", at, err)
		return
	}
	room, err := disk.RoomOf(at)
	if err != nil {
		d.fail(check, "free space of %s: %v", at, err)
		return
	}
	text := fmt.Sprintf("%s: %s free, min_free %s", dir, humanize.Bytes(uint64(room.Free)), d.cfg.Cache.MinFree)
	if d.cfg.Cache.MaxSize > 0 {
		text += fmt.Sprintf(", max_size %s", d.cfg.Cache.MaxSize)
	}
	switch left := room.Free - int64(d.cfg.Cache.MinFree); {
	case left <= 0:
		d.fail(check, "%s: nothing more can be stored", text)
	case left < littleRoom:
		d.warn(check, "%s: little room is left", text)
	default:
		d.ok(check, "%s", text)
	}
}

// fileLimit tells whether as many files may be open as clients may connect and downloads may run: a
// connection and a file for each.
func (d *doctor) fileLimit() {
	const check = "file limit"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		d.warn(check, "cannot be read: %v", err)
		return
	}
	have, want := uint64(limit.Cur), uint64(2*(d.cfg.Clients.MaxConnections+cache.MaxFills(d.cfg.Cache.FillSlots, len(d.cfg.Sources)))+spareFiles) //nolint:unconvert // the types differ between systems
	if have < want {
		d.warn(check, "%d open files are allowed; clients.max_connections %d and cache.fill_slots %d can take %d. "+
			"Raise the limit before the mirror starts: ulimit -n %d in a shell, LimitNOFILE=%d in a systemd unit, process.max-file-descriptor of an SMF service's project; "+
			"or lower clients.max_connections", have, d.cfg.Clients.MaxConnections, d.cfg.Cache.FillSlots, want, want, want)
		return
	}
	d.ok(check, "%d open files are allowed, %d can be needed", have, want)
}

// pool tells whether images can be installed by themselves, where that is asked for.
func (d *doctor) pool(ctx context.Context, o zfsimport.Options) {
	const check = "zpool"
	z := d.cfg.ZFSImport
	if !z.Enabled {
		return
	}
	importer, err := zfsimport.New(o)
	if err == nil {
		err = importer.Check(ctx, "")
	}
	var there []zfsimport.Installed
	if err == nil {
		there, err = importer.Installed(ctx, "")
	}
	switch {
	case err != nil:
		d.fail(check, "zfsimport.enabled is true, and no image can be installed: %v", err)
	case len(z.Images) == 0:
		d.warn(check, "zfsimport.images is empty: no image is installed by itself")
	default:
		d.ok(check, "%s holds %d images; zfsimport.images: %s", z.Pool, len(there), strings.Join(z.Images, ", "))
	}
}
