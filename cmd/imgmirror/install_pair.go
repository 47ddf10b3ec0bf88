package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/table"
	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/meaning"
	"imgmirror/proxy/mirror"
	"imgmirror/verify"
	"imgmirror/zfsimport"
)

// pair is a manifest and the file of its image, both on this machine.
type pair struct {
	path  string // of the file
	image manifest.Manifest
}

// readPair reads the manifest, v2 or v1, of an image in any state, as imgadm does. What can be told of the
// file without reading the file is checked.
func readPair(cmd *cobra.Command, manifestFile, file string) (pair, error) {
	bad := func(format string, args ...any) (pair, error) {
		return pair{}, failure.New(meaning.InvalidParameter, format, args...)
	}
	text, err := unlessStopped(cmd.Context(), func() ([]byte, error) { return readManifest(manifestFile) })
	if err != nil {
		return pair{}, err
	}
	image, err := manifest.Parse(text, manifest.ParseOptions{ServePrivate: true})
	if err != nil {
		return bad("%s: %w", manifestFile, err)
	}
	if len(image.Files) != 1 || image.Files[0].SHA1.IsZero() || image.Files[0].Size <= 0 {
		return bad("%s: the manifest must have one file, with sha1 and size", manifestFile)
	}
	info, err := os.Stat(file)
	switch want := image.Files[0].Size; {
	case err != nil:
		return pair{}, err
	case !info.Mode().IsRegular():
		return bad("%s is no file", file)
	case info.Size() != want:
		return bad("%s has %d bytes, the manifest says %d", file, info.Size(), want)
	}
	return pair{file, image}, nil
}

// open gives the file for zfsimport: the last bytes and io.EOF only once the sha1 holds.
func (p pair) open(ctx context.Context, image manifest.Manifest) (io.ReadCloser, error) {
	f := image.Files[0]
	d, err := newDownload(ctx, verify.Want{SHA1: f.SHA1, Size: f.Size, MD5: f.MD5}, func(_ context.Context, offset int64) (*verify.Stream, error) {
		file, err := os.Open(p.path)
		if err != nil {
			return nil, err
		}
		info, err := file.Stat()
		if err == nil {
			_, err = file.Seek(offset, io.SeekStart)
		}
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return &verify.Stream{ReadCloser: file, Size: info.Size()}, nil
	})
	if err != nil {
		return nil, p.wrong(err)
	}
	return pairFile{d, p}, nil
}

// wrong names the file of bytes that are not those of the manifest.
func (p pair) wrong(err error) error {
	if !errors.Is(err, verify.ErrMismatch) {
		return err
	}
	return &admin.Error{Code: "ChecksumError", Message: fmt.Sprintf("%s is not the file of the manifest: %v", p.path, err)}
}

// pairFile is the open file of a pair.
type pairFile struct {
	*download
	p pair
}

func (f pairFile) Read(b []byte) (int, error) {
	n, err := f.download.Read(b)
	return n, f.p.wrong(err)
}

// importer makes what puts the pair into a pool. The image's record names no source, as with imgadm.
func (p pair) importer(cmd *cobra.Command, cfg *config.Config) (*zfsimport.Importer, *slog.Logger, error) {
	o := zfsOptions(cfg)
	o.Open = p.open
	o.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
	importer, err := zfsimport.New(o)
	return importer, o.Logger, err
}

// installPair is install -m -f: an image of two files goes into the pool of this machine. No mirror, no
// data folder and no network is needed. The image's origin must be in the pool.
func installPair(cmd *cobra.Command, o installOptions, out table.Layout[admin.Item]) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	p, err := readPair(cmd, o.manifest, o.file)
	if err != nil {
		return err
	}
	importer, log, err := p.importer(cmd, cfg)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	there, err := importer.Installed(ctx, o.pool)
	if err != nil {
		return admin.InstallError(err)
	}
	has := func(id uuid.UUID) bool {
		return slices.ContainsFunc(there, func(i zfsimport.Installed) bool { return i.UUID == id })
	}
	if p.image.HasOrigin() && !has(p.image.Origin) && !has(p.image.UUID) {
		return failure.New(zfsimport.ErrNoOrigin.Code, "image %s is built on image %s, which is not in the pool: install that image first", p.image.UUID, p.image.Origin)
	}
	installer := mirror.NewInstaller(mirror.ZFS{Importer: importer}, func(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
		return manifest.Manifest{}, fmt.Errorf("image %s is in the pool at most: %w", id, fs.ErrNotExist)
	}, log)
	return installHere(cmd, o, out, installer, []catalog.Entry{{Manifest: p.image}})
}
