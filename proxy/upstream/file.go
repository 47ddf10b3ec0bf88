package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// span is the bytes of a file that are asked for.
type span struct {
	offset int64
	length int64 // 0: up to the end
	head   bool  // no more than the first headLen bytes; a size that the answer does not tell is asked for apart
}

// header is that of the request for the span; validator: what If-Range may say.
func (s span) header(validator string) http.Header {
	from := "bytes=" + strconv.FormatInt(s.offset, 10) + "-"
	switch {
	case s.head:
		return http.Header{"Range": {"bytes=0-" + strconv.Itoa(headLen-1)}}
	case s.length > 0:
		from += strconv.FormatInt(s.offset+s.length-1, 10)
	case s.offset == 0:
		return nil
	}
	h := http.Header{"Range": {from}}
	if validator != "" && s.offset > 0 {
		h.Set("If-Range", validator)
	}
	return h
}

// file opens a file at the first of its addresses that has it (spec 4.1, 5.4).
func (c *Client) file(ctx context.Context, m manifest.Manifest, index int, wanted span) (*verify.Stream, error) {
	if index < 0 || index >= len(m.Files) {
		return nil, fmt.Errorf("%w: the manifest has %d files", fs.ErrNotExist, len(m.Files))
	}
	if wanted.offset < 0 || wanted.length < 0 {
		return nil, fmt.Errorf("negative offset or length")
	}
	if c.dir != nil {
		return c.openIn(ctx, func() (*verify.Stream, error) { return c.dir.file(ctx, m, index, wanted.offset) })
	}
	ctx = connectWithin(ctx, hurriedConnect)
	v, err := c.resolve(ctx)
	if err != nil {
		return nil, err
	}
	urls, err := c.fileURLs(ctx, v, m, index)
	if err != nil {
		return nil, err
	}
	return c.openFirst(ctx, urls, v.kind == kindIMGAPI, wanted)
}

// icon opens an icon; only IMGAPI servers and folders have them.
func (c *Client) icon(ctx context.Context, m manifest.Manifest) (*verify.Stream, error) {
	if !m.Icon {
		return nil, fmt.Errorf("%w: the manifest names none", fs.ErrNotExist)
	}
	if c.dir != nil {
		return c.openIn(ctx, func() (*verify.Stream, error) { return c.dir.icon(ctx, m) })
	}
	ctx = connectWithin(ctx, hurriedConnect)
	v, err := c.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if v.kind != kindIMGAPI {
		return nil, fmt.Errorf("%w: a source of kind %s has no icons", fs.ErrNotExist, v.kind)
	}
	urls := c.channelURLs(join(c.addr.base, "images", m.UUID.String(), "icon"))
	return c.openFirst(ctx, urls, true, span{})
}

// openIn opens something in a folder; its bytes count as received, and end with ctx.
func (c *Client) openIn(ctx context.Context, open func() (*verify.Stream, error)) (*verify.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	body := c.throttled(ctx, &local{ReadCloser: s.ReadCloser, ctx: ctx, received: c.metrics.received})
	s.ReadCloser, s.Pace = body, func() verify.Pace { return verify.Pace{Held: held(body)} }
	return s, nil
}

// openFirst tries the addresses in order, and goes on to the next only where spec 4.1 says so. When
// all fail, "cannot tell" outweighs "not there". Whatever the number of hosts, a client waits no
// longer than hurriedConnect for connections.
func (c *Client) openFirst(ctx context.Context, urls []*url.URL, versioned bool, wanted span) (*verify.Stream, error) {
	var failed error
	hosts := make(map[string]bool) // reachable, as far as is known
	for _, u := range urls {
		hosts[u.Host] = true
	}
	ctx = connectWithin(ctx, hurriedConnect/time.Duration(len(hosts)))
	for _, u := range urls {
		if !hosts[u.Host] {
			continue
		}
		s, err := c.openAt(ctx, request{url: u, accept: "*/*", versioned: versioned, wait: c.opts.StallTimeout}, wanted)
		if err == nil {
			return s, nil
		}
		if failed == nil || (errors.Is(err, verify.ErrUnavailable) && !errors.Is(failed, verify.ErrUnavailable)) {
			failed = err
		}
		if !elsewhere(ctx, err) {
			return nil, err
		}
		hosts[u.Host] = !connectFailed(err)
	}
	return nil, failed
}

// fileURLs are the addresses of a file, the best first; never none without an error.
func (c *Client) fileURLs(ctx context.Context, v verdict, m manifest.Manifest, index int) ([]*url.URL, error) {
	id, f := m.UUID.String(), m.Files[index]
	switch v.kind {
	case kindIMGAPI:
		image := join(c.addr.base, "images", id)
		numbered := c.channelURLs(join(*image, "file"+strconv.Itoa(index)))
		switch {
		case index == 0:
			return c.channelURLs(join(*image, "file")), nil
		case c.speaksDSAPI(ctx): // such a server ignores the index parameter, and would give file 0
			return numbered, nil
		}
		indexed := withQuery(join(*image, "file"), "index", strconv.Itoa(index))
		return append(c.channelURLs(indexed), numbered...), nil

	case kindDSAPI:
		at := join(c.addr.base, "datasets")
		stated, err := c.statedURL(at, f)
		own := pathURL(*at, id, f.Path)
		if own == nil {
			return addresses(err, stated, pathURL(*at, id, m.FilePath(index)))
		}
		return addresses(err, own, stated)

	default:
		at, err := c.staticBase(ctx)
		if err != nil {
			return nil, err
		}
		stated, err := c.statedURL(at, f)
		name := f.Path
		if name == "" && index == 0 {
			name = "file"
		} else if name == "" {
			name = "file" + strconv.Itoa(index)
		}
		return addresses(err, stated, pathURL(*folderOf(at), id, name))
	}
}

// addresses drops the nil ones. When none is left, refused tells why, if there is a reason.
func addresses(refused error, candidates ...*url.URL) ([]*url.URL, error) {
	urls := slices.DeleteFunc(candidates, func(u *url.URL) bool { return u == nil })
	switch {
	case len(urls) > 0:
		return urls, nil
	case refused != nil:
		return nil, fmt.Errorf("%w: %w", fs.ErrPermission, refused)
	}
	return nil, fmt.Errorf("%w: the manifest has no address for it", fs.ErrNotExist)
}

// statedURL is the url of a manifest's file, resolved against base: nil without an error when
// there is none that can be understood, nil with an error when we refuse to ask it.
func (c *Client) statedURL(base *url.URL, f manifest.File) (*url.URL, error) {
	if f.URL == "" || f.URL == "-automatic-" {
		return nil, nil
	}
	u, err := base.Parse(f.URL)
	if err != nil {
		return nil, nil
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if err := c.checkURL(u); err != nil {
		return nil, fmt.Errorf("files[].url: %w", err)
	}
	return u, nil
}

// pathURL is BASE/UUID/PATH, each segment escaped; nil for a path that is none or leads elsewhere.
func pathURL(base url.URL, id, name string) *url.URL {
	if name == "" {
		return nil
	}
	segments := strings.Split(name, "/")
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return nil
		}
	}
	return join(base, append([]string{id}, segments...)...)
}

// staticBase is the address of a static source's list after redirects: the base of relative URLs.
func (c *Client) staticBase(ctx context.Context) (*url.URL, error) {
	if u := c.state.final.Load(); u != nil {
		return u, nil
	}
	resp, err := c.send(ctx, request{url: &c.addr.given, accept: "application/json", wait: c.opts.StallTimeout})
	var reply *replyError
	if errors.As(err, &reply) { // a list that is gone says nothing of the files
		return &c.addr.given, nil
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	c.state.final.Store(resp.Request.URL)
	return resp.Request.URL, nil
}

// folderOf is the folder that a static list describes: its URL, or the folder of
// a URL that names a document.
func folderOf(list *url.URL) *url.URL {
	u := *list
	u.RawQuery = ""
	switch strings.ToLower(path.Ext(u.Path)) {
	case ".json", ".html", ".htm", ".php", ".cgi":
		setPath(&u, path.Dir(u.EscapedPath()))
	}
	return &u
}

// openAt opens one address.
func (c *Client) openAt(ctx context.Context, r request, wanted span) (*verify.Stream, error) {
	offset := wanted.offset
	r.header = wanted.header(c.state.validator(r.url))
	resp, err := c.ask(ctx, r)
	var reply *replyError
	if errors.As(err, &reply) && reply.total >= 0 && reply.total <= offset {
		// The file ends at the offset or before. The receiver judges the claim, as with a length.
		return &verify.Stream{ReadCloser: http.NoBody, Size: reply.total}, nil
	}
	if err != nil {
		return nil, err
	}
	s, skip, err := interpret(resp, wanted)
	if err != nil {
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %w", r.url, err)
	}
	if wanted.length > 0 && filling(resp) {
		resp.Body.Close() // unread
		return c.openAt(ctx, r, span{offset: offset})
	}
	if wanted.head {
		s.ReadCloser = resp.Body
		if s.Size < 0 {
			s.Size = c.sizeByHead(ctx, r)
		}
		return s, nil
	}
	if v := rangeValidator(resp.Header); v != "" {
		c.state.setValidator(r.url, v)
	}
	body := &whole{ReadCloser: c.throttled(ctx, resp.Body), name: "GET " + r.url.String(), skip: skip, pos: offset - skip, size: s.Size}
	if s.Part > 0 {
		body.size = offset + s.Part
	}
	s.ReadCloser, s.Pace = body, body.pace
	return s, nil
}

// filling tells that the answer is of a mirror that has not got the whole file yet. It keeps the last
// byte of each range back until then.
func filling(resp *http.Response) bool {
	return len(via.Parse(resp.Header.Values("Via")...)) > 0 && slices.Contains([]string{"MISS", "JOIN"}, resp.Header.Get("X-Cache"))
}

// interpret reads the head of an answer to a request for the bytes from an offset on, and tells how
// many bytes are to be skipped to get there.
func interpret(resp *http.Response, wanted span) (s *verify.Stream, skip int64, err error) {
	s = &verify.Stream{Size: resp.ContentLength, ContentType: resp.Header.Get("Content-Type")}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		s.ModTime = t.In(time.UTC)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		s.MD5 = parseMD5(resp.Header.Get("Content-MD5"))
		return s, wanted.offset, nil

	case http.StatusPartialContent: // its Content-MD5 would be that of the part
		header := resp.Header.Get("Content-Range")
		first, last, total, ok := parseContentRange(header)
		switch {
		case !ok:
			return nil, 0, nonsense("Content-Range %q makes no sense", header)
		case first != wanted.offset:
			return nil, 0, fmt.Errorf("Content-Range %q does not start at %d", header, wanted.offset)
		case resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
			return nil, 0, nonsense("Content-Range %q does not agree with Content-Length %d", header, resp.ContentLength)
		}
		s.Size = total
		if wanted.length > 0 {
			s.Part = last - first + 1
		}
		return s, 0, nil
	}
	return nil, 0, nonsense("%s, which was not asked", resp.Status)
}

// parseContentRange reads "bytes FIRST-LAST/TOTAL"; total is -1 for "*".
func parseContentRange(s string) (first, last, total int64, ok bool) {
	unit, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	span, size, found := strings.Cut(strings.TrimSpace(rest), "/")
	from, to, dash := strings.Cut(span, "-")
	if !strings.EqualFold(unit, "bytes") || !found || !dash {
		return 0, 0, 0, false
	}
	first, ok1 := parseCount(from)
	last, ok2 := parseCount(to)
	if total, ok = parseCount(size); size == "*" {
		total, ok = -1, true
	}
	if !ok || !ok1 || !ok2 || last < first || (total >= 0 && last >= total) {
		return 0, 0, 0, false
	}
	return first, last, total, true
}

// parseUnsatisfied reads the "bytes */TOTAL" of a 416; -1 when it is something else.
func parseUnsatisfied(s string) int64 {
	unit, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	size, found := strings.CutPrefix(strings.TrimSpace(rest), "*/")
	if total, ok := parseCount(size); ok && found && strings.EqualFold(unit, "bytes") {
		return total
	}
	return -1
}

// parseCount reads digits and nothing else.
func parseCount(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 61)
	return int64(n), err == nil //nolint:gosec // of 61 bits
}

// parseMD5 reads a Content-MD5; nil when it is none.
func parseMD5(s string) []byte {
	sum, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
	if err != nil || len(sum) != 16 {
		return nil
	}
	return sum
}

// rangeValidator is what If-Range may say in a later request: a strong ETag in
// quotes, else the date.
func rangeValidator(h http.Header) string {
	if tag := h.Get("ETag"); len(tag) > 1 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		return tag
	}
	return h.Get("Last-Modified")
}
