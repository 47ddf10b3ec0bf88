package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/proxy/admin"
)

// A conflict is told with the sums of both sides.
func TestWarnOfConflicts(t *testing.T) {
	first := admin.Offer{Source: "first", Holds: true, Files: []admin.OfferFile{{SHA1: "aaaa", Size: 10}}}
	same := admin.Offer{Source: "same", Holds: true, Files: first.Files}
	other := admin.Offer{Source: "other", Conflict: true, Files: []admin.OfferFile{{SHA1: "bbbb", Size: 7}, {Size: 8}}}
	f := func(want string, offers ...admin.Offer) {
		t.Helper()
		var b bytes.Buffer
		warnOfConflicts(&b, uuid.Max, offers)
		if got := strings.TrimSpace(b.String()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f("")
	f("", first, same)
	f("", other) // no source counts
	f("warning: image ffffffff-ffff-ffff-ffff-ffffffffffff: source other has other files "+
		"(sha1 bbbb, 7 bytes; sha1 unknown, 8 bytes) than source first, which counts (sha1 aaaa, 10 bytes)", first, same, other)
}
