package upstream

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"

	"imgmirror/manifest"
	"imgmirror/proxy/upstream/upstreamtest"
	"imgmirror/verify"
)

func TestGet(t *testing.T) {
	for dialect, path := range map[upstreamtest.Dialect]string{
		upstreamtest.IMGAPI:             "/images/",
		upstreamtest.DSAPI:              "/datasets/",
		upstreamtest.SmartOSImageServer: "/datasets/",
		upstreamtest.Static:             "",
	} {
		t.Run(string(dialect), func(t *testing.T) {
			s := newServer(t, upstreamtest.Options{Dialect: dialect, Prefix: "/sub"})
			doc := upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", map[string]any{"extra": "kept"}, []byte("x"))
			add(t, s, doc, []byte("x"))
			c := newClient(t, Options{URL: s.URL()})
			m, err := c.Get(t.Context(), upstreamtest.ID(1))
			if err != nil || string(m.Raw()) != string(doc) {
				t.Errorf("%s, %v", m.Raw(), err)
			}
			if path != "" && s.Count(path+upstreamtest.ID(1).String()) != 1 {
				t.Errorf("requests %v", s.Requests())
			}
			if _, err := c.Get(t.Context(), upstreamtest.ID(2)); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("an unknown image: %v", err)
			}
			s.Inject(upstreamtest.Fault{Status: 500})
			s.Forget()
			if _, err := c.Get(t.Context(), upstreamtest.ID(1)); !errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("a broken server: %v", err)
			}
			if s.Count("") != 1 {
				t.Errorf("%d tries", s.Count(""))
			}
		})
	}
}

func TestGetOfAnUnlistedOrigin(t *testing.T) {
	s := newServer(t, upstreamtest.Options{})
	add(t, s, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", map[string]any{"disabled": true, "state": "disabled"}, []byte("x")))
	m, err := newClient(t, Options{URL: s.URL()}).Get(t.Context(), upstreamtest.ID(1))
	if err != nil || !m.Disabled {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestGetAnswers(t *testing.T) {
	id := upstreamtest.ID(1)
	good := string(small(1))
	for _, test := range []struct {
		name, body string
		match      error
	}{
		{"good", good, nil},
		{"byte order mark", "\ufeff" + good, nil},
		{"another image", string(small(2)), verify.ErrUnavailable},
		{"html", "<html>login</html>", verify.ErrUnavailable},
		{"empty", "", verify.ErrUnavailable},
		{"empty object", "{}", verify.ErrUnavailable},
		{"cut short", good[:len(good)/2], verify.ErrUnavailable},
		{"refused by ingestion", `{"v":2,"uuid":"` + id.String() + `"}`, fs.ErrNotExist},
		{"left out in silence", strings.Replace(good, "zone-dataset", "vmimage", 1), nil},
		{"too long", "[" + strings.Repeat(" ", maxManifestBody) + "]", verify.ErrUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newClient(t, Options{Kind: kindIMGAPI, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, test.body)
			})})
			_, err := c.Get(t.Context(), id)
			if !errors.Is(err, test.match) {
				t.Errorf("error %v, want %v", err, test.match)
			}
			if test.match == verify.ErrUnavailable && errors.Is(err, fs.ErrNotExist) || test.match == fs.ErrNotExist && errors.Is(err, verify.ErrUnavailable) {
				t.Errorf("error %v matches both", err)
			}
		})
	}
}

func TestGetFromABrokenStaticSource(t *testing.T) {
	for name, answer := range map[string]string{"gone": "! 404", "html": "<html>", "number": "7"} {
		c := newClient(t, Options{URL: serve(t, paths(map[string]string{"/": answer})), Kind: kindStatic})
		if _, err := c.Get(t.Context(), upstreamtest.ID(1)); !errors.Is(err, verify.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An ancestor may be in another channel than its child: spec 7, G8.
func TestChannels(t *testing.T) {
	data := []byte("data of an image")
	dev := map[string]any{"channels": []string{"dev"}, "icon": true}
	release := map[string]any{"channels": []string{"release"}}
	newPair := func(t *testing.T, channel string) (*upstreamtest.Server, *Client) {
		s := newServer(t, upstreamtest.Options{Channel: "release"})
		add(t, s, upstreamtest.Manifest(upstreamtest.ID(1), "a", "1", dev, data), data)
		add(t, s, upstreamtest.Manifest(upstreamtest.ID(2), "b", "1", release, data), data)
		s.SetIcon(upstreamtest.ID(1), []byte("icon"))
		return s, newClient(t, Options{URL: s.URL(), Channel: channel})
	}
	for _, test := range []struct {
		channel  string
		listed   int
		requests []string
	}{
		{"", 2, []string{"", "channel=%2A"}},
		{"release", 2, []string{"channel=release", "channel=%2A"}},
		{"dev", 1, []string{"channel=dev"}},
		{"*", 0, []string{"channel=%2A"}},
	} {
		t.Run("channel "+test.channel, func(t *testing.T) {
			s, c := newPair(t, test.channel)
			l, err := c.List(t.Context(), manifest.Listing{})
			if err != nil {
				t.Fatal(err)
			}
			if test.listed != 0 && !slices.Equal(ids(l.Images), smallIDs(test.listed, test.listed+1)) {
				t.Errorf("listed %v", ids(l.Images))
			}
			s.Forget()
			m, err := c.Get(t.Context(), upstreamtest.ID(1))
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, c, m, 0); string(got) != string(data) {
				t.Errorf("file %q", got)
			}
			icon, err := c.Icon(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			icon.Close()
			for i, what := range []string{"", "/file", "/icon"} {
				for j, query := range test.requests {
					r := s.Requests()[i*len(test.requests)+j]
					if want := "/images/" + upstreamtest.ID(1).String() + what; r.Path != want || r.Query != query {
						t.Errorf("request %s?%s, want %s?%s", r.Path, r.Query, want, query)
					}
				}
			}
		})
	}
}
