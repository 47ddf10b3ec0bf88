package manifest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRandomManifests puts manifests together from the keys that rules speak of and values that are right,
// wrong or strange, in any order and layout, and looks whether what Parse lets through holds together.
func TestRandomManifests(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	strange := []string{
		`null`, `true`, `false`, `"true"`, `"false"`, `""`, `" "`, `"x"`, `0`, `-1`, `2`, `"2"`, `1.5`, `3.79882274e+08`, `123456789012345678901234567890`,
		`"16384"`, `"2014-01-02T03:04Z"`, `"2014-01-02T03:04:05.123Z"`, `"0001-01-01T00:00:00Z"`, `"` + idA + `"`, `"` + strings.ToUpper(idB) + `"`,
		`"` + sha1A + `"`, `"` + strings.ToUpper(sha1B) + `"`, `"gzip"`, `"a.zfs.xz"`, `"../b.gz"`, `"http://h/c.bz2?d#e"`, `"\u0000\"\\/é"`,
		`[]`, `{}`, `["` + idA + `"]`, `{"a":{"b":[1,"]}"]}}`, `"active"`, `"disabled"`, `"pending"`, `"deprecated"`, `"zvol"`, `"docker"`,
	}
	top := strings.Fields("v uuid name version type os state owner public disabled published_at created_at updated_at files icon acl channels activated " +
		"billing_tags traits tags origin creator_uuid vendor_uuid creator_name cloud_name restricted_to_uuid image_size urn platform_type eula error provider future")
	inFile := strings.Fields("sha1 size compression path url md5 stor mtime contentMD5 dataset_guid future")
	must := map[string]string{
		"v": `2`, "uuid": `"` + idC + `"`, "name": `"n"`, "version": `"1"`, "type": `"zone-dataset"`, "os": `"smartos"`,
		"files": `[{"sha1":"` + sha1A + `","size":1,"compression":"gzip"}]`,
	}
	space := func() string { return []string{"", "", " ", "\n  ", "\t\r\n"}[r.IntN(5)] }
	var object func(keys []string, odd int) string
	object = func(keys []string, odd int) string {
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		var ms []string
		for _, key := range keys {
			value, needed := must[key]
			switch {
			case r.IntN(100) < odd:
				value = strange[r.IntN(len(strange))]
			case key == "files" && r.IntN(3) > 0:
				var entries []string
				for range r.IntN(4) {
					entries = append(entries, object(inFile, 30))
				}
				value = "[" + strings.Join(entries, space()+","+space()) + space() + "]"
			case !needed:
				continue
			}
			if r.IntN(50) == 0 {
				key = fmt.Sprintf(`\u%04x`, key[0]) + key[1:]
			}
			ms = append(ms, `"`+key+`"`+space()+":"+space()+value)
		}
		return "{" + space() + strings.Join(ms, space()+","+space()) + space() + "}"
	}
	accepted := 0
	n := 5_000
	if testing.Short() {
		n = 1_000
	}
	for i := range n {
		text := object(top, 5+r.IntN(25))
		o := ParseOptions{ServePrivate: i%2 == 0}
		m, err := Parse([]byte(text), o)
		if err != nil {
			continue
		}
		accepted++
		checkManifest(t, m, o)
	}
	if accepted < n/20 {
		t.Errorf("only %d of %d were accepted: nothing was tried", accepted, n)
	}
	t.Logf("%d of %d accepted", accepted, n)
}
