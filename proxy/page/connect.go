package page

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// connection is the value of connect.html.
type connection struct {
	URL    string // of the mirror, for clients
	Secure bool   // URL is https
	Local  bool   // only the machine of the mirror knows URL's host
}

func (p *Page) connect(v *visit) (any, error) {
	c := &connection{URL: strings.TrimRight(p.o.PublicURL, "/")}
	if c.URL == "" {
		c.URL = p.clientURL(v)
	}
	if u, err := url.Parse(c.URL); err == nil {
		u.User = nil
		c.URL, c.Secure = u.String(), u.Scheme == "https"
		addr, err := netip.ParseAddr(u.Hostname())
		c.Local = err == nil && addr.IsLoopback() || strings.EqualFold(u.Hostname(), "localhost")
	}
	return c, nil
}

// hostLetters are what names and addresses of machines are made of.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_"

// clientURL is the clients' listener under the name by which the visitor has called the mirror.
func (p *Page) clientURL(v *visit) string {
	scheme, port := "http", ""
	if p.o.Client != nil {
		scheme, port = p.o.Client()
	}
	host := v.Host
	if name, asked, err := net.SplitHostPort(host); err == nil {
		host = name
		if strings.Trim(asked, "0123456789") == "" && (!v.operator() || port == "") {
			port = asked
		}
	} else if !v.operator() {
		port = "" // the usual port, or a proxy's
	}
	host = strings.Trim(host, "[]")
	if host == "" || strings.Trim(host, hostLetters) != "" {
		host = "MIRROR" // the line is for a shell
	}
	if port != "" && !(scheme == "http" && port == "80") && !(scheme == "https" && port == "443") {
		return scheme + "://" + net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return scheme + "://" + host
}
