package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// nodeReply is what e2e/node/client.js prints for one call.
type nodeReply struct {
	Result  json.RawMessage `json:"result"`
	Headers map[string]any  `json:"headers"`
	Error   *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Status  int    `json:"status"`
	} `json:"error"`
}

// node makes calls with the official node client, each a method and its arguments.
func node(t *testing.T, url string, calls ...[]any) []nodeReply {
	t.Helper()
	program := need(t, "node")
	if _, err := os.Stat("node/node_modules/sdc-clients"); err != nil {
		missing(t, "the npm package sdc-clients in e2e/node")
	}
	input, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(program, "client.js", url)
	cmd.Dir, cmd.Env = "node", cleanEnv()
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("client.js: %v\n%s", err, stderr.Bytes())
	}
	var replies []nodeReply
	if err := json.Unmarshal(out, &replies); err != nil || len(replies) != len(calls) {
		t.Fatalf("client.js printed %d replies to %d calls (%v): %s", len(replies), len(calls), err, out)
	}
	return replies
}

// want fails the test if the call failed, and decodes its result.
func (r nodeReply) want(t *testing.T, call string, into any) {
	t.Helper()
	if r.Error != nil {
		t.Fatalf("%s: %s (%d): %s", call, r.Error.Code, r.Error.Status, r.Error.Message)
	}
	if into != nil {
		if err := json.Unmarshal(r.Result, into); err != nil {
			t.Fatalf("%s: %v: %s", call, err, r.Result)
		}
	}
}

// wantError fails the test unless the call failed with that code.
func (r nodeReply) wantError(t *testing.T, call string, status int, code string) {
	t.Helper()
	if r.Error == nil || r.Error.Code != code || r.Error.Status != status {
		t.Errorf("%s: %+v, want error %d %s", call, r.Error, status, code)
	}
}

// TestNodeClient: the official node client, its Content-MD5 checks included.
// getImageFile and getImageIcon of this client fail
// when Content-MD5 is missing or differs from the bytes.
func TestNodeClient(t *testing.T) {
	t.Parallel()
	// Streamed while it is verified, a file has the source's Content-MD5; with
	// stream_on_miss off it has ours, whatever the source does.
	for _, stream := range []bool{true, false} {
		t.Run(fmt.Sprintf("stream_on_miss %t", stream), func(t *testing.T) {
			t.Parallel()
			nodeClient(t, stream)
		})
	}
}

func nodeClient(t *testing.T, stream bool) {
	icon := []byte("\x89PNG\r\n\x1a\n an icon, as far as a mirror cares")
	img := newImage("node-client", 300<<10, map[string]any{"icon": true})
	src := newSource(t, img)
	src.setIcon(img.uuid, icon)
	dir := t.TempDir()
	file, again, iconFile := filepath.Join(dir, "file"), filepath.Join(dir, "again"), filepath.Join(dir, "icon")
	m := startMirror(t, settings{"cache.stream_on_miss": stream}, from(src.URL()), samples(t))
	m.awaitList(1 + len(sampleUUIDs))

	const unknown = "00000000-1111-4222-8333-444444444444"
	replies := node(t, m.url,
		[]any{"ping"},
		[]any{"ping", "ImageUuidAlreadyExists"},
		[]any{"listImages", map[string]any{}},
		[]any{"listImages", map[string]any{"name": "sample-app"}},
		[]any{"listImages", map[string]any{"limit": 2, "marker": sampleWeb}},
		[]any{"listImages", map[string]any{"limit": "many"}},
		[]any{"getImage", img.uuid},
		[]any{"getImage", sampleBzip2},
		[]any{"getImage", unknown},
		[]any{"getImageFile", img.uuid, file},
		[]any{"getImageFile", img.uuid, again},
		[]any{"getImageFile", unknown, filepath.Join(dir, "none")},
		[]any{"getImageIcon", img.uuid, iconFile},
		[]any{"getImageIcon", sampleBase, filepath.Join(dir, "none")},
		[]any{"adminGetState"},
	)
	next := func() nodeReply {
		r := replies[0]
		replies = replies[1:]
		return r
	}

	var pong struct {
		Ping   string `json:"ping"`
		IMGAPI bool   `json:"imgapi"`
	}
	next().want(t, "ping", &pong)
	if pong.Ping != "pong" || !pong.IMGAPI {
		t.Errorf("ping: %+v", pong)
	}
	next().wantError(t, "ping(ImageUuidAlreadyExists)", 409, "ImageUuidAlreadyExists")

	var list []map[string]any
	next().want(t, "listImages", &list)
	if len(list) != 1+len(sampleUUIDs) {
		t.Errorf("listImages: %d images", len(list))
	}
	list = nil
	next().want(t, "listImages(name)", &list)
	if len(list) != 1 || list[0]["uuid"] != sampleApp || list[0]["origin"] != sampleWeb {
		t.Errorf("listImages(name): %v", list)
	}
	list = nil
	next().want(t, "listImages(limit, marker)", &list)
	if len(list) != 2 || list[0]["uuid"] != sampleWeb || list[1]["uuid"] != sampleApp {
		t.Errorf("listImages(limit, marker): %v", list)
	}
	next().wantError(t, "listImages(limit=many)", 422, "InvalidParameter")

	var got map[string]any
	next().want(t, "getImage", &got)
	wantFields(t, img, got)
	got = nil
	next().want(t, "getImage(v1)", &got)
	if got["v"] != 2.0 || got["state"] != "active" || got["published_at"] != "2026-01-13T09:00:00Z" {
		t.Errorf("getImage of a v1 manifest: %v", got)
	}
	next().wantError(t, "getImage(unknown)", 404, "ResourceNotFound")

	for _, path := range []string{file, again} {
		next().want(t, "getImageFile", nil)
		wantOnDisk(t, path, img.file)
	}
	next().wantError(t, "getImageFile(unknown)", 404, "ResourceNotFound")
	next().want(t, "getImageIcon", nil)
	wantOnDisk(t, iconFile, icon)
	next().wantError(t, "getImageIcon(none)", 404, "ResourceNotFound")
	next().wantError(t, "adminGetState", 401, "UnauthorizedError")
}

// wantFields compares a served manifest with the source's, field by field.
func wantFields(t *testing.T, img image, got map[string]any) {
	t.Helper()
	want := img.fields(t)
	for key, value := range want {
		a, _ := json.Marshal(value)
		b, _ := json.Marshal(got[key])
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %s is %s, the source has %s", img.name, key, b, a)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s: %s was added", img.name, key)
		}
	}
}

func wantOnDisk(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, and not the right %d", filepath.Base(path), len(got), len(want))
	}
}
