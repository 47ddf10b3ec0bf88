package admin

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"time"

	"imgmirror/proxy/meaning"
	"imgmirror/verify"
)

const (
	maxManifest = 1 << 20
	// maxUpload is the largest file there may be (20 GiB), with its manifest and
	// what surrounds the two.
	maxUpload = 20<<30 + 2*maxManifest
	// uploadStall is how long an upload may bring nothing.
	uploadStall = time.Minute
)

// publish is POST /publish: a form of two parts, "manifest" and then "file",
// which goes to the disk as it comes in.
func (s *Server) publish(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > maxUpload {
		return &http.MaxBytesError{Limit: maxUpload}
	}
	r.Body = &arriving{ReadCloser: http.MaxBytesReader(w, r.Body, maxUpload), conn: http.NewResponseController(w), within: uploadStall}
	form, err := r.MultipartReader()
	if err != nil {
		return badForm(err)
	}
	part, err := nextPart(form, "manifest")
	if err != nil {
		return err
	}
	manifest, err := io.ReadAll(io.LimitReader(part, maxManifest+1))
	if err != nil {
		return badForm(err)
	}
	if len(manifest) > maxManifest {
		return refuse(http.StatusRequestEntityTooLarge, codeTooLarge, "the manifest has more than %d bytes", maxManifest)
	}
	file, err := nextPart(form, "file")
	if err != nil {
		return err
	}
	m, err := s.mirror.Publish(r.Context(), manifest, file)
	if err != nil {
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			return err
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return badForm(err)
		case errors.Is(err, verify.ErrMismatch):
			return refuse(http.StatusUnprocessableEntity, codeChecksum, "%v", err)
		}
		return err
	}
	e, err := s.mirror.Find(r.Context(), m.UUID)
	if err != nil {
		return fmt.Errorf("the image is published, but %w", err)
	}
	return reply(w, http.StatusOK, s.imageOf(e))
}

func nextPart(form *multipart.Reader, name string) (*multipart.Part, error) {
	part, err := form.NextPart()
	if err != nil {
		return nil, badForm(fmt.Errorf("part %q: %w", name, err))
	}
	if part.FormName() != name {
		return nil, badForm(fmt.Errorf("part %q comes where %q is expected", shorten(part.FormName()), name))
	}
	return part, nil
}

// badForm is the answer to an upload that is not as it should be.
func badForm(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return err
	}
	return refuse(http.StatusBadRequest, meaning.BadRequest, "the upload cannot be read: %v", err)
}

// unpublish is DELETE /published/UUID.
func (s *Server) unpublish(r *http.Request) (any, error) {
	id, err := uuidOf(r.PathValue("uuid"))
	if err != nil {
		return nil, err
	}
	m, err := s.mirror.Unpublish(r.Context(), id)
	if err != nil {
		return nil, err
	}
	out := []Removed{}
	for _, f := range m.Files {
		if !s.mirror.HasFile(verify.Want{SHA1: f.SHA1}) {
			out = append(out, Removed{SHA1: f.SHA1.String(), UUIDs: []string{id.String()}, Size: f.Size, Reason: "unpublished"})
		}
	}
	return out, nil
}
