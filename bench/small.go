//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

// smalls are answers that fit into a packet or a few, and the list.
func smalls() group {
	g := group{
		title: "Small answers",
		text: "The list of 1000 images (1.6 MB), the list in gzip, the list that has not changed (304), and one manifest. nginx serves the same bytes from " +
			"disk, the gzip with gzip_static. The mirror's access log is on and goes to a file. " +
			"The C server has no headers but two, no conditions and no log: its manifest shows what the load generator can ask for.",
	}
	for _, kind := range []smallKind{
		{name: "list", path: "/images", file: "/list.json"},
		{name: "gzip", path: "/images", file: "/list.json", header: "Accept-Encoding: gzip"},
		{name: "304", path: "/images", file: "/list.json", unchanged: true},
		{name: "manifest", path: "", file: "/manifest.json"},
	} {
		speed := map[string]float64{"list": 1.1, "gzip": 1.0, "304": 0.95, "manifest": 1.0}[kind.name]
		for _, clients := range []int{8, 64} {
			s := scenario{
				name:     fmt.Sprintf("small/%s/%d", kind.name, clients),
				base:     "nginx",
				measures: []measure{perSecond, median50, p99, cpuRequest, memory, generator},
				goals: []goal{
					{measure: perSecond, to: "nginx", limit: speed, atLeast: true},
					{measure: p99, to: "nginx", limit: 1.5},
				},
				contenders: []contender{
					kind.ofMirror(ours, clients, ""),
					kind.ofMirror(ours+", no log", clients, "log: {requests: off}"),
					kind.ofNginx("nginx", clients, plain),
					kind.ofNginx("nginx, buffered log", clients, bufferedLog),
					kind.ofNginx("nginx, open_file_cache", clients, keptOpen),
				},
			}
			if kind.name == "manifest" {
				s.contenders = append(s.contenders, kind.ofC("C sendfile", clients))
			}
			g.scenarios = append(g.scenarios, s)
		}
	}
	return g
}

// smallKind is one kind of small answer: the mirror has it at path, nginx in a file.
type smallKind struct {
	name, path, file string
	header           string
	unchanged        bool // the client has the answer's ETag
}

func (k smallKind) ofMirror(name string, clients int, more string) contender {
	return contender{name, func(ctx context.Context, l *lab, _ int) (sample, error) {
		s, err := l.startMirror(ctx, 0, more)
		if err != nil {
			return nil, err
		}
		return k.run(ctx, l, s, s.url+k.mirrorPath(l), clients)
	}}
}

func (k smallKind) mirrorPath(l *lab) string {
	if k.path == "" {
		return "/images/" + l.data.hit.uuid
	}
	return k.path
}

func (k smallKind) ofNginx(name string, clients int, way string) contender {
	return contender{name, func(ctx context.Context, l *lab, _ int) (sample, error) {
		root, err := l.static(ctx)
		if err != nil {
			return nil, err
		}
		s, err := l.nginx(ctx, root, way)
		if err != nil {
			return nil, err
		}
		return k.run(ctx, l, s, s.url+k.file, clients)
	}}
}

func (k smallKind) ofC(name string, clients int) contender {
	return contender{name, func(ctx context.Context, l *lab, _ int) (sample, error) {
		if _, err := l.static(ctx); err != nil {
			return nil, err
		}
		s, err := l.sendfile(ctx)
		if err != nil {
			return nil, err
		}
		return k.run(ctx, l, s, s.url+"/static"+k.file, clients)
	}}
}

// run measures a server that has the answer at url.
func (k smallKind) run(ctx context.Context, l *lab, s *server, url string, clients int) (sample, error) {
	r := request{url: url, clients: clients, header: k.header, seconds: l.small}
	got, err := fetch(ctx, url, k.header, nil)
	if err != nil {
		return nil, err
	}
	want, err := l.smallAnswer(ctx, k)
	if err != nil {
		return nil, err
	}
	if got.status != http.StatusOK || got.length != want.length || got.sha1 != want.sha1 {
		return nil, fmt.Errorf("%s %s: status %d, %d bytes with sha1 %s; the mirror's are %d with %s", url, k.header, got.status, got.length, got.sha1, want.length, want.sha1)
	}
	r.length = got.length
	if k.unchanged {
		r.header, r.status, r.length = "If-None-Match: "+got.header.Get("ETag"), http.StatusNotModified, -1
	}
	return l.under(ctx, s, r, nil)
}

// smallAnswer is what the mirror answers.
func (l *lab) smallAnswer(ctx context.Context, k smallKind) (answer, error) {
	s, err := l.startMirror(ctx, 0, "")
	if err != nil {
		return answer{}, err
	}
	return fetch(ctx, s.url+k.mirrorPath(l), k.header, nil)
}

// static is a folder for nginx, with the mirror's own answers in files.
func (l *lab) static(ctx context.Context) (string, error) {
	root := filepath.Join(l.data.dir, "static") // the C server has it, too
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	s, err := l.startMirror(ctx, 0, "")
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(root, 0o755); err != nil { //nolint:gosec // served to everyone
		return "", err
	}
	for _, file := range []struct{ name, path, header string }{
		{"ping", "/ping", ""},
		{"list.json", "/images", ""},
		{"list.json.gz", "/images", "Accept-Encoding: gzip"},
		{"manifest.json", "/images/" + l.data.hit.uuid, ""},
	} {
		var body bytes.Buffer
		if _, err := fetch(ctx, s.url+file.path, file.header, &body); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(root, file.name), body.Bytes(), 0o644); err != nil { //nolint:gosec // served to everyone
			return "", err
		}
	}
	file := filepath.Join(root, l.data.hit.path())                 // for the tail
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // served to everyone
		return "", err
	}
	return root, os.Link(filepath.Join(l.data.dir, l.data.hit.path()), file)
}
