package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy"
	"imgmirror/proxy/catalog"
	"imgmirror/zfsimport"
)

// installAhead is for how many of the images that are to be installed by
// themselves the download runs while another one is received.
const installAhead = 2

// newImporter makes what puts images into the zpools of this machine, from the
// cache, or as they are being downloaded.
func (m *mirror) newImporter(cfg *config.Config) (*zfsimport.Importer, error) {
	o := zfsOptions(cfg)
	o.Open = m.openImage
	source := recordedURL(string(cfg.PublicURL))
	o.Source = func(manifest.Manifest) string { return source }
	o.Find = m.findImage
	o.Logger = m.log
	o.Registerer = m.registry
	return zfsimport.New(o)
}

// zfsOptions are where pools and imgadm's records are; an Importer of no more
// can tell what is there.
func zfsOptions(cfg *config.Config) zfsimport.Options {
	z := cfg.ZFSImport
	return zfsimport.Options{Pool: z.Pool, ZFSPath: z.ZFSPath, DBDir: z.DBDir, Logger: slog.New(slog.DiscardHandler)}
}

// openImage gives the file of an image, from disk or from its download. The ones
// to be installed after it begin to be downloaded, too.
func (m *mirror) openImage(ctx context.Context, image manifest.Manifest) (zfsimport.File, error) {
	entry, err := m.catalog.Get(ctx, image.UUID)
	if err != nil {
		return nil, err
	}
	blob, sources := proxy.BlobOf(entry, 0)
	blob.Why = cache.Job // an install that is given up ends its download
	r, err := m.store.File(ctx, blob, sources)
	if err != nil {
		return nil, err
	}
	f := &imageFile{Reader: r, ctx: ctx}
	f.ahead, f.stop = context.WithCancel(ctx)
	for _, next := range after(m.installing.Load(), image.UUID) {
		f.starting.Go(func() { m.beginDownload(f.ahead, next) })
	}
	return f, nil
}

// beginDownload starts the download of an image that nobody waits for yet. What
// goes wrong will be told when the image is opened.
func (m *mirror) beginDownload(ctx context.Context, entry catalog.Entry) {
	if m.importer.Fits(ctx, entry.Manifest) != nil {
		return
	}
	blob, sources := proxy.BlobOf(entry, 0)
	blob.Why = cache.Ahead
	if r, err := m.store.File(ctx, blob, sources); err == nil {
		r.Close() //nolint:errcheck // nothing was read
	}
}

// after gives the next installAhead of queue after an image that is in it.
func after(queue *[]catalog.Entry, id uuid.UUID) []catalog.Entry {
	if queue == nil {
		return nil
	}
	at := slices.IndexFunc(*queue, func(e catalog.Entry) bool { return e.Manifest.UUID == id })
	if at < 0 {
		return nil
	}
	rest := (*queue)[at+1:]
	return rest[:min(len(rest), installAhead)]
}

// imageFile is a file of the store as zfsimport reads it.
type imageFile struct {
	*cache.Reader
	ctx context.Context // of its reads

	ahead    context.Context
	stop     context.CancelFunc
	starting sync.WaitGroup // of other downloads
}

// Read waits for bytes no longer than the context lasts.
func (f *imageFile) Read(p []byte) (int, error) {
	if _, err := f.WaitContext(f.ctx); err != nil {
		return 0, err
	}
	return f.Reader.Read(p)
}

func (f *imageFile) Close() error {
	f.stop()
	f.starting.Wait()
	return f.Reader.Close()
}

// findImage gives the manifest of an image that is in a pool.
func (m *mirror) findImage(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	entry, err := m.catalog.Get(ctx, id)
	if err == nil {
		return entry.Manifest, nil
	}
	if image, err := m.store.Manifest(id); err == nil {
		return image, nil
	}
	return manifest.Manifest{}, err
}

// installWanted keeps in the pool what zfsimport.images asks for: once the
// catalogue is there, and again whenever it, or the configuration, has changed.
func (m *mirror) installWanted(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.catalog.Ready():
	case <-m.late:
	}
	for !m.cfg.Load().ZFSImport.Enabled {
		select {
		case <-ctx.Done():
			return nil
		case <-m.installDue:
		}
	}
	return m.importer.Run(ctx, func() []manifest.Manifest { return m.toInstall(ctx) }, m.installDue)
}

// toInstall lists the images that zfsimport.images asks for and that are not in
// the pool, or not in imgadm's records: rule by rule, the newest first, every
// one after its origins.
func (m *mirror) toInstall(ctx context.Context) []manifest.Manifest {
	z := m.cfg.Load().ZFSImport
	if !z.Enabled {
		return nil
	}
	wanted := installWanted(asking{m.catalog.Current(), ctx, m.catalog}, z.Images)
	there := make(map[uuid.UUID]bool)
	if all, err := m.importer.Installed(ctx, ""); err == nil { // else the installs tell
		for _, i := range all {
			there[i.UUID] = i.Record
		}
	}
	wanted = slices.DeleteFunc(wanted, func(e catalog.Entry) bool { return there[e.Manifest.UUID] })
	m.installing.Store(&wanted)
	images := make([]manifest.Manifest, len(wanted))
	for i, e := range wanted {
		images[i] = e.Manifest
	}
	return images
}

// installWanted lists the images that one of the rules, UUIDs or filters, asks
// for, as prefetchWanted does.
func installWanted(list prefetchable, rules []string) []catalog.Entry {
	var wanted []catalog.Entry
	seen := make(map[uuid.UUID]bool)
	for _, text := range rules {
		if id, ok := manifest.ParseUUID(strings.ToLower(text)); ok {
			wanted = appendChain(wanted, seen, list, id)
			continue
		}
		f, err := manifest.ParseFilter(text)
		if err != nil {
			continue // it was told when the configuration was read
		}
		for _, image := range slices.Backward(list.Images()) {
			if f.Match(image) {
				wanted = appendChain(wanted, seen, list, image.UUID)
			}
		}
	}
	return wanted
}

// asking is a list that asks the sources for an image that is not on it.
type asking struct {
	*catalog.List
	ctx     context.Context
	catalog *liveCatalog
}

func (a asking) Entry(id uuid.UUID) (catalog.Entry, bool) {
	if e, ok := a.List.Entry(id); ok || id == uuid.Nil {
		return e, ok
	}
	e, err := a.catalog.Get(a.ctx, id)
	return e, err == nil
}
