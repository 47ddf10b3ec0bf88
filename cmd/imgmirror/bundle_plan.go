package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgmirror/cache/bundle"
	"imgmirror/cmd/imgmirror/failure"
	"imgmirror/cmd/imgmirror/progress"
	"imgmirror/manifest"
	"imgmirror/proxy/admin"
	"imgmirror/verify"
)

// plan asks the mirror what there is, and decides what is left out.
func (e *exporting) plan(ctx context.Context) error {
	rows, err := e.s.BundlePlan(ctx, admin.BundleWanted{UUIDs: e.wanted.UUIDs, Filters: e.wanted.Filters, Newest: e.newest})
	if err != nil {
		return err
	}
	e.images = make([]planned, len(rows))
	e.byUUID = make(map[uuid.UUID]manifest.Manifest, len(rows))
	e.excluded = make(map[uuid.UUID]bool)
	if !e.date.IsZero() {
		e.held = nil
	}
	for i, row := range rows {
		m, err := manifest.Parse(row.Manifest, manifest.ParseOptions{ServePrivate: true})
		if err != nil {
			return fmt.Errorf("a manifest in the mirror's answer: %w", err)
		}
		e.images[i] = planned{row, m}
		e.byUUID[m.UUID] = m
		if older(m, e.date) {
			e.held = append(e.held, heldOf(m))
		}
	}
	for _, h := range e.held {
		if m, ok := e.byUUID[h.UUID]; ok && slices.Equal(h.Files, heldOf(m).Files) {
			e.excluded[h.UUID] = true
		}
	}
	return nil
}

// older tells that an image was published before date, and is known well enough to
// be asked for: who cannot tell does not leave it out.
func older(m manifest.Manifest, date time.Time) bool {
	return !m.Published.IsZero() && m.Published.Before(date) && !slices.Contains(heldOf(m).Files, verify.Sum{})
}

func heldOf(m manifest.Manifest) bundle.Held {
	h := bundle.Held{UUID: m.UUID}
	for _, f := range m.Files {
		h.Files = append(h.Files, f.SHA1)
	}
	return h
}

// complete makes sure that all files are on disk.
func (e *exporting) complete(ctx context.Context) error {
	missing := e.missing()
	if len(missing) == 0 {
		return nil
	}
	if !e.fill {
		return failure.New("NotCached", "%d of %d images are not on disk (--fill fetches them): %s", len(missing), len(e.images), someOf(missing))
	}
	job, err := e.s.Fetch(ctx, admin.Wanted{UUIDs: missing})
	if err != nil {
		return err
	}
	f := progress.Following{Client: e.s.Client, Quiet: e.quiet || e.output == "-", Done: fetched}
	if err := f.Follow(ctx, e.cmd, job); err != nil {
		return err
	}
	if err := e.plan(ctx); err != nil {
		return err
	}
	if missing := e.missing(); len(missing) > 0 {
		return failure.New("NotCached", "%d images were fetched and are not on disk any more: is there room for all? %s", len(missing), someOf(missing))
	}
	return nil
}

func (e *exporting) missing() []string {
	var ids []string
	for _, p := range e.images {
		if !p.Cached && !e.excluded[p.m.UUID] {
			ids = append(ids, p.m.UUID.String())
		}
	}
	return ids
}

// someOf names the first few of ids.
func someOf(ids []string) string {
	const most = 5
	if len(ids) <= most {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:most], ", "), len(ids)-most)
}

// newHead plans a bundle, and signs it.
func (e *exporting) newHead(ctx context.Context) (bundle.Head, error) {
	var images []bundle.Export
	for _, p := range e.images {
		if e.excluded[p.m.UUID] && !e.date.IsZero() {
			continue // not all that is older was ever sent: only origins are required
		}
		x, err := e.export(p)
		if err != nil {
			return bundle.Head{}, fmt.Errorf("image %s in the mirror's answer: %w", p.m.UUID, err)
		}
		images = append(images, x)
	}
	var have []bundle.Held
	for _, h := range e.held {
		if e.excluded[h.UUID] {
			have = append(have, h)
		}
	}
	x, err := bundle.Plan(ctx, images, bundle.PlanOptions{
		ID: uuid.New(), Created: time.Now(), Mirror: thisMirror(), Since: e.words, Have: have, VolumeSize: e.volumeSize,
	}, e)
	if err != nil {
		return bundle.Head{}, err
	}
	h := bundle.Head{Index: x, Volume: 1}
	if e.key != "" {
		h.Sig, err = sign(e.cmd, e.key, x)
	}
	return h, err
}

// export is what Plan has to know of an image. Of one that is left out that is what
// its manifest says: its files need not be here.
func (e *exporting) export(p planned) (bundle.Export, error) {
	x := bundle.Export{Manifest: p.m}
	if e.excluded[p.m.UUID] {
		for _, f := range p.m.Files {
			x.Files = append(x.Files, verify.Digests{SHA1: f.SHA1})
		}
		return x, nil
	}
	for _, f := range p.Files {
		d, err := bundledDigests(f)
		if err != nil {
			return x, err
		}
		x.Files = append(x.Files, d)
	}
	return x, nil
}

// bundledDigests reads what the mirror says of a file.
func bundledDigests(f admin.BundledFile) (verify.Digests, error) {
	d := verify.Digests{Size: f.Size}
	var err error
	if d.SHA1, err = verify.ParseSum(f.SHA1); err != nil {
		return d, err
	}
	sum := (*bundle.SHA256)(&d.SHA256)
	return d, sum.UnmarshalText([]byte(f.SHA256))
}

// sign signs an index with the key in a file.
func sign(cmd *cobra.Command, path string, x bundle.Index) ([]byte, error) {
	secret, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	password := ""
	if bundle.KeyEncrypted(secret) {
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return nil, failure.New("InvalidParameter", "%s needs a password, and there is no terminal to ask for it", path)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Password of %s: ", path)
		typed, err := term.ReadPassword(int(os.Stdin.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return nil, err
		}
		password = string(typed)
	}
	sig, err := bundle.Sign(secret, password, x)
	if err != nil {
		return nil, failure.New("InvalidParameter", "%s: %w", path, err)
	}
	return sig, nil
}

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
