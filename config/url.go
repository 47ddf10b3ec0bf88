package config

import (
	"net/url"
	"strconv"
	"strings"
)

// URL is an address that may carry a password. Every way of printing a URL masks the password;
// string(u) is the address itself, for connections.
type URL string

const mask = "xxxxx"

// String is the address with its password masked.
func (u URL) String() string {
	s := string(u)
	p, err := url.Parse(s)
	if err == nil && p.Host != "" {
		if _, has := p.User.Password(); has {
			return p.Redacted()
		}
		return s
	}
	// Not a whole URL: mask whatever could be a password in one.
	start := 0
	if i := strings.Index(s, "://"); i >= 0 {
		start = i + len("://")
	}
	at := strings.LastIndexByte(s, '@')
	if at < start {
		return s
	}
	user, _, has := strings.Cut(s[start:at], ":")
	if !has {
		return s
	}
	return s[:start] + user + ":" + mask + s[at:]
}

// GoString is String, quoted.
func (u URL) GoString() string { return strconv.Quote(u.String()) }

// MarshalText is String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }
