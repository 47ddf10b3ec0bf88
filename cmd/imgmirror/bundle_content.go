package main

import (
	"context"
	"errors"
	"io"

	"github.com/google/uuid"

	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/manifest"
	"imgmirror/verify"
)

// Manifest makes exporting a bundle.Content.
func (e *exporting) Manifest(_ context.Context, id uuid.UUID) (manifest.Manifest, error) {
	m, ok := e.byUUID[id]
	if !ok {
		return m, failure.New("ResourceNotFound", "image %s is not in the catalogue any more", id)
	}
	return m, nil
}

// File opens a file on the mirror's disk.
func (e *exporting) File(ctx context.Context, sum verify.Sum) (io.ReadCloser, error) {
	return &remoteFile{ctx: ctx, s: e.s, sum: sum}, nil
}

// remoteFile is a file on the mirror's disk. It is asked for at the first Read, so
// that Seek costs nothing before.
type remoteFile struct {
	ctx    context.Context
	s      *session
	sum    verify.Sum
	offset int64
	body   io.ReadCloser
}

func (f *remoteFile) Read(p []byte) (int, error) {
	if f.body == nil {
		var err error
		if f.body, err = f.s.File(f.ctx, f.sum, f.offset); err != nil {
			return 0, err
		}
	}
	n, err := f.body.Read(p)
	f.offset += int64(n)
	return n, err
}

// Seek sets where the next Read begins.
func (f *remoteFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.offset
	default:
		return f.offset, errors.ErrUnsupported
	}
	if offset == f.offset {
		return offset, nil
	}
	f.offset = offset
	return offset, f.Close()
}

func (f *remoteFile) Close() error {
	if f.body == nil {
		return nil
	}
	err := f.body.Close()
	f.body = nil
	return err
}
