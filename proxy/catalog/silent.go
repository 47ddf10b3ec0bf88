package catalog

import (
	"context"
	"fmt"
	"strings"
)

// Known gives the list now being served if it is known what there is: it has images, or every source has answered at
// least once, in this process or, by its saved list, in an earlier one. Else that no image is on it tells nothing. Then
// Known waits, until ctx ends at most, for the sources that have neither answered nor failed; an error matches
// ErrUnavailable. Offline, the saved lists are all there is, and an empty list is the answer.
func (c *Catalog) Known(ctx context.Context) (*List, error) {
	silent := c.silent()
	if l := c.Current(); len(l.images) > 0 || len(silent) == 0 {
		return l, nil
	}
	select {
	case <-c.filled:
	case <-c.ready:
	case <-ctx.Done():
	}
	silent = c.silent()
	if l := c.Current(); len(l.images) > 0 || len(silent) == 0 {
		return l, nil
	}
	return nil, fmt.Errorf("%w: no answer yet from %s, and no image of another source", ErrUnavailable, strings.Join(silent, ", "))
}

// hasAnswered tells whether a list of s is known, old or new.
func (c *Catalog) hasAnswered(s *source) bool {
	c.state.Lock()
	defer c.state.Unlock()
	return s.answered
}

// silent are the names of the sources that are to be asked and of which no list is known, old or new.
func (c *Catalog) silent() []string {
	if c.offline {
		return nil
	}
	c.state.Lock()
	defer c.state.Unlock()
	var names []string
	for _, s := range c.sources {
		if !s.answered {
			names = append(names, s.name)
		}
	}
	return names
}
