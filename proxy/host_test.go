package proxy

import (
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestBracketed(t *testing.T) {
	for host, want := range map[string]string{ // "" = as it is; the own port is 8080
		"": "", "mirror": "", "mirror:8080": "", "10.0.0.1:8080": "", "[::1]": "", "[::1]:8080": "", "[2001:db8::1]:99": "",
		"::1:8080": "[::1]:8080", "::1": "[::1]", "::": "[::]", "2001:db8::1:8080": "[2001:db8::1]:8080",
		"2001:db8::1:80":                "[2001:db8::1:80]", // another port than ours is no port
		"2001:db8::1:18080":             "[2001:db8::1]:18080",
		"1:2:3:4:5:6:7:8:81":            "[1:2:3:4:5:6:7:8]:81",
		"1:2:3:4:5:6:7:8080":            "[1:2:3:4:5:6:7:8080]",
		"1:2:3:4:5:6:7:8":               "[1:2:3:4:5:6:7:8]",
		"2001:db8:::8080":               "[2001:db8::]:8080",
		"::ffff:10.0.0.1:8080":          "[::ffff:10.0.0.1]:8080",
		"::ffff:10.0.0.1":               "[::ffff:10.0.0.1]",
		"fe80::1%eth0":                  "[fe80::1]",
		"fe80::1%eth0:8080":             "[fe80::1]:8080",
		"fe80::1%25eth0:99":             "[fe80::1]:99",
		"[fe80::1%eth0]:8080":           "[fe80::1]:8080",
		"[fe80::1%25eth0]":              "[fe80::1]",
		"2001:DB8::ABCD:8080":           "[2001:DB8::ABCD]:8080",
		"a:b":                           "",
		"mirror:80:80":                  "",
		"1:2:3":                         "",
		"::1:8080:x":                    "",
		"::1:99999999":                  "",
		"fe80::1%eth0:x":                "",
		"[fe80::1%eth0":                 "",
		"[fe80::1%eth0]8080":            "",
		"::1/path":                      "",
		"10.0.0.1:80:80":                "",
		"user@::1:8080":                 "",
		strings.Repeat("1:", 200) + "1": "",
	} {
		got, changed := bracketed([]byte(host), 8080)
		if got != want || changed != (want != "") {
			t.Errorf("%q: %q, %v, want %q", host, got, changed, want)
		}
	}
}

// Clients name the mirror by an IPv6 address in any way, and the URLs that they get lead back.
func TestIPv6Hosts(t *testing.T) {
	f := several(t)
	path := "/datasets/" + id(1)
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		ln, err = net.Listen("tcp", "127.0.0.1:0") // the names are what matters
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(f.options)
	if err != nil {
		t.Fatal(err)
	}
	f.serve(s, ln)
	_, port, err := net.SplitHostPort(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"::1:" + port: "[::1]:" + port, "::1": "[::1]", "2001:db8::1:" + port: "[2001:db8::1]:" + port, "fe80::1%eth0": "[fe80::1]",
		"fe80::1%eth0:" + port: "[fe80::1]:" + port, "[fe80::1%eth0]:" + port: "[fe80::1]:" + port, "[fe80::1%25eth0]:" + port: "[fe80::1]:" + port,
		"[2001:db8::1]:" + port: "[2001:db8::1]:" + port, "2001:db8::1": "[2001:db8::1]",
	} {
		for _, target := range []string{path, "http://mirror:8080" + path, "http://" + host + path} {
			r := f.get(target, "Host: "+host)
			var v struct {
				Files []struct{ URL string }
			}
			if err := json.Unmarshal([]byte(r.body), &v); err != nil || len(v.Files) != 1 {
				t.Errorf("Host %s, %s: %d %q", host, target, r.status, r.body)
				continue
			}
			u, err := url.Parse(v.Files[0].URL)
			if err != nil || u.Host != want {
				t.Errorf("Host %s: %s, %v, want the host %s", host, v.Files[0].URL, err, want)
				continue
			}
			if _, err := netip.ParseAddr(u.Hostname()); err != nil {
				t.Errorf("Host %s: %v", host, err)
			}
		}
		for _, route := range []string{"/ping", "/images", "http://" + host, "http://" + host + "/images?limit=1"} {
			if r := f.get(route, "Host: "+host); r.status != 200 {
				t.Errorf("Host %s, %s: %d %s", host, route, r.status, r.body)
			}
		}
	}
	for _, host := range []string{"a:b:c", "::1:99999999", "[::1", "1:2:3"} {
		if r := f.send("GET", "/ping", "Host: "+host); r.status != 400 {
			t.Errorf("Host %s: %d", host, r.status)
		}
	}
}
