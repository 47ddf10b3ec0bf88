package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	"imgmirror/manifest"
	"imgmirror/verify"
)

// List asks for the whole list, with prev's validators, within 120 s. Connect errors, 5xx answers
// and stalls are retried: 4 tries, 1 s, 2 s and 4 s apart, for each page. prev is the last Listing
// of the same source; without its validators when the source may have been at another address, or
// in another channel, then.
//
// The Listing has Source, Kind, Images (without duplicates, in the order of the answers), the
// validators and Fetched; Unlisted is prev's. When nothing has changed, the Listing is prev with a
// new Fetched, and the error is manifest.ErrNotModified. An empty list after a prev with images is
// an error that matches verify.ErrUnavailable the first time, and believed the second time in a row
// (spec 5.3). Members of the list that ingestion refuses are left out and logged once.
//
// A source that is a mirror is asked for the ways of its images, too: Mirror and Ways tell these.
// The images that the source has through us are left out.
//
// Errors: via.ErrItself, fs.ErrPermission, fs.ErrNotExist (there is no list at that address),
// verify.ErrUnavailable, ctx.Err(); or another 4xx answer.
func (c *Client) List(ctx context.Context, prev manifest.Listing) (manifest.Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, listDeadline)
	defer cancel()
	c.lists.keep(memoryOf(prev.Images))
	l, err := c.list(ctx, prev)
	if err == nil && !c.state.believe(len(l.Images), len(prev.Images) > 0) {
		err = fmt.Errorf("%w: the list is empty, which is believed only if it is so again", verify.ErrUnavailable)
	}
	if errors.Is(err, manifest.ErrNotModified) {
		c.state.believe(len(prev.Images), false) // it ends a row of empty ones
		l, err = c.withWays(ctx, prev, false)
	} else if err == nil {
		l, err = c.withWays(ctx, l, true)
	}
	c.state.judge(err)
	c.health.listed(err)
	c.count(err)
	if errors.Is(err, manifest.ErrNotModified) {
		c.health.holds(len(prev.Images))
		prev.Fetched = time.Now()
		return prev, manifest.ErrNotModified
	}
	if err != nil {
		return manifest.Listing{}, fmt.Errorf("list: %w", err)
	}
	c.health.holds(len(l.Images))
	c.state.saw(l.Images)
	c.lists.keep(memoryOf(l.Images))
	l.Source, l.Unlisted, l.Fetched = c.opts.Name, prev.Unlisted, time.Now()
	return l, nil
}

func (c *Client) list(ctx context.Context, prev manifest.Listing) (manifest.Listing, error) {
	if c.dir != nil {
		return c.dir.list(ctx, prev)
	}
	v, err := retry(ctx, c.opts.retryInterval, func() (verdict, error) { return c.resolve(ctx) })
	if err != nil {
		return manifest.Listing{}, err
	}
	switch v.kind {
	case kindIMGAPI:
		return c.listPages(ctx, prev)
	case kindDSAPI:
		return c.listWhole(ctx, v.kind, join(c.addr.base, "datasets"), prev)
	default:
		return c.listWhole(ctx, v.kind, &c.addr.given, prev)
	}
}

// memoryOf is about how many bytes the images take in memory.
func memoryOf(images []manifest.Manifest) (n int64) {
	for i := range images {
		n += images[i].Memory()
	}
	return n
}

// count counts a refusal by a bound.
func (c *Client) count(err error) {
	var bound *boundError
	if errors.As(err, &bound) {
		c.metrics.refusals.WithLabelValues(bound.reason).Inc()
	}
}

// listWhole asks a source that has no pages.
func (c *Client) listWhole(ctx context.Context, kind string, u *url.URL, prev manifest.Listing) (manifest.Listing, error) {
	in := c.newIntake()
	defer in.end()
	p, err := in.page(ctx, u, conditions(kind, prev))
	if err != nil {
		return manifest.Listing{}, err
	}
	if kind == kindStatic {
		c.state.final.Store(p.final)
	}
	p.settle(true)
	return manifest.Listing{Kind: kind, ETag: p.etag, LastModified: p.lastModified, Images: in.images.all(), Refusals: in.refusals}, nil
}

// listPages asks an IMGAPI source, page by page (spec 5.3). The first page is asked for without a
// limit: servers without one answer with the whole list. A marker that was deleted meanwhile has
// all pages asked for anew, once.
func (c *Client) listPages(ctx context.Context, prev manifest.Listing) (manifest.Listing, error) {
	l, err := c.readPages(ctx, conditions(kindIMGAPI, prev))
	if !errors.Is(err, errNoMarker) {
		return l, err
	}
	if l, err = c.readPages(ctx, nil); errors.Is(err, errNoMarker) {
		err = nonsense("markers vanish while the list is read: %v", err)
	}
	return l, err
}

// errNoMarker: the source does not know a marker.
var errNoMarker = errors.New("marker deleted")

// readPages reads all pages. The validators of the first page are kept only when that page held
// everything, and not exactly as many images as servers cap a page at: such a page stays the same
// when images are added after it.
func (c *Client) readPages(ctx context.Context, conditions http.Header) (manifest.Listing, error) {
	in := c.newIntake()
	defer in.end()
	first, err := in.page(ctx, c.pageURL("", false), conditions)
	if err != nil {
		return manifest.Listing{}, err
	}
	first.settle(true)
	images, entries := first.fresh(), first.entries()
	for n, p := 1, first; p.entries() >= pageSize && p.fresh() > 0; n++ {
		if n >= maxPages {
			return manifest.Listing{}, &nonsenseError{bounded(reasonPages, "the list has more than %d pages", maxPages)}
		}
		p, err = in.page(ctx, c.pageURL(p.last.String(), true), nil)
		if errors.Is(err, fs.ErrNotExist) {
			return manifest.Listing{}, fmt.Errorf("%w: %w", errNoMarker, err)
		} else if err != nil {
			return manifest.Listing{}, err
		}
		p.settle(false)
	}
	l := manifest.Listing{Kind: kindIMGAPI, Images: in.images.all(), Refusals: in.refusals}
	if in.images.n == images && entries != pageSize {
		l.ETag, l.LastModified = first.etag, first.lastModified
	}
	return l, nil
}

func (c *Client) pageURL(marker string, limited bool) *url.URL {
	limit := ""
	if limited {
		limit = strconv.Itoa(pageSize)
	}
	return withQuery(join(c.addr.base, "images"),
		"channel", c.addr.channel, "state", "active", "limit", limit, "marker", marker)
}

// conditions are the headers that ask "only if it is not prev".
func conditions(kind string, prev manifest.Listing) http.Header {
	h := http.Header{}
	if prev.Kind == kind && prev.ETag != "" {
		h.Set("If-None-Match", prev.ETag)
	}
	if prev.Kind == kind && prev.LastModified != "" {
		h.Set("If-Modified-Since", prev.LastModified)
	}
	return h
}

// parseOptions are those for an answer: images without a date have that of the answer.
func (c *Client) parseOptions(resp *http.Response) manifest.ParseOptions {
	o := manifest.ParseOptions{ServePrivate: c.opts.ServePrivate}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		o.Date = t
	}
	return o
}

// report logs what was left out of a list, once.
func (c *Client) report(skipped []error) {
	for _, err := range skipped {
		if !errors.Is(err, manifest.ErrSkip) && c.state.news(err.Error()) {
			c.log.Warn("manifest left out", "error", err)
		}
	}
}

// retry calls try until it succeeds, fails in a way that another try would not help, or
// has failed listTries times. The waits between begin with interval and double.
func retry[T any](ctx context.Context, interval time.Duration, try func() (T, error)) (T, error) {
	var last error
	v, err := backoff.Retry(ctx, func() (T, error) {
		v, err := try()
		last = err
		if err != nil && !retryable(err) {
			err = backoff.Permanent(err)
		}
		return v, err
	},
		backoff.WithBackOff(&backoff.ExponentialBackOff{InitialInterval: interval, Multiplier: 2, MaxInterval: time.Minute}),
		backoff.WithMaxTries(listTries),
		backoff.WithMaxElapsedTime(0),
	)
	if err != nil && ctx.Err() != nil && !errors.Is(last, ctx.Err()) {
		return v, fmt.Errorf("%w: %w", ctx.Err(), last)
	}
	if err != nil {
		return v, last
	}
	return v, nil
}
