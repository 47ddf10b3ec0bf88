package manifest

import (
	"bytes"
	"strings"
	"testing"
)

// TestInstallText: what imgadm's validator refuses goes, and nothing else changes. The official validator itself
// judges in e2e.
func TestInstallText(t *testing.T) {
	const head = `{"v":2,"uuid":"00000000-0000-4000-8000-000000000001","name":"a","version":"1","type":"TYPE","os":"smartos","state":"active","disabled":false,"public":true,"published_at":"2026-01-02T03:04:05Z"`
	const owner = `,"owner":"00000000-0000-0000-0000-000000000000"`
	f := func(typ, members, want string) {
		t.Helper()
		if !strings.Contains(members, "owner") { // V2 has one
			members, want = owner+members, owner+want
		}
		text := bytes.ReplaceAll([]byte(head+members+`}`), []byte("TYPE"), []byte(typ))
		m, err := Parse(text, ParseOptions{ServePrivate: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.InstallText(); string(got) != string(bytes.ReplaceAll([]byte(head+want+`}`), []byte("TYPE"), []byte(typ))) {
			t.Errorf("%s\nbecame %s\nwant   …%s}", text, got, want)
		}
	}
	f("zvol", ``, ``)
	f("zone-dataset", `,"x":1,"urn":"a:b:c:1" , "channels":["dev"],"y":{}`, `,"urn":"a:b:c:1"`)
	f("zone-dataset", `,"urn":[7],"owner":"nobody","description":["a"]`, ``)
	f("zvol", `,"nic_driver":"virtio","image_size":10240,"cpu_type":{}`, `,"nic_driver":"virtio","image_size":10240`)
	f("lx-dataset", `,"nic_driver":"virtio","image_size":10240,"inherited_directories":["/usr"]`, ``)
	f("zone-dataset", `,"inherited_directories":["/usr"],"users":[{"name":"root"}]`, `,"inherited_directories":["/usr"],"users":[{"name":"root"}]`)
	f("zone-dataset", `,"inherited_directories":["/usr",1],"users":[{"name":"root","id":0}]`, ``)
	f("zone-dataset", `,"homepage":"https://example.com","eula":"/eula","icon":true,"tags":{"a":[1]},"error":"x"`, `,"homepage":"https://example.com","icon":true,"tags":{"a":[1]}`)
	f("zone-dataset", `,"requirements": { "x":1, "brand":"bhyve" , "bootrom":"uefi","min_ram":1.5}`, `,"requirements": { "brand":"bhyve" , "bootrom":"uefi"}`)
	f("zone-dataset", `,"requirements":{"bootrom":"uefi","min_ram":512,"max_ram":256,"ssh_key":"yes"}`, `,"requirements":{"min_ram":512}`)
	f("zone-dataset", `,"requirements":{"min_platform":{"7.0":"20210114T163038Z"},"max_platform":{}}`, `,"requirements":{"min_platform":{"7.0":"20210114T163038Z"}}`)
	f("zone-dataset", `,"requirements":[]`, ``)
	f("zone-dataset", `,"requirements":{"x":1}`, `,"requirements":{}`)
	f("zone-dataset", `,"files":[{"sha1":"97f2cf6a4b5f4f3e8d8f8e4b3a6f0a1b2c3d4e5f","size":3,"compression":"gzip","note":1}]`,
		`,"files":[{"sha1":"97f2cf6a4b5f4f3e8d8f8e4b3a6f0a1b2c3d4e5f","size":3,"compression":"gzip","note":1}]`)
	if got := (Manifest{}).InstallText(); got != nil {
		t.Errorf("no manifest: %q", got)
	}
}
