package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/manifest"
	"imgmirror/proxy/own"
	"imgmirror/verify"
)

const (
	// publishEvery is how long images that were added may be missing in the
	// catalogue while an import goes on.
	publishEvery = 2 * time.Second
	// joinTries is how often a download that was joined, and failed, is begun anew.
	joinTries = 5
	// publishTimeout bounds the last call of Importer.Publish.
	publishTimeout = 30 * time.Second
)

// importBundle is POST /bundle/import: a volume as the body. With ?dry_run=true
// nothing is taken: the answer tells what is here already, and of the body only
// what comes before the manifests need be there.
func (s *Server) importBundle(w http.ResponseWriter, r *http.Request) error {
	conn := http.NewResponseController(w)
	in := &importing{
		s:         s,
		dry:       r.URL.Query().Get("dry_run") == "true",
		from:      own.Provenance{Imported: time.Now().UTC().Truncate(time.Second)},
		interrupt: func() { _ = conn.SetReadDeadline(time.Now()) }, // where the listener has deadlines
		release:   func() {},
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.jobs.life, cancel)() // a mirror that stops does not wait for it
	holes, err := readHoles(r.URL.Query().Get("without"))
	if err != nil {
		return err
	}
	body := &arriving{ReadCloser: r.Body, conn: conn, within: uploadStall}
	defer func() { in.release() }() // behind finish, which adds images
	_, err = bundle.Read(ctx, &perforated{r: body, holes: holes}, in)
	if !in.begun {
		return err
	}
	if in.dry {
		return reply(w, http.StatusOK, in.report)
	}
	if errors.Is(err, verify.ErrMismatch) && !errors.Is(err, bundle.ErrInvalid) {
		err = nil // of damaged files the images tell; the bundle was read to its end
	}
	err = errors.Join(err, in.finish(context.WithoutCancel(ctx))) // what is here is here, whoever waits for it
	if err != nil {
		in.report.Error = explain(err)
	}
	in.settle()
	return reply(w, http.StatusOK, in.report)
}

// importing is one import under way: the bundle.Sink that brings what is read into
// the store and among the imported images, and the report of it.
type importing struct {
	s         *Server
	dry       bool
	interrupt func() // ends a read of the body that is under way
	release   func() // of Importer.Expect

	begun  bool // the bundle is taken; the head, and the report, are valid
	head   bundle.Head
	from   own.Provenance
	report BundleImport
	known  []bool              // images that were here before
	images []manifest.Manifest // as this mirror reads them; zero: not read yet, or refused

	dirty     bool // something was added that the catalogue does not have yet
	published time.Time
}

// errDry ends the reading of a dry run.
var errDry = errors.New("a dry run reads no further")

// Begin decides whether the bundle is taken: nothing of it has been kept so far.
func (in *importing) Begin(_ context.Context, h bundle.Head) error {
	x := h.Index
	key, err := in.s.mirror.Trust(x, h.Sig)
	if err != nil {
		return err
	}
	if err := in.s.checkBase(x); err != nil {
		return err
	}
	in.begun, in.head = true, h
	in.from.Bundle, in.from.Created, in.from.Key = x.ID.String(), x.Created, key
	in.from.Mirror = x.Mirror.Name + " " + x.Mirror.Version
	in.report = BundleImport{
		Bundle: in.from.Bundle, Created: in.from.Created, Mirror: in.from.Mirror, Key: key,
		Volume: h.Volume, Volumes: x.Volumes, Images: make([]ImportedImage, len(x.Images)),
	}
	in.known, in.images = make([]bool, len(x.Images)), make([]manifest.Manifest, len(x.Images))
	ids := make([]uuid.UUID, len(x.Images))
	for i, m := range x.Images {
		ids[i] = m.UUID
		row := &in.report.Images[i]
		*row = ImportedImage{UUID: m.UUID.String(), Name: m.Name, Version: m.Version, State: ImageWaiting, Have: make([]int64, len(m.Files))}
		for _, file := range m.Files {
			row.Size += file.Size
		}
	}
	in.survey()
	for i, m := range x.Images {
		in.known[i] = in.s.mirror.Knows(m.UUID) && in.missing(i) < 0
		if err := in.s.mirror.CheckConflict(m); err != nil {
			in.refuse(i, err)
		} else if in.known[i] {
			in.report.Images[i].State = ImagePresent
		}
	}
	if in.dry {
		return errDry
	}
	in.release = in.s.mirror.Expect(ids)
	return nil
}

// survey looks which bytes of the bundle's files are here.
func (in *importing) survey() {
	for i, m := range in.head.Index.Images {
		for f, file := range m.Files {
			// All bytes of an unfinished download are not the file: they have not been judged.
			have := min(in.s.mirror.Unfinished(file.Want()), file.Size-1)
			if in.s.mirror.HasFile(file.Want()) {
				have = file.Size
			}
			in.report.Images[i].Have[f] = have
		}
	}
}

// Manifest takes over an image's manifest; its files may all be here.
func (in *importing) Manifest(ctx context.Context, i int, m manifest.Manifest) error {
	if in.report.Images[i].State == ImageRefused {
		return nil
	}
	m, err := own.Parse(bytes.Clone(m.Raw()))
	if err != nil {
		in.refuse(i, err)
		return nil
	}
	in.images[i] = m
	return in.complete(ctx, i)
}

// File brings a file, or a part of one, through the store's door. What is wrong
// with it is the image's matter; an error is one of the bundle as a whole, or of
// this mirror.
func (in *importing) File(ctx context.Context, p *bundle.Piece) error {
	row, file := &in.report.Images[p.Image], in.head.Index.Images[p.Image].Files[p.File]
	begin := p.Begin
	end, have := begin+p.Size, row.Have[p.File]
	if row.State == ImageRefused || have >= end || have < begin { // an earlier part has to come first
		return p.Skip(p.Size)
	}
	p.Unchecked() // the store takes the digests of all files
	body := &piece{r: p, at: begin, end: end, size: file.Size, interrupt: in.interrupt}
	err := in.s.mirror.Take(ctx, in.images[p.Image], p.File, file.Want(), body.open)
	for range joinTries { // another import may have broken off for which this one waited
		if !errors.Is(err, verify.ErrUnavailable) || body.begun() || ctx.Err() != nil {
			break
		}
		err = in.s.mirror.Take(ctx, in.images[p.Image], p.File, file.Want(), body.open)
	}
	broke := body.close()
	switch {
	case err == nil:
		row.Have[p.File] = file.Size
		err = in.complete(ctx, p.Image)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, cache.ErrClosed):
		return err
	case body.ended() && end < file.Size: // the rest is in another volume
		row.Have[p.File] = end
		return nil
	case broke != nil && !errors.Is(broke, verify.ErrMismatch): // there is no more of the bundle
		return broke
	case broke != nil:
		in.refuse(p.Image, broke)
		return nil
	default:
		in.refuse(p.Image, fmt.Errorf("%s: %w", p.Path, err))
		err = nil
	}
	if err != nil {
		return err
	}
	return p.Skip(p.Size) // what was here before
}

// complete adds an image to those imported, if all its files are on disk.
func (in *importing) complete(ctx context.Context, i int) error {
	if in.missing(i) >= 0 || in.images[i].Raw() == nil {
		return nil
	}
	if err := in.s.mirror.Import(in.images[i], in.from); err != nil {
		return err
	}
	in.dirty = true
	in.report.Images[i].State = ImageAdded
	if in.known[i] {
		in.report.Images[i].State = ImagePresent
	}
	if time.Since(in.published) < publishEvery {
		return nil
	}
	return in.publish(ctx)
}

// finish adds the images whose files came with other ones, and brings what was
// added into the catalogue.
func (in *importing) finish(ctx context.Context) (err error) {
	in.survey()
	for i := range in.images {
		if in.report.Images[i].State == ImageWaiting {
			err = errors.Join(err, in.complete(ctx, i))
		}
	}
	return errors.Join(err, in.publish(ctx))
}

// publish brings what was added into the catalogue.
func (in *importing) publish(ctx context.Context) error {
	if !in.dirty {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	in.published = time.Now()
	if err := in.s.mirror.ListImported(ctx); err != nil {
		return err
	}
	in.dirty = false
	return nil
}

// missing is the first file of an image that is not on disk, -1 when all are.
func (in *importing) missing(i int) int {
	for f, file := range in.head.Index.Images[i].Files {
		if in.report.Images[i].Have[f] < file.Size {
			return f
		}
	}
	return -1
}

func (in *importing) refuse(i int, err error) {
	in.report.Images[i].State, in.report.Images[i].Error = ImageRefused, explainBundle(err)
	in.images[i] = manifest.Manifest{}
}

// settle says of each image that is not here what it waits for.
func (in *importing) settle() {
	for i, m := range in.head.Index.Images {
		row := &in.report.Images[i]
		switch f := in.missing(i); {
		case row.State == ImageRefused:
		case f >= 0:
			row.Error = &Error{codeIncomplete, fmt.Sprintf("its file %s is missing from byte %d on: %s", m.Files[f].Path, row.Have[f], in.where(m.Files[f], row.Have[f]))}
		case m.Origin != uuid.Nil && !in.s.mirror.Knows(m.Origin):
			row.State = ImageWaiting
			row.Error = &Error{codeOriginMissing, fmt.Sprintf("its origin %s is not here yet", m.Origin)}
		}
	}
}

// where tells which volume has the bytes of a file from offset on.
func (in *importing) where(f bundle.File, offset int64) string {
	volume := f.Volume
	for _, p := range f.Parts {
		if volume = p.Volume; offset < p.Size {
			break
		}
		offset -= p.Size
	}
	if volume == in.head.Volume {
		return fmt.Sprintf("volume %d was not read to its end", volume)
	}
	return fmt.Sprintf("it is in volume %d", volume)
}
