package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"imgmirror/proxy/admin"
)

// TestTLS: a mirror with a certificate, and a second one that has it as its
// source and knows the authority. File urls say https.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir, end := t.TempDir(), time.Now().Add(time.Hour).Truncate(time.Second)
	cert, key := certificateUntil(t, dir, end)
	first := newMirror(t, settings{"tls.cert_file": cert, "tls.key_file": key}, samples(t))
	first.start()
	first.awaitList(len(sampleUUIDs))
	url := "https" + strings.TrimPrefix(first.url, "http")

	pool := x509.NewCertPool()
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(text)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = pool
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	fetch := func(path string) []byte {
		t.Helper()
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("GET %s: status %d, %v", path, resp.StatusCode, err)
		}
		return body
	}
	base := sample(t, sampleBase)
	for range 2 {
		if !bytes.Equal(fetch("/images/"+sampleBase+"/file"), base.file) {
			t.Error("wrong bytes")
		}
	}
	if want := `"url":"` + url + "/datasets/" + sampleBase; !bytes.Contains(fetch("/datasets/"+sampleBase), []byte(want)) {
		t.Errorf("the v1 manifest has no %s", want)
	}

	second := startMirror(t, nil, from(url, settings{"ca_file": cert}))
	second.awaitList(len(sampleUUIDs))
	get(t, second.url+"/images/"+sampleBase+"/file").wantFile(t, base)

	// Both sides tell when the certificate ends, and the mirror also of a renewed one.
	const ofListener, ofSource = "imgmirror_listener_certificate_end_timestamp_seconds", "imgmirror_upstream_certificate_end_timestamp_seconds"
	if here, there := first.metric(ofListener), second.metric(ofSource); here != float64(end.Unix()) || there != here {
		t.Errorf("ends at %v and %v, want %v", here, there, end.Unix())
	}
	if none := second.metric(ofListener); none != 0 {
		t.Errorf("the certificate of a listener without TLS ends at %v", none)
	}
	var status admin.Status
	if got := first.api("/status"); json.Unmarshal(got.body, &status) != nil || status.Certificate == nil ||
		*status.Certificate != (admin.Certificate{Name: "mirror", NotAfter: end.UTC()}) {
		t.Errorf("the status tells of %+v", status.Certificate)
	}
	second.verb("sources", "-H", "-o", "certificate,name").want(t, end.UTC().Format(time.RFC3339)+"  127.0.0.1", "-                     published")
	later := end.Add(time.Hour)
	certificateUntil(t, dir, later)
	first.signal(syscall.SIGHUP)
	first.until("the renewed certificate is served", func() bool { return first.metric(ofListener) == float64(later.Unix()) })

	// Without the authority the source is not believed, and not asked.
	third := startMirror(t, nil, from(url, settings{"name": "untrusted"}))
	third.until("the source has failed", func() bool {
		return third.metric("imgmirror_upstream_requests_total", `source="untrusted"`, `code="error"`) > 0
	})
	if got := get(t, third.url+"/images/"+sampleBase); got.status != 503 {
		t.Errorf("status %d from a source with an unknown authority, want 503", got.status)
	}
	if got := third.metric(ofSource, `source="untrusted"`); got != float64(later.Unix()) {
		t.Errorf("a certificate that is not trusted ends at %v, want %v", got, later.Unix())
	}
}

// certificate makes a self-signed certificate for 127.0.0.1 and returns its files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	return certificateUntil(t, t.TempDir(), time.Now().Add(time.Hour))
}

// certificateUntil is certificate with an end, in files of the folder dir.
func certificateUntil(t *testing.T, dir string, end time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "imgmirror e2e"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              end,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"mirror", "images.smartos.org"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
