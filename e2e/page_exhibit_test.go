package e2e

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"imgmirror/cache"
	"imgmirror/proxy/admin"
	"imgmirror/proxy/history"
)

// exhibit is a mirror as a data centre has one, for pictures and for the checks of the pages' looks:
// images by the dozen, nodes that ask for them, downloads and jobs under way, a source that is down,
// a conflict, images that are hidden, and one of its own.
type exhibit struct {
	*mirror
	cached, conflict, slow, long, own, hidden image

	running string // the id of a job
}

// longName is a name without a place to break it.
var longName = strings.Repeat("a-very-long-name-without-a-place-to-break-it", 4)

// newExhibit starts the mirror. Its downloads and jobs are under way until the test ends.
func newExhibit(t testing.TB) *exhibit {
	t.Helper()
	x := &exhibit{}
	var listed []image
	var files []image // with bytes
	for i, kind := range []struct{ name, os, kind, about string }{
		{"base-64-lts", "smartos", "zone-dataset", "A 64-bit SmartOS image with just essential packages installed. Long-term support."},
		{"minimal-64-lts", "smartos", "zone-dataset", "A minimal SmartOS image, the base of others."},
		{"pkgbuild", "smartos", "zone-dataset", "Builds packages."},
		{"debian-12", "linux", "lx-dataset", "Container-native Debian 12."},
		{"ubuntu-24.04", "linux", "lx-dataset", "Container-native Ubuntu 24.04."},
		{"alpine-3", "linux", "lx-dataset", "Container-native Alpine Linux."},
		{"ubuntu-certified-24.04", "linux", "zvol", "Ubuntu for bhyve and KVM."},
		{"freebsd-14", "bsd", "zvol", "FreeBSD 14 for bhyve."},
	} {
		for j, version := range []string{"22.4.1", "23.4.0", "24.4.1"} {
			more := map[string]any{
				"version": version, "os": kind.os, "type": kind.kind, "description": kind.about,
				"uuid":         newImage(kind.name+version, 1).uuid,
				"published_at": fmt.Sprintf("20%d-%02d-1%dT09:30:00Z", 22+j, 1+i, i),
				"homepage":     "https://docs.example.com/images/" + kind.name,
			}
			if kind.kind == "zvol" {
				for key, value := range map[string]any{"image_size": 10240, "nic_driver": "virtio", "disk_driver": "virtio", "cpu_type": "host"} {
					more[key] = value
				}
			}
			size := 300_000_000 + 1_234_567*(10*i+j) // of a file that no one asks for
			if j == 2 {
				size = 2_000_000 + 654_321*i
				img := newImage(kind.name, size, more)
				files, listed = append(files, img), append(listed, img)
				continue
			}
			sum := sha1.Sum([]byte(kind.name + version))
			more["files"] = []any{map[string]any{"sha1": hex.EncodeToString(sum[:]), "size": size, "compression": "gzip"}}
			listed = append(listed, newImage(kind.name, 0, more))
		}
	}
	x.cached = files[0]
	x.conflict = newImage("haproxy-edge", 200_000, map[string]any{"version": "2.9.1"})
	x.long = newImage(longName, 1000, map[string]any{"description": longName + " " + longName})
	x.hidden = newImage("not-for-all", 1000, map[string]any{"public": false})
	fast := newSource(t, append(listed, x.conflict, x.long,
		x.hidden, newImage("switched-off", 1000, map[string]any{"disabled": true, "state": "disabled"}))...)
	other := newSource(t, newImage("haproxy-edge", 180_000, map[string]any{"version": "2.9.1", "files": []any{
		map[string]any{"sha1": strings.Repeat("0123456789", 4), "size": 180_000, "compression": "gzip"}}}))
	x.slow = newImage("windows-2022", 80<<20, map[string]any{"version": "20260101", "os": "windows", "type": "zone-dataset", "description": "Takes its time."})
	wanted := newImage("oracle-linux-9", 60<<20, map[string]any{"version": "9.4.0", "os": "linux", "type": "lx-dataset"})
	far := newSource(t, x.slow, wanted)
	x.mirror = newMirror(t, settings{"cache.max_size": "1GB"},
		from(fast.URL(), settings{"name": "smartos"}), from(far.link(400_000), settings{"name": "community"}),
		from(other.URL(), settings{"name": "staging"}), from("http://"+freeAddr(t), settings{"name": "old-lab"}), samples(t))
	x.remember()
	x.start()
	x.awaitList(len(listed) + 4 + len(sampleUUIDs))
	t.Cleanup(x.kill) // ends the requests below

	for i, img := range files {
		for node := range 9 {
			if i == 0 || (node+i)%3 > 0 {
				x.node(node, img)
			}
		}
	}
	x.awaitStored(len(files))
	x.verb("pin", x.cached.uuid).want(t)
	x.verb("fetch", "-q", sampleApp).want(t)
	x.verb("verify", "-q").want(t)
	web := sample(t, sampleWeb)
	x.own = newImage("billing-app", 1, map[string]any{"version": "7.0.3", "public": false, "files": []any{
		map[string]any{"sha1": web.sha1(), "size": len(web.file), "compression": "xz"}}})
	manifest := x.dir + "/own.json"
	if err := os.WriteFile(manifest, x.own.manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	x.verb("publish", "-m", manifest, "-f", abs(t, web.path)).want(t)
	for node := range 3 {
		go x.ask(node, x.slow) //nolint:errcheck // ends with the mirror
	}
	x.running = x.job("/fetch", `{"uuids":["`+wanted.uuid+`"]}`)
	x.until("two downloads are under way", func() bool { return x.metric("imgmirror_fills_inflight") == 2 })
	return x
}

// remember gives the mirror, before its first start, a week of traffic: busy days and quiet nights.
func (x *exhibit) remember() {
	x.t.Helper()
	store, err := cache.Open(context.Background(), cache.Options{Dir: x.data()})
	if err != nil {
		x.t.Fatal(err)
	}
	records := map[string][]byte{}
	put := func(key string, value any) {
		text, err := json.Marshal(value)
		if err != nil {
			x.t.Fatal(err)
		}
		records[key] = text
	}
	now, random := time.Now(), rand.New(rand.NewPCG(1, 2))
	for name, span := range map[string]struct{ step, steps int64 }{"hour": {60, 60}, "day": {900, 96}, "week": {7200, 84}} {
		slots := [][3]int64{}
		for i := range span.steps {
			number := now.Unix()/span.step - i
			hour := float64(number*span.step%86400) / 3600
			busy := 1 + math.Sin((hour-8)/24*2*math.Pi) + random.Float64()/2
			over := float64(span.step)
			if i == 0 { // the step is not over
				over = float64(now.Unix() % span.step)
			}
			served := int64(busy * 9e6 * over)
			slots = append(slots, [3]int64{number, served, served * random.Int64N(25) / 100})
		}
		put("series/"+name, map[string]any{"step": span.step, "slots": slots})
	}
	put("totals", history.Totals{Since: now.Add(-40 * 24 * time.Hour), Counts: history.Counts{
		Requests: map[string]int64{history.Hit: 18_204, history.Miss: 611, history.Join: 1_377},
		Served:   map[string]int64{history.Hit: 6_410_000_000_000, history.Miss: 190_000_000_000, history.Join: 520_000_000_000},
		Fetched:  204_000_000_000, Brought: 204_000_000_000, Took: 9 * time.Hour,
	}})
	if err := store.Notes("history").Write(records, nil); err != nil {
		x.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		x.t.Fatal(err)
	}
}

// job starts a job over the API and returns its id.
func (x *exhibit) job(path, body string) string {
	x.t.Helper()
	req, err := http.NewRequest(http.MethodPost, x.admin+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+x.token())
	req.Header.Set("Content-Type", "application/json")
	resp, err := probe.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	var job admin.Job
	if err := json.NewDecoder(resp.Body).Decode(&job); err != nil || resp.StatusCode/100 != 2 {
		x.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return job.ID
}

// node has a node import an image.
func (x *exhibit) node(node int, img image) {
	x.t.Helper()
	if err := x.ask(node, img); err != nil {
		x.t.Fatal(err)
	}
}

// ask asks for manifest and file of an image as imgadm of a node does.
func (x *exhibit) ask(node int, img image) error {
	from := net.IPv4(127, 0, 10, byte(11+node))
	if err := askFrom(from, x.url+"/images/"+img.uuid); err != nil {
		return err
	}
	return askFrom(from, x.url+filePath(img))
}

// askFrom asks as imgadm does, from an address of this machine, and takes the whole answer.
func askFrom(from net.IP, url string) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}, Timeout: 3 * time.Minute}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	version := []string{"3.9.5", "3.9.2", "3.10.0"}[from[len(from)-1]%3]
	req.Header.Set("User-Agent", "imgadm/"+version+" (node/0.10.48; OpenSSL/1.0.1x)")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %w", url, resp.Status, err)
	}
	return nil
}
