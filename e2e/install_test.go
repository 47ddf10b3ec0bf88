package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"imgmirror/proxy/admin"
	"imgmirror/proxy/upstream/upstreamtest"
)

// poolSize is room for all samples.
const poolSize = 128 << 20

// sampleImageList is all samples, each after its origin.
func sampleImageList(t testing.TB) []image {
	t.Helper()
	all := make([]image, len(sampleUUIDs))
	for i, id := range sampleUUIDs {
		all[i] = sample(t, id)
	}
	return all
}

// TestInstall: what install leaves in the pool is what imgadm leaves, of every
// compression and of a chain of three, from the cache and while it downloads.
func TestInstall(t *testing.T) {
	t.Parallel()
	theirs := newPool(t, poolSize)
	for _, img := range sampleImageList(t) {
		theirs.importAsImgadm(img)
	}
	for _, cached := range []bool{true, false} {
		t.Run(fmt.Sprintf("cached %t", cached), func(t *testing.T) {
			ours := newPool(t, poolSize)
			m := startMirror(t, ours.settings(), samples(t))
			if cached {
				m.verb("fetch", "-q", "name=~sample").want(t)
			}
			m.verb("install", "name=~sample").want(t, sampleApp+" sample-app@1.0.0: installed, 26 kB")
			ours.holds(sampleUUIDs...)
			if diff := cmp.Diff(theirs.listing(), ours.listing()); diff != "" {
				t.Errorf("zfs list, -theirs +ours:\n%s", diff)
			}
			for _, id := range sampleUUIDs {
				if diff := cmp.Diff(theirs.contents(id), ours.contents(id)); diff != "" {
					t.Errorf("contents of %s, -theirs +ours:\n%s", id, diff)
				}
			}
			m.wantRecords(ours, "")

			// Again: nothing to do, and nothing is done.
			before := ours.listing()
			m.verb("install", sampleApp).want(t, sampleApp+" sample-app@1.0.0: is installed already, 26 kB")
			if after := ours.listing(); after != before {
				t.Errorf("a second install changed the pool:\n%s", cmp.Diff(before, after))
			}
		})
	}
}

// wantRecords holds imgadm's records against what the mirror serves.
func (m *mirror) wantRecords(p *pool, source string) {
	m.t.Helper()
	for id, r := range p.records() {
		served := get(m.t, m.url+"/images/"+id)
		var want, got bytes.Buffer
		if err := json.Compact(&want, served.body); err != nil {
			m.t.Fatal(err)
		}
		if err := json.Compact(&got, r.Manifest); err != nil {
			m.t.Fatal(err)
		}
		if got.String() != want.String() || r.Source != source {
			m.t.Errorf("record of %s: source %q, manifest\n%s\nwant source %q, manifest\n%s", id, r.Source, &got, source, &want)
		}
	}
}

// TestInstallRecord is the shape of imgadm's record, byte for byte.
func TestInstallRecord(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	set := p.settings()
	set["public_url"] = "http://operator:secret@mirror.example:8080/" // recorded as imgadm would, without the password
	m := startMirror(t, set, samples(t))
	m.verb("install", "-q", samplePlain).want(t)
	got, err := os.ReadFile(filepath.Join(p.db, "images", p.name+"-"+samplePlain+".json"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := sample(t, samplePlain).manifest
	var indented bytes.Buffer
	if err := json.Indent(&indented, bytes.TrimSpace(manifest), "  ", "  "); err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"manifest\": " + indented.String() + ",\n  \"zpool\": \"" + p.name + "\",\n  \"source\": \"http://mirror.example:8080\"\n}\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestInstalled: the table and the JSON, of a mirror that runs, of none, and from afar.
func TestInstalled(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	p.importAsImgadm(sample(t, sampleBase)) // no record: as of an imgadm that crashed
	m := startMirror(t, p.settings(), samples(t))
	m.verb("installed").want(t, "UUID", sampleBase+"  -     -")
	m.verb("install", "-n", "-H", "-o", "name,state", sampleApp).want(t, "sample-base  waiting\nsample-web   waiting\nsample-app   waiting\n")
	m.verb("install", sampleApp).want(t, "sample-base@1.0.0: is installed already,")
	table := m.verb("installed", "-o", "uuid,name,version,origin,zpool,clones,source,record", "-s", "name")
	table.want(t, "sample-app", sampleBase, p.name)
	if far := m.remote("installed", "-o", "uuid,name,version,origin,zpool,clones,source,record", "-s", "name"); far != table {
		t.Errorf("from afar:\n%s%s\nwant\n%s", far.stderr, far.stdout, table.stdout)
	}
	m.stop()
	if alone := m.verb("installed", "-o", "uuid,name,version,origin,zpool,clones,source,record", "-s", "name"); alone != table {
		t.Errorf("without a mirror:\n%s%s\nwant\n%s", alone.stderr, alone.stdout, table.stdout)
	}
	var rows []struct {
		UUID, Zpool, Origin string
		Manifest            struct{ Name string }
	}
	if err := json.Unmarshal([]byte(m.verb("installed", "-j").stdout), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || rows[0].Zpool != p.name || rows[0].Manifest.Name == "" {
		t.Errorf("%+v", rows)
	}
	m.verb("installed", "-P", "no-such-pool").wantError(t, "installed", "NoPool")
}

// TestInstallWithoutMirror: with no mirror on the data folder the verb does it all.
func TestInstallWithoutMirror(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	m := newMirror(t, p.settings(), samples(t))
	m.verb("install", "-q", sampleApp).wantError(t, "install", "NoDataFolder")
	p.holds()
	m.folder().verb("install", "-q", sampleApp).want(t)
	p.holds(sampleBase, sampleWeb, sampleApp)
	m.verb("list", "-H", "-o", "name", "-s", "name").want(t, "sample-app\nsample-base\nsample-web\n")
}

// refuses installs an image that cannot be, and wants the code, the words, and
// the pool as it was.
func (p *pool) refuses(m *mirror, img image, code string, words ...string) {
	p.t.Helper()
	before := p.listing()
	got := m.verb("install", img.uuid)
	got.wantError(p.t, "install", code)
	for _, w := range words {
		if !strings.Contains(got.stderr, w) {
			p.t.Errorf("%s: %q is not in\n%s", img.name, w, got.stderr)
		}
	}
	if after := p.listing(); after != before {
		p.t.Errorf("%s: the pool has changed:\n%s", img.name, cmp.Diff(before, after))
	}
	if _, ok := p.records()[img.uuid]; ok {
		p.t.Errorf("%s: imgadm has a record of it", img.name)
	}
}

// asNew is a sample under another uuid, with other fields.
func asNew(t testing.TB, id string, file []byte, more map[string]any) image {
	t.Helper()
	img := sample(t, id)
	fields := img.fields(t)
	fields["uuid"] = uuid.NewString()
	fields["name"] = fmt.Sprintf("%s-%v", img.name, t.Name())
	if file == nil {
		file = img.file
	}
	for k, v := range more {
		if k == "compression" {
			fields["files"].([]any)[0].(map[string]any)[k] = v
		} else {
			fields[k] = v
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return image{uuid: fields["uuid"].(string), name: fields["name"].(string), manifest: text, file: file}
}

// newChain is the chain of three samples under uuids of the test's own: imgadm's
// locks are the machine's, and other tests may hold those of the samples.
func newChain(t testing.TB) (base, web, app image) {
	t.Helper()
	base = asNew(t, sampleBase, nil, nil)
	web = asNew(t, sampleWeb, nil, map[string]any{"origin": base.uuid})
	app = asNew(t, sampleApp, nil, map[string]any{"origin": web.uuid})
	return base, web, app
}

// TestInstallRefused: what cannot be installed says why, by its code and in
// words, and leaves the pool as it was.
func TestInstallRefused(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	flipped := bytes.Clone(sample(t, sampleBase).file)
	flipped[len(flipped)-100] ^= 1
	noiseImage := newImage("noise-"+uuid.NewString(), 100_000)
	noiseImage.manifest = bytes.Replace(noiseImage.manifest, []byte(`"gzip"`), []byte(`"none"`), 1)
	var (
		wrong      = asNew(t, sampleBase, flipped, nil)
		short      = asNew(t, sampleXZ, sample(t, sampleXZ).file[:50_000], nil)
		label      = asNew(t, samplePlain, nil, map[string]any{"compression": "gzip"})
		docker     = asNew(t, samplePlain, nil, map[string]any{"type": "docker"})
		incomplete = asNew(t, sampleWeb, nil, map[string]any{"origin": uuid.NewString()})
		misled     = asNew(t, sampleWeb, nil, map[string]any{"origin": samplePlain})
	)
	src := newSource(t, wrong, short, label, docker, incomplete, misled, noiseImage, sample(t, samplePlain))
	m := startMirror(t, p.settings(), from(src.URL()))
	m.awaitList(4)
	m.verb("install", "-q", samplePlain).want(t)

	p.refuses(m, wrong, "RemoteSourceError", "sha1")
	p.refuses(m, short, "RemoteSourceError")
	p.refuses(m, label, "WrongCompression", "gzip", "none")
	p.refuses(m, docker, "UnsupportedImageType", "docker")
	p.refuses(m, incomplete, "OriginDoesNotExist", "origin")
	p.refuses(m, misled, "OriginNotInstalled")
	p.refuses(m, noiseImage, "NotAZFSStream")
	p.holds(samplePlain)

	unknown := newImage("unknown-"+uuid.NewString(), 10)
	m.verb("install", unknown.uuid).wantError(t, "install", "ResourceNotFound")
	m.verb("install", "-P", "no-such-pool", samplePlain).wantError(t, "install", "NoPool")
}

// TestInstallJobCancelled: an install that is cancelled while its source is silent ends
// there and then, leaves nothing in the pool, and can be done again.
func TestInstallJobCancelled(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	img := sample(t, samplePlain)
	src := newSource(t, img)
	m := startMirror(t, p.settings(), from(src.URL()))
	m.awaitList(1)
	src.Inject(upstreamtest.Fault{Path: "/file", Stall: true, After: int64(len(img.file) / 2)})
	client, err := admin.NewClient(admin.ClientOptions{URL: m.admin, Token: m.token()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	job, err := client.Install(t.Context(), admin.Install{Wanted: admin.Wanted{UUIDs: []string{img.uuid}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 15*time.Second) // a silent source is given up later
	defer stop()
	for src.requests(img) == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := client.Cancel(ctx, job.ID); err != nil {
		t.Error(err)
	}
	ended, err := client.Follow(ctx, job.ID, nil)
	if err != nil || ended.State != admin.JobCancelled {
		t.Errorf("%+v %v", ended, err)
	}
	p.holds()
	src.Heal()
	m.verb("install", "-q", img.uuid).want(t)
	p.holds(img.uuid)
}

// TestInstallNoRoom: a pool that is full says so, and stays as it was.
func TestInstallNoRoom(t *testing.T) {
	t.Parallel()
	p := newPool(t, 80<<20)
	megabyte := newImage("filler", 1<<20).file // it cannot be compressed
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(p.mount, fmt.Sprint(i)), megabyte, 0o600); err != nil {
			break
		}
	}
	m := startMirror(t, p.settings(), samples(t))
	p.refuses(m, sample(t, samplePlain), "NoRoom")
}

// TestInstallFrom: a compute node without a data folder installs from the mirror
// on its network.
func TestInstallFrom(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	theMirror := startMirror(t, nil, samples(t))
	node := newMirror(t, p.settings())
	node.verb("install", "--from", theMirror.url+"/", sampleApp, "name=sample-bzip2").want(t,
		sampleBase+" sample-base@1.0.0: installed, 134 kB\n", "sample-app@1.0.0: installed", "sample-bzip2@2.1.0: installed")
	p.holds(sampleBase, sampleWeb, sampleApp, sampleBzip2)
	theMirror.wantRecords(p, theMirror.url)
	node.verb("install", "--from", theMirror.url, sampleApp).want(t, "sample-app@1.0.0: is installed already")
	node.verb("install", "--from", theMirror.url, "-n", "-H", "-o", "name,state", sampleXZ).want(t, "sample-xz  waiting\n")
	if _, err := os.Stat(node.data()); !os.IsNotExist(err) {
		t.Errorf("there is a data folder: %v", err)
	}
	node.verb("install", "--from", theMirror.url, uuid.NewString()).wantError(t, "install", "ResourceNotFound")
	got := node.verb("install", "--from", theMirror.url, "name=nothing")
	if got.wantError(t, "install", "ResourceNotFound"); !strings.Contains(got.stderr, "no image matches name=nothing of "+theMirror.url) {
		t.Errorf("it says %s", got.stderr)
	}
	node.verb("install", "--from", "http://"+freeAddr(t), sampleXZ).wantError(t, "install", "RemoteSourceError")
	node.verb("install", "--from", theMirror.url, "-P", "no-such-pool", sampleXZ).wantError(t, "install", "NoPool")
}

// TestInstallFromBroken: a mirror that breaks off is asked for the rest; one
// that lies is found out, and the pool stays as it was.
func TestInstallFromBroken(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	img := sample(t, samplePlain)
	src := newSource(t, img)
	node := newMirror(t, p.settings())

	src.Inject(upstreamtest.Fault{Path: "/file", Cut: true, After: 10_000, Times: 2})
	node.verb("install", "-q", "--from", src.URL(), img.uuid).want(t)
	p.holds(img.uuid)
	if n, sent := src.requests(img), src.sent(img); n != 3 || sent > int64(len(img.file)) {
		t.Errorf("%d requests, %d bytes for a file of %d", n, sent, len(img.file))
	}

	p.clear()
	src.Inject(upstreamtest.Fault{Path: "/file", Corrupt: true, At: 20_000})
	node.verb("install", "--from", src.URL(), img.uuid).wantError(t, "install", "RemoteSourceError")
	p.holds()

	// A mirror whose only source lies has no end to give. It is not asked for that again and again.
	liar := newSource(t, img)
	liar.Inject(upstreamtest.Fault{Path: "/file", Corrupt: true, At: 20_000})
	between := startMirror(t, nil, from(liar.URL()))
	between.awaitList(1)
	node.verb("install", "--from", between.url, img.uuid).wantError(t, "install", "RemoteSourceError")
	p.holds()
	if n := liar.requests(img); n > 3 {
		t.Errorf("the source was asked for the file %d times", n)
	}
}

// TestStage puts files where imgadm looks for them.
func TestStage(t *testing.T) {
	t.Parallel()
	const stageDir = "/var/tmp/.imgadm-downloads"
	if os.Geteuid() != 0 {
		missing(t, "root, whose folder "+stageDir+" is")
	}
	img := newImage("stage-"+uuid.NewString(), 300_000)
	liar := newImage("liar-"+uuid.NewString(), 300_000)
	other := newImage("other-"+uuid.NewString(), 300_000)
	src := newSource(t, img, other)
	src.add(image{uuid: liar.uuid, manifest: liar.manifest, file: img.file})
	m := startMirror(t, nil, from(src.URL()))
	m.awaitList(3)
	staged := func(i image) []byte {
		t.Helper()
		path := filepath.Join(stageDir, i.uuid+".file")
		t.Cleanup(func() {
			os.Remove(path)
			os.Remove("/var/run/img." + i.uuid + ".import.lock")
		})
		data, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		return data
	}
	m.verb("install", "--stage", img.uuid).want(t, "staged, 300 kB")
	if !bytes.Equal(staged(img), img.file) {
		t.Error("it is not the image's file")
	}
	m.verb("install", "--stage", img.uuid).want(t, "is staged already, 300 kB")
	m.verb("install", "--stage", liar.uuid).wantError(t, "install", "RemoteSourceError")
	if staged(liar) != nil {
		t.Error("a wrong file was staged")
	}
	m.verb("install", "--stage", "--from", m.url, other.uuid).want(t, "staged, 300 kB")
	if !bytes.Equal(staged(other), other.file) {
		t.Error("it is not the other image's file")
	}
	if got := m.verb("install", "--stage", "-P", "tank", img.uuid); got.code != 2 {
		t.Errorf("--stage with a pool: exit %d, %s", got.code, got.stderr)
	}
}

// TestServeInstalls: a mirror with zfsimport.enabled keeps in its pool what
// zfsimport.images asks for, also what comes later.
func TestServeInstalls(t *testing.T) {
	t.Parallel()
	p := newPool(t, poolSize)
	base, web, app := newChain(t)
	plain := asNew(t, samplePlain, nil, nil)
	src := newSource(t, base, web, plain)
	set := p.settings()
	set["zfsimport.enabled"] = true
	set["zfsimport.images"] = []string{"name=~sample-web", "name=~sample-app"}
	m := startMirror(t, set, from(src.URL(), settings{"refresh": "1h"}))
	m.awaitDatasets(p, base.uuid, web.uuid)

	src.add(app)
	m.refresh()
	m.awaitDatasets(p, base.uuid, web.uuid, app.uuid)

	set["zfsimport.images"] = []string{plain.uuid}
	m.set(set)
	m.configFile()
	m.signal(syscall.SIGHUP)
	m.awaitDatasets(p, base.uuid, web.uuid, app.uuid, plain.uuid)
	m.verb("doctor").wantFinding(t, "zpool", "ok")
	m.stop()
	p.holds(base.uuid, web.uuid, app.uuid, plain.uuid)
}

// awaitDatasets waits until these images are in the pool, with their records.
func (m *mirror) awaitDatasets(p *pool, uuids ...string) {
	m.t.Helper()
	want := slices.Sorted(slices.Values(uuids))
	m.until(fmt.Sprintf("the pool holds %q", want), func() bool {
		return slices.Equal(p.datasets(), want) && len(p.records()) == len(want)
	})
}

// TestServeWithoutPool: where there is no zfs, or no pool, the log says so once, and
// the mirror serves.
func TestServeWithoutPool(t *testing.T) {
	t.Parallel()
	img := newImage("served", 1000)
	src := newSource(t, img)
	m := startMirror(t, settings{
		"zfsimport.enabled": true, "zfsimport.images": []string{"os=smartos"},
		"zfsimport.zfs_path": t.TempDir(), "zfsimport.db_dir": t.TempDir(),
	}, from(src.URL(), settings{"refresh": "1h"}))
	m.awaitList(1)
	get(t, m.url+"/images/"+img.uuid+"/file").wantFile(t, img)
	m.refresh()
	m.until("the log says so", func() bool { return strings.Contains(m.log(), "no zfs") })
	if n := strings.Count(m.log(), "no zfs"); n != 1 {
		t.Errorf("the log says so %d times:\n%s", n, m.log())
	}
	m.verb("install", img.uuid).wantError(t, "install", "NoZFS")
	m.verb("doctor").wantFinding(t, "zpool", "failed")
}

// refresh has the mirror read its sources' lists.
func (m *mirror) refresh() {
	m.t.Helper()
	client, err := admin.NewClient(admin.ClientOptions{URL: m.admin, Token: m.token()})
	if err != nil {
		m.t.Fatal(err)
	}
	defer client.Close()
	job, err := client.Refresh(m.t.Context())
	if err == nil {
		job, err = client.Follow(m.t.Context(), job.ID, nil)
	}
	if err != nil || job.State != admin.JobDone {
		m.t.Fatalf("refresh: %+v, %v", job, err)
	}
}

// wantFinding fails the test unless a check of doctor had that outcome.
func (s said) wantFinding(t testing.TB, check, state string) {
	t.Helper()
	for line := range strings.Lines(s.stdout) {
		if strings.HasPrefix(strings.TrimSpace(strings.TrimPrefix(line, state)), check) && strings.HasPrefix(line, state) {
			return
		}
	}
	t.Errorf("doctor does not say %s of %s:\n%s%s", state, check, s.stdout, s.stderr)
}
