package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"golang.org/x/sync/errgroup"

	"imgmirror/proxy/admin"
)

// press clicks on a button by its text, and waits for the page that comes.
func (b *tab) press(text string) {
	b.t.Helper()
	button := `[...document.querySelectorAll("main button")].find(b => b.textContent.trim() === ` + quoted(text) + `)`
	if status := b.load("the button "+text, b.click(button)); status != http.StatusOK {
		b.t.Fatalf("the button %s: status %d\n%s", text, status, b.describe())
	}
}

// awaitText waits until the main part of the page has the text. Without script the page is loaded
// again and again, as its user would.
func (b *tab) awaitText(text string) {
	b.t.Helper()
	b.sample(`document.querySelector("main").innerText`, func(value any) bool {
		said, _ := value.(string)
		if strings.Contains(said, text) {
			return true
		}
		if b.scriptless {
			b.load("loading the page again", chromedp.Reload())
		}
		return false
	})
}

// awaitOver waits until the job of the page is over, with the state. Images of the job may be done before.
func (b *tab) awaitOver(state string) {
	b.t.Helper()
	b.sample(`document.querySelector("main [data-over] .badge")?.innerText`, func(value any) bool {
		if value == nil && b.scriptless {
			b.load("loading the page again", chromedp.Reload())
		}
		return value == state
	})
}

// at is the path of the page.
func (b *tab) at() (path string) {
	b.t.Helper()
	b.js(`location.pathname`, &path)
	return path
}

// ask has the API's answer in value.
func (m *mirror) ask(path string, value any) {
	m.t.Helper()
	got := m.api(path)
	if got.status != 200 {
		m.t.Fatalf("%s: %d %s", path, got.status, got.body)
	}
	if err := json.Unmarshal(got.body, value); err != nil {
		m.t.Fatalf("%s: %v", path, err)
	}
}

// TestPageActions: what an operator can do by the page works with its script and without. The API
// and the disk tell the outcome.
func TestPageActions(t *testing.T) {
	t.Parallel()
	for _, script := range []string{"with script", "without script"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			m, slow := newWorkshop(t)
			b := newTab(t, m.admin)
			if script == "without script" {
				b.withoutScript()
			}
			b.open(m.admin + "/ui/")
			b.signIn(m.token())
			b.refreshes(m)
			b.cancels(m, slow)
			b.keeps(m)
			b.publishes(m)
			b.forgets(m)
		})
	}
}

// newWorkshop is a mirror of the samples, and of an image that takes a while to come.
func newWorkshop(t *testing.T) (m *mirror, slow image) {
	t.Helper()
	slow = newImage("slow-image", 20<<20)
	m = startMirror(t, settings{"zfsimport.pool": "no-such-pool"}, from(newSource(t, slow).link(500_000), settings{"name": "far"}), samples(t))
	m.awaitList(1 + len(sampleUUIDs))
	return m, slow
}

// refreshes takes all lists in, and follows the job to its end.
func (b *tab) refreshes(m *mirror) {
	b.t.Helper()
	b.open(m.admin + "/ui/sources")
	b.press("Refresh all lists now")
	if at := b.at(); !strings.HasPrefix(at, "/ui/jobs/") {
		b.t.Fatalf("a refresh leads to %s", at)
	}
	b.awaitOver("done")
	var job admin.Job
	if m.ask(strings.TrimPrefix(b.at(), "/ui"), &job); job.Kind != "refresh" || job.State != "done" {
		b.t.Errorf("the job: %+v", job)
	}
	b.open(m.admin + "/ui/sources")
	b.press("Check all sources")
	b.awaitText("All sources have answered")
}

// cancels follows a job that takes long, and cancels it.
func (b *tab) cancels(m *mirror, slow image) {
	b.t.Helper()
	var fetch errgroup.Group
	fetch.Go(func() error {
		m.verb("fetch", "-q", slow.uuid) // its job is cancelled
		return nil
	})
	defer fetch.Wait() //nolint:errcheck // always nil
	m.until("the download is under way", func() bool { return m.metric("imgmirror_fills_inflight") == 1 })
	b.open(m.admin + "/ui/jobs")
	b.awaitText("running")
	b.follow(`main tbody a[href^="/ui/jobs/"]`)
	b.awaitText(slow.name)
	b.press("Cancel this job")
	b.awaitOver("cancelled")
	var job admin.Job
	if m.ask(strings.TrimPrefix(b.at(), "/ui"), &job); job.State != "cancelled" {
		b.t.Errorf("the job: %+v", job)
	}
	m.until("the download has ended", func() bool { return m.metric("imgmirror_fills_inflight") == 0 })
}

// keeps fetches, pins, verifies and deletes an image and its origins.
func (b *tab) keeps(m *mirror) {
	b.t.Helper()
	image := func() (got admin.Image) {
		b.t.Helper()
		m.ask("/images/"+sampleApp, &got)
		return got
	}
	here := m.admin + "/ui/images/" + sampleApp
	job := func(kind string) {
		b.t.Helper()
		b.awaitOver("done")
		var job admin.Job
		if m.ask(strings.TrimPrefix(b.at(), "/ui"), &job); job.Kind != kind || job.State != "done" {
			b.t.Errorf("the job: %+v", job)
		}
		b.open(here)
	}
	b.open(here)
	b.press("Fetch")
	job("fetch")
	m.awaitStored(3)
	if got := image(); !got.Cached {
		b.t.Errorf("the image after its fetch: %+v", got)
	}
	b.press("Pin")
	b.awaitText("The image is pinned")
	pins, err := os.ReadFile(m.data("pins"))
	if err != nil || !strings.Contains(string(pins), sampleApp) || !image().Pinned {
		b.t.Errorf("after the pin: %q, %v, %+v", pins, err, image())
	}
	b.press("Verify")
	job("verify")
	b.open(here + "/delete")
	if !strings.Contains(b.text("main"), "not possible") {
		b.t.Errorf("a pinned image can be deleted:\n%s", b.describe())
	}
	b.open(here)
	b.press("Unpin")
	b.awaitText("The pin is taken back")
	if pins, err := os.ReadFile(m.data("pins")); strings.Contains(string(pins), sampleApp) || image().Pinned {
		b.t.Errorf("after the pin was taken back: %q, %v, %+v", pins, err, image())
	}
	before := m.files()
	b.follow(`main a[href$="/delete"]`)
	b.press("Delete")
	b.awaitText("Deleted: 1 file")
	if got := image(); got.Cached || len(m.files()) != len(before)-1 {
		b.t.Errorf("after the delete: %+v, files %q, before %q", got, m.files(), before)
	}
	// The machine may have a pool; the mirror's configuration names one that is not there.
	b.allow("answer 422 to " + here)
	status := b.follow(`main button[value="install"]`)
	if said := b.text("main"); status != http.StatusUnprocessableEntity || !strings.Contains(said, "pool") {
		b.t.Errorf("an install without a pool: status %d\n%s", status, said)
	}
}

// publishes publishes an image of the mirror's own by files, and takes the image back.
func (b *tab) publishes(m *mirror) {
	b.t.Helper()
	file := sample(b.t, samplePlain)
	own := newImage("our-own-image", 1, map[string]any{"files": []any{
		map[string]any{"sha1": file.sha1(), "size": len(file.file), "compression": "none"}}})
	manifest := filepath.Join(b.t.TempDir(), "manifest.json")
	if err := os.WriteFile(manifest, own.manifest, 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.open(m.admin + "/ui/publish")
	b.do("choosing the files",
		chromedp.SetUploadFiles(chromedp.CSS("#manifest"), []string{manifest}),
		chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{abs(b.t, file.path)}))
	b.press("Publish")
	b.awaitText("The image is published")
	get(b.t, m.url+filePath(own)).wantFile(b.t, image{name: own.name, file: file.file})
	b.open(m.admin + "/ui/images/" + own.uuid)
	b.follow(`main a[href$="/unpublish"]`)
	b.press("Unpublish")
	b.awaitText("The image is no longer published")
	if got := get(b.t, m.url+"/images/"+own.uuid); got.status != http.StatusNotFound {
		b.t.Errorf("after the end of its publishing: status %d", got.status)
	}
}

// forgets deletes a node from the journal, and then the journal.
func (b *tab) forgets(m *mirror) {
	b.t.Helper()
	known := func() (addresses []string) {
		b.t.Helper()
		var page admin.NodePage
		m.ask("/nodes", &page)
		for _, node := range page.Rows {
			addresses = append(addresses, node.Address)
		}
		return addresses
	}
	for node := range 3 {
		if err := askFrom(net.IPv4(127, 0, 10, byte(1+node)), m.url+"/images/"+sampleApp); err != nil {
			b.t.Fatal(err)
		}
	}
	m.until("the nodes are in the journal", func() bool {
		got := known()
		return slices.Contains(got, "127.0.10.1") && slices.Contains(got, "127.0.10.2") && slices.Contains(got, "127.0.10.3")
	})
	b.open(m.admin + "/ui/nodes")
	b.follow(`main a[href="/ui/nodes/127.0.10.2"]`)
	b.follow(`main a[href$="/forget"]`)
	b.press("Delete")
	if got := known(); slices.Contains(got, "127.0.10.2") || !slices.Contains(got, "127.0.10.1") {
		b.t.Errorf("after a node was deleted: %q", got)
	}
	b.open(m.admin + "/ui/nodes")
	b.follow(`main a[href="/ui/nodes/forget"]`)
	b.press("Delete")
	if got := known(); len(got) > 0 {
		b.t.Errorf("after the journal was deleted: %q", got)
	}
}
