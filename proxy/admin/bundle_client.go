package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"imgmirror/verify"
)

// BundlePlan lists images with their origins, origins first, and what bundles of
// them are made of.
func (c *Client) BundlePlan(ctx context.Context, w BundleWanted) ([]Bundled, error) {
	return ask[[]Bundled](ctx, c, http.MethodPost, "/bundle/plan", w)
}

// File opens a file on the mirror's disk at an offset below its size. What comes
// is what the mirror has; who needs to be sure hashes it.
func (c *Client) File(ctx context.Context, sum verify.Sum, offset int64) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, "/files/"+sum.String(), nil)
	if err != nil {
		return nil, err
	}
	want := http.StatusOK
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
		want = http.StatusPartialContent
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s, want status %d", req.URL, resp.Status, want)
	}
	return resp.Body, nil
}

// ImportBundle sends a volume of a bundle, of size bytes (-1: not known) less
// those of the holes, which volume does not give either; too many of them is an
// error. It tells what became of all images of the bundle, of what is wrong with
// the bundle in Error, too.
func (c *Client) ImportBundle(ctx context.Context, volume io.Reader, size int64, holes []Hole) (BundleImport, error) {
	query := ""
	if len(holes) > 0 {
		query = "?" + url.Values{"without": {writeHoles(holes)}}.Encode()
	}
	for _, h := range holes {
		size -= h.Size
	}
	return c.sendBundle(ctx, query, volume, size)
}

// ImportBundleDry sends the beginning of a volume, as far as its first manifest,
// and tells what the mirror has of the bundle's images already.
func (c *Client) ImportBundleDry(ctx context.Context, head io.Reader) (BundleImport, error) {
	return c.sendBundle(ctx, "?dry_run=true", head, -1)
}

func (c *Client) sendBundle(ctx context.Context, query string, body io.Reader, size int64) (BundleImport, error) {
	var report BundleImport
	req, err := c.request(ctx, http.MethodPost, "/bundle/import"+query, io.NopCloser(body))
	if err != nil {
		return report, err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", typeTar)
	req.Header.Set("Expect", "100-continue") // who may not import is told before gigabytes are on their way
	resp, err := c.roundTrip(req)
	if gone := (*url.Error)(nil); errors.As(err, &gone) {
		gone.URL, _, _ = strings.Cut(gone.URL, "?") // the holes are long, and tell nobody anything
	}
	if err != nil {
		return report, err
	}
	defer resp.Body.Close()
	return report, decodeReply(resp, &report)
}

// LargestHoles gives those of holes, which are in order, that a request may have:
// the largest ones that are worth it.
func LargestHoles(holes []Hole) []Hole {
	const worth = 64 << 10
	kept := slices.DeleteFunc(slices.Clone(holes), func(h Hole) bool { return h.Size < worth })
	if len(kept) <= maxHoles {
		return kept
	}
	sizes := make([]int64, len(kept))
	for i, h := range kept {
		sizes[i] = h.Size
	}
	slices.Sort(sizes)
	least := sizes[len(sizes)-maxHoles]
	kept = slices.DeleteFunc(kept, func(h Hole) bool { return h.Size < least })
	return kept[:min(len(kept), maxHoles)]
}
