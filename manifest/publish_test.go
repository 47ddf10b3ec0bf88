package manifest

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// ownText is the manifest of an image to publish; replace are pairs of old and new text.
func ownText(replace ...string) []byte {
	return []byte(strings.NewReplacer(replace...).Replace(
		`{"v":2,"uuid":"11111111-1111-4111-8111-111111111111","owner":"00000000-0000-0000-0000-000000000000","name":"mine","version":"1.0.0",` +
			`"state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05.000Z","type":"zone-dataset","os":"smartos",` +
			`"files":[{"sha1":"a9993e364706816aba3e25717850c26c9cd0d89d","size":3,"compression":"gzip"}]}`))
}

func TestParsePublishedRefuses(t *testing.T) {
	for name, text := range map[string][]byte{
		"not JSON":               []byte("{"),
		"no file":                ownText(`"files":[{`, `"files":[],"was":[{`),
		"failed":                 ownText(`"active"`, `"failed"`),
		"disabled by its state":  ownText(`"active"`, `"disabled"`, `"disabled":false,`, ``),
		"disabled":               ownText(`"disabled":false`, `"disabled":true`),
		"bad name":               ownText(`"mine"`, `"mine;"`),
		"a version that is none": ownText(`"1.0.0"`, `true`),
		"zvol without drivers":   ownText(`zone-dataset`, `zvol`),
		"a type that is none":    ownText(`zone-dataset`, `zone`),
		"an os that is none":     ownText(`smartos`, `beos`),
		"its own origin":         ownText(`"type"`, `"origin":"11111111-1111-4111-8111-111111111111","type"`),
		"a wrong origin":         ownText(`"type"`, `"origin":"base","type"`),
		"an origin of no text":   ownText(`"type"`, `"origin":5,"type"`),
		"an owner of no UUID":    ownText(`"00000000-0000-0000-0000-000000000000"`, `"me"`),
		"tags in an array":       ownText(`"type"`, `"tags":["a"],"type"`),
		"an acl of names":        ownText(`"type"`, `"acl":["me"],"type"`),
		"a homepage of no web":   ownText(`"type"`, `"homepage":"mine","type"`),
		"a min_ram of words":     ownText(`"type"`, `"requirements":{"min_ram":"much"},"type"`),
		"zstd":                   ownText(`"gzip"`, `"zstd"`),
		"no compression":         ownText(`,"compression":"gzip"`, ``),
		"no sha1":                ownText(`"sha1":"a9993e364706816aba3e25717850c26c9cd0d89d",`, ``),
		"no size":                ownText(`"size":3,`, ``),
	} {
		if m, err := ParsePublished(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: taken as %s, error %v", name, m.V2(), err)
		}
	}
}

// What `imgadm create` writes, and what is not activated yet, is published as of now; private images
// are published to be served.
func TestParsePublished(t *testing.T) {
	bare := []string{`"owner":"00000000-0000-0000-0000-000000000000",`, ``, `"state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05.000Z",`, ``}
	for name, replace := range map[string][]string{
		"created":                        bare,
		"created with a numeric version": append(bare, `"1.0.0"`, `1.10`),
		"with members of all kinds":      append(bare, `"type"`, `"mine":[1],"tags":{"role":"os","n":1},"acl":[],"homepage":"","requirements":{"min_ram":64},"type"`),
		"unactivated":                    {`"active"`, `"unactivated"`, `"published_at":"2026-01-02T03:04:05.000Z",`, ``},
		"not activated":                  {`"state":"active"`, `"activated":false`, `"published_at":"2026-01-02T03:04:05.000Z",`, ``},
	} {
		begun := time.Now().Truncate(time.Second)
		m, err := ParsePublished(ownText(replace...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !m.Listable() || m.Published.Before(begun) || m.Published.After(time.Now()) || m.Owner != uuid.Nil.String() {
			t.Errorf("%s: published as %s", name, m.V2())
		}
		for _, member := range []string{`"state":"active"`, `"disabled":false`, `"public":true`, `"owner":"00000000-0000-0000-0000-000000000000"`} {
			if !bytes.Contains(m.V2(), []byte(member)) {
				t.Errorf("%s: no %s in %s", name, member, m.V2())
			}
		}
		again, err := Parse(m.Raw(), ParseOptions{ServePrivate: true})
		if err != nil || !bytes.Equal(again.V2(), m.V2()) {
			t.Errorf("%s: from its record: %s, %v", name, again.V2(), err)
		}
	}
	m, err := ParsePublished(ownText(`"public":true`, `"public":false`))
	if err != nil || !m.Listable() {
		t.Errorf("private: listable %t, %v", m.Listable(), err)
	}
}

func TestCheckHead(t *testing.T) {
	f := func(file string, want error, replace ...string) {
		t.Helper()
		m, err := ParsePublished(ownText(replace...))
		if err != nil {
			t.Fatal(err)
		}
		h, err := verify.ReadHead(bufio.NewReaderSize(strings.NewReader(file), verify.HeadSize))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.CheckHead(h); (err == nil) != (want == nil) || errors.Is(err, verify.ErrNoStream) != errors.Is(want, verify.ErrNoStream) {
			t.Errorf("%.10q as %q: %v", file, replace, err)
		}
	}
	f("\x28\xb5\x2f\xfd zstd", verify.ErrNoStream, `"gzip"`, `"none"`)
	f("\x28\xb5\x2f\xfd zstd", nil, `"gzip"`, `"none"`, "zone-dataset", "other")
	f("\x28\xb5\x2f\xfd zstd", errors.New("compression"), "zone-dataset", "other")
}

func FuzzParsePublished(f *testing.F) {
	f.Add(ownText())
	f.Add(ownText(`zone-dataset`, `zvol`))
	f.Add([]byte(`{"uuid":"x","creator_uuid":"y"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParsePublished(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v does not match ErrInvalid", err)
			}
			return
		}
		if !m.Listable() || len(m.Files) != 1 {
			t.Errorf("taken, but not listable: %s", data)
		}
	})
}
