package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// client does what `imgadm import` does on the wire, and checks what imgadm checks: ping, list, the
// manifests of an origin chain, then each file's Content-Length, size and sha1 (docs/imgapi.md,
// "What clients check").
type client struct {
	base string // URL of the mirror
	http *http.Client
	say  func(format string, args ...any)
}

// answerLimit is what the client reads of an answer that is no file.
const answerLimit = 1 << 20

// list pings the mirror and gives its images.
func (c *client) list(ctx context.Context) ([]manifest.Manifest, error) {
	text, err := c.read(ctx, "/ping")
	if err != nil {
		return nil, err
	}
	var ping struct {
		IMGAPI bool `json:"imgapi"`
	}
	if err := json.Unmarshal(text, &ping); err != nil || !ping.IMGAPI {
		return nil, fmt.Errorf("GET %s/ping: not an image server", c.base)
	}
	c.say("GET /ping     an IMGAPI server")
	if text, err = c.read(ctx, "/images"); err != nil {
		return nil, err
	}
	images, _, err := manifest.ParseList(text, manifest.ParseOptions{})
	if err != nil {
		return nil, fmt.Errorf("GET %s/images: %w", c.base, err)
	}
	c.say("GET /images   %d images", len(images))
	return images, nil
}

// image asks for one manifest.
func (c *client) image(ctx context.Context, id uuid.UUID) (manifest.Manifest, error) {
	path := "/images/" + id.String()
	text, err := c.read(ctx, path)
	if err != nil {
		return manifest.Manifest{}, err
	}
	m, err := manifest.Parse(text, manifest.ParseOptions{})
	switch {
	case err != nil:
		return m, fmt.Errorf("GET %s: %w", path, err)
	case len(m.Files) != 1:
		return m, fmt.Errorf("image %s has %d files, not 1", id, len(m.Files))
	}
	what := "a base image"
	if m.HasOrigin() {
		what = "on top of " + m.Origin.String()
	}
	c.say("GET %s   %s %s, %s", path, m.Name, m.Version, what)
	return m, nil
}

// importImage fetches the image's whole chain, root first, and gives the bytes received.
func (c *client) importImage(ctx context.Context, id uuid.UUID) (total int64, err error) {
	image, err := c.image(ctx, id)
	if err != nil {
		return 0, err
	}
	chain, err := manifest.Chain(image, func(m manifest.Manifest) manifest.Manifest { return m },
		func(id uuid.UUID) (manifest.Manifest, error) { return c.image(ctx, id) })
	if err != nil {
		return 0, err
	}
	for _, m := range slices.Backward(chain) {
		n, err := c.file(ctx, m)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// file downloads one image's file and checks the bytes.
func (c *client) file(ctx context.Context, m manifest.Manifest) (int64, error) {
	path, want := "/images/"+m.UUID.String()+"/file", m.Files[0]
	start := time.Now()
	resp, err := c.get(ctx, path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.ContentLength != want.Size {
		return 0, fmt.Errorf("GET %s: Content-Length %d, the manifest says %d", path, resp.ContentLength, want.Size)
	}
	sums := verify.NewWriter()
	defer sums.Close()
	if err = verify.HashFrom(ctx, sums, resp.Body); err == nil {
		err = verify.Want{SHA1: want.SHA1, Size: want.Size}.Check(sums.Digests())
	}
	if err != nil {
		return 0, fmt.Errorf("GET %s: %w", path, err)
	}
	c.say("GET %s   %-4s  %7d bytes, sha1 right, %s",
		path, resp.Header.Get("X-Cache"), want.Size, time.Since(start).Round(100*time.Microsecond))
	return want.Size, nil
}

// read gives the body of an answer.
func (c *client) read(ctx context.Context, path string) ([]byte, error) {
	resp, err := c.get(ctx, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, answerLimit))
}

// get asks for path; the caller closes the body. A status other than 200 is an error.
func (c *client) get(ctx context.Context, path string) (*http.Response, error) {
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
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) //nolint:errcheck // the status tells enough
		return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	return resp, nil
}
