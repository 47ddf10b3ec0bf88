package main

import (
	"context"
	"errors"
	"net"
	"net/url"

	"imgmirror/config"
	"imgmirror/proxy/page"
)

// newPage makes the web page, which asks the admin API in this process, and puts the page on both
// listeners. A verb's own mirror has none.
func (p *process) newPage(cfg *config.Config, token string) (err error) {
	if cfg.Listen == "" {
		return nil
	}
	p.page, err = page.New(page.Options{
		API:       p.admin.Local(),
		Version:   version,
		Token:     token,
		PublicURL: string(cfg.PublicURL),
		Client:    p.clientAddress,
		Public:    func() bool { return p.cfg.Load().Page.Public },
		Logger:    p.log,

		Registerer: p.Registry(),
	})
	if err != nil {
		return err
	}
	p.admin.Mount(p.page.Operators())
	p.server.Mount(p.page.Clients())
	return nil
}

// clientAddress is the scheme and the port of the client listener.
func (p *process) clientAddress() (scheme, port string) {
	scheme = "http"
	if p.cfg.Load().TLS.CertFile != "" {
		scheme = "https"
	}
	if addr := p.server.Addr(); addr != nil {
		_, port, _ = net.SplitHostPort(addr.String()) // an address of a listener has both
	}
	return scheme, port
}

// serveClients serves the client listener, and what event streams of both listeners send: the streams
// end as soon as ctx ends, and hold up no drain.
func (p *process) serveClients(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- p.page.Run(ctx) }() // waited for below
	err := p.server.Run(ctx)
	stop()
	return errors.Join(err, <-done)
}

// hostOf is the host in a URL, without its port; "" = none.
func hostOf(address config.URL) string {
	u, err := url.Parse(string(address))
	if err != nil {
		return ""
	}
	return u.Hostname()
}
