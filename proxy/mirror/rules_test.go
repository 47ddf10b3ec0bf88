package mirror

import (
	"context"
	"testing"
	"time"

	"imgmirror/cache"
)

// Rules that name no number of downloads have the default, from the start and after Adjust.
func TestRulesDefault(t *testing.T) {
	o := testOptions(t, sampleSource(t))
	o.Rules = Rules{}
	m := newMirror(t, o)
	fetchSample(t, m, sampleBase)
	m.Adjust(Rules{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := m.bringFile(ctx, entryOf(t, m, samplePlain), 0, cache.Client, cache.ByClient, nil); err != nil {
		t.Error(err)
	}
}
