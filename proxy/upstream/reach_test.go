package upstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
)

func TestClasses(t *testing.T) {
	f := func(want class, hosts ...string) {
		t.Helper()
		for _, h := range hosts {
			if got := namedClass(h); got != want {
				t.Errorf("%s: %d, want %d", h, got, want)
			}
			if ip, err := netip.ParseAddr(h); err == nil && classOf(ip) != want {
				t.Errorf("address %s: %d, want %d", h, classOf(ip), want)
			}
		}
	}
	f(classLoopback, "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1",
		"localhost", "a.localhost", "LOCALHOST.", "127.0.0.1.", "ip6-localhost")
	f(classPrivate, "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255", "198.18.0.1",
		"fd00::1", "fc00::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1", "::10.0.0.1")
	f(classPublic, "8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "2600::1", "64:ff9b::808:808")
	f(classForbidden, "0.0.0.0", "0.1.2.3", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.1.1", "224.0.0.1",
		"255.255.255.255", "240.0.0.1", "ff02::1", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "64:ff9b::a9fe:a9fe",
		"2002:a9fe:a9fe::1", "2001:0:1::1", "metadata.google.internal", "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "10.0.0.0x1")
	f(classUnknown, "images.example", "notlocalhost", "a.b", "1and1.example")
}

func TestWhatASourceMayName(t *testing.T) {
	f := func(from, to class, want bool) {
		t.Helper()
		if got := from.allows(to); got != want {
			t.Errorf("%d to %d: %v", from, to, got)
		}
	}
	for _, from := range []class{classLoopback, classPrivate, classPublic} {
		f(from, classForbidden, false)
		f(from, classPublic, true)
	}
	f(classForbidden, classForbidden, true)
	f(classLoopback, classLoopback, true)
	f(classLoopback, classPrivate, true)
	f(classPrivate, classLoopback, false)
	f(classPrivate, classPrivate, true)
	f(classPublic, classLoopback, false)
	f(classPublic, classPrivate, false)
}

// An address in a redirect or a manifest is refused before anything is asked,
// behind a proxy too; a name is left to the dialer.
func TestRedirectOutOfReach(t *testing.T) {
	f := func(o Options, want map[string]bool) {
		t.Helper()
		c := newClient(t, o)
		via := []*http.Request{httptest.NewRequest("GET", o.URL+"/a", nil)}
		for address, refused := range want {
			r, err := http.NewRequest("GET", address, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = c.checkRedirect(r, via)
			if errors.Is(err, errRedirect) != refused {
				t.Errorf("%s to %s: %v", o.URL, address, err)
			}
			u, err := c.statedURL(&c.addr.base, manifest.File{URL: address})
			if (u == nil) != refused || (err != nil) != refused {
				t.Errorf("files[].url %s of %s: %v, %v", address, o.URL, u, err)
			}
		}
	}
	f(Options{URL: "http://8.8.8.8"}, map[string]bool{
		"http://10.0.0.1/x": true, "http://[fd00::1]/x": true, "http://127.0.0.1/x": true, "http://100.64.0.1/": true,
		"http://2130706433/x": true, "http://9.9.9.9/x": false, "http://8.8.8.8/b": false, "http://8.8.8.8:81/b": false, "http://name.example/x": false,
	})
	f(Options{URL: "http://10.0.0.1"}, map[string]bool{
		"http://127.0.0.1/x": true, "http://169.254.169.254/x": true, "http://10.0.0.2/x": false, "http://9.9.9.9/": false, "http://10.0.0.1:81/": false,
	})
	f(Options{URL: "http://127.0.0.1:1"}, map[string]bool{
		"http://127.0.0.1:2/x": false, "http://10.0.0.2/x": false, "http://169.254.169.254/x": true,
	})
	f(Options{URL: "http://images.example"}, map[string]bool{
		"http://169.254.169.254/x": true, "http://[::1]/x": true, "http://10.0.0.1/x": false, // the dialer knows more
		"http://other.example/x": false, "http://images.example/b": false,
	})
	f(Options{URL: "http://images.example", Proxy: "http://10.1.1.1:3128"}, map[string]bool{
		"http://10.0.0.1/x": true, "http://localhost/x": true, "http://0x7f.1/": true, "http://9.9.9.9/x": false, "http://other.example/x": false,
	})
}

// What a name resolves to is known to the dialer alone, so that is where it is
// refused, whatever the name was resolved to before.
func TestDialerRefusesAddressesBehindNames(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	u, _ := url.Parse(s.URL())
	try := func(r *reach, address string, proxies ...string) error {
		conn, err := newDialer(r, proxies)(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	}
	public := func() *reach { return &reach{host: "8.8.8.8"} }
	named := net.JoinHostPort("localhost", u.Port())
	for _, address := range []string{u.Host, named} {
		if err := try(public(), address); !errors.Is(err, errRefused) || !connectFailed(err) {
			t.Errorf("%s, named by a public source: %v", address, err)
		}
		if err := try(&reach{host: "10.0.0.1"}, address); !errors.Is(err, errRefused) {
			t.Errorf("%s, named by a private source: %v", address, err)
		}
	}
	if err := try(public(), u.Host, u.Hostname()); err != nil {
		t.Errorf("a proxy: %v", err)
	}
	if err := try(&reach{host: u.Hostname()}, u.Host); err != nil {
		t.Errorf("the source: %v", err)
	}
	if err := try(&reach{host: "::1"}, u.Host); err != nil {
		t.Errorf("a source on this machine: %v", err)
	}
	if err := try(&reach{host: "nowhere.invalid"}, u.Host); !errors.Is(err, errRefused) {
		t.Errorf("a source whose address is not known: %v", err)
	}
	// A source that was once found far away may not have us look nearer, however its name is bent later.
	r := &reach{host: "images.example"}
	r.saw(netip.MustParseAddr("9.9.9.9"))
	r.saw(netip.MustParseAddr("127.0.0.1"))
	if err := try(r, u.Host); !errors.Is(err, errRefused) {
		t.Errorf("a source with two addresses: %v", err)
	}
}

// The list, a file and an icon of a source that has been found far away are not
// taken from this machine, whether redirected or named: nothing is asked there.
func TestNothingIsAskedOutOfReach(t *testing.T) {
	var asked atomic.Int32
	inside := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, v2List)
	})
	outside := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inside+"/secret", http.StatusFound) })
	u, _ := url.Parse(outside)
	c := newClient(t, Options{URL: "http://images.example", Kind: kindIMGAPI})
	c.reach.saw(netip.MustParseAddr("9.9.9.9"))
	transport := transportOf(c)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "images.example:80" {
			return new(net.Dialer).DialContext(ctx, network, u.Host)
		}
		return dial(ctx, network, address)
	}
	if _, err := c.List(t.Context(), manifest.Listing{}); !errors.Is(err, errRefused) {
		t.Errorf("list: %v", err)
	}
	m := manifest.Manifest{UUID: upstreamtest.ID(1), Icon: true, Files: []manifest.File{{Size: 1}}}
	if _, err := c.Icon(t.Context(), m); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("icon: %v", err)
	}
	if _, err := c.File(t.Context(), m, 0, 0); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file: %v", err)
	}
	if _, err := c.Get(t.Context(), m.UUID); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("manifest: %v", err)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests went inside", n)
	}
}
