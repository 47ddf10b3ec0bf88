package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/zfsimport"
)

// installer is an Importer as the admin API wants it.
type installer struct {
	*zfsimport.Importer
	log *slog.Logger
}

// Prepare implements admin.Installer. What of an earlier install cannot be
// cleared away does not keep others from going in.
func (i installer) Prepare(ctx context.Context, pool string) error {
	if err := i.Check(ctx, pool); err != nil {
		return installError(err)
	}
	if err := i.Recover(ctx, pool); err != nil && ctx.Err() == nil {
		i.log.Warn("what an earlier install left cannot be put right", "pool", pool, "error", err)
	}
	return ctx.Err()
}

// Fits implements admin.Installer.
func (i installer) Fits(ctx context.Context, image manifest.Manifest) error {
	return installError(i.Importer.Fits(ctx, image))
}

// Batch implements admin.Installer.
func (i installer) Batch(pool string, images []manifest.Manifest) admin.Batch {
	return batch{i.Importer.Batch(pool, images)}
}

// batch is a Batch as the admin API wants it.
type batch struct{ *zfsimport.Batch }

// Install implements admin.Batch.
func (b batch) Install(ctx context.Context, image manifest.Manifest, progress func(admin.Intake)) (string, error) {
	outcome, err := b.Batch.Install(ctx, image, intake(progress))
	return itemStates[outcome], installError(err)
}

// Stage implements admin.Installer.
func (i installer) Stage(ctx context.Context, image manifest.Manifest, progress func(admin.Intake)) (string, error) {
	outcome, err := i.Importer.Stage(ctx, image, intake(progress))
	return itemStates[outcome], installError(err)
}

func intake(progress func(admin.Intake)) func(zfsimport.Progress) {
	return func(p zfsimport.Progress) { progress(admin.Intake{Read: p.Read, Written: p.Written}) }
}

// itemStates are outcomes in the words of the API.
var itemStates = map[zfsimport.Outcome]string{
	zfsimport.Done:     admin.JobDone,
	zfsimport.Present:  admin.ItemPresent,
	zfsimport.Repaired: admin.ItemRepaired,
	zfsimport.Skipped:  admin.ItemSkipped,
}

// Installed implements admin.Installer.
func (i installer) Installed(ctx context.Context, pool string) ([]admin.Installed, error) {
	all, err := i.Importer.Installed(ctx, pool)
	if err != nil {
		return nil, installError(err)
	}
	out := make([]admin.Installed, len(all))
	for n, in := range all {
		out[n] = admin.Installed{
			UUID: in.UUID.String(), Pool: in.Pool, Dataset: in.Dataset, Snapshot: in.Snapshot,
			Used: in.Used, Clones: in.Clones, Record: in.Record, Source: in.Source,
		}
		if in.Origin != uuid.Nil {
			out[n].Origin = in.Origin.String()
		}
		if in.Manifest != nil {
			out[n].Manifest = in.Manifest.Raw()
		}
	}
	return out, nil
}

// installCodes are the codes of what can be wrong with an install, imgadm's own
// where it has one. The first that matches counts.
var installCodes = []struct {
	is   error
	code string
}{
	{zfsimport.ErrNoZFS, "NoZFS"},
	{zfsimport.ErrNoPool, "NoPool"},
	{zfsimport.ErrPlatform, "PlatformMismatch"},
	{zfsimport.ErrType, "UnsupportedImageType"},
	{zfsimport.ErrLocked, "ImageLocked"},
	{zfsimport.ErrNoOrigin, "OriginNotInstalled"},
	{zfsimport.ErrNoRoom, "NoRoom"},
	{zfsimport.ErrCompression, "WrongCompression"},
	{zfsimport.ErrDecompress, "DecompressFailed"},
	{zfsimport.ErrNotZFS, "NotAZFSStream"},
	{zfsimport.ErrSnapshots, "UnexpectedNumberOfSnapshots"},
	{zfsimport.ErrProperty, "PropertyRefused"},
	{zfsimport.ErrReceive, "ReceiveFailed"},
	{zfsimport.ErrNotImage, "NotAnImage"},
	{fs.ErrPermission, "NotAllowed"},
}

// installError gives what zfsimport refuses its code. Other errors, those of the
// file that was read among them, stay what they are.
func installError(err error) error {
	for _, row := range installCodes {
		if errors.Is(err, row.is) {
			return &admin.Error{Code: row.code, Message: err.Error()}
		}
	}
	return err
}
