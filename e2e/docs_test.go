package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"imgmirror/config"
)

// docBlock is a fenced block of a page. Its mark, the words behind the fence, says what becomes of the block:
//
//	sh run                the commands are run, in one shell for the page (TestDocsCommands)
//	sh run background     the same, in the background to the page's end; the next block waits for /readyz
//	sh run PLACE          the same, on another machine: PLACE has a data folder of its own and no network
//	sh norun: REASON      the commands need what no test has
//	yaml config           settings, which `imgmirror config check` takes
//	yaml|nginx: REASON    another file, for the program of the reason
//	text                  no commands: a layout, a drawing
type docBlock struct {
	page string // from the root of the repository
	line int    // of the fence, from 1
	mark string
	text string
}

func (b docBlock) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// docPages are the pages for people: all but specifications and decisions.
func docPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatalf("%q %v", pages, err)
	}
	for k, page := range pages {
		pages[k] = strings.TrimPrefix(page, "../")
	}
	return append(pages, "README.md", "CONTRIBUTING.md", "SECURITY.md")
}

// docBlocks are the fenced blocks of a page. A block by indentation alone has no mark.
func docBlocks(t *testing.T, page string) (blocks []docBlock) {
	t.Helper()
	blocks, stray := splitBlocks(readRoot(t, page))
	for _, line := range stray {
		t.Errorf("%s:%d: a block without a fence and a mark, or a fence without its end", page, line)
	}
	for k := range blocks {
		blocks[k].page = page
	}
	return blocks
}

// splitBlocks finds the blocks of a text, and the lines of blocks without a fence.
func splitBlocks(text string) (blocks []docBlock, stray []int) {
	var open *docBlock
	before := ""
	for k, line := range strings.Split(text, "\n") {
		fence := strings.HasPrefix(line, "```")
		switch {
		case open == nil && fence:
			open = &docBlock{line: k + 1, mark: strings.TrimSpace(line[3:])}
		case open != nil && fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case before == "" && strings.HasPrefix(line, "    "):
			stray = append(stray, k+1)
		}
		before = strings.TrimSpace(line)
	}
	if open != nil {
		stray = append(stray, open.line)
	}
	return blocks, stray
}

// kind is "run", "norun", "config", "other" or "text"; "" for a mark that says nothing.
func (b docBlock) kind() string {
	words := strings.Fields(b.mark)
	language, reason, _ := strings.Cut(b.mark, ": ")
	switch {
	case b.mark == "text":
		return "text"
	case b.mark == "yaml config":
		return "config"
	case language == "sh norun" && len(reason) > 4:
		return "norun"
	case (language == "yaml" || language == "nginx") && len(reason) > 4:
		return "other"
	case len(words) >= 2 && len(words) <= 3 && words[0] == "sh" && words[1] == "run":
		return "run"
	}
	return ""
}

// command is the beginning of a line that a shell would run.
var command = regexp.MustCompile(`(?m)^\s*(?:\./)?(imgmirror|imgadm|vmadm|zfs|zpool|curl|make|docker|ssh|tar|cp|rsync|systemctl|svcadm|svccfg|apt|apt-get|rpm|openssl|sudo) [a-z-]`)

// TestDocsMarks: each block of the pages says what becomes of it, and only blocks of a shell have commands.
func TestDocsMarks(t *testing.T) {
	t.Parallel()
	kinds := make(map[string]int)
	for _, page := range docPages(t) {
		for _, b := range docBlocks(t, page) {
			kind := b.kind()
			kinds[kind]++
			if kind == "" {
				t.Errorf("%s: the mark %q says not what becomes of the block", b, b.mark)
			}
			if kind == "text" && command.MatchString(b.text) {
				t.Errorf("%s: commands in a block of text:\n%s", b, b.text)
			}
		}
	}
	if kinds["run"] < 10 || kinds["config"] < 5 {
		t.Errorf("few blocks: %v", kinds)
	}
}

// TestDocsMarksFound: what the test of the marks is there for, it finds.
func TestDocsMarksFound(t *testing.T) {
	t.Parallel()
	blocks, stray := splitBlocks("a\n\n    imgmirror serve\n\n```sh\nx\n```\n\n- b\n  c\n\n```sh norun: \ny\n```\n```sh run\nz\n")
	if len(blocks) != 2 || blocks[0].kind() != "" || blocks[1].kind() != "" || !slices.Equal(stray, []int{3, 15}) {
		t.Errorf("%+v %v", blocks, stray)
	}
	f := func(mark, want string) {
		t.Helper()
		if got := (docBlock{mark: mark}).kind(); got != want {
			t.Errorf("%q: %q, want %q", mark, got, want)
		}
	}
	f("", "")
	f("sh", "")
	f("sh norun", "")
	f("yaml", "")
	f("console", "")
	f("sh run", "run")
	f("sh run background", "run")
	f("sh norun: needs SmartOS", "norun")
	f("yaml config", "config")
	f("yaml: of Ansible", "other")
	f("text", "text")
}

// TestDocsSettings: `imgmirror config check` takes the settings of each page.
func TestDocsSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, page := range docPages(t) {
		for _, b := range docBlocks(t, page) {
			if b.kind() != "config" {
				continue
			}
			file := filepath.Join(dir, "imgmirror.yaml")
			text := strings.ReplaceAll(b.text, "RW...", docKey)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), imgmirror, "config", "check", "--config", file)
			cmd.Env = cleanEnv()
			out, err := cmd.CombinedOutput()
			// The files that a page names are not on this machine.
			if faults := regexp.MustCompile(`(?m)^.*no such file or directory.*\n?`).ReplaceAllString(string(out), ""); err != nil && strings.Contains(faults, ": error (") {
				t.Errorf("%s: %s\n%s", b, faults, text)
			}
		}
	}
}

// docKey is a public key for bundles, where the pages have RW....
const docKey = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"

var (
	docLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	docCode    = regexp.MustCompile("`([^`\n]+)`")
)

// anchors are the names of the headings of a page, as they stand behind # in a link.
func anchors(text string) map[string]bool {
	names := make(map[string]bool)
	for _, found := range docHeading.FindAllStringSubmatch(text, -1) {
		names[strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, found[1])] = true
	}
	return names
}

// TestDocsLinks: each link of a page to a page or a picture of the repository leads there, and so does its #heading.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	pages := append(docPages(t), "CHANGELOG.md")
	for _, folder := range []string{"docs/adr", "docs/spec"} {
		more, err := filepath.Glob("../" + folder + "/*.md")
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range more {
			pages = append(pages, strings.TrimPrefix(page, "../"))
		}
	}
	links := 0
	for _, page := range pages {
		for _, found := range docLink.FindAllStringSubmatch(readRoot(t, page), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			file := page
			if target != "" {
				file = path.Join(path.Dir(page), target)
			}
			if _, err := os.Stat(path.Join("..", file)); err != nil {
				t.Errorf("%s: %s leads nowhere", page, found[1])
			} else if anchor != "" && !anchors(readRoot(t, file))[anchor] {
				t.Errorf("%s: %s has no such heading", page, found[1])
			}
		}
	}
	if links < 30 {
		t.Errorf("only %d links", links)
	}
}

// verbHelp gives the help of a verb, or "" if there is no such verb.
type verbHelp map[string]string

func (h verbHelp) of(t *testing.T, words ...string) string {
	t.Helper()
	name := strings.Join(words, " ")
	if text, ok := h[name]; ok {
		return text
	}
	cmd := exec.CommandContext(t.Context(), imgmirror, append(words, "--help")...)
	cmd.Env = cleanEnv()
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil || !strings.Contains(text, "\n  imgmirror "+name) {
		text = ""
	}
	h[name] = text
	return text
}

// TestDocsNames: the verbs, flags, keys and metrics that the pages name are there.
func TestDocsNames(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, samples(t)) // some metrics have a row for each source only
	there := scrape(t, m)
	sections := make(map[string]bool)
	keys := make(map[string]bool)
	for _, key := range config.Keys() {
		section, _, _ := strings.Cut(key, ".")
		sections[section], keys[key], keys[section] = true, true, true
	}
	var (
		help   = make(verbHelp)
		verb   = regexp.MustCompile(`\bimgmirror (?:imgmirror )?([a-z]+)(?: ([a-z]+))?\b([^|;#]*)`)
		flag   = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]+)`)
		key    = regexp.MustCompile(`^([a-z0-9]+)\.[a-z0-9_.]+$`)
		metric = regexp.MustCompile(`\bimgmirror_[a-z_]+[a-z]\b`)
	)
	all := help.of(t)
	for _, name := range regexp.MustCompile(`(?m)^  ([a-z]+) {2,}`).FindAllStringSubmatch(all, -1) {
		all += help.of(t, name[1])
	}
	n := make(map[string]int)
	for _, page := range docPages(t) {
		text := readRoot(t, page)
		var codes []string
		for _, b := range docBlocks(t, page) {
			if kind := b.kind(); kind == "run" || kind == "norun" {
				codes = append(codes, strings.Split(strings.ReplaceAll(b.text, "\\\n", " "), "\n")...)
			}
		}
		spans := docCode.FindAllStringSubmatch(text, -1)
		for _, found := range spans {
			codes = append(codes, found[1])
		}
		for _, code := range codes {
			for _, found := range verb.FindAllStringSubmatch(code, -1) {
				n["verbs"]++
				usage := help.of(t, found[1], found[2])
				if found[2] == "" || usage == "" {
					usage = help.of(t, found[1])
				}
				if usage == "" {
					t.Errorf("%s: no verb %s", page, found[0])
					continue
				}
				for _, f := range flag.FindAllStringSubmatch(found[3], -1) {
					n["flags"]++
					if !strings.Contains(usage, f[1]+" ") {
						t.Errorf("%s: imgmirror %s has no %s", page, found[1], f[1])
					}
				}
			}
		}
		for _, found := range spans {
			if name := key.FindStringSubmatch(found[1]); name != nil && sections[name[1]] && !keys[found[1]] && !notKeys[found[1]] {
				t.Errorf("%s: no key %s", page, found[1])
			} else if name != nil {
				n["keys"]++
			}
		}
		for _, name := range metric.FindAllString(text, -1) {
			n["metrics"]++
			if there[name] == nil && there[name+"_bucket"] == nil {
				t.Errorf("%s: no metric %s", page, name)
			}
		}
	}
	for _, what := range []string{"verbs", "flags", "keys", "metrics"} {
		if n[what] < 20 {
			t.Errorf("only %d %s were looked at: %v", n[what], what, slices.Sorted(maps.Keys(n)))
		}
	}
}

// notKeys look like keys of the configuration, and are files or methods.
var notKeys = map[string]bool{"admin.sock": true, "admin.token": true, "prefetch.go": true, "page.sessions": true}
