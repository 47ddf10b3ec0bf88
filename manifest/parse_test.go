package manifest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// Spec 1.8: what is refused, and how it is said.
func TestParseRefuses(t *testing.T) {
	f := func(in, image, field string) {
		t.Helper()
		_, err := Parse([]byte(in), ParseOptions{})
		if !errors.Is(err, ErrInvalid) || errors.Is(err, ErrSkip) {
			t.Errorf("%s: %v", in, err)
			return
		}
		var pe *ParseError
		if !errors.As(err, &pe) {
			t.Fatalf("%s: %T", in, err)
		}
		if want, _ := ParseUUID(image); pe.Image != want || pe.Field != field || pe.Reason == "" {
			t.Errorf("%s: %+v", in, pe)
		}
		if image != "" && !strings.Contains(err.Error(), image) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: message %q", in, err)
		}
	}
	without := func(member string) string {
		s := v2With(fileA)
		if !strings.Contains(s, member) {
			t.Fatalf("no %s", member)
		}
		return strings.Replace(s, member, "", 1)
	}
	f(`[]`, "", "")
	f(`null`, "", "")
	f(`"x"`, "", "")
	f(``, "", "")
	f(`{}`, "", "uuid")
	f(without(`"uuid":"`+idA+`",`), "", "uuid")
	f(strings.Replace(v2With(``), idA, "not-a-uuid", 1), "", "uuid")
	f(strings.Replace(v2With(``), `"`+idA+`"`, `17`, 1), "", "uuid")
	f(without(`"name":"base",`), idA, "name")
	f(without(`"version":"1.0",`), idA, "version")
	f(without(`"type":"zone-dataset",`), idA, "type")
	f(without(`,"os":"smartos"`), idA, "os")
	f(strings.Replace(v2With(``), `"base"`, `""`, 1), idA, "name")
	f(strings.Replace(v2With(``), `"base"`, `["base"]`, 1), idA, "name")
	f(strings.Replace(v2With(``), `"base"`, `null`, 1), idA, "name")
	f(v2With(`,"files":{}`), idA, "files")
	f(v2With(`,"files":"x"`), idA, "files")
	f(v2With(`,"files":[7]`), idA, "files[0]")
	f(v2With(`,"files":[{},null]`), idA, "files[1]")
	f(strings.Replace(v2With(``), "zone-dataset", "docker", 1), idA, "tags")
	f(strings.Replace(v2With(`,"tags":null`), "zone-dataset", "docker", 1), idA, "tags")
	f(strings.Replace(v2With(`,"tags":[]`), "zone-dataset", "docker", 1), idA, "tags")

	// text that is not what it should be
	f(v2With(`,"name":"twice"`), idA, "")
	f(v2With(`,"x":{"a":1,"a":2}`), idA, "")
	f(v2With(`,"description":"`+"\xff"+`"`), idA, "")
	f(v2With(`,"description":"\ud800"`), idA, "")
	f(v2With(`,"description":"`+"\x00"+`"`), idA, "")
	f(v2With("\x00"), idA, "")
	f(v2With(`,"x":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)), idA, "")
	f(v2With(``)[:100], idA, "")
	f(v2With(``)+`x`, idA, "")
	f(v2With(``)+v2With(``), idA, "")
}

// Spec 1.8: what is taken as it is.
func TestParseAccepts(t *testing.T) {
	for _, in := range []string{
		strings.Replace(v2With(``), "zone-dataset", "floppy", 1),
		strings.Replace(v2With(``), "smartos", "plan9", 1),
		strings.Replace(v2With(``), `"base"`, `"`+strings.Repeat("n", 5000)+`"`, 1),
		v2With(`,"requirements":{"unheard-of":1}`),
		v2With(`,"image_size":10240`),
		v2With(`,"description":"\u0000 and \ud83d\ude00"`),
		v2With(`,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)),
		v2With(`,"x":-0.5e-7,"y":123456789012345678901234567890`),
		"\xef\xbb\xbf \n" + v2With(``) + "\r\n\t",
	} {
		m, err := Parse([]byte(in), ParseOptions{})
		if err != nil {
			t.Errorf("%.300s: %v", in, err)
			continue
		}
		if want := strings.Trim(in, "\xef\xbb\xbf \r\n\t"); string(m.V2()) != want || string(m.Raw()) != want {
			t.Errorf("%.300s\nbecame\n%.300s", in, m.V2())
		}
	}
	m := parse(t, strings.Replace(v2With(``), idA, strings.ToUpper(idA), 1))
	if m.UUID.String() != idA || string(m.V2()) != v2With(``) { // A29
		t.Errorf("%v %s", m.UUID, m.V2())
	}
}

// A33, A34.
func TestParseSkips(t *testing.T) {
	for _, in := range []string{
		strings.Replace(v1With(``), "zone-dataset", "vmimage", 1),
		v1With(`,"state":"nuked"`),
	} {
		if _, err := Parse([]byte(in), ParseOptions{}); !errors.Is(err, ErrSkip) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", in, err)
		}
	}
	if m := parse(t, strings.Replace(v2With(``), "zone-dataset", "vmimage", 1)); m.Type != "vmimage" {
		t.Errorf("%+v", m)
	}
}

func TestPublic(t *testing.T) {
	f := func(member string, want bool) {
		t.Helper()
		if m := parse(t, strings.Replace(v2With(``), `"public":true,`, member, 1)); m.Public != want {
			t.Errorf("%q: %v", member, m.Public)
		}
	}
	f(`"public":true,`, true)
	f(`"public":"true",`, true)
	f(`"public":false,`, false)
	f(`"public":"false",`, false)
	f(`"public":"yes",`, false)
	f(`"public":1,`, false)
	f(`"public":null,`, true)
	f(``, true)
	f(`"acl":[],`, true)
	f(`"acl":["`+idC+`"],`, false)
	f(`"acl":"`+idC+`",`, false)
}

func TestVisibility(t *testing.T) {
	f := func(in string, listable, dsapi bool) {
		t.Helper()
		if m := parse(t, in); m.Listable() != listable || m.DSAPIVisible() != dsapi {
			t.Errorf("%s: listable %v, DSAPI %v", in, m.Listable(), m.DSAPIVisible())
		}
	}
	as := func(old, new string) string { return strings.Replace(v2With(`,"tags":{}`+fileA), old, new, 1) }
	f(as("", ""), true, true)
	f(v2With(``), false, false)
	f(v2With(`,"files":[]`), false, false)
	f(as(`"active"`, `"disabled"`), false, false)
	f(as(`"active"`, `"unactivated"`), false, false)
	f(as(`"active"`, `"creating"`), false, false)
	f(as(`"active"`, `"failed"`), false, false)
	f(as(`"public":true`, `"public":false`), false, false)
	f(as("zone-dataset", "lx-dataset"), true, true)
	f(as("zone-dataset", "zvol"), true, true)
	f(as("zone-dataset", "other"), true, true)
	f(as("zone-dataset", "docker"), true, false)
	f(as("zone-dataset", "lxd"), true, false)
}

func TestParseList(t *testing.T) {
	good := func(id string) string { return strings.Replace(v2With(fileA), idA, id, 1) }
	f := func(in string, images int, skipped int) {
		t.Helper()
		got, bad, err := ParseList([]byte(in), ParseOptions{})
		if err != nil || len(got) != images || len(bad) != skipped {
			t.Errorf("%.200s: %d images, skipped %v, error %v", in, len(got), bad, err)
		}
		for _, err := range bad {
			var pe *ParseError
			if !errors.As(err, &pe) || !errors.Is(err, ErrInvalid) {
				t.Errorf("skipped: %v", err)
			}
		}
	}
	f(`[]`, 0, 0)
	f(" \xef\xbb\xbf[]", 0, 0)
	f("\xef\xbb\xbf \n\t[ ] \n", 0, 0)
	f("["+good(idA)+",\n"+good(idB)+"]", 2, 0)
	f(`[`+good(idA)+`,`+v1With(``)+`,7,null,"x",[],{},`+good(idC)+`]`, 3, 5)
	f(`[`+good(idA)+`,`+v2With(`,"name":"twice"`)+`,`+good(idC)+`]`, 2, 1)
	f(`[`+good(idA)+`,`+v2With(`,"x":"`+"\xff"+`"`)+`,`+good(idC)+`]`, 2, 1)
	f(`[`+v1With(`,"state":"nuked"`)+`]`, 0, 1)
	f(good(idA), 1, 0)
	f("\xef\xbb\xbf"+v1With(``), 1, 0)
	f(v1With(`,"state":"nuked"`), 0, 1)

	for _, in := range []string{
		``, ` `, `x`, `null`, `"x"`, `7`, `{}`, `{"code":"ResourceNotFound","message":"gone"}`, `<html>`, `[`, `[}`, `[1,]`, `[{]`, `[]x`, `[][]`,
		`[` + good(idA), `[` + good(idA)[:90], `[` + good(idA) + `,`, `[` + good(idA) + ` ` + good(idB) + `]`, `[` + strings.Repeat("[", 100_000),
		v2With(`,"name":"twice"`),
	} {
		images, skipped, err := ParseList([]byte(in), ParseOptions{})
		if !errors.Is(err, ErrInvalid) || images != nil || skipped != nil {
			t.Errorf("%.100q: %d images, %d skipped, %v", in, len(images), len(skipped), err)
		}
	}
}

// Members of a list are the list's own bytes, and cannot grow into one another.
func TestParseListSharesMemory(t *testing.T) {
	data := manyImages(3, false)
	for i, m := range mustList(t, data) {
		if &m.Raw()[0] != &m.V2()[0] || cap(m.Raw()) != len(m.Raw()) {
			t.Errorf("%d: a copy, or open-ended", i)
		}
	}
	if got := string(BuildList(mustList(t, data))); strings.ReplaceAll(got, ",\n", ",") != string(data) {
		t.Errorf("joined again: %.300s", got)
	}
	if got := string(BuildList(nil)); got != "[]" {
		t.Error(got)
	}
}

// What strangers send must not flood the log.
func TestLongReasonsAreCut(t *testing.T) {
	_, err := Parse([]byte(`{"uuid":"`+strings.Repeat("é", 5000)+`"}`), ParseOptions{})
	if err == nil || len(err.Error()) > 1500 {
		t.Errorf("%d bytes", len(fmt.Sprint(err)))
	}
	key := strings.Repeat("k", 5000)
	if _, err = Parse([]byte(`{"`+key+`":1,"`+key+`":2}`), ParseOptions{}); err == nil || len(err.Error()) > 300 {
		t.Errorf("%d bytes", len(fmt.Sprint(err)))
	}
}

func TestParseUUID(t *testing.T) {
	for in, want := range map[string]bool{
		idA: true, unsetOwner: true, "ffffffff-ffff-ffff-ffff-ffffffffffff": true,
		strings.ToUpper(idA): false, strings.ReplaceAll(idA, "-", ""): false, "{" + idA + "}": false, "urn:uuid:" + idA: false,
		"": false, idA + " ": false, idA[:35]: false, idA[:35] + "g": false, strings.Replace(idA, "-", "0", 1): false,
		"aaaaaaa-a0000-4000-8000-000000000001": false,
	} {
		id, ok := ParseUUID(in)
		if ok != want || ok && id != uuid.MustParse(in) || !ok && id != uuid.Nil {
			t.Errorf("%q: %v %v", in, id, ok)
		}
	}
}

func TestRealLists(t *testing.T) {
	f := func(path string, images int) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, skipped, err := ParseList(data, ParseOptions{})
		if err != nil || len(skipped) > 0 || len(got) != images {
			t.Errorf("%s: %d images, skipped %v, %v", path, len(got), skipped, err)
		}
		listed := 0
		for _, m := range got {
			if m.DSAPIVisible() {
				listed++
			}
		}
		if strings.Contains(path, "/dsapi/") && listed != images {
			t.Errorf("%s: %d of %d visible", path, listed, images)
		}
	}
	f("testdata/real/dsapi/list-datasets.at-2012-11-25.json", 99)
	f("testdata/real/dsapi/list-datasets.at-2014-11-01.json", 277)
	f("testdata/real/imgapi/list-smartos.org-and-updates-2026-10-08-sample.json", 8)
	f("testdata/real/imgapi/fixtures/list-sdc-imgapi-dc-test-images.json", 6)
}
