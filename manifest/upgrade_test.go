package manifest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	idA   = "aaaaaaaa-0000-4000-8000-000000000001"
	idB   = "bbbbbbbb-0000-4000-8000-000000000002"
	idC   = "cccccccc-0000-4000-8000-000000000003"
	sha1A = "25592745c0b06822e0a4c9e9945e67322bdfe619"
	sha1B = "97f20b32c2016782257176fb58a35e5044f05840"
)

// v2With is a whole v2 manifest with members put before the closing brace.
func v2With(more string) string {
	return `{"v":2,"uuid":"` + idA + `","owner":"` + idB + `","name":"base","version":"1.0","state":"active","disabled":false,"public":true,` +
		`"published_at":"2014-01-02T03:04:05Z","type":"zone-dataset","os":"smartos"` + more + `}`
}

// v1With is a whole DSAPI manifest but for its files, with members put before the closing brace.
func v1With(more string) string {
	return `{"uuid":"` + idA + `","name":"base","version":"1.0","type":"zone-dataset","os":"smartos","creator_uuid":"` + idB + `",` +
		`"published_at":"2014-01-02T03:04:05Z"` + more + `}`
}

const fileA = `,"files":[{"sha1":"` + sha1A + `","size":42,"compression":"gzip"}]`

// members as plain JSON values, for comparisons where order does not matter
func object(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%v\nin %s", err, text)
	}
	return m
}

// Spec 1.1: what V2 changes in a v2 manifest, and nothing else.
func TestV2Edits(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"nothing":                {v2With(fileA), v2With(fileA)},
		"unknown keys stay":      {v2With(`,"x-thing":{"a":[1,{"b":null}]}`), v2With(`,"x-thing":{"a":[1,{"b":null}]}`)},
		"big numbers stay":       {v2With(`,"guid":9007199254740993123,"f":1.0e+30`), v2With(`,"guid":9007199254740993123,"f":1.0e+30`)},
		"dataset_guid stays":     {v2With(`,"files":[{"sha1":"` + sha1A + `","size":1,"compression":"xz","dataset_guid":"17445958905298415412"}]`), v2With(`,"files":[{"sha1":"` + sha1A + `","size":1,"compression":"xz","dataset_guid":"17445958905298415412"}]`)},
		"digests stay":           {v2With(`,"files":[{"sha1":"` + sha1A + `","size":1,"compression":"none","digest":"sha256:0","uncompressedDigest":"sha256:1"}]`), v2With(`,"files":[{"sha1":"` + sha1A + `","size":1,"compression":"none","digest":"sha256:0","uncompressedDigest":"sha256:1"}]`)},
		"generate_passwords A30": {v2With(`,"generate_passwords":false`), v2With(`,"generate_passwords":false`)},
		"escapes stay":           {v2With(`,"description":"caf\u00e9 \/ \"x\" \\"`), v2With(`,"description":"caf\u00e9 \/ \"x\" \\"`)},
		"activated":              {v2With(`,"activated":true`), v2With(``)},
		"channels A21":           {v2With(`,"channels":["dev"]` + fileA), v2With(fileA)},
		"billing_tags A31":       {v2With(`,"billing_tags":["a"],"traits":{"x":true}`), v2With(``)},
		"acl A32":                {v2With(`,"acl":["` + idC + `"]`), v2With(``)},
		"icon object":            {v2With(`,"icon":{"sha1":"x","size":3}`), v2With(`,"icon":true`)},
		"icon true":              {v2With(`,"icon":true`), v2With(`,"icon":true`)},
		"escaped key":            {v2With(`,"\u0061ctivated":true`), v2With(``)},
		"storage keys":           {v2With(`,"files":[{"stor":"local","sha1":"` + sha1A + `","mtime":"x","size":42,"contentMD5":"x","compression":"gzip","md5":"x"}]`), v2With(fileA)},
		"path and url":           {v2With(`,"files":[{"path":"a.xz","url":"http://x/","sha1":"` + sha1A + `","size":42,"compression":"gzip"}]`), v2With(fileA)},
		"upper-case sha1":        {v2With(`,"files":[{"sha1":"` + strings.ToUpper(sha1A) + `","size":42,"compression":"gzip"}]`), v2With(fileA)},
		"size as a string":       {v2With(`,"files":[{"sha1":"` + sha1A + `","size":"42","compression":"gzip"}]`), v2With(fileA)},
		"size zero":              {v2With(`,"files":[{"size":0,"sha1":"` + sha1A + `","compression":"gzip"}]`), v2With(`,"files":[{"sha1":"` + sha1A + `","compression":"gzip"}]`)},
		"size nonsense":          {v2With(`,"files":[{"sha1":"` + sha1A + `","compression":"gzip","size":1e30}]`), v2With(`,"files":[{"sha1":"` + sha1A + `","compression":"gzip"}]`)},
		"sha1 nonsense":          {v2With(`,"files":[{"sha1":"xyz","size":42,"compression":"gzip"}]`), v2With(`,"files":[{"size":42,"compression":"gzip"}]`)},
		"no compression":         {v2With(`,"files":[{"sha1":"` + sha1A + `","size":42}]`), v2With(`,"files":[{"sha1":"` + sha1A + `","size":42}]`)},
		"unknown compression":    {v2With(`,"files":[{"sha1":"` + sha1A + `","compression":"zstd","size":42}]`), v2With(`,"files":[{"sha1":"` + sha1A + `","compression":"zstd","size":42}]`)},
		"empty compression":      {v2With(`,"files":[{"sha1":"` + sha1A + `","compression":"","size":42}]`), v2With(`,"files":[{"sha1":"` + sha1A + `","size":42}]`)},
		"compression gz":         {v2With(`,"files":[{"sha1":"` + sha1A + `","size":42,"compression":" gz "}]`), v2With(fileA)},
		"compression GZIP":       {v2With(`,"files":[{"sha1":"` + sha1A + `","size":42,"compression":"GZIP"}]`), v2With(fileA)},
		"file with nothing":      {v2With(`,"files":[{}]`), v2With(`,"files":[{}]`)},
		"file with junk only":    {v2With(`,"files":[{"stor":"x", "size":null}]`), v2With(`,"files":[{}]`)},
		"null files":             {v2With(`,"files":null`), v2With(``)},
		"image_size string":      {v2With(`,"image_size":"10240"`), v2With(`,"image_size":10240`)},
		"image_size strange":     {v2With(`,"image_size":"big"`), v2With(`,"image_size":"big"`)},
		"origin upper case A29":  {v2With(`,"origin":"` + strings.ToUpper(idC) + `"`), v2With(`,"origin":"` + idC + `"`)},
		"origin not a uuid":      {v2With(`,"origin":"x"`), v2With(`,"origin":"x"`)},
		"v above 2":              {strings.Replace(v2With(fileA), `"v":2`, `"v":3`, 1), strings.Replace(v2With(fileA), `"v":2`, `"v":3`, 1)},
		"v as a string":          {strings.Replace(v2With(fileA), `"v":2`, `"v":"2"`, 1), strings.Replace(v2With(fileA), `"v":2`, `"v":"2"`, 1)},
		"disabled as a string":   {strings.Replace(v2With(``), `"disabled":false`, `"disabled":"false"`, 1), v2With(``)},
		"first member":           {`{"activated":true,` + v2With(``)[1:], v2With(``)},
		"first two":              {`{"activated":true,"traits":{},` + v2With(``)[1:], v2With(``)},
		"white space before":     {"{\n  \"channels\": [\"a\"],\n  " + v2With("")[1:], "{\n  " + v2With("")[1:]},
		"white space between":    {v2With(",\n  \"activated\" : true,\n  \"x\": 1"), v2With(",\n  \"x\": 1")},
		"white space after":      {v2With(",\n  \"activated\": true\n"), v2With("\n")},
		"published_at":           {strings.Replace(v2With(``), "2014-01-02T03:04:05Z", "2014-01-02T03:04Z", 1), strings.Replace(v2With(``), "2014-01-02T03:04:05Z", "2014-01-02T03:04:00Z", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			m := parse(t, c.in)
			if got := string(m.V2()); got != c.want {
				t.Errorf("V2 is\n%s\nwant\n%s", got, c.want)
			}
			if string(m.Raw()) != c.in {
				t.Errorf("raw is %s", m.Raw())
			}
			if err := imgadmAccepts(m.V2(), false); err != nil {
				t.Error(err)
			}
			if c.in == c.want && &m.Raw()[0] != &m.V2()[0] {
				t.Error("nothing changed, yet V2 is a copy")
			}
		})
	}
}

func TestServePrivateKeepsACL(t *testing.T) {
	in := strings.Replace(v2With(`,"acl":["`+idC+`"]`+fileA), `"public":true`, `"public":false`, 1)
	m, err := Parse([]byte(in), ParseOptions{ServePrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	if string(m.V2()) != in || !m.Servable() || !m.Listable() || m.DSAPIVisible() {
		t.Errorf("%s servable %v listable %v dsapi %v", m.V2(), m.Servable(), m.Listable(), m.DSAPIVisible())
	}
	m = parse(t, in)
	if strings.Contains(string(m.V2()), "acl") || m.Servable() || m.Listable() || m.Public {
		t.Errorf("%s servable %v listable %v", m.V2(), m.Servable(), m.Listable())
	}
	if diff := cmp.Diff(m.ACL, []string{idC}); diff != "" {
		t.Error(diff)
	}

	v1, err := Parse([]byte(v1With(`,"restricted_to_uuid":"`+idC+`","acl":["x"]`)), ParseOptions{ServePrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := object(t, v1.V2()); !cmp.Equal(got["acl"], []any{idC}) || got["public"] != false {
		t.Errorf("%v", got)
	}
}

// Spec 1.1 (state), A33.
func TestV2State(t *testing.T) {
	f := func(more, want string) {
		t.Helper()
		in := `{"v":2,"uuid":"` + idA + `","name":"n","version":"1","type":"other","os":"other"` + more + `}`
		m := parse(t, in)
		if m.State != want || object(t, m.V2())["state"] != want {
			t.Errorf("%s: %s, want %s in %s", more, m.State, want, m.V2())
		}
	}
	const date = `,"published_at":"2014-01-02T03:04:05Z"`
	f(`,"state":"active"`, "active")
	f(`,"state":"active","disabled":true`, "disabled")
	f(`,"state":"active","disabled":"true"`, "disabled")
	f(`,"state":"active","activated":false`, "unactivated")
	f(`,"state":"disabled"`, "disabled")
	f(`,"state":"creating"`, "creating")
	f(`,"state":"failed","error":{"message":"x"}`, "failed")
	f(`,"state":"unactivated"`, "unactivated")
	f(`,"state":"deprecated"`+date, "active")
	f(`,"state":"pending"`+date, "unactivated")
	f(`,"state":"strange"`+date, "unactivated")
	f(`,"state":""`, "active")
	f(`,"state":null`, "active")
	f(`,"state":7`+date, "active")
	f(date, "active")
	f(date+`,"disabled":true`, "disabled")
	f(date+`,"disabled":"true"`, "disabled")
	f(date+`,"activated":false`, "unactivated")
	f(`,"activated":true`, "active")
	f(`,"activated":true,"disabled":true`, "disabled")
	f(``, "active")
	f(`,"disabled":true`, "disabled")
	f(`,"activated":"false"`, "unactivated")
	f(`,"activated":null`, "active")

	_, err := Parse([]byte(strings.Replace(v2With(``), "active", "nuked", 1)), ParseOptions{})
	if !errors.Is(err, ErrSkip) || !errors.Is(err, ErrInvalid) {
		t.Errorf("nuked: %v", err)
	}
}

// Spec 1.4, row by row, and 1.5 for missing dates.
func TestUpgrade(t *testing.T) {
	f := func(name, more string, want map[string]any) {
		t.Helper()
		m := parse(t, v1With(more))
		got := object(t, m.V2())
		for key, value := range want {
			if value == nil {
				if _, has := got[key]; has {
					t.Errorf("%s: %s is there: %v", name, key, got[key])
				}
			} else if diff := cmp.Diff(value, got[key]); diff != "" {
				t.Errorf("%s: %s: %s", name, key, diff)
			}
		}
		if err := imgadmAccepts(m.V2(), false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("plain", "", map[string]any{"v": 2.0, "owner": idB, "state": "active", "disabled": false, "public": true, "creator_uuid": nil})
	f("2 both", `,"owner":"`+idC+`"`, map[string]any{"owner": idB})
	f("3 and 10 drop", `,"vendor_uuid":"x","creator_name":"sdc","cloud_name":"sdc","creator_admin":"x","platform_type":"smartos",`+
		`"created_at":"x","updated_at":"x","_url":"x","owner_uuid":"x","provider":"x","options":{},"builder_info":{},"metadata_info":[],"sync_info":null,`+
		`"stats_info":{},"urn":"sdc:sdc:base:1.0","future":1`,
		map[string]any{"vendor_uuid": nil, "creator_name": nil, "cloud_name": nil, "creator_admin": nil, "platform_type": nil, "created_at": nil,
			"updated_at": nil, "_url": nil, "owner_uuid": nil, "provider": nil, "options": nil, "builder_info": nil, "metadata_info": nil,
			"sync_info": nil, "stats_info": nil, "urn": "sdc:sdc:base:1.0", "future": 1.0})
	f("4 restricted", `,"restricted_to_uuid":"`+idC+`","public":true`, map[string]any{"public": false, "restricted_to_uuid": nil, "acl": nil})
	f("4 restricted to nobody", `,"restricted_to_uuid":""`, map[string]any{"public": true, "restricted_to_uuid": nil})
	f("4 public false A3", `,"public":false`, map[string]any{"public": false})
	f("6 disabled", `,"disabled":true`, map[string]any{"disabled": true, "state": "disabled"})
	f("6 disabled false string", `,"disabled":"false"`, map[string]any{"disabled": false, "state": "active"})
	f("6 disabled true string", `,"disabled":"true"`, map[string]any{"disabled": true, "state": "disabled"})
	f("6 disabled unknown", `,"disabled":"maybe"`, map[string]any{"disabled": false, "state": "active"})
	f("6 state overwritten", `,"state":"unactivated"`, map[string]any{"state": "active"})
	f("6 pending A33", `,"state":"pending"`, map[string]any{"state": "unactivated"})
	f("9 image_size", `,"image_size":"16384"`, map[string]any{"image_size": 16384.0})
	f("9 image_size number", `,"image_size":16384`, map[string]any{"image_size": 16384.0})
	f("9 image_size empty", `,"image_size":""`, map[string]any{"image_size": nil})
	f("11 falsy v", `,"v":0`, map[string]any{"v": 2.0})
	f("11 null v", `,"v":null`, map[string]any{"v": 2.0})

	for _, bad := range []string{`,"image_size":"large"`, `,"image_size":{}`, `,"image_size":true`} {
		if _, err := Parse([]byte(v1With(bad)), ParseOptions{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "image_size") {
			t.Errorf("9 %s: %v", bad, err)
		}
	}

	// 7: dates
	date := func(published, created, want string) {
		t.Helper()
		in := strings.Replace(v1With(created), `"published_at":"2014-01-02T03:04:05Z"`, published, 1)
		m := parse(t, in)
		if got := object(t, m.V2())["published_at"]; got != want {
			t.Errorf("7 %s: %v, want %s", in, got, want)
		}
		if m.Published.IsZero() != (want == epoch) {
			t.Errorf("7 %s: view %v", in, m.Published)
		}
	}
	date(`"published_at":"2011-04-11T08:45Z"`, ``, "2011-04-11T08:45:00Z")
	date(`"published_at":""`, `,"created_at":"2011-04-11T08:45:01.5"`, "2011-04-11T08:45:01.500Z")
	date(`"published_at":"0001-01-01T00:00:00Z"`, `,"created_at":"2011-04-11T08:45:01.500Z"`, "2011-04-11T08:45:01.500Z")
	date(`"urn":"x"`, `,"created_at":"2011-04-11T08:45:01Z"`, "2011-04-11T08:45:01Z")
	date(`"urn":"x"`, ``, epoch)
	date(`"published_at":42`, `,"created_at":[]`, epoch)
}

// Spec 1.4 step 2, A4.
func TestUpgradeOwner(t *testing.T) {
	f := func(members, want string) {
		t.Helper()
		m := parse(t, `{`+members+`"uuid":"`+idA+`","name":"n","version":"1","type":"other","os":"other"}`)
		if m.Owner != want || object(t, m.V2())["owner"] != want {
			t.Errorf("%s: %s, want %s in %s", members, m.Owner, want, m.V2())
		}
	}
	f(``, unsetOwner)
	f(`"creator_uuid":"",`, unsetOwner)
	f(`"creator_uuid":null,`, unsetOwner)
	f(`"creator_uuid":"`+strings.ToUpper(idB)+`",`, idB)
	f(`"creator_uuid":"joe","owner":"`+idC+`",`, idC)
	f(`"creator_uuid":"`+idB+`","owner":"`+idC+`",`, idB)
	f(`"owner":"`+idC+`",`, idC)
	f(`"owner":"dd477da-a236-c0af-de43-35700d1b9428a",`, "dd477da-a236-c0af-de43-35700d1b9428a")
	f(`"owner":7,"creator_uuid":"joe",`, "joe")
}

// Spec 1.4 step 8.
func TestUpgradeCompression(t *testing.T) {
	f := func(file, want string, inferred bool) {
		t.Helper()
		m := parse(t, v1With(`,"files":[{`+file+`}]`))
		got := m.Files[0]
		if got.Compression != want || got.Inferred != inferred {
			t.Errorf("%s: %s, inferred %v", file, got.Compression, got.Inferred)
		}
		files := object(t, m.V2())["files"].([]any)[0].(map[string]any)
		if shown, _ := files["compression"].(string); shown != want || files["path"] != nil || files["url"] != nil {
			t.Errorf("%s: emitted %v", file, files)
		}
	}
	f(`"path":"a.zfs.gz"`, "gzip", true)
	f(`"path":"a.TGZ"`, "gzip", true)
	f(`"path":"a.zfs.bz2"`, "bzip2", true)
	f(`"path":"a.bz"`, "bzip2", true)
	f(`"path":"a.zfs.XZ"`, "xz", true)
	f(`"path":"a.gz.zfs"`, "none", true)
	f(`"path":"a.zvol"`, "none", true)
	f(`"path":"a.zfs"`, "none", true)
	f(`"path":"a.zfs.zst"`, "", true)
	f(`"path":"a","url":"http://h/a.gz"`, "", true)
	f(`"url":"http://h/a.gz?x=y.xz#z.bz2"`, "gzip", true)
	f(`"url":"http://h/a#b.gz"`, "", true)
	f(`"sha1":"`+sha1A+`"`, "", true)
	f(`"path":"a.gz","compression":"bzip2"`, "bzip2", false)
	f(`"path":"a.gz","compression":""`, "gzip", true)
	f(`"path":"a.gz","compression":null`, "gzip", true)
	f(`"compression":"xz"`, "xz", false)
	f(`"compression":"XZ"`, "xz", false)
	f(`"compression":"bz2"`, "bzip2", true)
	f(`"path":"a.gz","compression":7`, "gzip", true)
}

func TestFileView(t *testing.T) {
	m := parse(t, v1With(`,"files":[{"path":"a b.gz","url":"http://h/x","sha1":"`+strings.ToUpper(sha1A)+`","size":"5000000000","md5":"661a21b937614c512a2bb1ef043950a7"},`+
		`{"path":"c","md5":"zz","size":-1}]`))
	a, b := m.Files[0], m.Files[1]
	if a.SHA1.String() != sha1A || a.Size != 5_000_000_000 || a.Path != "a b.gz" || a.URL != "http://h/x" || len(a.MD5) != 16 || a.MD5[0] != 0x66 {
		t.Errorf("%+v", a)
	}
	if !b.SHA1.IsZero() || b.Size != 0 || b.MD5 != nil || b.Path != "c" {
		t.Errorf("%+v", b)
	}
}

// IMGAPI manifests without v, as the reference's documentation and dsapid show them.
func TestNoVersion(t *testing.T) {
	f := func(more, state string, public bool) {
		t.Helper()
		m := parse(t, `{"uuid":"`+idA+`","owner":"`+idB+`","name":"n","version":"1","type":"other","os":"other",`+
			`"published_at":"2014-01-02T03:04:05.123456789Z"`+more+`}`)
		if m.State != state || m.Public != public {
			t.Errorf("%s: %s %v", more, m.State, m.Public)
		}
		if err := imgadmAccepts(m.V2(), false); err != nil {
			t.Error(err)
		}
	}
	f(`,"state":"active","public":true`, "active", true)
	f(`,"state":"unactivated","public":false`, "unactivated", false)
	f(`,"state":"disabled","disabled":true,"public":true`, "disabled", true)
	f(`,"state":"deprecated","public":true`, "active", true)
	f(`,"state":"pending","public":true`, "unactivated", true)
	f(``, "active", true)
	f(`,"acl":["`+idC+`"]`, "active", false)
}
