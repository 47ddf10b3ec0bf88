package e2e

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgmirror/proxy/admin"
)

// clientAt is a client with an address of its own on this machine.
func clientAt(t testing.TB, address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// asks takes all of a reply.
func asks(t testing.TB, c *http.Client, url, agent string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", agent)
	req.Header.Set("X-Forwarded-For", "10.9.9.9")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v", url, resp.StatusCode, err)
	}
}

// TestNodes: who asked for what is known in the shell, here and from elsewhere, after a stop and a
// kill, until the operator has it deleted.
func TestNodes(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems than Linux have no loopback address beside 127.0.0.1")
	}
	t.Parallel()
	const imgadm = "imgadm/3.9.5 (node/0.10.48; OpenSSL/1.0.1u) joyent_20260101T010203Z"
	one, two := newImage("one", 100_000), newImage("two", 200_000)
	m := startMirror(t, nil, from(newSource(t, one, two).URL()))
	m.awaitList(2)
	m.verb("nodes", "-H").want(t)
	m.verb("nodes", "127.0.0.2").wantError(t, "nodes", "ResourceNotFound")
	first, second := clientAt(t, "127.0.0.2"), clientAt(t, "127.0.0.3")
	asks(t, first, m.url+"/images/"+one.uuid, imgadm)
	asks(t, first, m.url+"/images/"+one.uuid+"/file", imgadm)
	m.awaitStored(1)
	asks(t, second, m.url+"/images", "evil/\u202e<b>")
	asks(t, second, m.url+"/images/"+one.uuid+"/file", "evil/\u202e<b>")
	m.until("the requests of both are known", func() bool {
		return slices.Equal(strings.Fields(m.verb("nodes", "-H", "-o", "requests").stdout), []string{"2", "2"})
	})

	check := func(t *testing.T, run func(...string) said) {
		run("nodes", "-H", "-o", "address,client,version,platform,requests,images,bytes,saved,errors", "-s", "address").want(t,
			"127.0.0.2  imgadm  3.9.5  20260101T010203Z  2  1  100 kB  0 B     0\n",
			"127.0.0.3  evil    ?<b>   -                 2  1  100 kB  100 kB  0\n")
		run("nodes", "-H", "-o", "address,fetched,result", "--image", one.uuid, "client=evil").want(t, "127.0.0.3  20", "Z  hit\n")
		run("nodes", "-H", "-o", "address", "-s", "address", "--lacking", two.uuid, "127.0.0.0/8").want(t, "127.0.0.2\n127.0.0.3\n")
		run("nodes", "-H", "--image", two.uuid).want(t)
		run("nodes", "-H", "-o", "uuid,name,result,bytes,state,fetches", "127.0.0.2").want(t, one.uuid+"  one  miss  100 kB  whole  1\n")
		var all []admin.Node
		s := run("nodes", "-j", "agent=~imgadm", "version!=1")
		if err := json.Unmarshal([]byte(s.stdout), &all); err != nil || len(all) != 1 || all[0].Agent != imgadm || all[0].Served["miss"] != 100_000 {
			t.Errorf("%v: %s", err, s.stdout)
		}
		var n admin.Node
		s = run("nodes", "-j", "127.0.0.2")
		if err := json.Unmarshal([]byte(s.stdout), &n); err != nil || len(n.Fetches) != 1 || n.Fetches[0].UUID != one.uuid {
			t.Errorf("%v: %s", err, s.stdout)
		}
	}
	t.Run("socket", func(t *testing.T) { check(t, m.verb) })
	t.Run("network", func(t *testing.T) { check(t, m.remote) })
	m.stop()
	t.Run("stopped", func(t *testing.T) { check(t, m.verb) })
	m.start()
	asks(t, clientAt(t, "127.0.0.4"), m.url+"/images", "curl/8.5.0")
	m.kill()
	m.start()
	t.Run("killed", func(t *testing.T) { check(t, m.verb) }) // the third node may be lost
	if n := m.metric("imgmirror_nodes"); n < 2 {
		t.Errorf("%v nodes are counted", n)
	}

	for _, wrong := range [][]string{
		{"10.0.0.1", "10.0.0.2"}, {"10.0.0.0/33"}, {"somewhere"}, {"cleint=x"}, {"--image", "x"}, {"--forget", "10.0.0.0/8"},
		{"--forget", "client=x"}, {"--image", one.uuid, "10.0.0.1"}, {"-o", "adress"},
	} {
		if s := m.verb(append([]string{"nodes"}, wrong...)...); s.code != 2 {
			t.Errorf("%q: exit code %d: %s", wrong, s.code, s.stderr)
		}
	}
	m.verb("nodes", "--forget", "127.0.0.2").want(t, "1 node was deleted from the journal\n")
	m.verb("nodes", "--forget", "127.0.0.2").want(t, "the journal knew nothing of 127.0.0.2\n")
	m.remote("nodes", "--forget", "-q").want(t)
	m.verb("nodes", "-H").want(t)
	m.kill()
	m.verb("nodes", "-H").want(t)

	m.start()
	asks(t, first, m.url+"/images", imgadm)
	m.until("the node is known", func() bool { return m.metric("imgmirror_nodes") == 1 })
	m.set(settings{"nodes.max": 0})
	m.configFile()
	m.signal(syscall.SIGHUP)
	m.until("the journal is off", func() bool { return m.metric("imgmirror_nodes") == 0 })
	if s := m.verb("nodes", "-H"); s.stdout != "" || s.stderr != "there is no journal of nodes: nodes.keep or nodes.max is 0\n" {
		t.Errorf("off: %+v", s)
	}
	asks(t, first, m.url+"/images", imgadm)
	m.stop()
	m.set(settings{"nodes.max": 10})
	m.start()
	m.verb("nodes", "-H").want(t)
}

// TestPageNodes: without a script, the operator finds nodes, sorts them, sees one, and deletes one
// and all by forms. What strangers send as their user agents is text.
func TestPageNodes(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems than Linux have no loopback address beside 127.0.0.1")
	}
	t.Parallel()
	one := newImage("one", 100_000)
	m := startMirror(t, nil, from(newSource(t, one).URL()))
	m.awaitList(1)
	v := &visitor{t: t, base: m.admin}
	v.signIn(m.token())
	page := func(path string, parts ...string) webPage {
		t.Helper()
		got := v.get(path)
		for _, part := range parts {
			if got.status != http.StatusOK || !strings.Contains(got.body, part) {
				t.Errorf("%s: status %d, no %q in\n%s", path, got.status, part, got.body)
			}
		}
		return got
	}
	page("/ui/nodes", "No node has asked yet")
	page("/ui/images/"+one.uuid, "No node has asked this mirror yet.")
	for address, agent := range map[string]string{"127.0.0.2": "imgadm/3.9.5 (node/0.10.48)", "127.0.0.3": "x/1<script>alert(1)</script>\u202e", "127.0.0.4": "curl/8.5.0"} {
		c := clientAt(t, address)
		asks(t, c, m.url+"/images", agent)
		if address != "127.0.0.4" {
			asks(t, c, m.url+"/images/"+one.uuid+"/file", agent)
		}
	}
	m.until("all are known", func() bool {
		return m.metric("imgmirror_nodes") == 3 && strings.Contains(v.get("/ui/nodes?q=127.0.0.0/30").body, "2</strong> nodes found")
	})
	got := page("/ui/nodes?sort=address", "imgadm 3.9.5", "127.0.0.3", "curl 8.5.0", "&lt;script&gt;", `\u202e`, `aria-sort="ascending"`)
	if first, last := strings.Index(got.body, "/ui/nodes/127.0.0.2"), strings.Index(got.body, "/ui/nodes/127.0.0.4"); first > last {
		t.Error("the nodes are not in the order of their addresses")
	}
	page("/ui/nodes?q=curl", "1</strong> node found")
	page("/ui/nodes?lacks="+one.uuid, "1</strong> node that lacks one 1.0.0", "127.0.0.4")
	page("/ui/nodes/127.0.0.2", "imgadm/3.9.5 (node/0.10.48)", "/ui/images/"+one.uuid, "whole", "100 kB")
	page("/ui/images/"+one.uuid, "/ui/nodes/127.0.0.2", "/ui/nodes/127.0.0.4")

	forget := func(path string) {
		t.Helper()
		for _, f := range page(path).forms() {
			if f.fields.Get("do") == "forget" {
				if got := f.send(v, f.fields); got.status != http.StatusSeeOther {
					t.Errorf("%s: status %d", path, got.status)
				}
			}
		}
	}
	forget("/ui/nodes/127.0.0.2/forget")
	if got := page("/ui/nodes", "What the journal knew of 127.0.0.2 is deleted", "127.0.0.3"); strings.Contains(got.body, "/ui/nodes/127.0.0.2") {
		t.Errorf("the node is still there:\n%s", got.body)
	}
	forget("/ui/nodes/forget")
	page("/ui/nodes", "The journal is deleted: 2 nodes.", "No node has asked yet")
	for _, path := range []string{"/ui/nodes", "/ui/nodes/127.0.0.3", "/ui/nodes/forget"} {
		if got := (&visitor{t: t, base: m.url}).get(path); got.status != http.StatusNotFound {
			t.Errorf("clients are answered %d at %s", got.status, path)
		}
	}
}
