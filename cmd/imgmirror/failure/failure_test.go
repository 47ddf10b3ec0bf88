package failure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/proxy/admin"
	"imgmirror/verify"
)

// The code that is printed in parentheses, and the exit code.
func TestOf(t *testing.T) {
	f := func(err error, code string, exit int) {
		t.Helper()
		e := Of(err)
		if e.Code != code || e.Exit(NoManager) != exit {
			t.Errorf("%v: %s, exit %d; want %s, exit %d", err, e.Code, e.Exit(NoManager), code, exit)
		}
	}
	f(errors.Join(&admin.Error{Code: "ImagePinned", Message: "x"}, errors.New("closing")), "ImagePinned", 1)
	f(Usage("x"), CodeUsage, 2)
	f(New("NoDataFolder", "x"), "NoDataFolder", 1)
	f(fmt.Errorf("listen: %w", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}), "AddressInUse", 1)
	f(fmt.Errorf("following: %w", context.Canceled), "Interrupted", 1)
	f(&url.Error{Op: "Get", URL: "http://mirror", Err: errors.New("refused")}, "NoAnswer", 1)
	f(fmt.Errorf("may.tar: %w: %w", bundle.ErrInvalid, verify.ErrMismatch), "InvalidBundle", 1)
	f(errors.New("x"), CodeInternal, 1)
}

// Managers are told which failures another start would meet again.
func TestExit(t *testing.T) {
	f := func(err error, none, smf, systemd int) {
		t.Helper()
		e := Of(err)
		if n, s, d := e.Exit(NoManager), e.Exit(SMF), e.Exit(Systemd); n != none || s != smf || d != systemd {
			t.Errorf("%v: exit %d, under SMF %d, under systemd %d; want %d, %d, %d", err, n, s, d, none, smf, systemd)
		}
	}
	f(Usage("x"), 2, 2, 2)
	f(New(CodeConfig, "x"), 1, 96, 96)
	f(fmt.Errorf("data: %w", cache.ErrFormat), 1, 95, 95)
	f(errors.New("listen: address already in use"), 1, 95, 1)
}
