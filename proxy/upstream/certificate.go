package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// certificate is what a source has shown of itself by TLS. Its methods may be called concurrently.
type certificate struct {
	end   atomic.Int64 // seconds since 1970; 0: the source has shown no certificate
	shown prometheus.Gauge
}

// CertificateEnd is when the certificate ends that the source showed at the last TLS handshake, trusted or
// not; zero when the source has shown none. The certificates of other hosts, which a source may name for its
// files, and of proxies do not count.
func (c *Client) CertificateEnd() time.Time {
	if end := c.certificate.end.Load(); end != 0 {
		return time.Unix(end, 0).UTC()
	}
	return time.Time{}
}

// seen notes the certificate that a server has shown.
func (c *certificate) seen(leaf *x509.Certificate) {
	if end := leaf.NotAfter.Unix(); c.end.Swap(end) != end {
		c.shown.Set(float64(end))
	}
}

// noteCertificate takes the certificate from an answer of the source, or from a handshake that failed.
func (c *Client) noteCertificate(resp *http.Response, err error) {
	if resp != nil {
		if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 && sameHost(&c.addr.base, resp.Request.URL) {
			c.certificate.seen(resp.TLS.PeerCertificates[0])
		}
		return
	}
	var in *url.Error
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &in) || !errors.As(err, &refused) || len(refused.UnverifiedCertificates) == 0 {
		return
	}
	if u, err := url.Parse(in.URL); err == nil && sameHost(&c.addr.base, u) {
		c.certificate.seen(refused.UnverifiedCertificates[0])
	}
}
