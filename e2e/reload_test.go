package e2e

import (
	"crypto/tls"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestReload: a SIGHUP takes a new source over while clients are served, and a
// file that makes no sense changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	one, two := newImage("reload-one", 100<<10), newImage("reload-two", 100<<10)
	first, second := newSource(t, one), newSource(t, two)
	m := startMirror(t, nil, from(first.URL(), settings{"name": "first"}))
	m.awaitList(1)
	m.set(settings{
		"sources": []map[string]any{from(second.URL(), settings{"name": "second"})}, "log.level": "debug", "clients.max_connections": 77,
	})
	m.configFile()
	m.signal(syscall.SIGHUP)
	m.until("the new source's image is there", func() bool { return get(t, m.url+"/images/"+two.uuid).status == 200 })
	m.until("the old source's image is gone", func() bool { return get(t, m.url+"/images/"+one.uuid).status == 404 })
	get(t, m.url+filePath(two)).wantFile(t, two)
	m.until("the log tells what changed", func() bool {
		log := m.log()
		return strings.Contains(log, `changed="log.level, sources"`) && strings.Contains(log, "keys=clients.max_connections")
	})
	if n := m.metric("imgmirror_upstream_up", `source="second"`); n != 1 {
		t.Errorf("imgmirror_upstream_up of the new source is %v", n)
	}

	if err := os.WriteFile(m.configFile(), []byte("listen: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGHUP)
	m.until("the log tells that it cannot be read", func() bool { return strings.Contains(m.log(), "it cannot be reloaded") })
	get(t, m.url+"/images/"+two.uuid)
	m.stop()
}

// TestReloadCertificate: a SIGHUP takes over a renewed certificate of the same
// name, and no broken one.
func TestReloadCertificate(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	m := startMirror(t, settings{"tls.cert_file": cert, "tls.key_file": key})
	served := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", strings.TrimPrefix(m.url, "http://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return string(c.ConnectionState().PeerCertificates[0].Raw)
	}
	first := served()
	newCert, newKey := certificate(t)
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m.signal(syscall.SIGHUP)
	m.until("the new certificate is served", func() bool { return served() != first })

	second := served()
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGHUP)
	m.until("the log tells that it cannot be read", func() bool { return strings.Contains(m.log(), "it cannot be reloaded") })
	if served() != second {
		t.Error("the certificate in use changed with a broken file")
	}
}
