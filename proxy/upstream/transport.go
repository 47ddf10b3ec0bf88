package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// newTransport makes the one transport of a source. It never decompresses by
// itself: files are taken as they come, lists are decoded within their bound.
func newTransport(o Options, r *reach) (*http.Transport, error) {
	tlsConfig, err := newTLSConfig(o)
	if err != nil {
		return nil, err
	}
	proxy, proxyHosts, err := newProxy(o.Proxy)
	if err != nil {
		return nil, err
	}
	r.proxy = proxy
	dial := o.dial
	if dial == nil {
		dial = newDialer(r, proxyHosts)
	}
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dial,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    connectTimeout,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: o.StallTimeout, PingTimeout: connectTimeout},
		DisableCompression:     true,
		MaxIdleConnsPerHost:    max(idleConns, o.Streams),
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         64 << 10,
	}, nil
}

func newTLSConfig(o Options) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.Insecure}
	if o.CAFile == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
		conf.RootCAs = x509.NewCertPool()
	}
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM form", o.CAFile)
	}
	return conf, nil
}

// newProxy gives the choice of a proxy for a request, and the hosts that are proxies.
func newProxy(configured string) (choose func(*http.Request) (*url.URL, error), hosts []string, err error) {
	if configured != "" {
		u, err := url.Parse(configured)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
			return nil, nil, errors.New("proxy: not an http, https or socks5 URL with a host")
		}
		return http.ProxyURL(u), []string{u.Hostname()}, nil
	}
	env := httpproxy.FromEnvironment()
	for _, s := range []string{env.HTTPProxy, env.HTTPSProxy} {
		if u, err := url.Parse(s); err == nil && u.Hostname() != "" {
			hosts = append(hosts, u.Hostname())
		} else if host, _, err := net.SplitHostPort(s); err == nil {
			hosts = append(hosts, host)
		}
	}
	pick := env.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return pick(r.URL) }, hosts, nil
}

// connectTimeoutKey carries the connect timeout of a request to the dialer, which
// the transport calls without the request's deadline.
type connectTimeoutKey struct{}

func connectWithin(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, connectTimeoutKey{}, d)
}

// newDialer connects to the source and to proxies wherever they are, and to other hosts (named by
// manifests and redirects) only within the source's reach. The address that a name resolves to is
// what counts.
func newDialer(r *reach, proxies []string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{Timeout: connectTimeout}
		if t, ok := ctx.Value(connectTimeoutKey{}).(time.Duration); ok {
			d.Timeout = t
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		switch {
		case host == r.host:
			d.Control = r.note
		case !slices.Contains(proxies, host):
			d.Control = r.control(ctx)
		}
		return d.DialContext(ctx, network, address)
	}
}

// checkURL refuses what a manifest or a redirect may not make us ask (spec 5.4).
func (c *Client) checkURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%w: scheme %q", errRefused, u.Scheme)
	}
	if u.Hostname() == "" {
		return fmt.Errorf("%w: no host", errRefused)
	}
	if sameHost(&c.addr.base, u) {
		return nil
	}
	return c.reach.check(u)
}

// checkRedirect follows the rules of spec 5.5.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d", errRedirect, maxRedirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http" && !c.opts.Insecure {
		return fmt.Errorf("%w: from https to http", errRedirect)
	}
	if err := c.checkURL(req.URL); err != nil {
		return fmt.Errorf("%w: %w", errRedirect, err)
	}
	if !sameHost(&c.addr.base, req.URL) {
		req.Header.Del("Authorization")
	}
	return nil
}
