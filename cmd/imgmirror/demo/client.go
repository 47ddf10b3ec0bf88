package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// client does what `imgadm import` does on the wire, and checks what imgadm checks: ping, list, the
// manifests of an origin chain, then each file's Content-Length, size and sha1 (docs/imgapi.md,
// "What clients check"). Only fetch may be called concurrently.
type client struct {
	base string // URL of the mirror
	http *http.Client
	say  func(format string, args ...any)
	told bool  // a second import is told by its files alone
	hits int64 // files that came from the mirror's disk
}

// answerLimit is what the client reads of an answer that is no file.
const answerLimit = 1 << 20

// newClient is a client that tells what happens.
func newClient(base string, say func(format string, args ...any)) *client {
	return &client{base: base, http: &http.Client{Transport: &http.Transport{Proxy: nil}}, say: say}
}

// short is the beginning of an id: a line has room for that.
func short(id uuid.UUID) string { return id.String()[:8] + "…" }

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
	images, err := c.images(ctx)
	if err == nil && !c.told {
		c.say("%-26s  an IMGAPI server", "GET /ping")
		c.say("%-26s  %d images", "GET /images", len(images))
	}
	return images, err
}

// images gives the list.
func (c *client) images(ctx context.Context) ([]manifest.Manifest, error) {
	text, err := c.read(ctx, "/images")
	if err != nil {
		return nil, err
	}
	images, _, err := manifest.ParseList(text, manifest.ParseOptions{})
	if err != nil {
		return nil, fmt.Errorf("GET %s/images: %w", c.base, err)
	}
	return images, nil
}

// named finds an image, of one file, in the list.
func (c *client) named(ctx context.Context, name string) (manifest.Manifest, error) {
	images, err := c.images(ctx)
	if err != nil {
		return manifest.Manifest{}, err
	}
	for _, m := range images {
		if m.Name == name && len(m.Files) == 1 {
			return m, nil
		}
	}
	return manifest.Manifest{}, fmt.Errorf("GET %s/images: no image named %s: %w", c.base, name, fs.ErrNotExist)
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
		what = "on top of " + short(m.Origin)
	}
	if !c.told {
		c.say("%-26s  %s %s, %s", "GET /images/"+short(id), m.Name, m.Version, what)
	}
	return m, nil
}

// importSample lists the images, finds the sample by its name and imports its whole chain, root
// first. It gives the bytes received.
func (c *client) importSample(ctx context.Context) (total int64, took time.Duration, err error) {
	start := time.Now()
	images, err := c.list(ctx)
	if err != nil {
		return 0, 0, err
	}
	at := slices.IndexFunc(images, func(m manifest.Manifest) bool { return m.Name == sample })
	if at < 0 {
		return 0, 0, fmt.Errorf("GET %s/images: no image named %s: %w", c.base, sample, fs.ErrNotExist)
	}
	image, err := c.image(ctx, images[at].UUID)
	if err != nil {
		return 0, 0, err
	}
	chain, err := manifest.Chain(image, func(m manifest.Manifest) manifest.Manifest { return m },
		func(id uuid.UUID) (manifest.Manifest, error) { return c.image(ctx, id) })
	if err != nil {
		return 0, 0, err
	}
	for _, m := range slices.Backward(chain) {
		n, err := c.file(ctx, m)
		if err != nil {
			return 0, 0, err
		}
		total += n
	}
	c.told = true
	return total, time.Since(start), nil
}

// file downloads one image's file, checks the bytes, and tells so.
func (c *client) file(ctx context.Context, m manifest.Manifest) (int64, error) {
	start := time.Now()
	got, err := c.fetch(ctx, m, func() {})
	if err != nil {
		return 0, err
	}
	if got.cache == "HIT" {
		c.hits++
	}
	c.say("GET %s  %7s bytes, sha1 right, %s in %s",
		filePath(m), humanize.Comma(got.bytes), got.cache, time.Since(start).Round(100*time.Microsecond))
	return got.bytes, nil
}

// fetched is what has come of a file.
type fetched struct {
	bytes int64
	cache string // the header X-Cache
}

// fetch downloads one image's file and checks the bytes. It calls began, once, at the first byte.
// Whatever the error, fetched tells what has come.
func (c *client) fetch(ctx context.Context, m manifest.Manifest, began func()) (got fetched, err error) {
	path, want := "/images/"+m.UUID.String()+"/file", m.Files[0]
	resp, err := c.get(ctx, path)
	if err != nil {
		return got, err
	}
	defer resp.Body.Close()
	got.cache = resp.Header.Get("X-Cache")
	if resp.ContentLength != want.Size {
		return got, fmt.Errorf("GET %s: Content-Length %d, the manifest says %d", path, resp.ContentLength, want.Size)
	}
	sums := verify.NewWriter()
	defer sums.Close()
	body := &counted{r: resp.Body, began: began}
	if err = verify.HashFrom(ctx, sums, body); err == nil {
		err = verify.Want{SHA1: want.SHA1, Size: want.Size}.Check(sums.Digests())
	}
	got.bytes = body.n
	if err != nil {
		return got, fmt.Errorf("GET %s: %w", path, err)
	}
	return got, nil
}

// counted is a body that counts its bytes, and calls began at the first one.
type counted struct {
	r     io.Reader
	n     int64
	began func()
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 && c.n == 0 {
		c.began()
	}
	c.n += int64(n)
	return n, err
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
