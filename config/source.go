package config

import (
	"net/url"
	"path"
	"strconv"
	"strings"
)

// nameSources gives a name to each source without one: the host of its URL, or the folder's name,
// with -2, -3 … behind a name that is taken. A source of kind auto whose URL can only be a folder
// becomes a directory.
func nameSources(sources []Source) {
	taken := make(map[string]bool)
	for i := range sources {
		if s := &sources[i]; s.Kind == defaultKind && isFolder(string(s.URL)) {
			s.Kind = "directory"
		}
		taken[sources[i].Name] = true
	}
	for i := range sources {
		s := &sources[i]
		if s.Name != "" {
			continue
		}
		base := s.defaultName()
		if base == "" {
			continue // a useless URL, which Validate reports
		}
		name := base
		for n := 2; taken[name]; n++ {
			name = base + "-" + strconv.Itoa(n)
		}
		s.Name = name
		taken[name] = true
	}
}

// defaultName is the name that the URL gives, "" when it gives none.
func (s Source) defaultName() string {
	var name string
	if s.Kind == "directory" {
		name = path.Base(strings.TrimPrefix(string(s.URL), "file://"))
	} else if u, err := parseServerURL(string(s.URL)); err == nil {
		name = strings.ToLower(u.Host)
		if u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443" {
			name = strings.TrimSuffix(name, ":"+u.Port())
		}
	}
	name = strings.Map(func(r rune) rune {
		if nameRune(r) {
			return r
		}
		return '-'
	}, name)
	return name[:min(len(name), maxName-10)] // room for -2, -3, …
}

// isFolder tells that s can name a folder and no server.
func isFolder(s string) bool {
	for _, prefix := range []string{"file:", "/", "./", "../"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return s == "." || s == ".."
}

// parseServerURL reads the URL of an image server; without a scheme it is http.
func parseServerURL(s string) (*url.URL, error) { return url.Parse(WithScheme(s)) }

// WithScheme is the address s as a URL: http, where s names no scheme.
func WithScheme(s string) string {
	if strings.Contains(s, "://") {
		return s
	}
	return "http://" + s
}
