package page

import (
	"net"
	"strings"
)

// connection is the value of connect.html.
type connection struct {
	URL    string // of the mirror, for clients
	Secure bool
}

func (p *Page) connect(v *visit) (any, error) {
	url := strings.TrimRight(p.o.PublicURL, "/")
	if url == "" {
		url = p.clientURL(v)
	}
	return &connection{URL: url, Secure: strings.HasPrefix(url, "https://")}, nil
}

// clientURL is the clients' listener under the name by which the visitor has called the mirror.
func (p *Page) clientURL(v *visit) string {
	scheme, port := "http", ""
	if p.o.Client != nil {
		scheme, port = p.o.Client()
	}
	host := v.Host
	if name, asked, err := net.SplitHostPort(host); err == nil {
		host = name
		if !v.operator() || port == "" {
			port = asked
		}
	} else if !v.operator() {
		port = "" // the usual port, or a proxy's
	}
	host = strings.Trim(host, "[]")
	if port != "" && !(scheme == "http" && port == "80") && !(scheme == "https" && port == "443") {
		return scheme + "://" + net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return scheme + "://" + host
}
