package manifest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"imgmirror/verify"
)

const abcSHA1 = "a9993e364706816aba3e25717850c26c9cd0d89d"

func abcSum(t testing.TB) verify.Sum {
	t.Helper()
	sum, err := verify.ParseSum(abcSHA1)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// What the manifest lacks comes with the upload; what both tell must agree.
func TestUnactivatedWithFile(t *testing.T) {
	const file = `"files":[{"sha1":"` + abcSHA1 + `","size":3,"compression":"gzip"}]`
	sum := abcSum(t)
	f := func(files string, sum verify.Sum, size int64, compression, want string) {
		t.Helper()
		u, err := ParseUnactivated(ownText(file, files))
		if err != nil {
			t.Errorf("%s: %v", files, err)
			return
		}
		if !bytes.Contains(u.JSON(), []byte(`"state":"unactivated"`)) || bytes.Contains(u.JSON(), []byte(`"active"`)) {
			t.Errorf("%s: %s", files, u.JSON())
		}
		u, err = u.WithFile(sum, size, compression, "")
		if want != "" {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", files, err, want)
			}
			return
		}
		if err != nil {
			t.Errorf("%s: %v", files, err)
			return
		}
		m, err := u.Activate()
		if err != nil || !m.Listable() || m.Files[0].SHA1.String() != abcSHA1 || m.Files[0].Size != 3 || m.Files[0].Compression != "gzip" {
			t.Errorf("%s: %s, %v", files, m.V2(), err)
		}
	}
	f(file, sum, 3, "gzip", "")
	f(file, verify.Sum{}, 0, "gzip", "")
	f(`"files":[]`, sum, 3, "gzip", "")
	f(`"x":1`, sum, 3, "gzip", "")
	f(`"files":[{"sha1":"`+abcSHA1+`"}]`, verify.Sum{}, 3, "gzip", "")
	f(`"files":[{}]`, sum, 3, "gzip", "")

	f(file, verify.Sum{1}, 3, "gzip", "sha1")
	f(file, sum, 4, "gzip", "size")
	f(file, sum, 3, "xz", "compression")
	f(file, sum, 3, "", "compression")
	f(`"files":[]`, verify.Sum{}, 3, "gzip", "sha1")
	f(`"files":[]`, sum, 0, "gzip", "size")
	f(`"files":[]`, sum, 3, "zstd", "compression")
}

func TestUnactivatedGUID(t *testing.T) {
	u, err := ParseUnactivated(ownText())
	if err == nil {
		u, err = u.WithFile(abcSum(t), 3, "gzip", "18446744073709551615")
	}
	if err != nil {
		t.Fatal(err)
	}
	if m := u.Manifest(); !bytes.Contains(m.V2(), []byte(`"dataset_guid":"18446744073709551615"`)) {
		t.Errorf("%s", m.V2())
	}
}

func TestParseUnactivatedRefuses(t *testing.T) {
	for name, text := range map[string][]byte{
		"not JSON":             []byte("{"),
		"an array":             []byte("[]"),
		"two files":            ownText(`"compression":"gzip"}`, `"compression":"gzip"},{}`),
		"zstd":                 ownText(`"gzip"`, `"zstd"`),
		"disabled":             ownText(`"disabled":false`, `"disabled":true`),
		"bad name":             ownText(`"mine"`, `"mine;"`),
		"zvol without drivers": ownText(`zone-dataset`, `zvol`),
		"no uuid":              ownText(`"uuid":"11111111-1111-4111-8111-111111111111",`, ``),
	} {
		if u, err := ParseUnactivated(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: taken as %s, error %v", name, u.JSON(), err)
		}
	}
}

func TestWithUUID(t *testing.T) {
	id := uuid.MustParse("22222222-2222-4222-8222-222222222222")
	f := func(text, want string) {
		t.Helper()
		got, err := WithUUID([]byte(text), id)
		if string(got) != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	const member = `"uuid":"22222222-2222-4222-8222-222222222222"`
	f(`{}`, `{`+member+`}`)
	f(" {\"name\":\"x\"}\n", `{"name":"x",`+member+`}`)
	f(`{"uuid":"`+id.String()+`"}`, "")
	f(`{"u\u0075id":1}`, "")
	f(`[]`, "")
	f(`7`, "")
	f(``, "")
	f(`{`, "")
	f(`{} {}`, "")
}

func FuzzUnactivated(f *testing.F) {
	f.Add(ownText(), "1")
	f.Add(ownText(`"files":[{`, `"files":[],"was":[{`), "")
	f.Add([]byte(`{"uuid":"x","creator_uuid":"y","files":{}}`), "")
	f.Add(ownText(`"files":[{`, `"files":[7,{`), "")
	f.Fuzz(func(t *testing.T, data []byte, guid string) {
		u, err := ParseUnactivated(data)
		if err == nil {
			_ = u.JSON()
			u, err = u.WithFile(abcSum(t), 3, "gzip", guid)
		}
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%v does not match ErrInvalid", err)
			}
			return
		}
		if m := u.Manifest(); !m.Listable() || len(m.Files) != 1 || m.Files[0].Size != 3 {
			t.Errorf("taken, but not publishable: %s", data)
		}
	})
}
