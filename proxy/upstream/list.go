package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

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
	if errors.Is(err, manifest.ErrNotModified) {
		prev.Fetched = time.Now()
		return prev, manifest.ErrNotModified
	}
	if err != nil {
		return manifest.Listing{}, fmt.Errorf("list: %w", err)
	}
	c.state.saw(l.Images)
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

// page is one answer with manifests.
type page struct {
	images       []manifest.Manifest
	skipped      []error // why the other members of the answer were left out
	etag         string
	lastModified string
	final        *url.URL // after redirects
}

// entries is how many members the answer has.
func (p page) entries() int { return len(p.images) + len(p.skipped) }

// listWhole asks a source that has no pages.
func (c *Client) listWhole(ctx context.Context, kind string, u *url.URL, prev manifest.Listing) (manifest.Listing, error) {
	p, err := c.page(ctx, u, conditions(kind, prev))
	if err != nil {
		return manifest.Listing{}, err
	}
	if kind == kindStatic {
		c.state.final.Store(p.final)
	}
	l := manifest.Listing{Kind: kind, ETag: p.etag, LastModified: p.lastModified, Refusals: manifest.Refusals{}.Add(p.skipped...)}
	l.Images, _ = appendNew(nil, make(map[uuid.UUID]struct{}, len(p.images)), p.images)
	return l, nil
}

// listPages asks an IMGAPI source, page by page (spec 5.3). The validators of the first page are
// kept only when that page held everything, and not exactly as many images as servers cap a page
// at: such a page stays the same when images are added after it.
func (c *Client) listPages(ctx context.Context, prev manifest.Listing) (manifest.Listing, error) {
	if textOf(prev.Images) > maxListBody { // it would not do, again
		c.state.paged.Store(true)
	}
	first, err := c.firstPage(ctx, conditions(kindIMGAPI, prev))
	if err != nil {
		return manifest.Listing{}, err
	}
	images, refusals, err := c.follow(ctx, first)
	if errors.Is(err, fs.ErrNotExist) { // the marker was deleted meanwhile: once more from the start
		if first, err = c.firstPage(ctx, nil); err != nil {
			return manifest.Listing{}, err
		}
		images, refusals, err = c.follow(ctx, first)
		if errors.Is(err, fs.ErrNotExist) {
			err = nonsense("markers vanish while the list is read: %v", err)
		}
	}
	if err != nil {
		return manifest.Listing{}, err
	}
	l := manifest.Listing{Kind: kindIMGAPI, Images: images, Refusals: refusals}
	if len(images) <= len(first.images) && first.entries() != pageSize {
		l.ETag, l.LastModified = first.etag, first.lastModified
	}
	return l, nil
}

// textOf is how many bytes the manifests have in a list, at least.
func textOf(images []manifest.Manifest) (n int64) {
	for i := range images {
		n += int64(len(images[i].Raw()) + len(","))
	}
	return n
}

// firstPage asks without a limit, which servers without one answer with the whole
// list. If that is more than is taken at once, it and all later ones ask for a page.
func (c *Client) firstPage(ctx context.Context, conditions http.Header) (page, error) {
	if !c.state.paged.Load() {
		p, err := c.page(ctx, c.pageURL("", false), conditions)
		if !errors.Is(err, errTooLong) {
			return p, err
		}
		c.state.paged.Store(true)
	}
	return c.page(ctx, c.pageURL("", true), nil)
}

// follow gives the images of first and of all pages after, and what these have beside images. An
// error that matches fs.ErrNotExist means: the source does not know a marker.
func (c *Client) follow(ctx context.Context, first page) ([]manifest.Manifest, manifest.Refusals, error) {
	seen := make(map[uuid.UUID]struct{}, len(first.images))
	images, fresh := appendNew(nil, seen, first.images)
	left := leftOut{seen: make(map[uuid.UUID]struct{})}
	left.add(first, false)
	p := first
	for n := 1; p.entries() >= pageSize && fresh > 0; n++ {
		if n >= maxPages {
			return nil, left.refusals, nonsense("the list has more than %d pages", maxPages)
		}
		marker := p.images[len(p.images)-1].UUID
		var err error
		if p, err = c.page(ctx, c.pageURL(marker.String(), true), nil); err != nil {
			return nil, left.refusals, err
		}
		images, fresh = appendNew(images, seen, p.images)
		left.add(p, fresh == 0)
	}
	return images, left.refusals, nil
}

// leftOut collects what pages have beside images. Pages overlap.
type leftOut struct {
	refusals manifest.Refusals
	seen     map[uuid.UUID]struct{}
}

// add takes in a page. repeats: all images, and all entries without a uuid, were on pages before.
func (l *leftOut) add(p page, repeats bool) {
	for _, err := range p.skipped {
		var pe *manifest.ParseError
		named := errors.As(err, &pe) && pe.Image != uuid.Nil
		if named {
			if _, dup := l.seen[pe.Image]; dup {
				continue
			}
			l.seen[pe.Image] = struct{}{}
		}
		if named || !repeats {
			l.refusals = l.refusals.Add(err)
		}
	}
}

// appendNew appends the images whose uuid is not in seen, and tells how many they are.
func appendNew(to []manifest.Manifest, seen map[uuid.UUID]struct{}, from []manifest.Manifest) ([]manifest.Manifest, int) {
	before := len(to)
	for _, m := range from {
		if _, dup := seen[m.UUID]; !dup {
			seen[m.UUID] = struct{}{}
			to = append(to, m)
		}
	}
	return to, len(to) - before
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

// page asks for one page, with retries; manifest.ErrNotModified answers conditions that hold.
func (c *Client) page(ctx context.Context, u *url.URL, conditions http.Header) (page, error) {
	return retry(ctx, c.opts.retryInterval, func() (page, error) {
		resp, doc, err := c.fetch(ctx, request{
			url:       u,
			versioned: c.state.current().kind == kindIMGAPI,
			header:    conditions,
			wait:      listPatience * c.opts.StallTimeout,
		}, maxListBody)
		if err != nil {
			return page{}, err
		}
		if resp.StatusCode == http.StatusNotModified {
			if len(conditions) == 0 {
				return page{}, nonsense("GET %s: not modified, which was not asked", u)
			}
			return page{}, manifest.ErrNotModified
		}
		if doc = trimmed(doc); c.state.current().kind != kindStatic && !bytes.HasPrefix(doc, []byte("[")) {
			return page{}, nonsense("GET %s: not a list", u)
		}
		images, skipped, err := manifest.ParseList(doc, c.parseOptions(resp))
		if err != nil {
			return page{}, nonsense("GET %s: %w", u, err)
		}
		c.report(skipped)
		return page{
			images:       images,
			skipped:      skipped,
			etag:         resp.Header.Get("ETag"),
			lastModified: resp.Header.Get("Last-Modified"),
			final:        resp.Request.URL,
		}, nil
	})
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
