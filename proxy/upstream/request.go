package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"

	"imgmirror/proxy/via"
	"imgmirror/verify"
)

// request is one GET, or HEAD.
type request struct {
	method    string // "": GET
	url       *url.URL
	accept    string
	versioned bool          // announce Accept-Version, unless the source refuses it
	gzip      bool          // a compressed answer is welcome
	header    http.Header   // more of them
	wait      time.Duration // for the answer to begin
}

// errorBodyTime bounds the reading of an error's body for its message: the status has told what a
// waiting client needs, and some servers never end that body.
const errorBodyTime = 200 * time.Millisecond

// ask is send, and once more without Accept-Version for a source that refuses ours (spec 5.3).
func (c *Client) ask(ctx context.Context, r request) (*http.Response, error) {
	resp, err := c.send(ctx, r)
	var reply *replyError
	if r.versioned && errors.As(err, &reply) && reply.status == http.StatusBadRequest && reply.code == "InvalidVersion" {
		c.state.noVersion.Store(true)
		r.versioned = false
		return c.send(ctx, r)
	}
	return resp, err
}

// send asks once and gives an answer whose status is 200, 206 or 304; anything
// else is a *replyError. The body ends with an error when it stalls; it must be closed.
func (c *Client) send(parent context.Context, r request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(parent)
	if deadline, ok := parent.Deadline(); ok && time.Until(deadline) < hurry && ctx.Value(connectTimeoutKey{}) == nil {
		ctx = connectWithin(ctx, hurriedConnect)
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.method, http.MethodGet), r.url.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	c.setHeader(req, r)

	watchdog := time.AfterFunc(r.wait, func() { cancel(verify.ErrStalled) })
	resp, err := c.http.Do(req)
	watchdog.Stop()
	c.noteCertificate(resp, err)
	if err != nil {
		c.metrics.answered(0)
		lost := c.unconnected(r.url, err)
		err = exchangeError(ctx, r.url.String(), r.wait, err)
		if lost {
			err = noConnection{err}
		}
		cancel(nil)
		return nil, err
	}
	c.metrics.answered(resp.StatusCode)
	resp.Body = &body{
		ctx: ctx, cancel: cancel, url: resp.Request.URL.String(), src: resp.Body,
		watchdog: watchdog, stall: c.opts.StallTimeout, received: c.metrics.received, health: c.health,
	}
	if err := c.meet(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusNotModified:
		return resp, nil
	}
	defer resp.Body.Close()
	giveUp := time.AfterFunc(errorBodyTime, func() { cancel(verify.ErrStalled) })
	defer giveUp.Stop()
	e := &replyError{url: resp.Request.URL.String(), status: resp.StatusCode, total: -1}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		e.total = parseUnsatisfied(resp.Header.Get("Content-Range"))
	}
	if decoded, err := decode(resp); err == nil {
		text, _ := io.ReadAll(io.LimitReader(decoded, 4096)) // what came of it
		e.code, e.excerpt = describe(text)
	}
	return nil, e
}

func (c *Client) setHeader(req *http.Request, r request) {
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Accept", r.accept)
	if r.gzip {
		req.Header.Set("Accept-Encoding", "gzip")
	} else {
		req.Header.Set("Accept-Encoding", "identity")
	}
	if r.versioned && !c.state.noVersion.Load() {
		req.Header.Set("Accept-Version", "~2")
	}
	if c.opts.ID != "" {
		req.Header.Set("Via", via.Format(append(slices.Clone(via.From(req.Context())), c.opts.ID)...))
	}
	if !sameHost(&c.addr.base, req.URL) {
		return // credentials are for the source alone
	}
	if c.opts.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.Token)
	} else if c.opts.Username != "" {
		req.SetBasicAuth(c.opts.Username, c.opts.Password)
	}
}

// exchangeError tells why an exchange under ctx ended: our watchdog, the caller, or the network.
func exchangeError(ctx context.Context, where string, wait time.Duration, err error) error {
	var in *url.Error
	if errors.As(err, &in) {
		where, err = in.URL, in.Err
	}
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return fmt.Errorf("GET %s: %w: %w", where, verify.ErrUnavailable, err)
	case errors.Is(cause, verify.ErrStalled):
		return fmt.Errorf("GET %s: %w: %w: no byte for %s", where, verify.ErrUnavailable, verify.ErrStalled, wait)
	case !errors.Is(cause, ctx.Err()):
		cause = fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		cause = fmt.Errorf("%w: %w", verify.ErrUnavailable, cause)
	}
	return fmt.Errorf("GET %s: %w", where, cause)
}

// body is the body of an answer: counted, and watched for stalls while it is read.
type body struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	url      string
	src      io.ReadCloser
	watchdog *time.Timer // stopped but during a Read
	stall    time.Duration
	received prometheus.Counter
	health   *health
}

func (b *body) Read(p []byte) (int, error) {
	b.watchdog.Reset(b.stall)
	n, err := b.src.Read(p)
	b.watchdog.Stop()
	b.received.Add(float64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		err = exchangeError(b.ctx, b.url, b.stall, err)
		b.health.heard(err)
	}
	return n, err
}

// Close ends the exchange. It may be called while a Read waits.
func (b *body) Close() error {
	b.watchdog.Stop()
	b.cancel(context.Canceled)
	return b.src.Close()
}

// decode gives the body of resp without its content encoding.
func decode(resp *http.Response) (io.Reader, error) {
	switch enc := resp.Header.Get("Content-Encoding"); enc {
	case "", "identity":
		return resp.Body, nil
	case "gzip", "x-gzip":
		return gzip.NewReader(resp.Body)
	default:
		return nil, fmt.Errorf("content encoding %q was not asked for", enc)
	}
}

// open asks once and gives the answer with its body, decoded. The caller closes the body. After a
// 304 there is nothing to read.
func (c *Client) open(ctx context.Context, r request) (*http.Response, io.Reader, error) {
	r.gzip = true
	if r.accept == "" {
		r.accept = "application/json"
	}
	resp, err := c.ask(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	switch resp.StatusCode {
	case http.StatusNotModified:
		return resp, http.NoBody, nil
	case http.StatusPartialContent:
		resp.Body.Close()
		return nil, nil, nonsense("GET %s: a part of the document, which was not asked for", resp.Request.URL)
	}
	decoded, err := decode(resp)
	if err != nil {
		resp.Body.Close()
		return nil, nil, readError(resp.Request.URL, err)
	}
	return resp, decoded, nil
}

// readError tells a broken transfer, which is worth a retry, from a body that makes no sense.
func readError(where *url.URL, err error) error {
	switch {
	case errors.Is(err, verify.ErrUnavailable), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("GET %s: %w: cut short: %w", where, verify.ErrUnavailable, err)
	}
	return nonsense("GET %s: %w", where, err)
}
