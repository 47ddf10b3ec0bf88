package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/uuid"

	"imgmirror/proxy/catalog"
	"imgmirror/verify"
)

// searching is a catalogue with a search of its own.
type searching struct {
	*catalog.Catalog
	get func(context.Context, uuid.UUID) (catalog.Entry, error)
}

func (s searching) Get(ctx context.Context, id uuid.UUID) (catalog.Entry, error) {
	return s.get(ctx, id)
}

// A search counts for the address of its client. A refused search is 429 where the questions of this
// address wait, and 503 where those of all wait: with Retry-After, in both protocols.
func TestRefusedSearch(t *testing.T) {
	for _, test := range []struct {
		err        error
		whenDown   string
		status     int
		code       string
		retryAfter string
	}{
		{catalog.ErrThrottled, UnreachableError, 429, "TooManyRequestsError", "2"},
		{catalog.ErrBusy, UnreachableError, 503, "RemoteSourceError", "2"},
		{context.DeadlineExceeded, UnreachableError, 503, "RemoteSourceError", "5"},
		{catalog.ErrThrottled, UnreachableNotFound, 404, "ResourceNotFound", ""}, // imgadm asks its next source
	} {
		f := newFixture(t)
		var clients []netip.Addr
		f.options.OnUnreachable = test.whenDown
		f.options.Catalog = searching{f.options.Catalog.(*catalog.Catalog), func(ctx context.Context, id uuid.UUID) (catalog.Entry, error) {
			client, _ := catalog.Client(ctx)
			clients = append(clients, client)
			return catalog.Entry{}, fmt.Errorf("image %s: %w: %w", id, verify.ErrUnavailable, test.err)
		}}
		f.start()
		paths := []string{"/images/" + someUUID, "/images/" + someUUID + "/file", "/images/" + someUUID + "/icon", "/datasets/" + someUUID, "/datasets/" + someUUID + "/x.zfs", "/" + someUUID + "/x.zfs"}
		for _, path := range paths {
			got := f.get(path)
			code, _, _ := got.errorBody(t)
			if got.status != test.status || code != test.code || got.header.Get("Retry-After") != test.retryAfter {
				t.Errorf("%v: %s: %d %s, Retry-After %q", test.err, path, got.status, code, got.header.Get("Retry-After"))
			}
		}
		for i, client := range clients {
			if client != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("%s was asked for %v", paths[i], client)
			}
		}
		if len(clients) != len(paths) {
			t.Errorf("%d searches for %d requests", len(clients), len(paths))
		}
	}
}
