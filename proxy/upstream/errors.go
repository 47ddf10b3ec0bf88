package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"imgmirror/verify"
)

var (
	errRefused  = errors.New("address refused")
	errRedirect = errors.New("redirect refused")
)

// replyError is an answer whose status is not success.
type replyError struct {
	url     string
	status  int
	code    string // "ResourceNotFound", when the body told it
	excerpt string // one short line of the body
	total   int64  // the size that the Content-Range of a 416 tells; -1: none
}

func (e *replyError) Error() string {
	s := fmt.Sprintf("GET %s: %d %s", e.url, e.status, http.StatusText(e.status))
	if e.code != "" {
		s += ": " + e.code
	}
	if e.excerpt != "" {
		s += ": " + e.excerpt
	}
	return s
}

// Is gives the status its meaning: 404 and 410 are fs.ErrNotExist, 401 and 403 fs.ErrPermission,
// other 4xx none of the three, everything else verify.ErrUnavailable.
func (e *replyError) Is(target error) bool {
	switch e.status {
	case http.StatusNotFound, http.StatusGone:
		return target == fs.ErrNotExist
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == fs.ErrPermission
	}
	return target == verify.ErrUnavailable && !e.client()
}

func (e *replyError) client() bool { return e.status >= 400 && e.status < 500 }

// nonsenseError is an answer with a good status that cannot be what was asked
// for. It matches verify.ErrUnavailable: whether the source has the thing is not known.
type nonsenseError struct{ err error }

func (e *nonsenseError) Error() string        { return e.err.Error() }
func (e *nonsenseError) Unwrap() error        { return e.err }
func (e *nonsenseError) Is(target error) bool { return target == verify.ErrUnavailable }

func nonsense(format string, args ...any) error {
	return &nonsenseError{fmt.Errorf(format, args...)}
}

// retryable tells whether another try may help (spec 5.5): connect errors, 5xx, stalls, broken
// transfers.
func retryable(err error) bool {
	var silly *nonsenseError
	var reply *replyError
	switch {
	case errors.As(err, &silly), errors.Is(err, errRedirect), errors.Is(err, errRefused):
		return false
	case errors.As(err, &reply):
		return reply.status >= 500
	}
	return errors.Is(err, verify.ErrUnavailable)
}

// protocolFailure tells whether a failed list says that the source is no longer of the kind it was.
func protocolFailure(err error) bool {
	var silly *nonsenseError
	var reply *replyError
	var bound *boundError
	switch {
	case errors.As(err, &bound):
		return false
	case errors.As(err, &silly):
		return true
	case errors.As(err, &reply):
		return reply.status < 500 && !errors.Is(err, fs.ErrPermission)
	}
	return false
}

// connectFailed tells whether no connection to the server came about.
func connectFailed(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op == "dial" || op.Op == "proxyconnect"
	}
	return errors.Is(err, errRefused)
}

// elsewhere tells whether the other address of a file is worth a try (spec 4.1).
func elsewhere(ctx context.Context, err error) bool {
	return ctx.Err() == nil &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || connectFailed(err))
}

// noConnection is the error of a question that found no connection to the source's own server: no
// matter of what was asked for.
type noConnection struct{ error }

func (e noConnection) Unwrap() error { return e.error }

// unconnected tells whether err, of a request that was meant for u, is a noConnection.
func (c *Client) unconnected(u *url.URL, err error) bool {
	var in *url.Error
	if errors.As(err, &in) { // perhaps after redirects
		if at, bad := url.Parse(in.URL); bad == nil {
			u = at
		}
	}
	return connectFailed(err) && sameHost(&c.addr.base, u)
}

const maxExcerpt = 120 // runes

// describe reads an error body of any form (spec 5.5): JSON with code and message,
// the same under "error", a JSON string, text, HTML, garbage.
func describe(body []byte) (code, excerpt string) {
	var doc struct {
		Code    any
		Message any
		Error   any
	}
	text := string(body)
	if json.Unmarshal(body, &doc) == nil {
		if inner, ok := doc.Error.(map[string]any); ok && doc.Code == nil {
			doc.Code, doc.Message = inner["code"], inner["message"]
		}
		code, _ = doc.Code.(string)
		if message, ok := doc.Message.(string); ok {
			text = message
		}
	} else if json.Unmarshal(body, &text) != nil {
		text = string(body)
	}
	return oneLine(code), oneLine(text)
}

// oneLine cuts s to a short printable line.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "?")
	words := strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	runes := []rune(strings.Join(words, " "))
	if len(runes) > maxExcerpt {
		return string(runes[:maxExcerpt]) + "…"
	}
	return string(runes)
}
