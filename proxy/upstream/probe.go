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
	"strconv"
	"strings"

	"imgmirror/manifest"
	"imgmirror/proxy/via"
)

// resolve gives the kind of the source: the cached verdict, or the verdict of a discovery. The last
// known kind stays when a repeated discovery cannot reach the source.
func (c *Client) resolve(ctx context.Context) (verdict, error) {
	v, ok := c.state.settled()
	if ok || c.opts.Kind != kindAuto {
		return v, nil
	}
	found, err := c.discover(ctx)
	if err != nil {
		if v.kind != "" && retryable(err) {
			return v, nil
		}
		return verdict{}, fmt.Errorf("what kind of source it is: %w", err)
	}
	c.state.settle(found)
	if found != v {
		c.log.Info("kind of source found", "kind", found.kind, "dialect", found.dialect)
	}
	return found, nil
}

// discover is one run of spec 5.2.
func (c *Client) discover(ctx context.Context) (verdict, error) {
	p := &prober{c: c, ctx: ctx}
	ping := p.ping()
	if c.addr.hint == "datasets" && (ping.imgapi || !ping.pong) {
		if v, ok := p.datasets(); ok {
			return v, nil
		}
	}
	switch {
	case ping.imgapi:
		return verdict{kind: kindIMGAPI}, nil
	case ping.pong:
		return verdict{kind: kindDSAPI, dialect: ping.dialect}, nil
	}

	given, isList := p.list(&c.addr.given)
	if isList && !given.allV2 {
		c.state.final.Store(given.final)
		return verdict{kind: kindStatic}, nil
	}
	images, hasImages := given, isList
	if at := join(c.addr.base, "images"); !isList || at.String() != c.addr.given.String() {
		images, hasImages = p.list(at)
	}
	switch {
	case hasImages && !images.single:
		return verdict{kind: kindIMGAPI}, nil
	case isList:
		c.state.final.Store(given.final)
		return verdict{kind: kindStatic}, nil
	}
	if c.addr.hint != "datasets" {
		if v, ok := p.datasets(); ok {
			return v, nil
		}
	}
	return verdict{}, p.verdict()
}

// prober asks one probe after another and keeps what went wrong. After a probe
// that could not connect, or a caller who left, it asks no more: the host is the same for all.
type prober struct {
	c    *Client
	ctx  context.Context
	errs []error
	dead bool
}

// fetch gives the answer of one probe, nil when there is none of use.
func (p *prober) fetch(r request, limit int64) (*http.Response, []byte) {
	if p.dead {
		return nil, nil
	}
	resp, doc, err := p.c.fetch(p.ctx, r, limit)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = nonsense("GET %s: %s", r.url, resp.Status)
	}
	if err != nil {
		p.failed(err)
		return nil, nil
	}
	return resp, doc
}

// failed notes why a probe brought nothing.
func (p *prober) failed(err error) {
	p.errs = append(p.errs, err)
	p.dead = p.dead || p.ctx.Err() != nil || connectFailed(err) || errors.Is(err, via.ErrItself)
}

type pingReply struct {
	pong    bool // any ping at all
	imgapi  bool
	dsapi   bool
	bare    bool // nothing but the pong
	dialect string
}

// ping is probe 1 and 2, and the first.
func (p *prober) ping() pingReply {
	r := request{url: join(p.c.addr.base, "ping"), versioned: true, wait: p.c.opts.StallTimeout}
	resp, doc := p.fetch(r, maxPingBody)
	if resp == nil {
		if p.ctx.Err() == nil && !retryable(p.errs[0]) { // else it may say so the next time
			p.c.state.dsapi.Store(new(bool))
		}
		return pingReply{}
	}
	reply, ok := parsePing(doc)
	p.c.state.dsapi.Store(&reply.dsapi)
	if !ok {
		p.errs = append(p.errs, nonsense("GET %s: not the answer of an image server", resp.Request.URL))
	}
	if reply.bare && strings.EqualFold(resp.Header.Get("Server"), "restify") {
		reply.dialect = "smartos-image-server"
	}
	return reply
}

func parsePing(doc []byte) (pingReply, bool) {
	var body map[string]any
	if json.Unmarshal(trimmed(doc), &body) != nil {
		return pingReply{}, false
	}
	r := pingReply{imgapi: truthy(body["imgapi"]), dsapi: truthy(body["dsapi"])}
	r.pong = body["ping"] == "pong" || r.imgapi
	r.bare = r.pong && len(body) == 1
	return r, r.pong
}

// truthy is JavaScript's, since that is how clients read the reply.
func truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case float64:
		return v != 0
	}
	return true
}

// datasets is probe 5.
func (p *prober) datasets() (verdict, bool) {
	l, ok := p.list(join(p.c.addr.base, "datasets"))
	if !ok || l.single {
		return verdict{}, false
	}
	if strings.HasSuffix(strings.TrimSuffix(l.final.Path, "/"), "/images") {
		return verdict{kind: kindIMGAPI}, true
	}
	return verdict{kind: kindDSAPI}, true
}

// listing is an answer that is a list of manifests by its looks.
type listing struct {
	final  *url.URL // after redirects
	single bool     // one manifest instead of a list
	allV2  bool
}

// list is probe 3, 4, and half of 5.
func (p *prober) list(u *url.URL) (listing, bool) {
	r := request{url: u, wait: listPatience * p.c.opts.StallTimeout}
	if p.dead {
		return listing{}, false
	}
	resp, body, err := p.c.open(p.ctx, r)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			err = nonsense("GET %s: %s", r.url, resp.Status)
		}
	}
	l := listing{allV2: true}
	if err == nil {
		l.final = resp.Request.URL
		var read int64
		if err = l.look(p.c, p.c.limited(body, &read, resp)); err != nil {
			err = listError(resp, err)
			p.c.count(err)
		}
	}
	if err != nil {
		p.failed(err)
		return listing{}, false
	}
	return l, true
}

// look judges a text: an array of objects, or one object with a uuid.
func (l *listing) look(c *Client, text io.Reader) error {
	type element struct {
		V    json.RawMessage `json:"v"`
		UUID any             `json:"uuid"`
	}
	elements := 0
	return manifest.EachElement(text, func(text []byte, single bool) error {
		var e *element
		if elements++; elements > c.opts.maxElements {
			return c.tooMany()
		}
		if json.Unmarshal(text, &e) != nil {
			return errNoManifests
		}
		if l.single = single; single {
			if _, named := e.UUID.(string); !named {
				return errNoManifests
			}
		}
		l.allV2 = l.allV2 && e != nil && isV2(e.V)
		return nil
	})
}

// errNoManifests is a list, or an object, of something else.
var errNoManifests = fmt.Errorf("%w: not a list of manifests", manifest.ErrInvalid)

func isV2(v json.RawMessage) bool {
	n, err := strconv.ParseFloat(strings.Trim(string(v), `"`), 64)
	return err == nil && n >= 2
}

// trimmed drops a byte order mark and white space.
func trimmed(doc []byte) []byte {
	return bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(doc), []byte("\ufeff")))
}

// verdict is the error of a discovery that found nothing: that it could not ask weighs
// more than that it may not, and that more than that there is no image server.
func (p *prober) verdict() error {
	if err := p.ctx.Err(); err != nil && len(p.errs) > 0 {
		return p.errs[len(p.errs)-1]
	}
	for _, is := range []func(error) bool{
		func(err error) bool { return errors.Is(err, via.ErrItself) },
		retryable,
		func(err error) bool { return errors.Is(err, fs.ErrPermission) },
	} {
		for _, err := range p.errs {
			if is(err) {
				return err
			}
		}
	}
	tried := make([]string, len(p.errs))
	for i, err := range p.errs {
		tried[i] = err.Error()
	}
	return nonsense("no image server there: %s", strings.Join(tried, "; "))
}

// speaksDSAPI tells whether the ping of an imgapi source says dsapi:true; the ping is asked for
// once.
func (c *Client) speaksDSAPI(ctx context.Context) bool {
	if says := c.state.dsapi.Load(); says != nil {
		return *says
	}
	p := &prober{c: c, ctx: ctx}
	return p.ping().dsapi
}
