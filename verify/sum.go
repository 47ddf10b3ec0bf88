// Package verify owns the meaning of "the bytes are right", and is the only place where bytes from
// outside are judged. The package knows neither HTTP nor the homes of files nor manifests.
package verify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ErrMismatch is matched (errors.Is) by every verdict "these bytes are wrong".
var ErrMismatch = errors.New("bytes do not match")

// ErrUnavailable is matched when a source cannot tell: the source could not be asked, or
// its answer makes no sense. "The source does not have the thing" is fs.ErrNotExist, "the
// source refuses to give the thing" is fs.ErrPermission.
var ErrUnavailable = errors.New("source unavailable")

// ErrResting is matched, beside ErrUnavailable, when a source was not asked: it failed again and
// again to give this very thing. Another try within a second is of no use.
var ErrResting = errors.New("left alone for a while")

// ErrStalled is matched when a source brings no byte for so long that the source is given up.
var ErrStalled = errors.New("stalled")

// Sum is a sha1 digest: the identity of an image file.
type Sum [20]byte

// ParseSum reads 40 hex digits (either case).
func ParseSum(s string) (Sum, error) {
	var sum Sum
	if len(s) != hex.EncodedLen(len(sum)) {
		return Sum{}, fmt.Errorf("sha1 %.50q: %d characters, want 40", s, len(s))
	}
	if _, err := hex.Decode(sum[:], []byte(s)); err != nil {
		return Sum{}, fmt.Errorf("sha1 %.50q: %w", s, err)
	}
	return sum, nil
}

// String gives 40 lower-case hex digits.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// IsZero tells that no sum is known.
func (s Sum) IsZero() bool { return s == Sum{} }

// MarshalText gives the text of String, for JSON.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads the text of ParseSum.
func (s *Sum) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSum(string(text))
	return err
}

// Want describes the right bytes. A zero field is unknown and is not checked (spec/protocols 5.6).
type Want struct {
	SHA1 Sum
	Size int64  // > 0 when known
	MD5  []byte // 16 bytes when known (manifest "md5", or Content-MD5 when there is no sha1)
	// SHA256 is 32 bytes when known: a bundle's index has it.
	SHA256 []byte
}

// Digests are the findings on bytes, all taken in one pass.
type Digests struct {
	SHA1   Sum
	MD5    [16]byte
	SHA256 [32]byte
	Size   int64
	Format string // by the first bytes, see KindOf: "gzip", "bzip2", "xz", "zfs", "zstd", …; "" for an unknown kind
}

// Check judges got against want; the error matches ErrMismatch and says which
// of size, sha1, md5, sha256 differ and how.
func (w Want) Check(got Digests) error {
	var faults []string
	if w.Size > 0 && got.Size != w.Size {
		faults = append(faults, fmt.Sprintf("size is %d, want %d", got.Size, w.Size))
	}
	if !w.SHA1.IsZero() && got.SHA1 != w.SHA1 {
		faults = append(faults, fmt.Sprintf("sha1 is %s, want %s", got.SHA1, w.SHA1))
	}
	if len(w.MD5) > 0 && !bytes.Equal(got.MD5[:], w.MD5) {
		faults = append(faults, fmt.Sprintf("md5 is %x, want %x", got.MD5, w.MD5))
	}
	if len(w.SHA256) > 0 && !bytes.Equal(got.SHA256[:], w.SHA256) {
		faults = append(faults, fmt.Sprintf("sha256 is %x, want %x", got.SHA256, w.SHA256))
	}
	if faults == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrMismatch, strings.Join(faults, "; "))
}

// Checkable tells whether there is a digest to compare the bytes with. A size alone proves nothing.
func (w Want) Checkable() bool { return !w.SHA1.IsZero() || len(w.MD5) > 0 || len(w.SHA256) > 0 }

// Stream is a body that has not been judged: the bytes, and the sender's claims about them. The
// receiver must Close a Stream.
type Stream struct {
	io.ReadCloser
	Size        int64     // size of the WHOLE body claimed by the sender (also when this stream starts at an offset); -1 unknown
	MD5         []byte    // Content-MD5 of the whole body, 16 bytes; nil when not claimed
	ModTime     time.Time // Last-Modified; zero when not claimed
	ContentType string    // "" when not claimed
	// Part is how many bytes the stream has, as claimed, where it ends before the whole body does: a
	// range was asked for. 0: the stream goes on to the end of the body.
	Part int64
	// Pace tells how the Reads so far have come about, between two Reads; nil: nothing is to be told.
	Pace func() Pace
}

// Pace tells what the Reads of a Stream do not show of its sender.
type Pace struct {
	Skipped int64         // bytes that the sender has sent and no Read has given: those before the offset
	Held    time.Duration // time that Reads have waited for the receiver's own limit, not for the sender
}
