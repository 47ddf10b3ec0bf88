package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"imgmirror/config"
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
	"imgmirror/proxy/via"
)

const (
	stepLimit  = 30 * time.Second    // of one check of a source
	soonLimit  = 14 * 24 * time.Hour // a certificate that ends within it is worth a warning
	skewLimit  = 2 * time.Minute     // clocks that differ by more do, too
	maxPing    = 64 << 10            // bytes of an answer to /ping
	maxOwnList = 512 << 20           // bytes of the mirror's own list
)

// source asks s what a mirror, and imgadm, would ask the source.
func (d *doctor) source(ctx context.Context, s config.Source, with Source) {
	name := "source " + s.Name
	switch {
	case with.Err != nil:
		d.fail(name, "%v", with.Err)
	case s.Kind == "directory" || d.reach(ctx, name, s):
		d.images(ctx, name, with.Client)
	}
}

// reach pings s and looks at what its server shows of itself; false: there is
// no use in asking it more.
func (d *doctor) reach(ctx context.Context, name string, s config.Source) bool {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	client, roots, err := probeClient(s)
	if err != nil {
		d.fail(name, "%v", err)
		return false
	}
	defer client.CloseIdleConnections()
	start := time.Now()
	got, err := d.get(ctx, client, pingURL(string(s.URL)), maxPing)
	if err != nil {
		d.fail(name+": ping", "%v", unanswered(err))
		return false
	}
	took, asked := time.Since(start).Round(time.Millisecond), got.Request.URL
	switch {
	case got.ok() && isPing(got.body):
		d.ok(name+": ping", "%s in %s", asked.Redacted(), took)
	case s.Kind == "imgapi" || s.Kind == "dsapi":
		d.fail(name+": ping", "%s: %s, which is not the answer of an image server", asked.Redacted(), got.Status)
	default:
		d.ok(name+": ping", "%s: %s, as with a static list", asked.Redacted(), got.Status)
	}
	d.clock(name+": clock", got.Header, start.Add(took/2))
	return got.TLS == nil || d.certificate(name+": certificate", got.TLS.PeerCertificates, roots, asked.Hostname(), s.Insecure)
}

// probeClient asks as the mirror would, but looks at certificates itself.
func probeClient(s config.Source) (client *http.Client, roots *x509.CertPool, err error) {
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("ca_file: %w", err)
		}
		if roots, err = x509.SystemCertPool(); err != nil {
			roots = x509.NewCertPool()
		}
		roots.AppendCertsFromPEM(pem)
	}
	proxy := http.ProxyFromEnvironment
	if s.Proxy != "" {
		u, err := parseProxy(string(s.Proxy))
		if err != nil {
			return nil, nil, fmt.Errorf("proxy: %w", err)
		}
		proxy = http.ProxyURL(u)
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: proxy,
			// certificate judges what is found, and nothing secret is sent.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, roots, nil
}

// pingURL is where the source at address s answers pings: beside its lists.
func pingURL(s string) string {
	u, err := url.Parse(config.WithScheme(s))
	if err != nil {
		return s
	}
	path := strings.TrimSuffix(u.Path, "/")
	for _, list := range []string{"/datasets", "/images"} {
		path = strings.TrimSuffix(path, list)
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: path + "/ping"}).String()
}

// answer is what a server said, whole.
type answer struct {
	*http.Response
	body []byte
}

// ok tells that the server did what it was asked.
func (a answer) ok() bool { return a.StatusCode == http.StatusOK }

// get asks for an answer of at most limit bytes.
func (d *doctor) get(ctx context.Context, client *http.Client, address string, limit int64) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("User-Agent", "imgmirror/"+d.version)
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return answer{}, fmt.Errorf("GET %s: %w", req.URL.Redacted(), err)
	}
	return answer{resp, body}, nil
}

// isPing tells whether imgadm, or a DSAPI client, would take body for a ping's answer.
func isPing(body []byte) bool {
	var reply struct {
		Ping   any `json:"ping"`
		IMGAPI any `json:"imgapi"`
	}
	return json.Unmarshal(body, &reply) == nil && (reply.Ping == "pong" || reply.IMGAPI == true)
}

// clock compares the server's time with ours, which was now when it told it.
func (d *doctor) clock(check string, header http.Header, now time.Time) {
	theirs, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		d.ok(check, "the server does not tell the time")
		return
	}
	switch skew := theirs.Sub(now).Round(time.Second); {
	case skew > skewLimit:
		d.warn(check, "this machine is %s behind the server", skew)
	case skew < -skewLimit:
		d.warn(check, "this machine is %s ahead of the server", -skew)
	default:
		d.ok(check, "agrees with this machine's")
	}
}

// certificate judges a chain as a client with these roots (nil: the system's)
// would; tolerated means that this client is told not to. false: it hangs up.
func (d *doctor) certificate(check string, chain []*x509.Certificate, roots *x509.CertPool, host string, tolerated bool) bool {
	err := verifyChain(chain, roots, host)
	switch {
	case err != nil && tolerated:
		d.warn(check, "%v; it is used all the same, for insecure is true", err)
	case err != nil:
		d.fail(check, "%v (%s)%s", err, about(chain), remedy(err))
		return false
	default:
		d.expiry(check, chain[0].NotAfter, about(chain))
	}
	return true
}

func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, host string) error {
	if len(chain) == 0 {
		return errors.New("the server shows none")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
	return err
}

// about tells the names that a certificate is for, and its issuer.
func about(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return "no certificate"
	}
	names := slices.Clone(chain[0].DNSNames)
	for _, ip := range chain[0].IPAddresses {
		names = append(names, ip.String())
	}
	who := "for no name"
	if len(names) > 0 {
		who = "for " + strings.Join(names, ", ")
	}
	issuer := chain[0].Issuer.String()
	if issuer == chain[0].Subject.String() {
		issuer = "itself"
	}
	return fmt.Sprintf("%s, issued by %s", who, issuer)
}

// remedy is what helps when the certificate of a source is refused with err.
func remedy(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return ": ca_file of the source names the certificate of an authority of your own"
	}
	return ""
}

// expiry tells when a certificate that holds now ends; what tells which certificate.
func (d *doctor) expiry(check string, end time.Time, what string) {
	left := time.Until(end)
	switch days := int(left.Hours() / 24); {
	case left < 0:
		d.fail(check, "ended on %s (%s)", end.UTC().Format(time.RFC3339), what)
	case left < soonLimit:
		d.warn(check, "ends soon, on %s, in %d days (%s)", end.UTC().Format(time.RFC3339), days, what)
	default:
		d.ok(check, "good until %s, %d days (%s)", end.UTC().Format(time.DateOnly), days, what)
	}
}

// images asks a source for its list, one manifest and one file.
func (d *doctor) images(ctx context.Context, name string, s catalog.Source) {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	list, err := s.List(limited, manifest.Listing{})
	if errors.Is(err, via.ErrItself) {
		d.fail(name+": list", "this source is the mirror itself, whatever its address; take it out of sources")
		return
	}
	if err != nil {
		d.fail(name+": list", "%v", err)
		return
	}
	took := time.Since(start).Round(time.Millisecond)
	smallest := -1
	for i, m := range list.Images {
		if m.Listable() && m.Files[0].Size > 0 && (smallest < 0 || m.Files[0].Size < list.Images[smallest].Files[0].Size) {
			smallest = i
		}
	}
	if smallest < 0 {
		d.warn(name+": list", "%d images in %s, none of them for everyone", len(list.Images), took)
		return
	}
	d.ok(name+": list", "%d images in %s", len(list.Images), took)
	limited, cancel = context.WithTimeout(ctx, stepLimit)
	defer cancel()
	m, err := s.Get(limited, list.Images[smallest].UUID)
	if err != nil {
		d.fail(name+": manifest", "%v", err)
		return
	}
	d.ok(name+": manifest", "%s, %s %s", m.UUID, m.Name, m.Version)
	if len(m.Files) == 0 {
		d.fail(name+": file", "image %s has none", m.UUID)
		return
	}
	d.file(ctx, name+": file", s, m)
}

// file opens the first file of m and looks at what is claimed of it.
func (d *doctor) file(ctx context.Context, check string, s catalog.Source, m manifest.Manifest) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	stream, err := s.File(ctx, m, 0, 0)
	if err != nil {
		d.fail(check, "%v", err)
		return
	}
	defer stream.Close()
	switch want := m.Files[0].Size; {
	case stream.Size < 0:
		d.warn(check, "image %s: sent without a length, which imgadm would refuse", m.UUID)
	case want > 0 && stream.Size != want:
		d.fail(check, "image %s: %d bytes are offered, its manifest says %d", m.UUID, stream.Size, want)
	default:
		d.ok(check, "image %s: %s, as its manifest says", m.UUID, humanize.Bytes(uint64(stream.Size)))
	}
}
