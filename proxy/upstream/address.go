package upstream

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// address is the URL of a source, normalised (spec 5.1).
type address struct {
	given   url.URL // as configured, without channel, user and fragment: where a static source is fetched
	base    url.URL // prefix of every API path: no query, no "/datasets" or "/images" at its end
	channel string
	hint    string // "datasets" or "images" when base lost it, else ""

	username, password string // from the URL
}

// parseAddress reads the URL of a source that is asked over HTTP.
func parseAddress(raw, kind, channel string) (address, error) {
	raw = strings.TrimSpace(raw)
	if strings.HasPrefix(raw, "//") {
		raw = "http:" + raw
	} else if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err // the whole text may hold a password
		}
		return address{}, fmt.Errorf("url: %w", err)
	}
	u.Scheme = strings.ToLower(u.Scheme)
	if u.Scheme != "http" && u.Scheme != "https" {
		return address{}, fmt.Errorf("url: scheme %q is neither http nor https", u.Scheme)
	}
	if u.Host, err = normalHost(u); err != nil {
		return address{}, err
	}

	a := address{channel: channel}
	if u.User != nil {
		a.username = u.User.Username()
		a.password, _ = u.User.Password()
		u.User = nil
	}
	if q := u.Query(); q.Has("channel") {
		if a.channel == "" {
			a.channel = q.Get("channel")
		}
		q.Del("channel")
		u.RawQuery = q.Encode()
	}
	u.Fragment, u.RawFragment, u.ForceQuery = "", "", false
	a.given = *u

	path := strings.TrimSuffix(u.EscapedPath(), "/")
	for _, end := range []struct{ name, kind string }{{"datasets", kindDSAPI}, {"images", kindIMGAPI}} {
		if kind != kindAuto && kind != end.kind {
			continue
		}
		if cut, ok := strings.CutSuffix(path, "/"+end.name); ok {
			path, a.hint = cut, end.name
			break
		}
	}
	a.base = url.URL{Scheme: u.Scheme, Host: u.Host}
	setPath(&a.base, path)
	return a, nil
}

// normalHost checks the host and drops a port that the scheme implies.
func normalHost(u *url.URL) (string, error) {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if host == "" {
		return "", errors.New("url: no host")
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", fmt.Errorf("url: bad host %q", host)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port == "" || port == defaultPort(u.Scheme) {
		return host, nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("url: bad port %q", port)
	}
	return host + ":" + port, nil
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// setPath sets the path of u to one that is already escaped.
func setPath(u *url.URL, escaped string) {
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		plain = escaped
	}
	u.Path, u.RawPath = plain, escaped
}

// join appends segments, each escaped, to the path of base, and drops its query.
func join(base url.URL, segments ...string) *url.URL {
	u := url.URL{Scheme: base.Scheme, Host: base.Host}
	escaped := strings.TrimSuffix(base.EscapedPath(), "/")
	for _, s := range segments {
		escaped += "/" + url.PathEscape(s)
	}
	setPath(&u, escaped)
	return &u
}

// withQuery sets the query of u; pairs with an empty value are left out.
func withQuery(u *url.URL, pairs ...string) *url.URL {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	u.RawQuery = q.Encode()
	return u
}

// sameHost tells whether b may be given what is meant for a: the same host and
// port, or the same host reached by https on its usual port instead of http.
func sameHost(a, b *url.URL) bool {
	if !strings.EqualFold(a.Hostname(), b.Hostname()) {
		return false
	}
	portA, portB := effectivePort(a), effectivePort(b)
	upgrade := a.Scheme == "http" && b.Scheme == "https" && portA == "80" && portB == "443"
	downgrade := a.Scheme == "https" && b.Scheme == "http"
	return !downgrade && (portA == portB || upgrade)
}

func effectivePort(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return defaultPort(u.Scheme)
}

// folderPath tells whether a source is a folder on this machine, and which.
func folderPath(raw, kind string) (string, bool) {
	if kind != kindDirectory && kind != kindAuto {
		return "", false
	}
	raw = strings.TrimSpace(raw)
	if rest, ok := strings.CutPrefix(raw, "file://"); ok {
		rest = strings.TrimPrefix(rest, "localhost")
		if plain, err := url.PathUnescape(rest); err == nil {
			rest = plain
		}
		return filepath.Clean(rest), true
	}
	if kind == kindDirectory || (filepath.IsAbs(raw) && !strings.HasPrefix(raw, "//")) {
		return filepath.Clean(raw), true
	}
	return "", false
}
