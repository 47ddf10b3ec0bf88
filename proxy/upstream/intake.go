package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Bounds of one list, over all its pages.
const (
	maxList     = 256 << 20 // bytes, decoded
	maxElements = 1_000_000
	// A list may take so many times the memory of its text, and besides so many bytes.
	timesText  = 3
	beyondText = 32 << 20
	// namedCost is what the uuid of a refused element takes.
	namedCost = 64
	// builtRefusals are the refusals of one page of which the reason is known.
	builtRefusals = 100
)

// intake takes in the pages of one list as they come, within the bounds.
type intake struct {
	client   *Client
	images   *gathered // without duplicates
	seen     map[uuid.UUID]struct{}
	refusals manifest.Refusals
	left     map[uuid.UUID]struct{} // refused images: pages overlap
	read     int64                  // bytes of text
	elements int
	memory   int64 // booked
}

// newIntake begins a list. The caller ends it.
func (c *Client) newIntake() *intake {
	return &intake{client: c, images: &gathered{}, seen: make(map[uuid.UUID]struct{}), left: make(map[uuid.UUID]struct{})}
}

// end gives back the memory that is booked; the list is kept, or forgotten.
func (in *intake) end() {
	in.client.lists.shrink(in.memory)
	in.memory = 0
}

// page is one answer with manifests.
type page struct {
	*intake
	before   intake      // what the pages before have brought
	had      int         // images of these pages
	last     uuid.UUID   // of the images, duplicates included
	leftNow  []uuid.UUID // refused for the first time
	named    manifest.Refusals
	nameless manifest.Refusals
	errs     []error // why the first elements were left out

	etag         string
	lastModified string
	final        *url.URL // after redirects
}

// entries is how many elements the answer has.
func (p *page) entries() int { return p.elements - p.before.elements }

// fresh is how many images the answer has that no page before had.
func (p *page) fresh() int { return p.images.n - p.had }

// page asks for one page, with retries; manifest.ErrNotModified answers conditions that hold.
func (in *intake) page(ctx context.Context, u *url.URL, conditions http.Header) (*page, error) {
	return retry(ctx, in.client.opts.retryInterval, func() (*page, error) {
		p := &page{intake: in, before: *in, had: in.images.n}
		err := p.ask(ctx, u, conditions)
		if err != nil {
			p.undo()
			return nil, err
		}
		in.client.report(p.errs)
		return p, nil
	})
}

// ask asks once, and takes the answer in.
func (p *page) ask(ctx context.Context, u *url.URL, conditions http.Header) error {
	c := p.client
	kind := c.state.current().kind
	resp, body, err := c.open(ctx, request{
		url:       u,
		versioned: kind == kindIMGAPI,
		header:    conditions,
		wait:      listPatience * c.opts.StallTimeout,
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode != http.StatusNotModified:
	case len(conditions) == 0:
		return nonsense("GET %s: not modified, which was not asked", u)
	default:
		return manifest.ErrNotModified
	}
	o := manifest.ListOptions{ParseOptions: c.parseOptions(resp), Array: kind != kindStatic}
	if err := manifest.ReadList(c.limited(body, &p.read, resp), o, p.take); err != nil {
		return listError(resp, err)
	}
	p.etag, p.lastModified, p.final = resp.Header.Get("ETag"), resp.Header.Get("Last-Modified"), resp.Request.URL
	return nil
}

// listError tells a list that makes no sense, or is too much, from a broken transfer.
func listError(resp *http.Response, err error) error {
	var bound *boundError
	if errors.Is(err, manifest.ErrInvalid) || errors.As(err, &bound) {
		return nonsense("GET %s: %w", resp.Request.URL, err)
	}
	return readError(resp.Request.URL, err)
}

// limited is the text of a list, decoded, of which read counts the bytes.
type limited struct {
	src       io.Reader
	read      *int64
	announced int64 // bytes of the answer
	most      int64
}

func (c *Client) limited(body io.Reader, read *int64, resp *http.Response) io.Reader {
	l := &limited{src: body, read: read, most: c.opts.maxList}
	if resp.Header.Get("Content-Encoding") == "" {
		l.announced = resp.ContentLength
	}
	return l
}

func (l *limited) Read(p []byte) (int, error) {
	if *l.read > l.most || l.announced > l.most {
		return 0, bounded(reasonBytes, "the list has more than %d bytes", l.most)
	}
	n, err := l.src.Read(p)
	*l.read += int64(n)
	return n, err
}

// take takes in one element.
func (p *page) take(m manifest.Manifest, refused error) (bool, error) {
	if p.elements++; p.elements > p.client.opts.maxElements {
		return false, p.client.tooMany()
	}
	if refused != nil {
		return false, p.leaveOut(refused)
	}
	p.last = m.UUID
	if _, dup := p.seen[m.UUID]; dup {
		return false, nil
	}
	if err := p.book(m.Memory()); err != nil {
		return false, err
	}
	p.seen[m.UUID] = struct{}{}
	p.images.add(m)
	return true, nil
}

// tooMany refuses a list by its elements.
func (c *Client) tooMany() error {
	return bounded(reasonElements, "the list has more than %d elements", c.opts.maxElements)
}

// leaveOut counts an element that ingestion refuses.
func (p *page) leaveOut(refused error) error {
	of := &p.nameless
	var pe *manifest.ParseError
	if errors.As(refused, &pe) && pe.Image != uuid.Nil {
		if _, dup := p.left[pe.Image]; dup {
			return nil
		}
		if err := p.book(namedCost); err != nil {
			return err
		}
		p.left[pe.Image] = struct{}{}
		p.leftNow = append(p.leftNow, pe.Image)
		of = &p.named
	}
	if len(p.errs) == builtRefusals {
		*of = of.Count(refused)
		return nil
	}
	p.errs = append(p.errs, refused)
	*of = of.Add(refused)
	return nil
}

// book books n bytes of memory.
func (in *intake) book(n int64) error {
	if in.memory+n > timesText*in.read+beyondText {
		return bounded(reasonProportion, "the list takes more memory than %d times its text and %d bytes", timesText, beyondText)
	}
	if err := in.client.lists.grow(n); err != nil {
		return err
	}
	in.memory += n
	return nil
}

// undo takes back what a failed try has brought.
func (p *page) undo() {
	in := p.intake
	in.images.cut(p.had, func(m *manifest.Manifest) { delete(in.seen, m.UUID) })
	for _, id := range p.leftNow {
		delete(in.left, id)
	}
	in.client.lists.shrink(in.memory - p.before.memory)
	*in = p.before
}

// settle counts what the page has beside images. Elements without a uuid on a page whose images
// were on pages before were there before, too.
func (p *page) settle(first bool) {
	p.refusals = p.refusals.Join(p.named)
	if first || p.fresh() > 0 {
		p.refusals = p.refusals.Join(p.nameless)
	}
}
