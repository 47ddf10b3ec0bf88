package e2e

import (
	"testing"

	"imgmirror/proxy/upstream/upstreamtest"
)

// The images of the channel rows, and what each is in.
const (
	nightlyID = "00000011-0000-4000-8000-000000000000" // dev
	bothID    = "00000012-0000-4000-8000-000000000000" // dev, release; has an icon
	leafID    = "00000013-0000-4000-8000-000000000000" // release, built on stem
	stemID    = "00000014-0000-4000-8000-000000000000" // dev, built on root
	rootID    = "00000015-0000-4000-8000-000000000000" // dev, disabled
	strayID   = "00000016-0000-4000-8000-000000000000" // of a channel that the mirror has not
	plainID   = "00000017-0000-4000-8000-000000000000" // of a source without channels, that count as dev
	lostID    = "00000018-0000-4000-8000-000000000000" // of a source without channels, that count as nothing
)

// channelled is a mirror with the channels dev, release (the default, unless set says otherwise) and staging, of a
// source that has channels, all of which it is asked for, and of two that have none.
func channelled(t *testing.T, set settings) (*mirror, map[string]image) {
	t.Helper()
	need(t, "curl")
	byID := map[string]image{}
	img := func(id, name, day string, more map[string]any) image {
		i := newImage(name, 1000, map[string]any{"uuid": id, "published_at": "2026-02-" + day + "T00:00:00Z"}, more)
		byID[id] = i
		return i
	}
	in := func(names ...string) map[string]any { return map[string]any{"channels": names} }
	src := newSourceWith(t, upstreamtest.Options{Channel: "release"},
		img(nightlyID, "nightly", "01", in("dev")),
		img(bothID, "both", "02", map[string]any{"channels": []string{"dev", "release"}, "icon": true, "owner": creatorID}),
		img(leafID, "leaf", "03", map[string]any{"channels": []string{"release"}, "origin": stemID}),
		img(stemID, "stem", "04", map[string]any{"channels": []string{"dev"}, "origin": rootID}),
		img(rootID, "root", "05", map[string]any{"channels": []string{"dev"}, "state": "disabled", "disabled": true}),
		img(strayID, "stray", "06", in("experimental")),
	)
	src.setIcon(bothID, wireIcon)
	counted := newSource(t, img(plainID, "plain", "07", nil))
	uncounted := newSource(t, img(lostID, "lost", "08", nil))
	all := settings{"channels": []map[string]any{
		{"name": "dev", "description": "all builds"},
		{"name": "release", "description": "what <b>ships</b>", "default": true},
		{"name": "staging", "description": ""},
	}}
	for key, value := range set {
		all[key] = value
	}
	m := startMirror(t, all,
		from(src.URL(), settings{"channel": "*"}),
		from(counted.URL(), settings{"as_channels": []string{"dev"}}),
		from(uncounted.URL()))
	m.awaitList(5)
	return m, byID
}

// TestWireChannels: spec 2.9, and what 2.1 to 2.6 and 3.2 say of channels.
func TestWireChannels(t *testing.T) {
	t.Parallel()
	m, images := channelled(t, nil)
	v2 := []string{"-H", "Accept-Version: ~2"}
	list := func(name, path string, want ...string) row {
		if want == nil {
			want = []string{}
		}
		return row{name: name, path: path, list: want}
	}
	unknown := func(name, path string) row {
		return row{name: name, path: path, status: 422, code: "ValidationFailed", field: "channel", inner: "Invalid"}
	}
	elsewhere := func(name, path string) row {
		return row{name: name, path: path, status: 404, code: "ResourceNotFound", text: "image not found"}
	}
	check(t, m.url, []row{
		{name: "channels", path: "/channels", header: []string{"Content-Type: application/json"},
			body: `[{"name":"dev","description":"all builds"},{"name":"release","description":"what <b>ships</b>","default":true},{"name":"staging","description":""}]`},
		{name: "channels, slash", path: "/channels/"},
		{name: "channels, HEAD", path: "/channels", args: []string{"-I"}},
		{name: "channels, version", path: "/channels", args: []string{"-H", "Accept-Version: ~99"}, status: 400, code: "InvalidVersion"},
		{name: "channels, POST", path: "/channels", args: []string{"-X", "POST"}, status: 405, code: "MethodNotAllowedError", header: []string{"Allow: GET, HEAD"}},

		list("list, default", "/images", "both-1.0.0", "leaf-1.0.0"),
		list("list, empty is default", "/images?channel=", "both-1.0.0", "leaf-1.0.0"),
		list("list, named", "/images?channel=dev", "nightly-1.0.0", "both-1.0.0", "stem-1.0.0", "plain-1.0.0"),
		list("list, none in it", "/images?channel=staging"),
		list("list, all", "/images?channel=*", "nightly-1.0.0", "both-1.0.0", "leaf-1.0.0", "stem-1.0.0", "plain-1.0.0"),
		list("list, all and a filter", "/images?channel=*&name=~t", "nightly-1.0.0", "both-1.0.0", "stem-1.0.0"),
		list("list, a channel twice: the first", "/images?channel=dev&channel=release", "nightly-1.0.0", "both-1.0.0", "stem-1.0.0", "plain-1.0.0"),
		list("list, state all", "/images?channel=dev&state=all", "nightly-1.0.0", "both-1.0.0", "stem-1.0.0", "plain-1.0.0"),
		list("list, page", "/images?channel=dev&limit=2&marker="+bothID, "both-1.0.0", "stem-1.0.0"),
		list("list, marker of another channel", "/images?marker="+nightlyID, "both-1.0.0", "leaf-1.0.0"),
		list("list, account", "/images?account="+creatorID, "both-1.0.0", "leaf-1.0.0"),
		list("list, account and owner", "/images?channel=dev&account="+creatorID+"&owner="+creatorID, "both-1.0.0"),
		unknown("list, unknown", "/images?channel=bogus"),
		unknown("list, a channel of the source's alone", "/images?channel=experimental"),
		unknown("list, case counts", "/images?channel=DEV"),
		unknown("list, unknown before other faults", "/images?state=x&channel=bogus"),
		{name: "list, version first", path: "/images?channel=bogus", args: []string{"-H", "Accept-Version: ~3"}, status: 400, code: "InvalidVersion"},

		{name: "no version: no channels", path: "/images?channel=*", not: []string{`"channels"`}},
		{name: "version 1: no channels", path: "/images/" + bothID, args: []string{"-H", "Accept-Version: ~1"}, not: []string{`"channels"`}},
		{name: "version 2: channels", path: "/images/" + bothID, args: v2, has: []string{`"channels":["dev","release"]`}},
		{name: "any version: channels", path: "/images/" + bothID, args: []string{"-H", "Accept-Version: *"}, has: []string{`"channels":["dev","release"]`}},
		{name: "version 2: channels on the list", path: "/images", args: v2, has: []string{`"channels":["dev","release"]`, `"channels":["release"]`}},
		{name: "version 2: the channels that it counts as", path: "/images/" + plainID + "?channel=dev", args: v2, has: []string{`"channels":["dev"]`}},

		{name: "get, default", path: "/images/" + bothID},
		{name: "get, named", path: "/images/" + nightlyID + "?channel=dev"},
		{name: "get, all", path: "/images/" + nightlyID + "?channel=*"},
		elsewhere("get, not in the default", "/images/"+nightlyID),
		elsewhere("get, not in the named", "/images/"+nightlyID+"?channel=staging"),
		elsewhere("get, membership before account", "/images/"+nightlyID+"?account=x"),
		unknown("get, unknown channel", "/images/"+bothID+"?channel=bogus"),
		unknown("get, unknown channel before unknown image", "/images/"+unknownID+"?channel=bogus"),
		{name: "get, bad uuid before unknown channel", path: "/images/xyz?channel=bogus", status: 404, code: "ResourceNotFound", text: "does not exist"},
		{name: "get, unknown image", path: "/images/" + unknownID, status: 404, code: "ResourceNotFound", text: unknownID},
		{name: "get, in no channel", path: "/images/" + lostID + "?channel=*", status: 404, code: "ResourceNotFound"},
		{name: "get, in none of ours", path: "/images/" + strayID + "?channel=*", status: 404, code: "ResourceNotFound"},
		{name: "ancestor, through its descendant", path: "/images/" + stemID, has: []string{rootID}},
		{name: "ancestor's ancestor, disabled", path: "/images/" + rootID, has: []string{`"disabled":true`}},
		elsewhere("ancestor, but not from here", "/images/"+stemID+"?channel=staging"),

		elsewhere("file, not in the default", "/images/"+nightlyID+"/file"),
		unknown("file, unknown channel", "/images/"+bothID+"/file?channel=bogus"),
		{name: "file, index and channel", path: "/images/" + nightlyID + "/file?index=0&channel=dev", args: []string{"-I"}},
		{name: "icon", path: "/images/" + bothID + "/icon?channel=dev", body: string(wireIcon)},
		elsewhere("icon, not in the channel", "/images/"+bothID+"/icon?channel=staging"),
		unknown("icon, unknown channel", "/images/"+bothID+"/icon?channel=bogus"),

		list("datasets, default", "/datasets", "both-1.0.0", "leaf-1.0.0"),
		list("datasets, named", "/datasets?channel=dev", "nightly-1.0.0", "both-1.0.0", "stem-1.0.0", "plain-1.0.0"),
		list("datasets, all", "/datasets?channel=*&name=~nigh", "nightly-1.0.0"),
		unknown("datasets, unknown", "/datasets?channel=bogus"),
		{name: "dataset", path: "/datasets/" + bothID, not: []string{"channel"}},
		elsewhere("dataset, not in the default", "/datasets/"+nightlyID),
		{name: "dataset, named", path: "/datasets/" + nightlyID + "?channel=dev", has: []string{"nightly-1.0.0.zfs.gz?channel=dev"}},
		{name: "dataset, by name", path: "/datasets/nightly", status: 404, code: "ResourceNotFound"},
		{name: "dataset, disabled ancestor", path: "/datasets/" + rootID},
		{name: "dataset's file, named", path: "/datasets/" + nightlyID + "/nightly-1.0.0.zfs.gz?channel=dev", args: []string{"-I"}},
		elsewhere("dataset's file, not in the default", "/datasets/"+nightlyID+"/nightly-1.0.0.zfs.gz"),
	})
	for _, id := range []string{leafID, stemID, rootID} {
		get(t, m.url+"/images/"+id+"/file").wantFile(t, images[id])
	}
	get(t, m.url+"/images/"+nightlyID+"/file?channel=dev").wantFile(t, images[nightlyID])
	get(t, m.url+"/images/"+plainID+"/file?channel=*").wantFile(t, images[plainID])

	// imgadm, which names no channel: an image of the default one with its origins, which are in another.
	for _, kind := range []string{"imgapi", "dsapi"} {
		c := newImgadm(t, m, kind)
		if list, err := c.avail(); err != nil || len(list) != 2 {
			t.Errorf("%s: avail: %v, %v", kind, list, err)
		}
		if got, err := c.importImage(leafID); err != nil || len(got) != 3 {
			t.Errorf("%s: import: %d images, %v", kind, len(got), err)
		}
		if _, err := c.importImage(nightlyID); err == nil {
			t.Errorf("%s: an image of another channel was imported", kind)
		}
	}
}

// TestWireNoDefaultChannel: spec 2.4.
func TestWireNoDefaultChannel(t *testing.T) {
	t.Parallel()
	m, _ := channelled(t, settings{"channels": []map[string]any{{"name": "dev"}, {"name": "release"}}})
	missing := func(path string) row {
		return row{name: path, path: path, status: 422, code: "ValidationFailed", field: "channel", inner: "MissingParameter"}
	}
	check(t, m.url, []row{
		missing("/images"), missing("/images/" + bothID), missing("/images/" + bothID + "/file"), missing("/images/" + bothID + "/icon"), missing("/datasets"),
		{name: "named", path: "/images?channel=release", list: []string{"both-1.0.0", "leaf-1.0.0"}},
		{name: "channels", path: "/channels", body: `[{"name":"dev","description":""},{"name":"release","description":""}]`},
		{name: "ping", path: "/ping", has: []string{`"imgapi":true`}},
	})
}

// TestMirrorOfChannels: a mirror of one channel of a mirror, with channels of its own and without (spec A21, A22).
func TestMirrorOfChannels(t *testing.T) {
	t.Parallel()
	first, images := channelled(t, nil)
	dev := []string{"nightly-1.0.0", "both-1.0.0", "stem-1.0.0", "plain-1.0.0"}

	off := startMirror(t, nil, from(first.url+"/?channel=dev"))
	off.awaitList(4)
	check(t, off.url, []row{
		{name: "off", path: "/images?channel=whatever", args: []string{"-H", "Accept-Version: ~2"}, list: dev, not: []string{`"channels"`}},
		{name: "off: of another channel", path: "/images/" + leafID, status: 404, code: "ResourceNotFound"},
		{name: "off: an origin", path: "/images/" + rootID},
	})
	get(t, off.url+"/images/"+nightlyID+"/file").wantFile(t, images[nightlyID])

	on := startMirror(t, settings{"channels": []map[string]any{{"name": "dev"}, {"name": "release", "default": true}}},
		from(first.url, settings{"channel": "*"}))
	on.awaitList(5)
	check(t, on.url, []row{
		{name: "on, default", path: "/images", list: []string{"both-1.0.0", "leaf-1.0.0"}},
		{name: "on, named", path: "/images?channel=dev", list: dev},
		{name: "on, an ancestor of another channel", path: "/images/" + rootID},
	})
	get(t, on.url+"/images/"+stemID+"/file").wantFile(t, images[stemID])
	on.restart()
	first.kill()
	check(t, on.url, []row{
		{name: "after a restart", path: "/images?channel=dev", args: []string{"-H", "Accept-Version: ~2"}, list: dev, has: []string{`"channels":["dev","release"]`}},
		{name: "after a restart, an ancestor", path: "/images/" + stemID},
	})
}
