package e2e

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// filmFile is the film that the README shows.
const filmFile = "../docs/pictures/demo.svg"

// TestFilm: `make film` makes a small picture that asks for nothing else, and the picture in the
// README tells what the demo tells now; times differ.
func TestFilm(t *testing.T) {
	dir := t.TempDir()
	made := filepath.Join(dir, "demo.svg")
	program := filepath.Join(dir, "imgmirror") // its name is in the film
	path, err := filepath.Abs(imgmirror)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "../docs/film", "-o", made, program, "demo", "--once")
	cmd.Env = cleanEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	now, kept := filmText(t, made), filmText(t, filmFile)
	if diff := cmp.Diff(timeless(kept), timeless(now)); diff != "" {
		t.Errorf("the film in docs/pictures is an old one (make film): %s", diff)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(readme, []byte("](docs/pictures/demo.svg)")) {
		t.Error("the README does not show the film")
	}
}

// filmText gives the lines of a film, and holds the file against what a README may show.
func filmText(t *testing.T, file string) (lines []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 150_000 {
		t.Errorf("%s has %d bytes", file, len(data))
	}
	const namespace = `xmlns="http://www.w3.org/2000/svg"`
	rest := strings.ReplaceAll(string(data), namespace, "")
	for _, foreign := range []string{"://", "href", "url(", "@import", "<script", "<image", "<foreignObject"} {
		if strings.Contains(rest, foreign) {
			t.Errorf("%s has %q", file, foreign)
		}
	}
	for _, want := range []string{"@keyframes", "@media(prefers-reduced-motion:reduce){#roll{animation:none}}", `class="g">ok<`} {
		if !strings.Contains(rest, want) {
			t.Errorf("%s does not have %q", file, want)
		}
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	in := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		switch v := token.(type) {
		case xml.StartElement:
			if v.Name.Local == "text" {
				in = true
				lines = append(lines, "")
			}
		case xml.EndElement:
			in = in && v.Name.Local != "text"
		case xml.CharData:
			if in {
				lines[len(lines)-1] += string(v)
			}
		}
	}
}

// timeless replaces what differs from run to run: durations, whether a client joined a download, and
// the size of answers with times in them.
func timeless(lines []string) []string {
	changing := regexp.MustCompile(`[0-9.]+(µs|ms|s)\b|\b(MISS|JOIN|HIT)\b|fetched \d+ kB`)
	var all []string
	for _, l := range lines {
		all = append(all, changing.ReplaceAllString(l, "~"))
	}
	return all
}
