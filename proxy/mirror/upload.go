package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// uploadNotes are the notes of the files that came by an upload and belong to no image yet, by their
// sha1: a start removes these files.
const uploadNotes = "uploads"

// Upload is what a writer tells of a file.
type Upload struct {
	SHA1        verify.Sum // zero: the manifest's
	Size        int64      // 0: the manifest's
	Compression string
	GUID        string // of the dataset; "": not told
	// Body gives the bytes. Its reads end when the context does.
	Body func(context.Context) io.Reader
}

// AddFile brings the file of the draft of id to disk: the same as in Publish. The file takes the
// place of the one that came before.
func (m *Mirror) AddFile(ctx context.Context, by Writer, id uuid.UUID, u Upload) (manifest.Unactivated, error) {
	d, err := m.takeDraft(id, by)
	if err != nil {
		return manifest.Unactivated{}, err
	}
	defer m.rest(d)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !m.drafts.upload(d, cancel) {
		return manifest.Unactivated{}, fmt.Errorf("image %s: %w", id, ErrDraftBusy)
	}
	image, err := d.image.WithFile(u.SHA1, u.Size, u.Compression, u.GUID)
	if err != nil {
		return image, err
	}
	if err := m.dropFile(ctx, d); err != nil {
		return image, err
	}
	if err := m.addFile(ctx, d, image.Manifest(), u); err != nil {
		return image, fmt.Errorf("image %s: %w", id, err)
	}
	d.image = image
	return image, nil
}

// AwaitsFile tells whether AddFile would read the body of u now: the error is the one of AddFile.
func (m *Mirror) AwaitsFile(by Writer, id uuid.UUID, u Upload) error {
	d, err := m.takeDraft(id, by)
	if err != nil {
		return err
	}
	defer m.rest(d)
	_, err = d.image.WithFile(u.SHA1, u.Size, u.Compression, u.GUID)
	return err
}

// addFile is AddFile for a draft without a file.
func (m *Mirror) addFile(ctx context.Context, d *draft, image manifest.Manifest, u Upload) error {
	file := image.Files[0]
	if err := m.drafts.book(d, file.Size); err != nil {
		return err
	}
	m.drafts.need(d, file.SHA1)
	var err error
	if !m.HasFile(verify.Want{SHA1: file.SHA1}) {
		err = m.noteUpload(file.SHA1)
	}
	if err == nil {
		d.file, err = m.take(ctx, image, io.LimitReader(u.Body(ctx), file.Size+1))
	}
	if err == nil {
		return nil
	}
	m.drafts.book(d, 0) //nolint:errcheck // always nil
	m.drafts.need(d, verify.Sum{})
	if left := m.dropUpload(context.WithoutCancel(ctx), file.SHA1); left != nil {
		m.log.Warn("the file of a failed upload may be left", "sum", file.SHA1, "error", left)
	}
	return err
}

// release closes the Reader of the draft's file.
func (d *draft) release() {
	d.file.Close() //nolint:errcheck // nothing was read
	d.file = nil
}

// dropFile takes the file from a draft. A file that came by an upload goes, unless it is needed.
func (m *Mirror) dropFile(ctx context.Context, d *draft) error {
	if d.file == nil {
		return nil
	}
	d.release()
	m.drafts.book(d, 0) //nolint:errcheck // always nil
	m.drafts.need(d, verify.Sum{})
	return m.dropUpload(ctx, d.image.Manifest().Files[0].SHA1)
}

// dropUpload removes a file that has a note of an upload, unless an image has the file, and the note.
// While a draft needs the file, both stay.
func (m *Mirror) dropUpload(ctx context.Context, sum verify.Sum) error {
	m.drafts.files.Lock()
	defer m.drafts.files.Unlock()
	if m.drafts.needed(sum) {
		return nil
	}
	notes, err := m.store.Notes(uploadNotes).All()
	if err != nil {
		return fmt.Errorf("file %s of an image that was not activated stays: %w", sum, err)
	}
	if _, noted := notes[sum.String()]; !noted {
		return nil
	}
	if f, there := m.store.Describe(sum); there && len(f.Images) == 0 {
		if _, err := m.store.Remove(ctx, sum); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("file %s of an image that was not activated stays: %w", sum, err)
		}
	}
	m.forgetUpload(sum)
	return nil
}

// noteUpload notes that a file belongs to no image yet.
func (m *Mirror) noteUpload(sum verify.Sum) error {
	return m.store.Notes(uploadNotes).Write(map[string][]byte{sum.String(): nil}, nil)
}

// forgetUpload drops the note of a file. A failure is no more than a note too many, which the next
// start drops.
func (m *Mirror) forgetUpload(sum verify.Sum) {
	if err := m.store.Notes(uploadNotes).Write(nil, []string{sum.String()}); err != nil {
		m.log.Warn("the note of an upload stays", "sum", sum, "error", err)
	}
}

// settleUploads removes the files of drafts that a process left when it ended.
func (m *Mirror) settleUploads(ctx context.Context) {
	left, err := m.store.Notes(uploadNotes).All()
	for name := range left {
		sum, bad := verify.ParseSum(name)
		if bad == nil {
			bad = m.dropUpload(ctx, sum)
		}
		err = errors.Join(err, bad)
	}
	if err != nil {
		m.log.Warn("files of images that were never activated may be left", "error", err)
	}
}
