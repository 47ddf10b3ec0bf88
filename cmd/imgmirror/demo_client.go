package main

import (
	"context"
	"crypto/sha1" //nolint:gosec // the sha1 is the image file's identity in IMGAPI
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// imageClient does what `imgadm import` does on the wire, and checks what it
// checks: ping, list, the manifests of an origin chain, then each file's
// Content-Length, size and sha1 (docs/imgapi.md, "What clients check").
type imageClient struct {
	base string
	http *http.Client
	say  func(format string, args ...any)
}

// demoImage is what the demo's client reads of a manifest.
type demoImage struct {
	UUID    string `json:"uuid"`
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Origin  string `json:"origin"`
	Files   []struct {
		SHA1 string `json:"sha1"`
		Size int64  `json:"size"`
	} `json:"files"`
}

// list pings the server and returns its images.
func (c *imageClient) list(ctx context.Context) ([]demoImage, error) {
	var ping struct {
		IMGAPI bool `json:"imgapi"`
	}
	if err := c.json(ctx, "/ping", &ping); err != nil {
		return nil, err
	}
	if !ping.IMGAPI {
		return nil, fmt.Errorf("GET %s/ping: not an image server", c.base)
	}
	c.say("GET /ping     an IMGAPI server")
	var images []demoImage
	if err := c.json(ctx, "/images", &images); err != nil {
		return nil, err
	}
	c.say("GET /images   %d images", len(images))
	return images, nil
}

// chain returns the image and its ancestors, root first.
func (c *imageClient) chain(ctx context.Context, uuid string) ([]demoImage, error) {
	var chain []demoImage
	for next := uuid; next != ""; {
		var m demoImage
		if err := c.json(ctx, "/images/"+next, &m); err != nil {
			return nil, err
		}
		if len(m.Files) != 1 {
			return nil, fmt.Errorf("image %s has %d files, not 1", m.UUID, len(m.Files))
		}
		what := "a base image"
		if m.Origin != "" {
			what = "on top of " + m.Origin
		}
		c.say("GET /images/%s   %s %s, %s", m.UUID, m.Name, m.Version, what)
		chain = append([]demoImage{m}, chain...)
		next = m.Origin
	}
	return chain, nil
}

// importImage fetches the image's whole chain, root first, and returns the
// bytes received.
func (c *imageClient) importImage(ctx context.Context, uuid string) (int64, error) {
	chain, err := c.chain(ctx, uuid)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, m := range chain {
		n, err := c.file(ctx, m)
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// file downloads one image's file and checks it.
func (c *imageClient) file(ctx context.Context, m demoImage) (int64, error) {
	path := "/images/" + m.UUID + "/file"
	start := time.Now()
	resp, err := c.get(ctx, path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.ContentLength != m.Files[0].Size {
		return 0, fmt.Errorf("GET %s: Content-Length %d, the manifest says %d", path, resp.ContentLength, m.Files[0].Size)
	}
	digest := sha1.New() //nolint:gosec // as above
	n, err := io.Copy(digest, resp.Body)
	if err != nil {
		return n, fmt.Errorf("GET %s: %w", path, err)
	}
	if sum := hex.EncodeToString(digest.Sum(nil)); sum != m.Files[0].SHA1 {
		return n, fmt.Errorf("GET %s: sha1 is %s, the manifest says %s", path, sum, m.Files[0].SHA1)
	}
	c.say("GET /images/%s/file   %-4s  %7d bytes, sha1 right, %s",
		m.UUID, resp.Header.Get("X-Cache"), n, time.Since(start).Round(100*time.Microsecond))
	return n, nil
}

func (c *imageClient) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Version", "~2")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	return resp, nil
}

func (c *imageClient) json(ctx context.Context, path string, into any) error {
	resp, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}
