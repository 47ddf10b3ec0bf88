package upstream

import (
	"net/url"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	f := func(raw, kind, channel, wantBase, wantGiven, wantChannel, wantHint string) {
		t.Helper()
		a, err := parseAddress(raw, kind, channel)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			return
		}
		if a.base.String() != wantBase || a.given.String() != wantGiven || a.channel != wantChannel || a.hint != wantHint {
			t.Errorf("%s as %s: base %s, given %s, channel %q, hint %q", raw, kind, &a.base, &a.given, a.channel, a.hint)
		}
	}
	// no scheme
	f("images.example", kindAuto, "", "http://images.example", "http://images.example", "", "")
	f("images.example:8080/sub", kindAuto, "", "http://images.example:8080/sub", "http://images.example:8080/sub", "", "")
	f("//images.example/x", kindAuto, "", "http://images.example/x", "http://images.example/x", "", "")
	f(" HTTPS://Images.Example/ ", kindAuto, "", "https://images.example", "https://images.example/", "", "")
	// one trailing slash
	f("http://h/sub/", kindAuto, "", "http://h/sub", "http://h/sub/", "", "")
	f("http://h//x/", kindAuto, "", "http://h//x", "http://h//x/", "", "")
	f("http://h/x//", kindAuto, "", "http://h/x/", "http://h/x//", "", "")
	// ports
	f("http://h:80/", kindAuto, "", "http://h", "http://h/", "", "")
	f("https://h:443", kindAuto, "", "https://h", "https://h", "", "")
	f("http://h:443", kindAuto, "", "http://h:443", "http://h:443", "", "")
	f("http://h:", kindAuto, "", "http://h", "http://h", "", "")
	f("http://[2001:DB8::1]:80/x", kindAuto, "", "http://[2001:db8::1]/x", "http://[2001:db8::1]/x", "", "")
	f("http://[fe80::1%25eth0]:81/x", kindAuto, "", "http://[fe80::1%25eth0]:81/x", "http://[fe80::1%25eth0]:81/x", "", "")
	// channel
	f("http://h/?channel=dev", kindAuto, "", "http://h", "http://h/", "dev", "")
	f("http://h?channel=dev", kindAuto, "release", "http://h", "http://h", "release", "")
	f("http://h/list?a=b&channel=*", kindStatic, "", "http://h/list", "http://h/list?a=b", "*", "")
	f("http://h/list?a=b", kindAuto, "", "http://h/list", "http://h/list?a=b", "", "")
	// API paths
	f("http://h/datasets", kindAuto, "", "http://h", "http://h/datasets", "", "datasets")
	f("http://h/datasets/", kindDSAPI, "", "http://h", "http://h/datasets/", "", "datasets")
	f("http://h/sub/datasets", kindAuto, "", "http://h/sub", "http://h/sub/datasets", "", "datasets")
	f("http://h/datasets", kindIMGAPI, "", "http://h/datasets", "http://h/datasets", "", "")
	f("http://h/images", kindAuto, "", "http://h", "http://h/images", "", "images")
	f("http://h/images/", kindIMGAPI, "", "http://h", "http://h/images/", "", "images")
	f("http://h/images", kindDSAPI, "", "http://h/images", "http://h/images", "", "")
	f("http://h/images", kindStatic, "", "http://h/images", "http://h/images", "", "")
	f("http://h/myimages", kindAuto, "", "http://h/myimages", "http://h/myimages", "", "")
	// what is escaped stays so
	f("http://h/a%2Fb%20c/", kindAuto, "", "http://h/a%2Fb%20c", "http://h/a%2Fb%20c/", "", "")
	f("http://h/x#frag", kindAuto, "", "http://h/x", "http://h/x", "", "")
}

func TestParseAddressTakesCredentialsOut(t *testing.T) {
	a, err := parseAddress("https://ann:s%40cret@h/x", kindAuto, "")
	if err != nil {
		t.Fatal(err)
	}
	if a.username != "ann" || a.password != "s@cret" {
		t.Errorf("user %q, password %q", a.username, a.password)
	}
	if strings.Contains(a.base.String()+a.given.String(), "cret") {
		t.Errorf("password left in %s or %s", &a.base, &a.given)
	}
}

func TestParseAddressErrors(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		_, err := parseAddress(raw, kindAuto, "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", raw, err, want)
		}
	}
	f("", "no host")
	f("http://", "no host")
	f("http:///x", "no host")
	f("ftp://h/x", "scheme")
	f("http://h:99999", "port")
	f("http://h:0", "port")
	f("http://h:x", "port")
	f("http://user:hunter2@h:bad port/", "url")
	if _, err := parseAddress("http://ann:hunter2@h:bad/", kindAuto, ""); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error tells the password, or is none: %v", err)
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"images.smartos.org", "https://h:443/x/?channel=dev", "//h//x//", "http://[::1%25lo]:80/datasets/", "u:p@h/a%2Fb", "h/../x",
	} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, raw, channel string) {
		a, err := parseAddress(raw, kindAuto, channel)
		if err != nil {
			return
		}
		if a.base.RawQuery != "" || a.base.Fragment != "" || a.base.User != nil || a.given.User != nil {
			t.Errorf("%q: base %s, given %s", raw, &a.base, &a.given)
		}
		if channel != "" && a.channel != channel {
			t.Errorf("%q: channel %q instead of %q", raw, a.channel, channel)
		}
		ping := join(a.base, "ping")
		again, err := url.Parse(ping.String())
		if err != nil {
			t.Fatalf("%q: %s: %v", raw, ping, err)
		}
		if again.Host != a.base.Host || again.Scheme != a.base.Scheme || !strings.HasSuffix(again.Path, "/ping") {
			t.Errorf("%q: %s is read as %s", raw, ping, again)
		}
		b, err := parseAddress(a.given.String(), kindAuto, channel)
		if err != nil {
			t.Fatalf("%q: normalised %s: %v", raw, &a.given, err)
		}
		if b.base.String() != a.base.String() || b.given.String() != a.given.String() {
			t.Errorf("%q: normalised again: %s %s, once: %s %s", raw, &b.base, &b.given, &a.base, &a.given)
		}
	})
}

func TestFolderPath(t *testing.T) {
	f := func(raw, kind, want string) {
		t.Helper()
		got, ok := folderPath(raw, kind)
		if got != want || ok != (want != "") {
			t.Errorf("%s as %s: %q %v", raw, kind, got, ok)
		}
	}
	f("/srv/images/", kindAuto, "/srv/images")
	f("file:///srv/my%20images", kindAuto, "/srv/my images")
	f("file://localhost/srv", kindDirectory, "/srv")
	f("images", kindDirectory, "images")
	f("images", kindAuto, "")
	f("/srv/images", kindStatic, "")
	f("//h/x", kindAuto, "")
	f("http://h/", kindAuto, "")
}

func TestSameHost(t *testing.T) {
	f := func(a, b string, want bool) {
		t.Helper()
		ua, _ := url.Parse(a)
		ub, _ := url.Parse(b)
		if got := sameHost(ua, ub); got != want {
			t.Errorf("%s and %s: %v", a, b, got)
		}
	}
	f("http://h/x", "http://h/y", true)
	f("http://h", "http://H:80/y", true)
	f("http://h", "https://h/y", true)
	f("https://h", "http://h/y", false)
	f("https://h:8443", "http://h:8443/y", false)
	f("http://h", "http://h:81", false)
	f("http://h:81", "https://h:82", false)
	f("http://h", "http://a.h", false)
	f("http://h", "http://h.evil", false)
}
