package manifest

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChannels(t *testing.T) {
	f := func(in string, channels []string, want string) {
		t.Helper()
		m := parse(t, in)
		v2 := string(m.V2())
		if channels != nil {
			m = m.WithChannels(channels)
		}
		if got := string(m.V2Channels()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if string(m.V2()) != v2 || bytes.Contains(m.V2(), []byte("channels")) {
			t.Errorf("V2 shows channels, or has changed: %s", m.V2())
		}
		object(t, m.V2Channels())
	}
	const body = `"v":2,"uuid":"` + idA + `","name":"n","version":"1","type":"other","os":"other","state":"active","owner":"` + idB + `","disabled":false,"public":true,"published_at":"2024-01-01T00:00:00Z"`
	f(`{`+body+`}`, nil, `{`+body+`}`)
	f(`{`+body+`}`, []string{"dev"}, `{`+body+`,"channels":["dev"]}`)
	f(`{`+body+`,"channels":["dev","release"]}`, nil, `{`+body+`,"channels":["dev","release"]}`)
	f(`{"channels":["dev","release"],`+body+`}`, []string{"release"}, `{`+body+`,"channels":["release"]}`)
	f("{\n  "+body+",\n  \"channels\": [\n    \"dev\"\n  ]\n}", nil, "{\n  "+body+",\"channels\":[\"dev\"]\n}")
	f(`{`+body+`,"channels":"dev"}`, nil, `{`+body+`,"channels":["dev"]}`)
	f(`{`+body+`,"channels":[]}`, nil, `{`+body+`}`)

	m := parse(t, `{`+body+`,"channels":["dev"]}`)
	for name, want := range map[string]bool{"dev": true, "*": true, "release": false, "": false} {
		if got := m.InChannel(name); got != want {
			t.Errorf("InChannel(%q) = %v", name, got)
		}
	}
	if parse(t, `{`+body+`}`).InChannel("*") {
		t.Error("an image without channels is in none")
	}
}

func TestBuildChannelsList(t *testing.T) {
	a := parse(t, `{"v":2,"uuid":"`+idA+`","name":"a","version":"1","type":"other","os":"other","channels":["dev"]}`)
	b := a.WithChannels(nil)
	want := "[" + string(a.V2Channels()) + ",\n" + string(b.V2()) + "]"
	if got := string(BuildChannelsList([]Manifest{a, b})); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := string(BuildChannelsList(nil)); got != "[]" {
		t.Errorf("got %s", got)
	}
}

// The file of an image that was asked for in a channel is asked for there, too.
func TestV1Channel(t *testing.T) {
	const base = "http://mirror"
	m := parse(t, `{"v":2,"uuid":"`+idA+`","name":"a","version":"1","type":"other","os":"other",`+
		`"channels":["dev"],"files":[{"sha1":"`+sha1A+`","size":42,"compression":"gzip"}]}`)
	for channel, query := range map[string]string{"": "", "dev": "?channel=dev", "*": "?channel=%2A"} {
		file := object(t, m.V1(base, channel))["files"].([]any)[0].(map[string]any)
		if d := cmp.Diff(base+"/datasets/"+idA+"/a-1.zfs.gz"+query, file["url"]); d != "" {
			t.Error(d)
		}
	}
}
