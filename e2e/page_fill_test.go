package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestPageFill: a client asks for an image, and the overview, without being loaded again, shows the
// bar of its download move and go, to operators and to clients.
func TestPageFill(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"operators", "clients"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			img := newImage("slow-image", 9<<20)
			src := newSource(t, img)
			m := startMirror(t, nil, from(src.link(1_500_000), settings{"name": "slow-line"}))
			m.awaitList(1)
			b := newTab(t, m.url, m.admin)
			if side == "operators" {
				b.open(m.admin + "/ui/")
				b.signIn(m.token())
			} else {
				b.open(m.url + "/ui/")
			}
			b.js(`window.neverLoadedAgain = true`, nil)
			if b.count("#fills progress") != 0 {
				t.Fatalf("a bar before the download:\n%s", b.describe())
			}
			var got download
			var client errgroup.Group
			client.Go(func() (err error) {
				got, err = fetch(m.url+filePath(img), filepath.Join(m.dir, "got"), int64(len(img.file)))
				return err
			})
			b.followBar(img)
			if err := client.Wait(); err != nil {
				t.Fatal(err)
			}
			got.check(t, img.sha1())
		})
	}
}

// followBar follows the bar of img's download on the overview to its end.
func (b *tab) followBar(img image) {
	var seen []float64
	said := ""
	b.sample(`(() => {
		const bar = document.querySelector("#fills progress");
		return [window.neverLoadedAgain === true, bar ? bar.value : -1, bar ? bar.max : 0, document.querySelector("#fills").textContent];
	})()`, func(value any) bool {
		now, ok := value.([]any)
		if !ok || len(now) != 4 || now[0] != true {
			b.t.Error("the overview was loaded again")
			return true
		}
		have := now[1].(float64)
		if have < 0 {
			return len(seen) > 0 // the download is over
		}
		if have < float64(len(img.file)) { // else the file is being checked, and comes from no source
			said = now[3].(string)
		}
		if now[2] != float64(len(img.file)) {
			b.t.Errorf("the bar ends at %v, the file has %d bytes", now[2], len(img.file))
		}
		if len(seen) == 0 || have != seen[len(seen)-1] {
			seen = append(seen, have)
		}
		return false
	})
	for i := 1; i < len(seen); i++ {
		if seen[i] < seen[i-1] {
			b.t.Errorf("the bar moves back: %v", seen)
		}
	}
	if len(seen) < 3 {
		b.t.Errorf("the bar was seen at %v only", seen)
	}
	for _, want := range []string{"slow-line", "/s"} {
		if !strings.Contains(said, want) {
			b.t.Errorf("the overview does not say %q of the download: %s", want, said)
		}
	}
}
