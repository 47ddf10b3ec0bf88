package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// nodes checks what compute nodes will meet, and tells what to type there.
func (d *doctor) nodes(ctx context.Context) {
	if d.serving == "" {
		d.freeAddress()
	} else {
		d.listener(ctx)
	}
	var chain []*x509.Certificate
	if d.cfg.TLS.CertFile != "" {
		chain = d.ownChain()
	}
	address, host := d.address(chain)
	d.trust(chain, host)
	d.name(ctx, host)
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		d.warn("nodes", "imgadm sources -a %s (on this machine only: listen is %s)", address, d.cfg.Listen)
		return
	}
	if d.cfg.PublicURL == "" && d.around.inContainer() {
		d.warn("nodes", "set public_url (IMGMIRROR_PUBLIC_URL) to the URL by which nodes reach this container, and type imgadm sources -a with that URL: "+
			"%s is known inside the container's network only", address)
		return
	}
	d.ok("nodes", "imgadm sources -a %s", address)
}

// freeAddress tells whether a mirror could be started.
func (d *doctor) freeAddress() {
	ln, err := net.Listen("tcp", d.cfg.Listen)
	if err != nil {
		d.fail("listener", "no mirror runs on %s, and none could: %v", d.cfg.DataDir, err)
		return
	}
	ln.Close()
	d.warn("listener", "no mirror runs on %s (imgmirror serve); %s is free", d.cfg.DataDir, d.cfg.Listen)
}

// listener asks the mirror as imgadm would.
func (d *doctor) listener(ctx context.Context) {
	const check = "listener"
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	host, port, err := net.SplitHostPort(d.serving)
	if err != nil {
		d.fail(check, "%v", err)
		return
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	base := d.scheme() + "://" + net.JoinHostPort(host, port)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, // trust judges it
	}}
	defer client.CloseIdleConnections()
	got, err := d.get(ctx, client, base+"/ping", maxPing)
	if err != nil {
		d.fail(check, "%v", err)
		return
	}
	if !got.ok() || !isPing(got.body) {
		d.fail(check, "GET %s/ping: %s, which imgadm does not take for an image server", base, got.Status)
		return
	}
	got, err = d.get(ctx, client, base+"/images", maxOwnList)
	if err != nil {
		d.fail(check, "%v", err)
		return
	}
	var images []json.RawMessage
	if err := json.Unmarshal(got.body, &images); !got.ok() || err != nil {
		d.fail(check, "GET %s/images: %s, and not a list of images", base, got.Status)
		return
	}
	if len(images) == 0 {
		d.warn(check, "%s answers, and offers no image", base)
		return
	}
	d.ok(check, "%s answers, and offers %d images", base, len(images))
}

func (d *doctor) scheme() string {
	if d.cfg.TLS.CertFile != "" {
		return "https"
	}
	return "http"
}

// ownChain reads the mirror's own certificate; nil when it cannot be used.
func (d *doctor) ownChain() []*x509.Certificate {
	pair, err := tls.LoadX509KeyPair(d.cfg.TLS.CertFile, d.cfg.TLS.KeyFile)
	if err != nil {
		d.fail("certificate", "%v", err)
		return nil
	}
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			d.fail("certificate", "%v", err)
			return nil
		}
		chain = append(chain, c)
	}
	return chain
}

// address is where nodes find the mirror: public_url, else the listener, under
// a name that its certificate holds, else under an address of this machine.
func (d *doctor) address(chain []*x509.Certificate) (address, host string) {
	if u, err := url.Parse(string(d.cfg.PublicURL)); err == nil && u.Hostname() != "" {
		return strings.TrimSuffix(string(d.cfg.PublicURL), "/"), u.Hostname()
	}
	listen := d.cfg.Listen
	if d.serving != "" {
		_, port, err := net.SplitHostPort(d.serving)
		if configured, _, err2 := net.SplitHostPort(listen); err == nil && err2 == nil {
			listen = net.JoinHostPort(configured, port) // the port may be one that the system chose
		}
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return d.scheme() + "://" + listen, listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host = ownAddress(); len(chain) > 0 {
			for _, name := range chain[0].DNSNames {
				if !strings.Contains(name, "*") {
					host = name
					break
				}
			}
		}
	}
	return d.scheme() + "://" + net.JoinHostPort(host, port), host
}

// ownAddress is an address of this machine that others may know: IPv4 first.
func ownAddress() string {
	found := "localhost"
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return found
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP.String()
		}
		if found == "localhost" {
			found = n.IP.String()
		}
	}
	return found
}

// trust tells whether imgadm will take the mirror's certificate, and warns of
// its option -k, which does the opposite of what it says.
func (d *doctor) trust(chain []*x509.Certificate, host string) {
	const check = "imgadm -k"
	if d.cfg.TLS.CertFile == "" && strings.HasPrefix(string(d.cfg.PublicURL), "https://") {
		d.ok(check, "public_url is https, and this mirror speaks plain http: nodes check the certificate of what stands in front")
		return
	}
	if d.cfg.TLS.CertFile == "" {
		d.ok(check, "plain http: nodes have no certificate to check and need no -k")
		return
	}
	if chain == nil {
		return // told already
	}
	d.expiry("certificate", chain[0].NotAfter, d.cfg.TLS.CertFile+": "+about(chain))
	if err := verifyChain(chain, nil, host); err != nil {
		d.warn(check, "nodes will not trust this mirror: %v. imgadm's -k does not help, it turns the check on (3.9.5); "+
			"IMGADM_INSECURE=1 in imgadm's environment does, as does a certificate that verifies, or plain http on a trusted network", err)
		return
	}
	d.ok(check, "the certificate verifies: nodes need no -k (and it does the opposite of what it says)")
}
