package zfsimport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// Stage puts an image's file where imgadm looks before a download, unless the right file is there.
// Stage leaves nothing else behind, whatever happens.
func (im *Importer) Stage(ctx context.Context, image manifest.Manifest, progress func(Progress)) (Outcome, error) {
	outcome, err := im.stage(ctx, image, progress)
	if err != nil {
		return "", fmt.Errorf("stage %s (%s %s): %w", image.UUID, image.Name, image.Version, err)
	}
	return outcome, nil
}

func (im *Importer) stage(ctx context.Context, image manifest.Manifest, progress func(Progress)) (Outcome, error) {
	if len(image.Files) != 1 {
		return "", fmt.Errorf("%w: it has %d files, not one", ErrType, len(image.Files))
	}
	r := &reception{im: im, image: image, progress: progress}
	r.report()
	lock, err := im.lock(ctx, image.UUID, true)
	if err != nil {
		return "", err
	}
	defer lock.release()
	path := filepath.Join(im.o.StageDir, image.UUID.String()+".file")
	want := verify.Want{SHA1: image.Files[0].SHA1, Size: image.Files[0].Size, MD5: image.Files[0].MD5}
	_, err = verify.File(ctx, path, want)
	switch {
	case err == nil && want.Checkable():
		return Present, nil
	case err != nil && !errors.Is(err, verify.ErrMismatch) && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if err := os.MkdirAll(im.o.StageDir, 0o755); err != nil {
		return "", err
	}
	temp := path + ".partial" // the name that imgadm uses too: each writes over the leavings of the other
	err = r.copyTo(ctx, temp)
	im.metrics.moved(r)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return "", errors.Join(err, removeFile(temp))
	}
	return Done, im.syncDir(im.o.StageDir)
}

// copyTo copies the image's file to path.
func (r *reception) copyTo(ctx context.Context, path string) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	file, err := r.im.o.Open(ctx, r.image)
	if err != nil {
		return fmt.Errorf("open the file: %w", err)
	}
	defer file.Close()
	r.file = &fileReader{file: file}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, to.Close())
		if errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
	}()
	buf := make([]byte, inputBuffer)
	for {
		n, err := r.file.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			r.moved()
		}
		if errors.Is(err, io.EOF) {
			r.report()
			return r.im.sync(to)
		}
		if err != nil {
			return fmt.Errorf("read the file: %w", err)
		}
	}
}

// removeFile removes a file that need not be there.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
