package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// Known gives the list now being served if the list tells what there is: the list has images, or
// every source has answered once, in this process or by its saved list. Else Known waits, until ctx
// ends at most, for the sources that have neither answered nor failed; an error matches
// verify.ErrUnavailable. Offline, an empty list is an answer. A source that is a mirror on whose
// behalf ctx asks does not count: two mirrors that are each other's sources must not wait for each
// other.
func (c *Catalog) Known(ctx context.Context) (*List, error) {
	for waited := false; ; waited = true {
		silent := c.silent(via.From(ctx))
		if l := c.Current(); len(l.images) > 0 || len(silent) == 0 {
			return l, nil
		}
		if waited {
			return nil, fmt.Errorf("%w: no answer yet from %s, and no image of another source", verify.ErrUnavailable, strings.Join(silent, ", "))
		}
		select {
		case <-c.filled:
		case <-c.ready:
		case <-ctx.Done():
		}
	}
}

// silent are the names of the sources without a known list, but for the mirrors asked.
func (c *Catalog) silent(asked []string) []string {
	if c.opts.Offline {
		return nil
	}
	c.state.Lock()
	defer c.state.Unlock()
	var names []string
	for _, s := range c.sources {
		if !s.answered && !slices.Contains(asked, s.remote.Peer()) {
			names = append(names, s.name)
		}
	}
	return names
}
