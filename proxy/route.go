package proxy

import (
	"net/url"
	"strconv"
	"strings"

	"imgmirror/manifest"
)

// route is one row of spec 2.1 or 3.2.
type route struct {
	name      string // the metric label
	writeOnly bool   // no GET, and the mirror takes no writes: no method is allowed
	versioned bool   // Accept-Version is enforced (spec 2.2)
	open      bool   // any web page may read the replies (CORS, spec 2.9)
	serve     func(*Server, *request) error
}

// The routes; match has their patterns. routeChannels exists only where channels do.
var (
	routePing        = &route{name: "ping", versioned: true, open: true, serve: (*Server).ping}
	routeImages      = &route{name: "images", versioned: true, open: true, serve: (*Server).listImages}
	routeImage       = &route{name: "image", versioned: true, open: true, serve: (*Server).getImage}
	routeFile        = &route{name: "file", versioned: true, open: true, serve: (*Server).getFile}
	routeIcon        = &route{name: "icon", versioned: true, open: true, serve: (*Server).getIcon}
	routeChannels    = &route{name: "channels", versioned: true, open: true, serve: (*Server).listChannels}
	routeState       = &route{name: "state", versioned: true, serve: (*Server).state}
	routeWrite       = &route{name: "write", writeOnly: true}
	routeDatasets    = &route{name: "datasets", open: true, serve: (*Server).listDatasets}
	routeDataset     = &route{name: "dataset", open: true, serve: (*Server).getDataset}
	routeDatasetFile = &route{name: "dataset_file", open: true, serve: (*Server).getNamedFile}
	routeIndex       = &route{name: "index", open: true, serve: (*Server).root}
	routeStaticFile  = &route{name: "static_file", open: true, serve: (*Server).getNamedFile}
	routeReady       = &route{name: "readyz", serve: (*Server).readyz}
	routePaths       = &route{name: "paths", serve: (*Server).listPaths}
	routeUI          = &route{name: "ui", serve: (*Server).showPage}
	routeNode        = &route{name: "node_script", serve: (*Server).sendScript}
	routeDist        = &route{name: "dist", serve: (*Server).sendProgram}
	routeNone        = &route{name: "none"} // no such path, or no request at all
)

// allRoutes is every route, for the metrics.
var allRoutes = []*route{
	routePing, routeImages, routeImage, routeFile, routeIcon, routeChannels, routeState, routeWrite,
	routeDatasets, routeDataset, routeDatasetFile, routeIndex, routeStaticFile, routeReady, routePaths, routeUI,
	routeNode, routeDist, routeNone,
}

// plain are the routes of paths with one segment.
var plain = map[string]*route{
	"ping": routePing, "images": routeImages, "datasets": routeDatasets, "channels": routeChannels,
	"paths": routePaths, "state": routeState, "readyz": routeReady, "ui": routeUI,
	"node.sh": routeNode,
}

// match finds the route of a path; a path without a route gives nil.
func match(segs []string) *route {
	switch len(segs) {
	case 0:
		return routeIndex
	case 1:
		return plain[segs[0]]
	}
	switch segs[0] {
	case "ui":
		return routeUI
	case "dist":
		if len(segs) == 2 {
			return routeDist
		}
	case "images":
		return matchImages(segs[1:])
	case "datasets":
		switch len(segs) {
		case 2:
			return routeDataset
		case 3:
			return routeDatasetFile
		}
	case "authkeys":
		if len(segs) == 2 && segs[1] == "reload" {
			return routeWrite
		}
	default:
		if _, ok := manifest.ParseUUID(segs[0]); ok && len(segs) == 2 {
			return routeStaticFile
		}
	}
	return nil
}

// matchImages is match for the segments after /images/.
func matchImages(segs []string) *route {
	switch {
	case segs[0] == "":
		return nil
	case len(segs) == 1:
		return routeImage
	case len(segs) == 2:
		switch segs[1] {
		case "icon":
			return routeIcon
		case "acl", "clone", "push":
			return routeWrite
		}
		if _, ok := fileIndex(segs[1]); ok {
			return routeFile
		}
	case len(segs) == 3 && segs[1] == "file" && segs[2] == "from-url":
		return routeWrite
	}
	return nil
}

// fileIndex reads "file" as 0, and "fileN" or "file:N" (dsapid's form) as N; false for other text.
func fileIndex(seg string) (int, bool) {
	digits, ok := strings.CutPrefix(seg, "file")
	if !ok {
		return 0, false
	}
	if digits == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(digits, ":"), 10, 31)
	return int(n), err == nil
}

// parseTarget splits the target of a request line, in origin-form or absolute-form. The authority
// of an absolute-form means nothing (spec 6.3). rest is path and query, unchanged. ok is false for
// any other form.
func parseTarget(target string) (rest, path, query string, ok bool) {
	rest = target
	if !strings.HasPrefix(rest, "/") {
		scheme, after, found := strings.Cut(rest, "://")
		if !found || scheme == "" || strings.Trim(scheme, letters) != "" {
			return "", "", "", false
		}
		slash := strings.IndexAny(after, "/?#")
		switch {
		case slash < 0:
			rest = "/"
		case after[slash] == '/':
			rest = after[slash:]
		default:
			rest = "/" + after[slash:]
		}
	}
	rest, _, _ = strings.Cut(rest, "#")
	path, query, _ = strings.Cut(rest, "?")
	return rest, path, query, true
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// splitPath cuts a path at its slashes and decodes each segment once. Only one slash at the end is
// dropped, and dots are ordinary characters. The root has no segments. ok is false for a broken
// percent-encoding.
func splitPath(path string) (segs []string, ok bool) {
	if path == "/" {
		return nil, true
	}
	segs = strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
	if strings.IndexByte(path, '%') < 0 {
		return segs, true
	}
	for i, seg := range segs {
		decoded, err := url.PathUnescape(seg)
		if err != nil {
			return nil, false
		}
		segs[i] = decoded
	}
	return segs, true
}

// parseParams reads a query string in its order. Badly encoded text stays unchanged.
func parseParams(query string) [][2]string {
	var params [][2]string
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		key, value, _ := strings.Cut(pair, "=")
		params = append(params, [2]string{unescape(key), unescape(value)})
	}
	return params
}

func unescape(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// param is the first value of key; false without key.
func param(params [][2]string, key string) (string, bool) {
	for _, p := range params {
		if p[0] == key {
			return p[1], true
		}
	}
	return "", false
}
