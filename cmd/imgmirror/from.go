package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/proxy/upstream"
	"imgmirror/verify"
	"imgmirror/zfsimport"
)

// remote is the mirror that install --from takes images from.
type remote struct {
	*upstream.Client
	url string // as imgadm's records are to name it
}

func newRemote(cfg *config.Config, from string) (*remote, error) {
	from = config.WithScheme(from)
	client, err := upstream.New(upstream.Options{
		Name: "mirror", URL: from, StallTimeout: cfg.Fill.StallTimeout,
		ServePrivate: true, // whom it serves is the mirror's matter
		UserAgent:    "imgmirror/" + version,
	})
	if err != nil {
		return nil, failure.Usage("--from: %w", err)
	}
	return &remote{Client: client, url: recordedURL(from)}, nil
}

// open gives the file of an image for zfsimport, checked as it comes.
func (r *remote) open(ctx context.Context, image manifest.Manifest) (io.ReadCloser, error) {
	if len(image.Files) == 0 {
		return nil, fmt.Errorf("image %s has no file: %w", image.UUID, fs.ErrNotExist)
	}
	f := image.Files[0]
	return newDownload(ctx, verify.Want{SHA1: f.SHA1, Size: f.Size, MD5: f.MD5}, func(ctx context.Context, offset int64) (*verify.Stream, error) {
		return r.File(ctx, image, 0, offset)
	})
}

// wanted gives the images that are wanted, without their origins.
func (r *remote) wanted(ctx context.Context, w admin.Wanted) ([]catalog.Entry, error) {
	var images []catalog.Entry
	for _, text := range w.UUIDs {
		id, err := parseUUID(text)
		if err != nil {
			return nil, err
		}
		image, err := r.Get(ctx, id)
		if err != nil {
			return nil, remoteError(err)
		}
		images = append(images, catalog.Entry{Manifest: image})
	}
	if len(w.Filters) == 0 {
		return images, nil
	}
	match, err := manifest.ParseFilters(w.Filters)
	if err != nil {
		return nil, err
	}
	list, err := r.List(ctx, manifest.Listing{})
	if err != nil {
		return nil, remoteError(err)
	}
	found := false
	for _, image := range list.Images {
		if manifest.MatchAll(image, match) {
			found = true
			images = append(images, catalog.Entry{Manifest: image})
		}
	}
	if !found {
		return nil, noMatch("image", w.Filters, " of "+r.url)
	}
	return images, nil
}

// once is Get with a memory: chains meet in the same origins.
func (r *remote) once() func(context.Context, uuid.UUID) (manifest.Manifest, error) {
	got := make(map[uuid.UUID]manifest.Manifest)
	return func(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
		if image, ok := got[id]; ok {
			return image, nil
		}
		image, err := r.Get(ctx, id)
		if err == nil {
			got[id] = image
		}
		return image, err
	}
}

// installFrom is install --from: images of another mirror go straight into the
// pool of this machine. Nothing else is needed, and nothing is kept.
func installFrom(cmd *cobra.Command, o installOptions, w admin.Wanted, out table.Layout[admin.Item]) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	from, err := newRemote(cfg, o.from)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // drops idle connections
	zfs := zfsOptions(cfg)
	zfs.Open = from.open
	zfs.Source = from.url
	zfs.Find = from.Get
	zfs.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
	importer, err := zfsimport.New(zfs)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if !o.stage {
		if err := importer.Check(ctx, o.pool); err != nil {
			return admin.InstallError(err)
		}
	}
	images, err := from.wanted(ctx, w)
	if err != nil {
		return cmp.Or(admin.NotForImages(ctx, from.url), err)
	}
	return installHere(cmd, o, out, mirror.NewInstaller(mirror.ZFS{Importer: importer}, from.once(), zfs.Logger), images)
}

// installHere has the verb itself install images, without a mirror, and prints what became of them; with
// o.dry what would be done.
func installHere(cmd *cobra.Command, o installOptions, out table.Layout[admin.Item], installer mirror.Installer, images []catalog.Entry) error {
	ctx, to := cmd.Context(), mirror.Target{Pool: o.pool, Stage: o.stage}
	steps, err := installer.PlanInstall(ctx, images, to)
	if err != nil {
		return admin.InstallError(err)
	}
	items := admin.InstallItems(steps)
	if o.dry {
		return out.Print(cmd.OutOrStdout(), items)
	}
	run := newInstalling(cmd, o, items, out.JSON)
	if err := installer.Install(ctx, steps, to, run.report); err != nil {
		return admin.InstallError(err)
	}
	return run.end(ctx)
}

// installing is a job as the mirror's, done by the verb itself.
type installing struct {
	cmd  *cobra.Command
	f    progress.Following
	show *progress.Bars

	mu  sync.Mutex // guards job: several images are staged side by side
	job admin.Job
}

func newInstalling(cmd *cobra.Command, o installOptions, items []admin.Item, asJSON bool) *installing {
	f := o.following(asJSON)
	run := &installing{cmd: cmd, f: f, show: progress.New(cmd.ErrOrStderr(), f.Quiet || f.JSON)}
	run.job = admin.Job{Kind: "install", State: admin.JobRunning, Started: time.Now().UTC(), Items: items}
	if o.stage {
		run.job.Kind = "stage"
	}
	return run
}

// report is a mirror.Report.
func (run *installing) report(i int, t mirror.Turn) {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.job.Items[i].Installing(t)
	if t.Ended {
		run.f.Tell(run.cmd, run.show, run.job)
	} else {
		run.show.Tick(run.job)
	}
}

// end tells what has become of the job.
func (run *installing) end(ctx context.Context) error {
	run.f.Tell(run.cmd, run.show, run.job)
	run.show.Clear()
	run.job.State, run.job.Ended = admin.JobDone, time.Now().UTC()
	for _, item := range run.job.Items {
		if _, good := run.f.Done[item.State]; good {
			continue
		}
		if ctx.Err() != nil {
			return failure.New(failure.CodeInterrupted, "cancelled; what is not installed yet begins anew with the same command")
		}
		run.job.State = admin.JobFailed
	}
	return run.f.End(run.cmd, run.show, run.job)
}

// remoteError gives what the mirror answered, or the want of an answer, its code.
func remoteError(err error) error {
	if m := meaning.Of(err); m.Code != meaning.Internal && !errors.Is(err, context.Canceled) {
		return &failure.Error{Code: m.Code, Err: err}
	}
	return err
}
