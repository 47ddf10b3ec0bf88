// Package via is how mirrors know each other, and themselves, among the servers that they ask: by
// ids in the Via header (RFC 9110, 7.6.3), in questions and in answers. The package owns the form
// of ids and of the header, and a context's note of the mirrors on whose behalf a question is
// asked. The package asks nothing.
package via

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// ErrItself is matched, together with fs.ErrNotExist, when a source turned out to be the mirror that asks: whatever its
// address, the source has nothing that the mirror does not have.
var ErrItself = errors.New("the source is this mirror itself")

// prefix begins the pseudonym of each mirror.
const prefix = "imgmirror-"

// maxIDs bounds the ids that are taken from a header. No question passes more mirrors.
const maxIDs = 32

// NewID makes the id of a mirror. Each process makes a random one of its own, so that a copied data
// folder makes no twin.
func NewID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// Parse gives the ids of mirrors in the values of a Via header, in their order and each once.
// Entries of other proxies and malformed ids are left out.
func Parse(values ...string) []string {
	var ids []string
	for _, value := range values {
		for _, member := range strings.Split(value, ",") {
			fields := strings.Fields(member)
			if len(fields) >= 2 && isID(fields[1]) && !slices.Contains(ids, fields[1]) && len(ids) < maxIDs {
				ids = append(ids, fields[1])
			}
		}
	}
	return ids
}

func isID(s string) bool {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || len(digits) != 16 {
		return false
	}
	_, err := hex.DecodeString(digits)
	return err == nil
}

// Format is the header for ids.
func Format(ids ...string) string {
	members := make([]string, len(ids))
	for i, id := range ids {
		members[i] = "1.1 " + id
	}
	return strings.Join(members, ", ")
}

type key struct{}

// With notes the mirrors on whose behalf a question is asked: each has asked the next, and the last
// has asked this mirror.
func With(ctx context.Context, ids []string) context.Context {
	if len(ids) == 0 {
		return ctx
	}
	return context.WithValue(ctx, key{}, ids)
}

// From gives the ids that With has noted.
func From(ctx context.Context) []string {
	ids, _ := ctx.Value(key{}).([]string)
	return ids
}

// Crosses tells whether a way leads through one of ids.
func Crosses(way, ids []string) bool {
	return slices.ContainsFunc(way, func(id string) bool { return slices.Contains(ids, id) })
}
