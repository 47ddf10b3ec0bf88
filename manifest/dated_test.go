package manifest

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// created is what `imgadm create` writes.
func created(more string) string {
	return `{"v":2,"uuid":"` + idA + `","name":"mine","version":"1.0.0","type":"zone-dataset","os":"smartos",` +
		`"requirements":{"min_platform":{"7.0":"20210114T163038Z"}},"files":[{"size":42,"compression":"gzip","sha1":"` + sha1A + `"}]` + more + `}`
}

// TestCreated: a manifest of imgadm create is an active image with all that clients ask for, in whatever form it comes.
func TestCreated(t *testing.T) {
	day := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	for name, text := range map[string]string{
		"v2": created(""), "no v": strings.Replace(created(""), `"v":2,`, "", 1), "nulls": created(`,"owner":null,"state":null,"disabled":null,"public":null,"published_at":null`),
		"empty": created(`,"published_at":"","state":""`), "no date": created(`,"published_at":7`),
	} {
		for _, list := range []bool{false, true} {
			o := ParseOptions{Date: day}
			m, err := Parse([]byte(text), o)
			if list {
				var all []Manifest
				if all, _, err = ParseList([]byte("["+text+"]"), o); err == nil {
					m = all[0]
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			got := object(t, m.V2())
			for key, want := range map[string]any{
				"v": 2.0, "state": "active", "owner": unsetOwner, "public": true, "disabled": false, "published_at": "2026-01-02T03:04:05Z",
			} {
				if got[key] != want {
					t.Errorf("%s: %s is %v, want %v", name, key, got[key], want)
				}
			}
			if !m.Listable() || !m.DSAPIVisible() || !m.Undated() || m.Owner != unsetOwner || !m.Published.Equal(day.Truncate(time.Second)) {
				t.Errorf("%s: %+v", name, m)
			}
			if err := imgadmAccepts(m.V2(), true); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			again := parse(t, string(m.Raw())) // as the index has it
			if !bytes.Equal(again.V2(), m.V2()) {
				t.Errorf("%s: read again it is\n%s\nwant\n%s", name, again.V2(), m.V2())
			}
		}
	}
}

// TestDates: a date of the source is kept whatever Date says; without either it is 1970; unactivated images have none.
func TestDates(t *testing.T) {
	day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := func(text string, date time.Time, want any, undated bool) Manifest {
		t.Helper()
		m, err := Parse([]byte(text), ParseOptions{Date: date})
		if err != nil {
			t.Fatal(err)
		}
		if got := object(t, m.V2())["published_at"]; got != want || m.Undated() != undated {
			t.Errorf("%s: %v, undated %v", text, got, m.Undated())
		}
		return m
	}
	f(created(`,"published_at":"2014-01-02T03:04Z"`), day, "2014-01-02T03:04:00Z", false)
	f(v1With(`,"created_at":"2014-01-02T03:04:06Z"`), day, "2014-01-02T03:04:05Z", false)
	f(strings.Replace(v1With(`,"created_at":"2014-01-02T03:04:06Z"`), "published_at", "x", 1), day, "2014-01-02T03:04:06Z", false)
	f(strings.Replace(v1With(``), "published_at", "x", 1), day, "2026-01-02T03:04:05Z", true)
	f(created(``), time.Time{}, epoch, true)
	f(created(``), time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC), epoch, true)
	f(created(``), time.Unix(-1e10, 0), epoch, true)
	f(created(`,"state":"unactivated"`), day, nil, false)

	m := f(created(``), day, "2026-01-02T03:04:05Z", true).WithChannels([]string{"dev"})
	moved := m.WithDate(day.AddDate(-1, 0, 0))
	if got := object(t, moved.V2())["published_at"]; got != "2025-01-02T03:04:05Z" || !moved.Undated() || !moved.InChannel("dev") {
		t.Errorf("moved to %v, %+v", got, moved)
	}
	if back := moved.WithDate(day); !bytes.Equal(back.Raw(), m.Raw()) || !bytes.Equal(back.V2(), m.V2()) {
		t.Errorf("moved back it is\n%s\nwant\n%s", back.Raw(), m.Raw())
	}
	dated := f(created(`,"published_at":"2014-01-02T03:04:05Z"`), day, "2014-01-02T03:04:05Z", false)
	if same := dated.WithDate(day); !bytes.Equal(same.Raw(), dated.Raw()) {
		t.Errorf("the source's date became %s", same.V2())
	}
}

// TestActivated: a published image is active from now on, unless its manifest says disabled.
func TestActivated(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for more, want := range map[string][2]string{
		``:                                      {"active", "2026-01-02T03:04:05Z"},
		`,"state":"unactivated"`:                {"active", "2026-01-02T03:04:05Z"},
		`,"activated":false`:                    {"active", "2026-01-02T03:04:05Z"},
		`,"state":"active","activated":"false"`: {"active", "2026-01-02T03:04:05Z"},
		`,"state":"unactivated","published_at":"2014-01-02T03:04:05Z"`:          {"active", "2014-01-02T03:04:05Z"},
		`,"state":"unactivated","disabled":true`:                                {"disabled", "2026-01-02T03:04:05Z"},
		`,"disabled":true`:                                                      {"disabled", "2026-01-02T03:04:05Z"},
		`,"state":"failed","published_at":"2014-01-02T03:04:05Z"`:               {"failed", "2014-01-02T03:04:05Z"},
		`,"state":"active","published_at":"2014-01-02T03:04:05Z","public":true`: {"active", "2014-01-02T03:04:05Z"},
	} {
		was := parse(t, created(more))
		m, err := was.Activated(now)
		if err != nil {
			t.Fatal(err)
		}
		if got := object(t, m.V2()); got["state"] != want[0] || got["published_at"] != want[1] || m.State != want[0] {
			t.Errorf("%s: %s", more, m.V2())
		}
		if again := parse(t, string(m.Raw())); !bytes.Equal(again.V2(), m.V2()) {
			t.Errorf("%s: read again it is %s", more, again.V2())
		}
	}
}

// TestNumbersAsTexts: what tools write as numbers is read as its text, as written, and served as text; nothing else
// passes for a text.
func TestNumbersAsTexts(t *testing.T) {
	with := func(key, value string) string {
		text := created(`,"urn":"u","description":"d","homepage":"h","nic_driver":"virtio","tags":{"n":1.10,"s":"1"}`)
		for _, member := range []string{`"name":"mine"`, `"version":"1.0.0"`, `"type":"zone-dataset"`, `"os":"smartos"`, `"urn":"u"`, `"description":"d"`, `"homepage":"h"`, `"nic_driver":"virtio"`} {
			if strings.HasPrefix(member, `"`+key+`"`) {
				text = strings.Replace(text, member, `"`+key+`":`+value, 1)
			}
		}
		return text
	}
	for _, key := range []string{"name", "version", "type", "os", "urn", "description", "homepage", "nic_driver"} {
		for _, number := range []string{"1", "0", "1.10", "-2.5e+3", "10000000000000000000001", "1E5"} {
			m := parse(t, with(key, number))
			got := object(t, m.V2())
			if got[key] != number {
				t.Errorf("%s: %s is served as %#v", key, number, got[key])
			}
			if tags := got["tags"].(map[string]any); tags["n"] != 1.1 || tags["s"] != "1" {
				t.Errorf("tags became %v", tags)
			}
			if v := object(t, m.V1("http://h", "")); v[key] != number {
				t.Errorf("%s: %s is served as %#v by DSAPI", key, number, v[key])
			}
			if again := parse(t, string(m.Raw())); !bytes.Equal(again.V2(), m.V2()) || string(m.Raw()) != with(key, number) {
				t.Errorf("%s: %s is not kept", key, number)
			}
			if key == "homepage" || key == "urn" || key == "nic_driver" {
				continue
			}
			f, err := ParseFilter(key + "=" + number)
			if err != nil || !f.Match(m) {
				t.Errorf("filter %s=%s: %v", key, number, err)
			}
			if key == "description" {
				continue
			}
			q, err := ParseQuery([][2]string{{key, number}})
			if err != nil {
				t.Fatal(err)
			}
			if page, err := q.Select([]Manifest{m}, nil); err != nil || page.Len() != 1 {
				t.Errorf("query %s=%s: %d images, %v", key, number, page.Len(), err)
			}
		}
		for _, wrong := range []string{"true", "{}", "[1]", "null"} {
			_, err := Parse([]byte(with(key, wrong)), ParseOptions{})
			if needed := key == "name" || key == "version" || key == "type" || key == "os"; needed != (err != nil) || needed && !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %s: %v", key, wrong, err)
			}
		}
	}
	if _, err := Parse([]byte(strings.Replace(created(""), `"`+idA+`"`, "1", 1)), ParseOptions{}); err == nil {
		t.Error("a number passes for a uuid")
	}
	m := parse(t, strings.Replace(created(""), `"size":42`, `"size":"42","dataset_guid":17445958905298415412,"path":1`, 1))
	file := object(t, m.V2())["files"].([]any)[0].(map[string]any)
	if file["size"] != 42.0 || file["dataset_guid"] != "17445958905298415412" || m.Files[0].Size != 42 || m.Files[0].Path != "1" {
		t.Errorf("the file became %v, %+v", file, m.Files[0])
	}
}
