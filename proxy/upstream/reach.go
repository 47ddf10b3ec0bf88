package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

// class is how far from this machine an address is. A source may name, by a manifest or a redirect,
// addresses of its own class or further away: a public source must not have us ask what is behind
// our own walls.
type class int32

const (
	classUnknown   class = iota
	classLoopback        // this machine
	classPrivate         // RFC 1918, unique local, carrier-grade NAT
	classPublic          // the internet
	classForbidden       // no server is there, or one that tells secrets: nothing but the configuration may name it
)

// allows tells whether a source of class c may name an address of class to. One that
// the configuration itself puts at a forbidden address may name any.
func (c class) allows(to class) bool {
	return c == classForbidden || to != classForbidden && c <= to
}

// metadataAddrs are cloud metadata services outside the link-local ranges.
var metadataAddrs = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("fd00:ec2::254"),
}

// ranges are the address ranges that are not public, the special before the general.
var ranges = []struct {
	prefix netip.Prefix
	class  class
}{
	{netip.MustParsePrefix("0.0.0.0/8"), classForbidden},
	{netip.MustParsePrefix("169.254.0.0/16"), classForbidden},
	{netip.MustParsePrefix("224.0.0.0/3"), classForbidden}, // multicast, reserved, broadcast
	{netip.MustParsePrefix("127.0.0.0/8"), classLoopback},
	{netip.MustParsePrefix("10.0.0.0/8"), classPrivate},
	{netip.MustParsePrefix("172.16.0.0/12"), classPrivate},
	{netip.MustParsePrefix("192.168.0.0/16"), classPrivate},
	{netip.MustParsePrefix("100.64.0.0/10"), classPrivate},
	{netip.MustParsePrefix("192.0.0.0/24"), classPrivate},
	{netip.MustParsePrefix("198.18.0.0/15"), classPrivate},
	{netip.MustParsePrefix("::1/128"), classLoopback},
	{netip.MustParsePrefix("fc00::/7"), classPrivate},
	{netip.MustParsePrefix("fec0::/10"), classPrivate},
	{netip.MustParsePrefix("64:ff9b:1::/48"), classPrivate}, // NAT64 of a local network
	{netip.MustParsePrefix("fe80::/10"), classForbidden},
	{netip.MustParsePrefix("ff00::/8"), classForbidden},
	{netip.MustParsePrefix("2001::/32"), classForbidden}, // Teredo: whatever the relay makes of it
}

// embedded are the IPv6 ranges that stand for an IPv4 address, and where in the 16 bytes that is.
var embedded = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
	{netip.MustParsePrefix("::/96"), 12},        // IPv4-compatible
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12},
}

// classOf tells the class of an address.
func classOf(ip netip.Addr) class {
	ip = ip.Unmap().WithZone("")
	if !ip.IsValid() || ip.IsUnspecified() || slices.Contains(metadataAddrs, ip) {
		return classForbidden
	}
	for _, r := range ranges {
		if r.prefix.Contains(ip) {
			return r.class
		}
	}
	for _, e := range embedded {
		if e.prefix.Contains(ip) {
			b := ip.As16()
			return classOf(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	return classPublic
}

// namedClass tells the class of a host as it stands in a URL, as far as that says
// it; classUnknown: a name that has to be resolved.
func namedClass(host string) class {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		return classOf(ip)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	switch {
	case host == "localhost", strings.HasSuffix(host, ".localhost"), host == "localhost.localdomain", strings.HasPrefix(host, "ip6-loc"), host == "ip6-loopback":
		return classLoopback
	case host == "metadata", host == "metadata.google.internal", host == "instance-data", host == "instance-data.ec2.internal":
		return classForbidden
	case last == "", strings.HasPrefix(last, "0x"), strings.Trim(last, "0123456789") == "":
		return classForbidden // an address in a spelling that resolvers do not agree on
	}
	return classUnknown
}

// reach is what a source may name.
type reach struct {
	host  string       // of the source
	seen  atomic.Int32 // the class furthest away at which the source was found; a name can be bent later, but not nearer
	proxy func(*http.Request) (*url.URL, error)
}

// known is the source's class, as far as it is known.
func (r *reach) known() class {
	if c := namedClass(r.host); c != classUnknown {
		return c
	}
	return class(r.seen.Load())
}

// saw notes that the source was found at ip.
func (r *reach) saw(ip netip.Addr) {
	now := int32(classOf(ip))
	if now == int32(classForbidden) { // a name can be bent there
		now = int32(classPrivate)
	}
	for {
		before := r.seen.Load()
		if now <= before || r.seen.CompareAndSwap(before, now) {
			return
		}
	}
}

// class is the source's class; it is looked up if the source was not met yet. One
// that cannot be told counts as public.
func (r *reach) class(ctx context.Context) class {
	if r.known() == classUnknown {
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", r.host)
		if err != nil || len(ips) == 0 {
			return classPublic
		}
		for _, ip := range ips {
			r.saw(ip)
		}
	}
	return max(r.known(), classLoopback)
}

// check refuses a URL with an address that the source may not name. Names are left to the dialer,
// which sees their addresses. Behind a proxy there is no dialer of ours: private addresses are then
// left to sources that are known to be private.
func (r *reach) check(u *url.URL) error {
	to, from := namedClass(u.Hostname()), r.known()
	if from == classUnknown {
		from = classPrivate
		if via, err := r.proxy(&http.Request{URL: u}); err != nil || via != nil {
			from = classPublic
		}
	}
	if to == classUnknown || from.allows(to) {
		return nil
	}
	return fmt.Errorf("%w: the source may not name the address %s", errRefused, u.Hostname())
}

// control refuses to connect to an address that the source may not name: it is
// called with what a name was resolved to.
func (r *reach) control(ctx context.Context) func(string, string, syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errRefused, address, err)
		}
		if !r.class(ctx).allows(classOf(ap.Addr())) {
			return fmt.Errorf("%w: the source may not name the address %s", errRefused, ap.Addr())
		}
		return nil
	}
}

// note takes down where the source itself was found.
func (r *reach) note(_, address string, _ syscall.RawConn) error {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		r.saw(ap.Addr())
	}
	return nil
}
