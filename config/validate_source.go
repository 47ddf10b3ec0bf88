package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// reserved are the names of the built-in sources, with the fault of another source of this name.
var reserved = map[string]string{
	"published": "is the name of the mirror's own published images",
	"imported":  "is the name of the images that bundles brought",
}

func (k *checker) sources(c *Config) {
	for i := range c.Sources {
		s := &c.Sources[i]
		key := fmt.Sprintf("sources[%d].", i)
		if slices.ContainsFunc(c.Sources[:i], func(other Source) bool { return other.Name == s.Name && s.Name != "" }) {
			k.fault(key+"name", s.Name, "is the name of an earlier source")
		}
		if reason, taken := reserved[s.Name]; taken {
			k.fault(key+"name", s.Name, reason)
		}
		if strings.ContainsFunc(s.Name, func(r rune) bool { return !nameRune(r) }) || len(s.Name) > maxName {
			k.fault(key+"name", s.Name, fmt.Sprintf("must be letters, digits and . _ - : [ ], %d at most", maxName))
		}
		if s.Kind == "directory" {
			k.folder(key, s)
		} else {
			k.sourceURL(key+"url", s.URL)
		}
		k.oneOf(key+"kind", s.Kind, "auto", "imgapi", "dsapi", "static", "directory")
		if s.Channel != "" && s.Channel != "*" {
			k.channel(key+"channel", s.Channel)
		}
		if s.Refresh < minRefresh {
			k.fault(key+"refresh", short(s.Refresh), "must be at least "+short(minRefresh))
		}
		k.filters(key+"include", s.Include)
		k.filters(key+"exclude", s.Exclude)
		k.credentials(key, s)
		if s.Proxy != "" {
			k.url(key+"proxy", s.Proxy, "http", "https", "socks5", "socks5h")
		}
		k.size(key+"rate_limit", s.RateLimit)
		if s.LookupRate < 0 || s.LookupRate > maxRate {
			k.fault(key+"lookup_rate", s.LookupRate, fmt.Sprintf("must be 0 (no limit) to %d", maxRate))
		}
		for j, name := range s.AsChannels {
			at := fmt.Sprintf("%sas_channels[%d]", key, j)
			if k.channel(at, name); len(c.Channels) > 0 &&
				!slices.ContainsFunc(c.Channels, func(ch Channel) bool { return ch.Name == name }) {
				k.fault(at, name, "is none of channels")
			}
		}
	}
}

// sourceURL checks the address of an image server.
func (k *checker) sourceURL(key string, s URL) {
	if s == "" {
		k.fault(key, "", "must not be empty")
		return
	}
	u, err := parseServerURL(string(s))
	switch {
	case err != nil:
		k.fault(key, s, "not a URL: "+urlReason(s, err))
	case u.Scheme == "file" || isFolder(string(s)):
		k.fault(key, s, "a folder has kind directory")
	case u.Scheme != "http" && u.Scheme != "https":
		k.fault(key, s, "must be http:// or https://")
	case u.Hostname() == "":
		k.fault(key, s, "has no host")
	case !goodPort(u):
		k.fault(key, s, "no such port")
	case u.Fragment != "":
		k.fault(key, s, "must not have a #fragment")
	}
}

// folder checks a source of kind directory. Keys about the network are faults there.
func (k *checker) folder(key string, s *Source) {
	text := string(s.URL)
	switch u, err := url.Parse(text); {
	case text == "":
		k.fault(key+"url", "", "must not be empty")
	case strings.HasPrefix(text, "file:"):
		if err != nil || u.Host != "" && u.Host != "localhost" || !strings.HasPrefix(u.Path, "/") {
			k.fault(key+"url", s.URL, "must be file:///PATH or a path")
		}
	case strings.Contains(text, "://"):
		k.fault(key+"url", s.URL, "kind directory is a path or file:///PATH")
	}
	for _, f := range []struct {
		key   string
		value string
	}{
		{"channel", s.Channel}, {"ca_file", s.CAFile}, {"username", s.Username},
		{"password_file", s.PasswordFile}, {"token_file", s.TokenFile}, {"proxy", s.Proxy.String()},
	} {
		if f.value != "" {
			k.fault(key+f.key, f.value, "is of no use with kind directory")
		}
	}
	if s.Insecure {
		k.fault(key+"insecure", true, "is of no use with kind directory")
	}
}

// credentials checks that a source has one way to log in, and a complete one.
func (k *checker) credentials(key string, s *Source) {
	inURL := false
	if u, err := parseServerURL(string(s.URL)); err == nil && s.Kind != "directory" {
		inURL = u.User != nil
	}
	switch {
	case s.TokenFile != "" && (s.Username != "" || s.PasswordFile != "" || inURL):
		k.fault(key+"token_file", s.TokenFile, "a source has a token or a user, not both")
	case s.Username != "" && inURL:
		k.fault(key+"username", s.Username, "the url names a user already")
	case s.PasswordFile != "" && s.Username == "":
		k.fault(key+"password_file", s.PasswordFile, "needs username")
	}
}

// nameRune tells whether the name of a source may have r: the characters of hosts, ports and IPv6
// addresses.
func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-:[]", r)
}
