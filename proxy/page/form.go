package page

import (
	"crypto/subtle"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"
)

// The bounds of forms.
const (
	maxForm     = 64 << 10         // bytes of a form without files
	formTimeout = 30 * time.Second // for a form without files, and that a form with files may bring nothing
)

// The faults of forms.
var (
	errNoForm = &fault{http.StatusUnsupportedMediaType, "This is no form", "The page takes forms only."}
	errTorn   = &fault{http.StatusBadRequest, "This is no form", "The form cannot be read."}
	errLarge  = &fault{http.StatusRequestEntityTooLarge, "Too much", "The form is too large."}
	errCSRF   = &fault{http.StatusForbidden, "This form is not from here",
		"The form is of another session, or of another site. Nothing was done. Load the page again, and try once more."}
	// unknownAction answers a form that asks for what its page cannot do.
	unknownAction = &fault{http.StatusUnprocessableEntity, "Nothing was done", "The form asks for something that this page does not do."}
)

// admit checks a form of the session before anything is done: the form has the session's own token,
// which no page of another site knows. A form without files is in PostForm then. A form with files
// (enctype="multipart/form-data") has the token as its first part, and parts reads the others.
func (v *visit) admit(w http.ResponseWriter) error {
	kind, _, err := mime.ParseMediaType(v.Header.Get("Content-Type"))
	if err != nil {
		return errNoForm
	}
	switch kind {
	case "application/x-www-form-urlencoded":
		if err := readForm(w, v.Request); err != nil {
			return err
		}
		return v.checkCSRF(v.PostForm.Get("csrf"))
	case "multipart/form-data":
		v.Body = &arriving{ReadCloser: v.Body, conn: http.NewResponseController(w)}
		if v.parts, err = v.MultipartReader(); err != nil {
			return errTorn
		}
		first, err := v.parts.NextPart()
		if err != nil || first.FormName() != "csrf" {
			return errTorn
		}
		token, err := io.ReadAll(io.LimitReader(first, 2*int64(len(v.session.csrf))))
		if err != nil {
			return errTorn
		}
		return v.checkCSRF(string(token))
	}
	return errNoForm
}

// readForm reads a form without files into r.PostForm.
func readForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = &arriving{http.MaxBytesReader(w, r.Body, maxForm), http.NewResponseController(w), time.Now().Add(formTimeout)}
	if err := r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return errLarge
		}
		return errTorn
	}
	return nil
}

func (v *visit) checkCSRF(token string) error {
	if subtle.ConstantTimeCompare([]byte(token), []byte(v.session.csrf)) != 1 {
		return errCSRF
	}
	return nil
}

// arriving is the body of a form, with a time limit for each Read.
type arriving struct {
	io.ReadCloser
	conn  *http.ResponseController
	until time.Time // the body has come by then; zero: no such limit
}

// Read sets deadlines where the listener has them.
func (b *arriving) Read(p []byte) (int, error) {
	deadline := time.Now().Add(formTimeout)
	if !b.until.IsZero() {
		deadline = b.until
	}
	_ = b.conn.SetReadDeadline(deadline)
	n, err := b.ReadCloser.Read(p)
	// After the end of the body the server watches for a client that leaves, and would take a deadline
	// for one.
	_ = b.conn.SetReadDeadline(time.Time{})
	return n, err
}
