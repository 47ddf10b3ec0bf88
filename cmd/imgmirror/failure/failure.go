// Package failure has what a verb fails with: an error, the code in parentheses before the
// error's text, and the exit code of the process.
package failure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"syscall"

	"imgmirror/cache"
	"imgmirror/cache/bundle"
	"imgmirror/proxy/admin"
	"imgmirror/verify"
)

// Exit codes. SMF and the systemd unit take the last two for "do not restart".
const (
	ExitFailure = 1
	ExitUsage   = 2
	ExitFatal   = 95
	ExitConfig  = 96
)

// Manager is what has started a process, and starts the process again when it fails.
type Manager int

// The managers of services.
const (
	NoManager Manager = iota // an operator's shell
	SMF
	Systemd
)

// Codes that more than one place gives or asks for, in imgadm's manner.
const (
	CodeUsage       = "Usage"
	CodeConfig      = "InvalidConfig"
	CodeFile        = "FileSystemError"
	CodeFormat      = "DataFolderFormat"
	CodeInternal    = "InternalError"
	CodeInterrupted = "Interrupted"
)

// Error is an error with its code.
type Error struct {
	Code string
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// New formats an error as fmt.Errorf does, and gives the error a code.
func New(code, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Usage is New for a command line that makes no sense.
func Usage(format string, args ...any) error { return New(CodeUsage, format, args...) }

// codes are those of errors that verbs meet without a mirror, as a mirror would answer. The first
// row that matches counts.
var codes = []struct {
	is   error
	code string
}{
	{bundle.ErrSignature, "BundleNotTrusted"},
	{bundle.ErrInvalid, "InvalidBundle"},
	{bundle.ErrVolumeSize, "InvalidParameter"},
	{bundle.ErrChanged, "ManifestChanged"},
	{verify.ErrMismatch, "ChecksumError"},
	{cache.ErrFormat, CodeFormat},
	{cache.ErrBusy, "Busy"},
	{context.Canceled, CodeInterrupted},
	{syscall.EADDRINUSE, "AddressInUse"},
	{syscall.EADDRNOTAVAIL, "AddressNotAvailable"},
}

// Of gives err, which is not nil, its code: the code that err has, the code of the mirror's
// answer, a code of the table, or the code of what the system told.
func Of(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if told := (*admin.Error)(nil); errors.As(err, &told) {
		return &Error{Code: told.Code, Err: told}
	}
	for _, row := range codes {
		if errors.Is(err, row.is) {
			return &Error{Code: row.code, Err: err}
		}
	}
	if gone := (*url.Error)(nil); errors.As(err, &gone) {
		return &Error{Code: "NoAnswer", Err: err}
	}
	if file := (*fs.PathError)(nil); errors.As(err, &file) {
		return &Error{Code: CodeFile, Err: err}
	}
	if strings.HasPrefix(err.Error(), "unknown command") { // of cobra, without a type
		return &Error{Code: CodeUsage, Err: err}
	}
	return &Error{Code: CodeInternal, Err: err}
}

// Exit is the exit code of a process that ends with e. Under a manager, wrong settings and a data folder of another
// format have a code of their own: another start would fail in the same way. For SMF that holds for all errors.
func (e *Error) Exit(m Manager) int {
	switch {
	case e.Code == CodeUsage:
		return ExitUsage
	case m != NoManager && e.Code == CodeConfig:
		return ExitConfig
	case m == SMF, m == Systemd && e.Code == CodeFormat:
		return ExitFatal
	default:
		return ExitFailure
	}
}
