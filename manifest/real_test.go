package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpora are folders of manifests that real servers sent. The first is part of this package; the second is a
// larger one that may lie beside the checkout.
var corpora = []string{"testdata/real", "../../shared/testdata/manifests"}

// eachReal calls f with the text of every real IMGAPI and DSAPI manifest, alone or out of a list.
func eachReal(t *testing.T, f func(t *testing.T, text []byte)) {
	for _, root := range corpora {
		if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
			if root == corpora[0] {
				t.Fatalf("%s is missing", root)
			}
			continue
		}
		n := 0
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if e.IsDir() && e.Name() == "cloudapi" { // another API's shape
				return fs.SkipDir
			}
			if filepath.Ext(path) != ".json" {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			t.Run(filepath.ToSlash(path), func(t *testing.T) {
				for _, text := range split(t, data) {
					n++
					f(t, text)
				}
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Fatalf("no manifest in %s", root)
		}
		t.Logf("%s: %d manifests", root, n)
	}
}

// split gives the manifests of a file: one, a list, or a list of {manifest: …} as imgadm prints.
func split(t *testing.T, data []byte) [][]byte {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		list = []json.RawMessage{data}
	}
	var out [][]byte
	for _, text := range list {
		var wrapped struct{ Manifest json.RawMessage }
		if err := json.Unmarshal(text, &wrapped); err != nil {
			t.Fatal(err)
		}
		if wrapped.Manifest != nil {
			text = wrapped.Manifest
		}
		out = append(out, text)
	}
	return out
}

func parse(t testing.TB, text string) Manifest {
	t.Helper()
	m, err := Parse([]byte(text), ParseOptions{})
	if err != nil {
		t.Fatalf("%v\nin %s", err, text)
	}
	return m
}

func TestRealManifests(t *testing.T) {
	eachReal(t, func(t *testing.T, text []byte) {
		m, err := Parse(text, ParseOptions{})
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		if want := bytes.TrimSpace(text); !bytes.Equal(m.Raw(), want) {
			t.Errorf("%s: raw differs", m.UUID)
		}
		if err := imgadmAccepts(m.V2(), true); err != nil {
			t.Errorf("%s: %v\n%s", m.UUID, err, m.V2())
		}
		checkView(t, m)
		checkUntouched(t, m)

		again, err := Parse(m.V2(), ParseOptions{})
		if err != nil {
			t.Fatalf("%s: its own V2: %v", m.UUID, err)
		}
		if !bytes.Equal(again.V2(), m.V2()) {
			t.Errorf("%s: V2 of V2 differs:\n%s\n%s", m.UUID, m.V2(), again.V2())
		}
		if len(m.Files) > 0 && !m.Published.IsZero() {
			checkRoundTrip(t, m)
		}
	})
}

// checkView compares the parsed view with what V2 says in plain JSON.
func checkView(t *testing.T, m Manifest) {
	var v struct {
		UUID, Name, Version, OS, Type, State, Owner, Origin string
		Public, Disabled                                    bool
		Files                                               []struct {
			SHA1, Compression string
			Size              float64
		}
	}
	if err := json.Unmarshal(m.V2(), &v); err != nil {
		t.Fatal(err)
	}
	if v.UUID != m.UUID.String() || v.Name != m.Name || v.Version != m.Version || v.OS != m.OS || v.Type != m.Type ||
		v.State != m.State || v.Owner != m.Owner || v.Public != m.Public || v.Disabled != m.Disabled || len(v.Files) != len(m.Files) {
		t.Errorf("view %+v\nof   %s", m, m.V2())
		return
	}
	if (v.Origin != "") != m.HasOrigin() || m.HasOrigin() && v.Origin != m.Origin.String() {
		t.Errorf("%s: origin %v of %s", m.UUID, m.Origin, v.Origin)
	}
	for i, f := range v.Files {
		if have := m.Files[i]; f.SHA1 != have.SHA1.String() || f.Compression != have.Compression || int64(f.Size) != have.Size {
			t.Errorf("%s: file %+v of %+v", m.UUID, have, f)
		}
	}
}

// checkUntouched tells that every member that no rule names is in V2 byte for byte, and in
// the source's order.
func checkUntouched(t *testing.T, m Manifest) {
	touched := "v uuid origin owner state public disabled published_at files image_size icon activated channels billing_tags " +
		"traits acl creator_uuid "
	for name := range dropped {
		touched += name + " "
	}
	at := 0
	changed := false
	for _, mb := range members(nil, m.Raw(), 0) {
		text := m.Raw()[mb.key:mb.end]
		if i := bytes.Index(m.V2()[at:], text); i >= 0 {
			at += i
		} else {
			changed = true
			if !strings.Contains(touched, string(mb.name)+" ") {
				t.Errorf("%s: %s was touched", m.UUID, mb.name)
			}
		}
	}
	complete := lookup(m.Raw(), "published_at") != nil || !m.Active()
	for _, key := range []string{"v", "state", "owner", "public", "disabled"} {
		complete = complete && lookup(m.Raw(), key) != nil
	}
	if complete && !changed && &m.Raw()[0] != &m.V2()[0] {
		t.Errorf("%s: nothing had to change, but V2 is not the source's text\n%s\n%s", m.UUID, m.Raw(), m.V2())
	}
}

// checkRoundTrip sends the image through DSAPI: what comes back says the same.
func checkRoundTrip(t *testing.T, m Manifest) {
	const base = "http://mirror:8080/base"
	v1 := m.V1(base, "")
	if err := dsapiAccepts(v1, base); err != nil {
		t.Errorf("%s: %v\n%s", m.UUID, err, v1)
	}
	back, err := Parse(v1, ParseOptions{})
	if err != nil {
		t.Errorf("its own V1: %v\n%s", err, v1)
		return
	}
	if back.UUID != m.UUID || back.Name != m.Name || back.Version != m.Version || back.OS != m.OS || back.Type != m.Type ||
		back.Owner != m.Owner || !back.Published.Equal(m.Published) || back.Origin != m.Origin || len(back.Files) != len(m.Files) {
		t.Errorf("%s came back as\n%s", m.V2(), v1)
		return
	}
	for i := range m.Files {
		a, b := m.Files[i], back.Files[i]
		if a.SHA1 != b.SHA1 || a.Size != b.Size || a.Compression != b.Compression || b.Inferred {
			t.Errorf("%s: file %+v came back as %+v", m.UUID, a, b)
		}
		if a.Path != "" && a.Path != b.Path || b.Path != m.FilePath(i) || b.URL != base+"/datasets/"+m.UUID.String()+"/"+m.FilePath(i) {
			t.Errorf("%s: path %q url %q", m.UUID, b.Path, b.URL)
		}
	}
	for _, key := range []string{"requirements", "users", "tags", "homepage", "nic_driver", "description"} {
		if !bytes.Equal(lookup(v1, key), lookup(m.V2(), key)) {
			t.Errorf("%s: %s is %s, was %s", m.UUID, key, lookup(v1, key), lookup(m.V2(), key))
		}
	}
}
