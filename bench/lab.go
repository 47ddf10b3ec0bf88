//go:build linux

package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
)

//go:embed c conf
var files embed.FS

// lab is what scenarios work with: a folder, programs, data, and the servers that they have started.
type lab struct {
	plan
	dir     string // goes with the lab
	tools   tools
	mirror  string // the binary
	data    *data
	servers map[string]*server // by what was asked for

	catalogues map[int]*catalogue // by the number of images
}

// tools are the compiled C programs.
type tools struct{ load, sendfile, source string }

// errUnsupported is what a contender's first run returns when the mirror under test has no such setting, or the
// machine no such program. The contender is left out.
var errUnsupported = errors.New("not supported here")

// newLab makes the folder, the programs and the data. close removes all.
func newLab(ctx context.Context, o options) (*lab, error) {
	for _, program := range []string{"gcc", "nginx", "varnishd"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w (e2e/install.sh bench installs what the bench runs)", err)
		}
	}
	dir, err := os.MkdirTemp("", "imgmirror-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{plan: o.plan, dir: dir, mirror: o.mirror, servers: map[string]*server{}}
	if err := l.prepare(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) prepare(ctx context.Context) (err error) {
	// Workers of nginx and Varnish may run as users of their own.
	if err := os.Chmod(l.dir, 0o755); err != nil { //nolint:gosec // no secret is in there
		return err
	}
	for name, program := range map[string]*string{"load": &l.tools.load, "sendfile": &l.tools.sendfile, "source": &l.tools.source} {
		if *program, err = l.compile(ctx, name); err != nil {
			return err
		}
	}
	if l.mirror == "" {
		l.mirror = filepath.Join(l.dir, "imgmirror")
		if err := buildMirror(ctx, ".", l.mirror); err != nil {
			return err
		}
	} else if l.mirror, err = filepath.Abs(l.mirror); err != nil {
		return err
	}
	l.data, err = makeData(filepath.Join(l.dir, "www"), l.plan)
	return err
}

// compile compiles one of the C programs.
func (l *lab) compile(ctx context.Context, name string) (string, error) {
	text, err := files.ReadFile("c/" + name + ".c")
	if err != nil {
		return "", err
	}
	program := filepath.Join(l.dir, name)
	cmd := exec.CommandContext(ctx, "gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-x", "c", "-", "-o", program)
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("gcc %s.c: %w\n%s", name, err, out)
	}
	return program, nil
}

// buildMirror builds the mirror of the module in which folder is, as `make build` does.
func buildMirror(ctx context.Context, folder, to string) error {
	root, err := moduleRoot(ctx, folder)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", to, "./cmd/imgmirror")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func moduleRoot(ctx context.Context, folder string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOMOD")
	cmd.Dir = folder
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

// stop ends all servers.
func (l *lab) stop() {
	for name, s := range l.servers {
		s.stop()
		_ = os.RemoveAll(s.dir) // at the latest, the lab's folder goes with all
		delete(l.servers, name)
	}
}

func (l *lab) close() {
	l.stop()
	_ = os.RemoveAll(l.dir) // nothing to tell: it is a temporary folder
}

// once gives the server of that name, which start has started if it does not run yet.
func (l *lab) once(name string, start func(*server) error) (*server, error) {
	if s := l.servers[name]; s != nil {
		return s, nil
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &server{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	if s.dir, err = os.MkdirTemp(l.dir, "server-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil { //nolint:gosec // see prepare
		return nil, err
	}
	err = start(s)
	if s.cmd != nil && s.cmd.Process != nil {
		l.servers[name] = s // also one that has not answered has to be stopped
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// fill writes a configuration from its template into the server's folder.
func (s *server) fill(name string, values map[string]any) (string, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(files, "conf/"+name)
	if err != nil {
		return "", err
	}
	values["Dir"], values["Port"] = s.dir, s.port()
	var text bytes.Buffer
	if err := t.Execute(&text, values); err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, text.Bytes(), 0o644) //nolint:gosec // see prepare
}

func (s *server) port() string { return s.url[strings.LastIndexByte(s.url, ':')+1:] }

// sendfile starts the minimal C server on the source's folder.
func (l *lab) sendfile(ctx context.Context) (*server, error) {
	return l.once("sendfile", func(s *server) error {
		return launch(ctx, s, s.url+"/ping", l.tools.sendfile, s.port(), l.data.dir)
	})
}

// source starts the image server of the mirror, and of the caches. rate is in bytes a second for all clients together; 0 is no limit.
func (l *lab) source(ctx context.Context, rate int64) (*server, error) {
	return l.sourceOf(ctx, l.data.dir, rate)
}

// sourceOf is source for another folder.
func (l *lab) sourceOf(ctx context.Context, folder string, rate int64) (*server, error) {
	return l.once(fmt.Sprintf("source %s %d", folder, rate), func(s *server) error {
		return launch(ctx, s, s.url+"/ping", l.tools.source, s.port(), folder, strconv.FormatInt(rate, 10))
	})
}

// startMirror starts the mirror on the source of that rate, with more settings in YAML.
func (l *lab) startMirror(ctx context.Context, rate int64, more string) (*server, error) {
	source, err := l.source(ctx, rate)
	if err != nil {
		return nil, err
	}
	return l.mirrorOf(ctx, []string{source.url}, more)
}

// mirrorOf starts the mirror on these sources, which have the same images, with more settings in YAML.
func (l *lab) mirrorOf(ctx context.Context, sources []string, more string) (*server, error) {
	return l.once(fmt.Sprintf("%s %v %s", l.mirror, sources, more), func(s *server) error {
		admin, err := freePort()
		if err != nil {
			return err
		}
		s.admin = fmt.Sprintf("http://127.0.0.1:%d", admin)
		config, err := s.fill("imgmirror.yaml", map[string]any{"AdminPort": admin, "Sources": sources, "More": more})
		if err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, l.mirror, "config", "check", "--config", config).CombinedOutput(); err != nil {
			if more != "" {
				return fmt.Errorf("%w: %s", errUnsupported, out)
			}
			return fmt.Errorf("config check: %w: %s", err, out)
		}
		if err := launch(ctx, s, s.admin+"/readyz", l.mirror, "serve", "--config", config); err != nil {
			return err
		}
		return s.await(ctx, "the list", func() bool { return s.metric(ctx, "imgmirror_catalog_images") >= float64(l.data.listed) })
	})
}

// Ways in which nginx serves a folder.
const (
	plain       = ""                // no access log: what ratios are to
	bufferedLog = "buffered log"    // an access log, written in batches
	keptOpen    = "open_file_cache" // no access log, and files stay open
)

// nginx starts nginx on a folder.
func (l *lab) nginx(ctx context.Context, root, way string) (*server, error) {
	return l.startNginx(ctx, fmt.Sprintf("nginx %s %s", root, way), "/ping", map[string]any{"Root": root, "Way": way, "Source": ""})
}

// nginxCache starts nginx as a cache of the source of that rate.
func (l *lab) nginxCache(ctx context.Context, rate int64) (*server, error) {
	source, err := l.source(ctx, rate)
	if err != nil {
		return nil, err
	}
	return l.startNginx(ctx, fmt.Sprintf("nginx cache %d", rate), "/ping",
		map[string]any{"Root": "", "Way": plain, "Source": strings.TrimPrefix(source.url, "http://")})
}

func (l *lab) startNginx(ctx context.Context, name, ready string, values map[string]any) (*server, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	return l.once(name, func(s *server) error {
		values["User"] = me.Username
		config, err := s.fill("nginx.conf", values)
		if err != nil {
			return err
		}
		return launch(ctx, s, s.url+ready, "nginx", "-e", filepath.Join(s.dir, "error.log"), "-c", config)
	})
}

// varnish starts Varnish as a cache of the source of that rate.
func (l *lab) varnish(ctx context.Context, rate int64) (*server, error) {
	source, err := l.source(ctx, rate)
	if err != nil {
		return nil, err
	}
	return l.once(fmt.Sprintf("varnish %d", rate), func(s *server) error {
		config, err := s.fill("varnish.vcl", map[string]any{"SourcePort": source.port()})
		if err != nil {
			return err
		}
		room := int64(l.plan.rounds+2)*l.coldSize + 256<<20
		return launch(ctx, s, s.url+"/ping", "varnishd", "-F", "-j", "none", "-n", filepath.Join(s.dir, "work"),
			"-a", "127.0.0.1:"+s.port(), "-f", config, "-s", fmt.Sprintf("malloc,%d", room))
	})
}

// quieten has the kernel write what earlier runs have left to write, and touches so much memory: no run pays for another
// one, and none for pages that a virtual machine does not have yet.
func (l *lab) quieten(bytes int64) error {
	if l.rest {
		syscall.Sync()
	}
	room, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_POPULATE)
	if err != nil {
		return err
	}
	return syscall.Munmap(room)
}
