package proxy

import (
	"testing"

	"github.com/google/uuid"
)

// The ids of requests are random UUIDs, version 4, and no id comes twice.
func TestIDs(t *testing.T) {
	var some ids
	seen := make(map[string]bool)
	for range 3*idsAtOnce + 1 {
		text := some.next()
		id, err := uuid.Parse(text)
		if err != nil || id.Version() != 4 || id.Variant() != uuid.RFC4122 || id.String() != text {
			t.Errorf("%q is no random UUID: %v", text, err)
		}
		if seen[text] {
			t.Errorf("%s came twice", text)
		}
		seen[text] = true
	}
}
