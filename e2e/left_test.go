package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"imgmirror/proxy/upstream/upstreamtest"
)

// TestClientsThatLeft: more clients than clients.max_connections hang up while they wait, for a slot
// and a first byte, or for a whole file, with TLS and without. They are let go soon: others are
// served, and no descriptor stays.
func TestClientsThatLeft(t *testing.T) {
	t.Parallel()
	const limit, leavers = 60, 70
	cert, key := certificate(t)
	for _, test := range []struct {
		name  string
		set   settings
		fault upstreamtest.Fault
	}{
		{"first byte", nil, upstreamtest.Fault{Path: "/file", Delay: time.Hour}},
		{"whole file", settings{"cache.stream_on_miss": false}, upstreamtest.Fault{Path: "/file", Rate: 1000}},
		{"TLS", settings{"tls.cert_file": cert, "tls.key_file": key}, upstreamtest.Fault{Path: "/file", Delay: time.Hour}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var images []image
			for i := range 10 {
				images = append(images, newImage(fmt.Sprintf("left-%d", i), 200_000))
			}
			src := newSource(t, images...)
			m := newMirror(t, settings{"clients.max_connections": limit}, from(src.URL()))
			m.set(test.set)
			m.start()
			m.awaitList(len(images))
			src.Inject(test.fault)
			_, encrypted := test.set["tls.cert_file"]
			dial := func() (net.Conn, error) {
				c, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
				if err != nil || !encrypted {
					return c, err
				}
				return tls.Client(c, &tls.Config{InsecureSkipVerify: true}), nil //nolint:gosec // no secrets here
			}
			before := m.descriptors()
			var waiting []net.Conn
			for i := range leavers { // those beyond the limit are refused
				if i == limit {
					m.until("clients wait", func() bool { return m.metric("imgmirror_http_clients_waiting") == limit })
				}
				c, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", filePath(images[i%len(images)]))
				waiting = append(waiting, c)
			}
			m.until("clients are refused", func() bool {
				return m.metric("imgmirror_http_connections_refused_total") == leavers-limit
			})
			for _, c := range waiting {
				c.Close()
			}
			start := time.Now()
			m.until("/ping is answered", func() bool {
				c, err := dial()
				if err != nil {
					return false
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				_, _ = io.WriteString(c, "GET /ping HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					return false
				}
				resp.Body.Close()
				return resp.StatusCode == http.StatusOK
			})
			t.Logf("/ping was answered after %s", time.Since(start))
			m.until("the connections have ended", func() bool { return m.metric("imgmirror_http_connections") == 0 })
			if left := m.metric("imgmirror_http_clients_left_total"); left != limit {
				t.Errorf("%v clients have left", left)
			}
			if waiting := m.metric("imgmirror_http_clients_waiting"); waiting != 0 {
				t.Errorf("%v clients wait", waiting)
			}
			const downloads = 3 * 8 // a socket and files for each slot
			m.until("the descriptors are back", func() bool { return m.descriptors() <= before+downloads })
		})
	}
}

// TestIdleConnectionsMakeRoom: as many idle connections as one address may have, and slow headers,
// keep no client out, of the same address or of another one.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	img := newImage("room", 100_000)
	src := newSource(t, img)
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(1)
	host := strings.TrimPrefix(m.url, "http://")
	for i := range 300 { // the default is 256
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			if _, err := io.WriteString(c, "GET /ping HTTP/1.1\r\nHost: "); err != nil {
				t.Fatal(err)
			}
		}
	}
	get(t, m.url+filePath(img)).wantFile(t, img)
	if n := m.metric("imgmirror_http_connections_refused_total"); n != 0 {
		t.Errorf("%v connections were refused", n)
	}
	if n := m.metric("imgmirror_http_connections_displaced_total", `limit="address"`); n < 300-256 {
		t.Errorf("%v connections made room", n)
	}
	if n := m.metric("imgmirror_http_connections"); n > 256+64 {
		t.Errorf("%v connections are open", n)
	}
}

// descriptors counts the open descriptors of the mirror; -1 where the system does not tell.
func (m *mirror) descriptors() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid))
	if err != nil {
		return -1
	}
	return len(entries)
}
