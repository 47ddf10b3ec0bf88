package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// received mends each request's header before fasthttp reads the hosts in it. Old clients (Node
// 0.10) write IPv6 addresses without brackets, or with a zone; received writes them as in a URL.
func (s *Server) received(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if host, changed := bracketed(h.Host(), int(s.port.Load())); changed {
		h.SetHost(host)
	}
	target := h.RequestURI()
	if len(target) == 0 || target[0] == '/' {
		return fasthttp.RequestConfig{}
	}
	if start := bytes.Index(target, []byte("://")); start > 0 {
		start += len("://")
		end := start + len(target[start:])
		if n := bytes.IndexAny(target[start:], "/?#"); n >= 0 {
			end = start + n
		}
		if host, changed := bracketed(target[start:end], int(s.port.Load())); changed {
			h.SetRequestURI(string(target[:start]) + host + string(target[end:]))
		}
	}
	return fasthttp.RequestConfig{}
}

// bracketed writes an IPv6 address, perhaps with a port, as in a URL: in brackets and without its
// zone, which only one machine understands. The last group of an address without brackets is a port
// if the group equals own, or if the whole text is no address. changed is false for any other host
// and for a host already in the form of a URL.
func bracketed(host []byte, own int) (fixed string, changed bool) {
	if bytes.Count(host, []byte(":")) < 2 || host[0] == '[' && bytes.IndexByte(host, '%') < 0 {
		return "", false
	}
	text, port := string(host), ""
	if inside, ok := strings.CutPrefix(text, "["); ok {
		text, port, ok = strings.Cut(inside, "]")
		if !ok || port != "" && (port[0] != ':' || !isPort(port[1:])) {
			return "", false
		}
		text, _, _ = strings.Cut(text, "%")
	} else if address, zone, ok := strings.Cut(text, "%"); ok {
		text = address
		if at := strings.LastIndexByte(zone, ':'); at >= 0 {
			if port = zone[at:]; !isPort(port[1:]) {
				return "", false
			}
		}
	} else if at := strings.LastIndexByte(text, ':'); isPort(text[at+1:]) && isIPv6(text[:at]) &&
		(text[at+1:] == strconv.Itoa(own) || !isIPv6(text)) {
		text, port = text[:at], text[at:]
	}
	if !isIPv6(text) {
		return "", false
	}
	return "[" + text + "]" + port, true
}

func isIPv6(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '+'
}

// portOf is the port of a listener's address; an address without a port gives 0.
func portOf(a net.Addr) int {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}
