package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// lookupLimit is how long a name may take to be looked up.
const lookupLimit = 5 * time.Second

// surroundings are what doctor finds around the process; zero values stand for those of this machine.
type surroundings struct {
	lookup    func(ctx context.Context, host string) ([]string, error)
	container func() bool
}

func (s surroundings) addressesOf(ctx context.Context, host string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	if s.lookup != nil {
		return s.lookup(ctx, host)
	}
	return net.DefaultResolver.LookupHost(ctx, host)
}

func (s surroundings) inContainer() bool {
	if s.container != nil {
		return s.container()
	}
	for _, file := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return os.Getenv("KUBERNETES_SERVICE_HOST") != ""
}

// name tells what the name is that nodes are to use, if they are to use a name.
func (d *doctor) name(ctx context.Context, host string) {
	const check = "DNS"
	if host == "localhost" || net.ParseIP(host) != nil {
		return
	}
	nodes := fmt.Sprintf("Nodes need the name in their DNS, or the line %q in /etc/hosts", ownAddress()+" "+host)
	if d.around.inContainer() {
		nodes = "Nodes need the name in their DNS, or in /etc/hosts, with the address of the container's host"
	}
	all, err := d.around.addressesOf(ctx, host)
	switch {
	case err != nil:
		d.warn(check, "%v. %s", unresolved(host, err), nodes)
	case !slices.ContainsFunc(all, func(a string) bool { ip := net.ParseIP(a); return ip == nil || !ip.IsLoopback() }):
		d.warn(check, "%s is %s, on this machine. %s", host, strings.Join(all, " and "), nodes)
	default:
		d.ok(check, "%s is %s, as this machine resolves it", host, strings.Join(all, " and "))
	}
}

// unanswered tells a request to a source that got no answer: a name that cannot be looked up, or a port
// where no server listens. Another error stays as it is.
func unanswered(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w (no server listens on this port: start the server, or correct the url of the source)", err)
	}
	return unresolved("", err)
}

// unresolved tells a name that cannot be looked up, who says so, and where that is set. Another error
// stays as it is.
func unresolved(host string, err error) error {
	var dns *net.DNSError
	if !errors.As(err, &dns) {
		return err
	}
	if dns.Name != "" {
		host = strings.TrimSuffix(dns.Name, ".")
	}
	who, why := "the DNS server "+dns.Server, dns.Err
	if dns.Server == "" {
		who = "this machine"
	}
	if dns.IsTimeout {
		why = "no answer in time"
	}
	return fmt.Errorf("%s cannot be resolved: %s of %s (/etc/hosts has no such line; /etc/resolv.conf names the DNS servers)", host, why, who)
}
