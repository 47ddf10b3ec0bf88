// Package via is how mirrors know each other, and themselves, among the servers that they talk to: by ids in the Via
// header (RFC 9110, 7.6.3), in questions and in the answers to them. It owns the form of ids and of the header, and
// carries through a context on whose behalf a question is asked. It asks nothing.
package via

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
)

// prefix begins the pseudonym of each mirror.
const prefix = "imgmirror-"

// maxIDs bounds the ids that are taken from a header: more are no way that a question goes.
const maxIDs = 32

// NewID makes the id of a mirror. It is random, and made anew by each process: a copied data folder makes no twin.
func NewID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// Parse gives the ids of mirrors in the values of a Via header, in their order and each once. What other proxies
// wrote, and what is no well-formed id, is left out.
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

// With carries that a question is asked on behalf of the mirrors ids: they have asked each other, and the last us.
func With(ctx context.Context, ids []string) context.Context {
	if len(ids) == 0 {
		return ctx
	}
	return context.WithValue(ctx, key{}, ids)
}

// From gives what With has put in.
func From(ctx context.Context) []string {
	ids, _ := ctx.Value(key{}).([]string)
	return ids
}

// Crosses tells whether a way leads through one of ids.
func Crosses(way, ids []string) bool {
	return slices.ContainsFunc(way, func(id string) bool { return slices.Contains(ids, id) })
}
