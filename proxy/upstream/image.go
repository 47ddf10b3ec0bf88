package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
)

// get asks for one manifest (spec 5.3).
func (c *Client) get(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	if c.dir != nil {
		return c.dir.get(ctx, id)
	}
	v, err := c.resolve(ctx)
	if err != nil {
		return manifest.Manifest{}, err
	}
	switch v.kind {
	case kindIMGAPI:
		var m manifest.Manifest
		for _, u := range c.channelURLs(join(c.addr.base, "images", id.String())) {
			if m, err = c.getAt(ctx, u, id, true); !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		return m, err
	case kindDSAPI:
		return c.getAt(ctx, join(c.addr.base, "datasets", id.String()), id, false)
	default:
		return c.getFromList(ctx, id)
	}
}

// channelURLs are the addresses of one thing on an IMGAPI source: in the source's own
// channel, then in all, since an ancestor may be in another (spec 7, G8).
func (c *Client) channelURLs(u *url.URL) []*url.URL {
	urls := []*url.URL{withChannel(u, c.addr.channel)}
	if c.addr.channel != "*" && (c.addr.channel != "" || c.state.channels.Load()) {
		urls = append(urls, withChannel(u, "*"))
	}
	return urls
}

func withChannel(u *url.URL, channel string) *url.URL {
	if channel == "" {
		return u
	}
	at := *u
	q := at.Query()
	q.Set("channel", channel)
	at.RawQuery = q.Encode()
	return &at
}

// getAt asks for the manifest of id at u.
func (c *Client) getAt(ctx context.Context, u *url.URL, id uuid.UUID, versioned bool) (manifest.Manifest, error) {
	resp, doc, err := c.fetch(ctx, request{url: u, versioned: versioned, wait: c.opts.StallTimeout}, maxManifestBody)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return manifest.Manifest{}, nonsense("GET %s: %s", u, resp.Status)
	}
	doc = trimmed(doc)
	m, err := manifest.Parse(doc, c.parseOptions(resp))
	if err != nil {
		if named(doc, id) { // it is the image's manifest, and ingestion leaves it out
			return manifest.Manifest{}, fmt.Errorf("GET %s: %w: %w", u, fs.ErrNotExist, err)
		}
		return manifest.Manifest{}, nonsense("GET %s: %w", u, err)
	}
	if m.UUID != id {
		return manifest.Manifest{}, nonsense("GET %s: the manifest of another image, %s", u, m.UUID)
	}
	c.state.saw([]manifest.Manifest{m})
	return m, nil
}

// named tells whether doc is a JSON object with that uuid.
func named(doc []byte, id uuid.UUID) bool {
	var object struct {
		UUID string `json:"uuid"`
	}
	// A field of a wrong type elsewhere is no matter: only the uuid is looked at.
	return json.Unmarshal(doc, &object) == nil && bytes.EqualFold([]byte(object.UUID), []byte(id.String()))
}

// getFromList finds a manifest of a static source, which has lists only.
func (c *Client) getFromList(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	u := &c.addr.given
	resp, body, err := c.open(ctx, request{url: u, wait: listPatience * c.opts.StallTimeout})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, via.ErrItself) { // no list: what it would hold is not known
			err = nonsense("%v", err)
		}
		return manifest.Manifest{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return manifest.Manifest{}, nonsense("GET %s: %s", u, resp.Status)
	}
	var read int64
	found, err := c.findIn(resp, c.limited(body, &read, resp), manifest.ListOptions{ParseOptions: c.parseOptions(resp)}, id)
	if err != nil {
		c.count(err)
		return manifest.Manifest{}, err
	}
	c.state.final.Store(resp.Request.URL)
	if found == nil {
		return manifest.Manifest{}, fmt.Errorf("GET %s: %w: not on the list", u, fs.ErrNotExist)
	}
	return *found, nil
}

// findIn reads a list for one image, the first with that uuid; nil when there is none.
func (c *Client) findIn(resp *http.Response, text io.Reader, o manifest.ListOptions, id uuid.UUID) (found *manifest.Manifest, err error) {
	elements := 0
	err = manifest.ReadList(text, o, func(m manifest.Manifest, refused error) (bool, error) {
		if elements++; elements > c.opts.maxElements {
			return false, c.tooMany()
		}
		if refused != nil || m.UUID != id || found != nil {
			return false, nil
		}
		m = m.CloneText()
		found = &m
		return false, nil
	})
	if err != nil {
		return nil, listError(resp, err)
	}
	return found, nil
}
