package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"imgmirror/cache"
	"imgmirror/manifest"
	"imgmirror/verify"
)

func TestExplain(t *testing.T) {
	honest := &Server{opts: Options{OnUnreachable: UnreachableError}}
	helpful := &Server{opts: Options{OnUnreachable: UnreachableNotFound}}
	f := func(s *Server, err error, status int, code string) {
		t.Helper()
		for _, err := range []error{err, fmt.Errorf("fill 97f2: source one: %w", err), errors.Join(errors.New("x"), err)} {
			e := s.explain(err, "it is not there")
			if e.status != status || e.code != code {
				t.Errorf("%v: %d %s, want %d %s", err, e.status, e.code, status, code)
			}
			want := "it is not there"
			if !errors.Is(err, fs.ErrNotExist) { // the source was not asked: what it has is not told
				want = "image not found: the image's sources "
			}
			if status == 404 && !strings.HasPrefix(e.message, want) {
				t.Errorf("%v: %q", err, e.message)
			}
			if !errors.Is(e, err) {
				t.Errorf("%v: the cause is lost", err)
			}
		}
	}
	f(honest, fs.ErrNotExist, 404, "ResourceNotFound")
	f(honest, manifest.ErrInvalid, 422, "InvalidParameter")
	f(honest, verify.ErrMismatch, 503, "RemoteSourceError")
	f(honest, verify.ErrUnavailable, 503, "RemoteSourceError")
	f(honest, context.DeadlineExceeded, 503, "RemoteSourceError")
	f(honest, cache.ErrNoSpace, 503, "StorageIsDown")
	f(honest, cache.ErrDisk, 503, "StorageIsDown")
	f(honest, cache.ErrClosed, 503, "ServiceUnavailableError")
	f(honest, context.Canceled, 503, "ServiceUnavailableError")
	f(honest, errors.New("else"), 500, "InternalError")

	// Who refuses can be reached, and is not said to be away.
	if m := honest.explain(fmt.Errorf("fill: %w", cache.ErrRefused), "").message; m != "the image's sources refuse to give it" {
		t.Errorf("refused: %q", m)
	}

	// "Cannot tell" wins over "not there", in either order.
	for _, cannot := range []error{verify.ErrUnavailable, context.DeadlineExceeded} {
		f(honest, errors.Join(fs.ErrNotExist, cannot), 503, "RemoteSourceError")
		f(honest, errors.Join(cannot, fs.ErrNotExist), 503, "RemoteSourceError")
		f(helpful, cannot, 404, "ResourceNotFound")
	}
	// That choice is about sources that are down, and nothing else.
	f(helpful, verify.ErrMismatch, 503, "RemoteSourceError")
	f(helpful, cache.ErrNoSpace, 503, "StorageIsDown")
	f(helpful, cache.ErrClosed, 503, "ServiceUnavailableError")
	f(helpful, errors.New("else"), 500, "InternalError")
}

func TestErrorBody(t *testing.T) {
	f := func(e *apiError, want string) {
		t.Helper()
		if got := string(e.body()); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f(notFound("image %s not found", "x"), `{"code":"ResourceNotFound","message":"image x not found"}`)
	f(notFound("%s", `/<a>&"b"`), `{"code":"ResourceNotFound","message":"/<a>&\"b\""}`)
	f(notFound("%s", "bad \xff utf-8\x00"), "{\"code\":\"ResourceNotFound\",\"message\":\"bad \\ufffd utf-8\\u0000\"}")
	f(invalidParameter("limit", "limit is no number"),
		`{"code":"InvalidParameter","message":"limit is no number","errors":[{"field":"limit","code":"Invalid","message":"limit is no number"}]}`)
	f(queryFault(&manifest.QueryError{Outer: "ValidationFailed", Field: "channel", Code: "MissingParameter", Message: "m"}),
		`{"code":"ValidationFailed","message":"m","errors":[{"field":"channel","code":"MissingParameter","message":"m"}]}`)
	f(queryFault(&manifest.QueryError{Outer: "UnauthorizedError", Field: "inclAdminFields", Message: "m"}),
		`{"code":"UnauthorizedError","message":"m"}`)
	// What an error from below says is for the log: it may name files and hosts.
	f((&Server{}).explain(errors.New("open /secret: no"), ""), `{"code":"InternalError","message":"internal error"}`)
}
