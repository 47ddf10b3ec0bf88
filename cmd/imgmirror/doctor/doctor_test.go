package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgmirror/config"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/upstream"
	"imgmirror/proxy/upstream/upstreamtest"
)

// doctorSource is an image server with one image.
func doctorSource(t *testing.T) *upstreamtest.Server {
	t.Helper()
	s, err := upstreamtest.New(upstreamtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	file := upstreamtest.Bytes(1, 3000)
	if err := s.Add(upstreamtest.Manifest(upstreamtest.ID(1), "base", "1.0", nil, file), file); err != nil {
		t.Fatal(err)
	}
	return s
}

// found is the states and messages of findings, by check: "ok: 1 images in 3ms".
func found(findings []admin.Finding) map[string]string {
	all := make(map[string]string)
	for _, f := range findings {
		all[f.Check] = strings.TrimPrefix(all[f.Check]+"; "+f.State+": "+f.Message, "; ")
	}
	return all
}

// expect wants exactly these checks, with these beginnings of states and messages.
func expect(t *testing.T, got map[string]string, want map[string]string) {
	t.Helper()
	for check, begin := range want {
		if !strings.HasPrefix(got[check], begin) {
			t.Errorf("%s: got %q, want %q", check, got[check], begin)
		}
	}
	for check, text := range got {
		if _, ok := want[check]; !ok {
			t.Errorf("unexpected: %s: %s", check, text)
		}
	}
}

func doctorOf(t *testing.T, s config.Source) map[string]string {
	t.Helper()
	s.Name = "s"
	if s.Kind == "" {
		s.Kind = "auto"
	}
	var with Source
	with.Client, with.Err = upstream.New(upstream.Options{
		Name: s.Name, URL: string(s.URL), Kind: s.Kind, Insecure: s.Insecure, CAFile: s.CAFile, StallTimeout: 2 * time.Second,
	})
	d := &doctor{}
	d.source(t.Context(), s, with)
	return found(d.findings)
}

func TestDoctorSource(t *testing.T) {
	good := doctorSource(t)
	expect(t, doctorOf(t, config.Source{URL: config.URL(good.URL())}), map[string]string{
		"source s: ping":     "ok: " + good.URL() + "/ping in ",
		"source s: clock":    "ok: ",
		"source s: list":     "ok: 1 images in ",
		"source s: manifest": "ok: " + upstreamtest.ID(1).String() + ", base 1.0",
		"source s: file":     "ok: image " + upstreamtest.ID(1).String() + ": 3.0 kB",
	})
	expect(t, doctorOf(t, config.Source{URL: "../demo", Kind: "directory"}), map[string]string{
		"source s: list":     "ok: 6 images in ",
		"source s: manifest": "ok: ",
		"source s: file":     "ok: ",
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	expect(t, doctorOf(t, config.Source{URL: config.URL("http://" + ln.Addr().String())}), map[string]string{
		"source s: ping": "failed: Get \"http://" + ln.Addr().String() + "/ping\": dial tcp " + ln.Addr().String() + ": connect: connection refused (no server listens on this port: ",
	})
	expect(t, doctorOf(t, config.Source{URL: config.URL(good.URL()), CAFile: "missing.pem"}), map[string]string{
		"source s": "failed: ",
	})

	bad := doctorSource(t)
	bad.Inject(upstreamtest.Fault{Path: "/file", Grow: 5})
	got := doctorOf(t, config.Source{URL: config.URL(bad.URL())})
	if want := "failed: image " + upstreamtest.ID(1).String() + ": 3005 bytes are offered, its manifest says 3000"; got["source s: file"] != want {
		t.Errorf("a file that is too long: %q, want %q", got["source s: file"], want)
	}
}

func TestDoctorPing(t *testing.T) {
	list := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.Write([]byte("[]"))
	}))
	defer list.Close()
	got := doctorOf(t, config.Source{URL: config.URL(list.URL), Kind: "static"})
	expect(t, got, map[string]string{
		"source s: ping":  "ok: " + list.URL + "/ping: 404 Not Found, as with a static list",
		"source s: clock": "ok: ",
		"source s: list":  "warning: 0 images in ",
	})
	got = doctorOf(t, config.Source{URL: config.URL(list.URL), Kind: "imgapi"})
	if !strings.HasPrefix(got["source s: ping"], "failed: ") {
		t.Errorf("a ping that is none: %q", got["source s: ping"])
	}
}

// TestDoctorCertificate: a server behind TLS, with a certificate that nobody
// else knows.
func TestDoctorCertificate(t *testing.T) {
	images := doctorSource(t)
	target, err := url.Parse(images.URL())
	if err != nil {
		t.Fatal(err)
	}
	ahead := time.Hour + 30*time.Second
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		return nil
	}
	server := httptest.NewUnstartedServer(proxy)
	server.Config.ErrorLog = nil
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	at := config.URL(server.URL)
	f := func(s config.Source, certificate, list, clock string) {
		t.Helper()
		got := doctorOf(t, s)
		for check, want := range map[string]string{"certificate": certificate, "list": list, "clock": clock} {
			if text := got["source s: "+check]; !strings.HasPrefix(text, want) {
				t.Errorf("%s: %q, want %q", check, text, want)
			}
		}
	}
	f(config.Source{URL: at, CAFile: ca}, "ok: good until 20", "ok: 1 images", "warning: this machine is 1h0m")
	ahead = -time.Hour
	f(config.Source{URL: at, Insecure: true}, "warning: x509: ", "ok: 1 images", "warning: this machine is 1h0m")
	f(config.Source{URL: at}, "failed: x509: ", "", "warning: ")
	got := doctorOf(t, config.Source{URL: at})["source s: certificate"]
	if !strings.Contains(got, "(for example.com, *.example.com, 127.0.0.1, ::1, issued by itself): ca_file of the source names the certificate of an authority of your own") {
		t.Errorf("the certificate: %q", got)
	}
}

func TestDoctorExpiry(t *testing.T) {
	f := func(in time.Duration, want string) {
		t.Helper()
		d := &doctor{}
		d.expiry("certificate", time.Now().Add(in), "for a.example, issued by CN=B")
		if got := found(d.findings)["certificate"]; !strings.HasPrefix(got, want) {
			t.Errorf("in %s: %q, want %q", in, got, want)
		}
	}
	f(-time.Hour, "failed: ended on ")
	f(13*24*time.Hour, "warning: ends soon, on ")
	f(100*24*time.Hour+time.Minute, "ok: good until ")
}

func TestDoctorDisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(path string, minFree config.Size, want string) {
		t.Helper()
		cfg := config.Defaults()
		cfg.DataDir, cfg.Cache.MinFree = path, minFree
		d := &doctor{cfg: &cfg}
		d.disk()
		got := found(d.findings)["disk"]
		if !strings.HasPrefix(got, strings.SplitN(want, "…", 2)[0]) || !strings.HasSuffix(got, strings.SplitN(want, "…", 2)[1]) {
			t.Errorf("%s, %s: %q, want %q", path, minFree, got, want)
		}
	}
	f(dir, 1<<60, "failed: "+dir+": …: nothing more can be stored")
	f(filepath.Join(dir, "not", "there"), 1<<60, "failed: "+dir+"/not/there: …: nothing more can be stored")
	f(file, 0, "failed: data_dir …"+file+" is not a folder")
	f(filepath.Join(file, "below"), 0, "failed: data_dir…")
}

func TestDoctorProxies(t *testing.T) {
	f := func(want string, env ...string) {
		t.Helper()
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
			t.Setenv(name, "")
		}
		for i := 0; i < len(env); i += 2 {
			t.Setenv(env[i], env[i+1])
		}
		cfg := config.Defaults()
		d := &doctor{cfg: &cfg}
		d.proxies()
		got := found(d.findings)["proxy variables"]
		if !strings.Contains(got, want) || strings.Contains(got, "secret") {
			t.Errorf("%q: %q, want %q", env, got, want)
		}
	}
	f("ok: none is set")
	f("ok: source smartos is asked through http://proxy:3128", "https_proxy", "http://proxy:3128")
	f("ok: HTTP_PROXY=http://me:xxxxx@proxy:3128; imgadm", "http_proxy", "http://me:secret@proxy:3128")
	f("failed: HTTP_PROXY is not the URL of a proxy", "HTTP_PROXY", "http://secret@:99999999")
	f("warning: HTTPS_PROXY and https_proxy differ", "HTTPS_PROXY", "a:1", "https_proxy", "b:1")
	f("ok: NO_PROXY=*", "https_proxy", "", "NO_PROXY", "*")
}

// TestDoctorNodes: the line for nodes, and what they would meet.
func TestDoctorNodes(t *testing.T) {
	serving := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ping":
			w.Write([]byte(`{"ping":"pong","version":"1.0.0","imgapi":true}`))
		case "/images":
			w.Write([]byte(`[{},{}]`))
		}
	}))
	defer serving.Close()
	here := serving.Listener.Addr().String()
	_, port, err := net.SplitHostPort(here)
	if err != nil {
		t.Fatal(err)
	}
	f := func(listen, public, at string, want map[string]string) {
		t.Helper()
		cfg := config.Defaults()
		cfg.Listen, cfg.PublicURL = listen, config.URL(public)
		d := &doctor{cfg: &cfg, serving: at, around: plain}
		d.nodes(t.Context())
		if want["imgadm -k"] == "" {
			want["imgadm -k"] = "ok: plain http"
		}
		expect(t, found(d.findings), want)
	}
	f("127.0.0.1:0", "", here, map[string]string{
		"listener": "ok: http://" + here + " answers, and offers 2 images",
		"nodes":    "warning: imgadm sources -a http://" + here + " (on this machine only",
	})
	f(":0", "", "[::]:"+port, map[string]string{
		"listener": "", // localhost may be ::1 alone
		"nodes":    "",
	})
	f("10.1.2.3:80", "https://mirror.example/", here, map[string]string{
		"listener": "ok: ",
		"nodes":    "ok: imgadm sources -a https://mirror.example",

		"imgadm -k": "ok: public_url is https, and this mirror speaks plain http: ",
		"DNS":       "ok: mirror.example is 10.1.2.3 and fd00::3, as this machine resolves it",
	})
	f("10.1.2.3:8080", "", here, map[string]string{
		"listener": "ok: ",
		"nodes":    "ok: imgadm sources -a http://10.1.2.3:" + port,
	})
	f(here, "http://m.example", "", map[string]string{
		"listener": "failed: no mirror runs on ./imgmirror-data, and none could: ",
		"nodes":    "ok: imgadm sources -a http://m.example",
		"DNS":      "warning: m.example cannot be resolved: no such host of the DNS server 10.0.0.53:53 (/etc/hosts has no such line; /etc/resolv.conf names the DNS servers). Nodes need the name in their DNS, or the line \"",
	})
	f("127.0.0.1:0", "http://m.example", "", map[string]string{
		"listener": "warning: no mirror runs on ./imgmirror-data (imgmirror serve)",
		"nodes":    "ok: ",
		"DNS":      "warning: m.example cannot be resolved",
	})
	f("127.0.0.1:0", "http://self.example", "", map[string]string{
		"listener": "warning: no mirror runs on",
		"nodes":    "ok: ",
		"DNS":      "warning: self.example is 127.0.1.1, on this machine. Nodes need the name in their DNS",
	})
}

// plain is no container, and a resolver that knows two names.
var plain = surroundings{
	container: func() bool { return false },
	lookup: func(_ context.Context, host string) ([]string, error) {
		known := map[string][]string{"mirror.example": {"10.1.2.3", "fd00::3"}, "self.example": {"127.0.1.1"}}
		if all, ok := known[host]; ok {
			return all, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.53:53", IsNotFound: true}
	},
}

// TestDoctorInContainer: an address that only the container's network knows is not what nodes are told.
func TestDoctorInContainer(t *testing.T) {
	cfg := config.Defaults()
	cfg.Listen = ":0"
	inside := plain
	inside.container = func() bool { return true }
	d := &doctor{cfg: &cfg, around: inside}
	d.nodes(t.Context())
	if got := found(d.findings)["nodes"]; !strings.HasPrefix(got, "warning: set public_url (IMGMIRROR_PUBLIC_URL) to the URL by which nodes reach this container") {
		t.Errorf("got %q", got)
	}
	cfg.PublicURL = "http://10.1.2.3:8080"
	d = &doctor{cfg: &cfg, around: inside}
	d.nodes(t.Context())
	if got := found(d.findings)["nodes"]; got != "ok: imgadm sources -a http://10.1.2.3:8080" {
		t.Errorf("got %q", got)
	}
}

// TestDoctorFileLimit: the line names what to do, for a shell, systemd and SMF.
func TestDoctorFileLimit(t *testing.T) {
	cfg := config.Defaults()
	cfg.Clients.MaxConnections = 1 << 30
	d := &doctor{cfg: &cfg}
	d.fileLimit()
	got := found(d.findings)["file limit"]
	for _, want := range []string{"warning: ", "ulimit -n 2147", "LimitNOFILE=2147", "process.max-file-descriptor", "clients.max_connections"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

// TestDoctorTrust: a certificate that nodes do not trust brings the trap of -k.
func TestDoctorTrust(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	cfg := config.Defaults()
	cfg.TLS = config.TLS{CertFile: "cert.pem", KeyFile: "key.pem"}
	cfg.Listen = ":443"
	d := &doctor{cfg: &cfg}
	chain := []*x509.Certificate{server.Certificate()}
	address, host := d.address(chain)
	if address != "https://example.com:443" || host != "example.com" { // the name in the test server's certificate
		t.Errorf("address %s, host %s", address, host)
	}
	d.trust(chain, host)
	got := found(d.findings)["imgadm -k"]
	if !strings.HasPrefix(got, "warning: nodes will not trust this mirror: x509: ") || !strings.Contains(got, "IMGADM_INSECURE=1") {
		t.Errorf("got %q", got)
	}
}
