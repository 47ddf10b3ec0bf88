package failure

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"

	"imgmirror/cache/bundle"
	"imgmirror/proxy/admin"
	"imgmirror/verify"
)

// The code that is printed in parentheses, and the exit code.
func TestOf(t *testing.T) {
	f := func(err error, code string, exit int) {
		t.Helper()
		e := Of(err)
		if e.Code != code || e.Exit(false) != exit {
			t.Errorf("%v: %s, exit %d; want %s, exit %d", err, e.Code, e.Exit(false), code, exit)
		}
	}
	f(errors.Join(&admin.Error{Code: "ImagePinned", Message: "x"}, errors.New("closing")), "ImagePinned", 1)
	f(Usage("x"), CodeUsage, 2)
	f(New("NoDataFolder", "x"), "NoDataFolder", 1)
	f(fmt.Errorf("following: %w", context.Canceled), "Interrupted", 1)
	f(&url.Error{Op: "Get", URL: "http://mirror", Err: errors.New("refused")}, "NoAnswer", 1)
	f(fmt.Errorf("may.tar: %w: %w", bundle.ErrInvalid, verify.ErrMismatch), "InvalidBundle", 1)
	f(errors.New("x"), CodeInternal, 1)
}
