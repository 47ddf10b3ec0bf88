package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
)

const maxPathsBody = 16 << 20 // bytes, decoded

// meet notes which mirror has answered, if it was one, and fails when it was us.
func (c *Client) meet(resp *http.Response) error {
	if c.opts.ID == "" || !sameHost(&c.addr.base, resp.Request.URL) {
		return nil
	}
	ids := via.Parse(resp.Header.Values("Via")...)
	if len(ids) == 0 {
		c.state.peer.Store(nil)
		return nil
	}
	c.state.peer.Store(&ids[0])
	if ids[0] != c.opts.ID {
		return nil
	}
	return fmt.Errorf("GET %s: %w: %w", resp.Request.URL, via.ErrItself, fs.ErrNotExist)
}

// Peer is the id of the mirror that answered last; "" for another server, or without an answer.
func (c *Client) Peer() string {
	if id := c.state.peer.Load(); id != nil {
		return *id
	}
	return ""
}

// withWays asks a source that is a mirror for the ways of the images of l, its list just read, and
// gives l without the images that the source has through us: each would keep what the other has
// lost. The validators go with these images, which may come back although the list stays. fresh is
// false for a list that has not changed; the error is then manifest.ErrNotModified unless the ways
// have changed.
func (c *Client) withWays(ctx context.Context, l manifest.Listing, fresh bool) (manifest.Listing, error) {
	same := manifest.ErrNotModified
	if fresh {
		same = nil
	}
	peer := c.state.peer.Load()
	if peer == nil {
		if l.Mirror == "" {
			return l, same
		}
		l.Mirror, l.Ways = "", nil
		return l, nil
	}
	paths, err := c.paths(ctx)
	if err != nil {
		return manifest.Listing{}, err
	}
	ids := make([]uuid.UUID, len(l.Images))
	for i := range l.Images {
		ids[i] = l.Images[i].UUID
	}
	before := l.Ways
	l.Mirror, l.Ways = *peer, paths.Ways(*peer, ids)
	us := []string{c.opts.ID}
	ours := func(m manifest.Manifest) bool { return via.Crosses(l.Ways[m.UUID], us) }
	if slices.ContainsFunc(l.Images, ours) {
		l.Images = slices.DeleteFunc(slices.Clone(l.Images), ours)
		maps.DeleteFunc(l.Ways, func(_ uuid.UUID, way []string) bool { return via.Crosses(way, us) })
		l.ETag, l.LastModified = "", ""
		if c.state.news("ring") {
			c.log.Info("source is a mirror that has images from this one; these do not count", "mirror", *peer)
		}
		return l, nil
	}
	if maps.EqualFunc(before, l.Ways, slices.Equal) {
		return l, same
	}
	return l, nil
}

// paths asks a mirror for the ways of its images. A mirror that does not tell has all images by
// itself.
func (c *Client) paths(ctx context.Context) (via.Paths, error) {
	return retry(ctx, c.opts.retryInterval, func() (via.Paths, error) {
		u := join(c.addr.base, "paths")
		_, doc, err := c.fetch(ctx, request{url: u, wait: c.opts.StallTimeout}, maxPathsBody)
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, via.ErrItself) {
			return via.Paths{}, nil
		} else if err != nil {
			return via.Paths{}, err
		}
		p, err := via.ParsePaths(doc)
		if err != nil {
			return via.Paths{}, nonsense("GET %s: %w", u, err)
		}
		return p, nil
	})
}
