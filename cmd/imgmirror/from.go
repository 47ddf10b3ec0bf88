package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/meaning"
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
	from = withScheme(from)
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

// recordedURL is the URL of a mirror as imgadm's records, which anyone may read, name
// it: as imgadm writes it, and without a password.
func recordedURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	u.User = nil
	return strings.TrimSuffix(u.String(), "/")
}

// open gives the file of an image for zfsimport, checked as it comes.
func (r *remote) open(ctx context.Context, image manifest.Manifest) (zfsimport.File, error) {
	if len(image.Files) == 0 {
		return nil, fmt.Errorf("image %s has no file: %w", image.UUID, fs.ErrNotExist)
	}
	f := image.Files[0]
	return newDownload(ctx, verify.Want{SHA1: f.SHA1, Size: f.Size, MD5: f.MD5}, func(ctx context.Context, offset int64) (*verify.Stream, error) {
		return r.File(ctx, image, 0, offset)
	})
}

// wanted gives the manifests of the images that are wanted, each one after its
// origins. Those that are there the mirror need not have.
func (r *remote) wanted(ctx context.Context, w admin.Wanted, there map[string]bool) ([]manifest.Manifest, error) {
	var heads []manifest.Manifest
	for _, text := range w.UUIDs {
		id, err := parseUUID(text)
		if err != nil {
			return nil, err
		}
		image, err := r.Get(ctx, id)
		if err != nil {
			return nil, remoteError(err)
		}
		heads = append(heads, image)
	}
	if len(w.Filters) > 0 {
		match, err := filters(w.Filters)
		if err != nil {
			return nil, err
		}
		list, err := r.List(ctx, manifest.Listing{})
		if err != nil {
			return nil, remoteError(err)
		}
		for _, image := range list.Images {
			if matches(image, match) {
				heads = append(heads, image)
			}
		}
	}
	var all []manifest.Manifest
	seen := make(map[uuid.UUID]bool)
	for _, image := range heads {
		var chain []manifest.Manifest
		for range maxChain {
			if seen[image.UUID] {
				break
			}
			seen[image.UUID] = true
			chain = append(chain, image)
			if !image.HasOrigin() || seen[image.Origin] {
				break
			}
			origin, err := r.Get(ctx, image.Origin)
			if _, ok := there[image.Origin.String()]; ok && err != nil {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("origin of image %s: %w", image.UUID, remoteError(err))
			}
			image = origin
		}
		slices.Reverse(chain)
		all = append(all, chain...)
	}
	return all, nil
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
	zfs.Source = func(manifest.Manifest) string { return from.url }
	zfs.Find = from.Get
	zfs.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
	importer, err := zfsimport.New(zfs)
	if err != nil {
		return err
	}
	run := &installing{installer: installer{importer, zfs.Logger}, cmd: cmd, options: o, there: make(map[string]bool)}
	ctx := cmd.Context()
	if !o.stage {
		if err := run.prepare(ctx); err != nil {
			return err
		}
	}
	images, err := from.wanted(ctx, w, run.there)
	if err != nil {
		return err
	}
	images = zfsimport.Families(images)
	run.plan(ctx, images)
	if o.dry {
		return out.Print(cmd.OutOrStdout(), run.job.Items)
	}
	return run.install(ctx, images, o.following(out.JSON))
}

// installing is a job as the mirror's, done by the verb itself.
type installing struct {
	installer
	cmd     *cobra.Command
	options installOptions
	there   map[string]bool // by the uuids in the pool: imgadm has a record of it
	job     admin.Job
}

// prepare looks into the pool.
func (run *installing) prepare(ctx context.Context) error {
	if !run.options.dry {
		if err := run.Prepare(ctx, run.options.pool); err != nil {
			return err
		}
	}
	all, err := run.Installed(ctx, run.options.pool)
	for _, image := range all {
		run.there[image.UUID] = image.Record
	}
	return err
}

// plan makes the job's items, one an image.
func (run *installing) plan(ctx context.Context, images []manifest.Manifest) {
	run.job = admin.Job{Kind: "install", State: admin.JobRunning, Started: time.Now().UTC()}
	if run.options.stage {
		run.job.Kind = "stage"
	}
	for _, image := range images {
		item := admin.Item{UUID: image.UUID.String(), Name: image.Name, Version: image.Version, State: admin.ItemWaiting}
		if len(image.Files) > 0 {
			item.Total = image.Files[0].Size
		}
		if run.there[item.UUID] {
			item.State, item.Done = admin.ItemPresent, item.Total
		} else if err := run.Fits(ctx, image); err != nil {
			item.State, item.Error = admin.ItemSkipped, itemError(err)
		}
		run.job.Items = append(run.job.Items, item)
	}
}

// install does the job and tells how it goes.
func (run *installing) install(ctx context.Context, images []manifest.Manifest, f progress.Following) error {
	show := progress.New(run.cmd.ErrOrStderr(), f.Quiet || f.JSON)
	missing := make(map[uuid.UUID]bool) // those that are not there after their turn
	var waiting []manifest.Manifest
	for i, image := range images {
		if run.job.Items[i].State == admin.ItemWaiting {
			waiting = append(waiting, image)
		}
	}
	batch := run.Batch(run.options.pool, waiting)
	defer batch.Close()
	for i, image := range images {
		item := &run.job.Items[i]
		switch {
		case item.State == admin.ItemPresent:
		case item.State == admin.ItemWaiting && (run.options.stage || !missing[image.Origin]):
			run.one(ctx, batch, image, item, show)
		case item.State == admin.ItemWaiting:
			item.State, item.Error = admin.JobFailed, &admin.Error{Code: "OriginNotInstalled",
				Message: fmt.Sprintf("its origin %s could not be installed", image.Origin)}
		}
		_, good := f.Done[item.State]
		missing[image.UUID] = !good
		if ctx.Err() != nil && !good {
			show.Clear()
			return failure.New(failure.CodeInterrupted, "cancelled; what was not installed yet is downloaded anew by the same command")
		}
		f.Tell(run.cmd, show, run.job)
	}
	show.Clear()
	ended := time.Now().UTC()
	run.job.State, run.job.Ended = admin.JobDone, &ended
	for _, bad := range missing {
		if bad {
			run.job.State = admin.JobFailed
		}
	}
	if f.JSON {
		if err := table.JSON(run.cmd.OutOrStdout(), run.job); err != nil {
			return err
		}
	}
	return f.Outcome(run.job)
}

// one installs or stages one image.
func (run *installing) one(ctx context.Context, batch admin.Batch, image manifest.Manifest, item *admin.Item, show *progress.Bars) {
	item.State = admin.JobRunning
	taken := func(in admin.Intake) {
		item.Done, item.Fetched, item.Received = in.Read, in.Read, in.Written
		show.Tick(run.job)
	}
	var state string
	var err error
	if run.options.stage {
		state, err = run.Stage(ctx, image, taken)
	} else {
		state, err = batch.Install(ctx, image, taken)
	}
	switch {
	case err == nil:
		item.State, item.Done, item.Fetched = state, item.Total, item.Total
	case state == admin.ItemSkipped:
		item.State, item.Error = state, itemError(err)
	default:
		item.State, item.Error = admin.JobFailed, itemError(err)
	}
}

// remoteError gives what the mirror answered, or the want of an answer, its code.
func remoteError(err error) error {
	if m := meaning.Of(err); m.Code != meaning.Internal && !errors.Is(err, context.Canceled) {
		return &failure.Error{Code: m.Code, Err: err}
	}
	return err
}

// itemError is an error as items have it.
func itemError(err error) *admin.Error {
	e := failure.Of(remoteError(err))
	return &admin.Error{Code: e.Code, Message: e.Error()}
}
