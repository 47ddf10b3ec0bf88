package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds of what a page shows of a manifest, which may have 4 MiB.
const (
	maxWord        = 1 << 10   // bytes of a name, a version, a tag
	maxDescription = 16 << 10  // bytes
	maxJSON        = 256 << 10 // bytes of the manifest for people
	maxTags        = 50
	maxFiles       = 100 // of the image, and of each source
)

// facts is what a manifest tells, as far as the page has a place of its own for it.
type facts struct {
	UUID        string          `json:"uuid"`
	Name        string          `json:"name"`
	Version     string          `json:"version"`
	OS          string          `json:"os"`
	Type        string          `json:"type"`
	Description string          `json:"description"`
	Homepage    string          `json:"homepage"`
	Owner       string          `json:"owner"`
	State       string          `json:"state"`
	Public      bool            `json:"public"`
	Origin      string          `json:"origin"`
	Published   time.Time       `json:"published_at"`
	Tags        json.RawMessage `json:"tags"`
}

// Link tells that the homepage can be a link.
func (f facts) Link() bool {
	return strings.HasPrefix(f.Homepage, "https://") || strings.HasPrefix(f.Homepage, "http://")
}

// TagList is the tags as "name: value", sorted by the source's own order.
func (f facts) TagList() (all []string) {
	d := json.NewDecoder(bytes.NewReader(f.Tags))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() && len(all) < maxTags {
		name, err := d.Token()
		if err != nil {
			return all
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return all
		}
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		all = append(all, fmt.Sprintf("%s: %s", cut(fmt.Sprint(name), maxWord), cut(text, maxWord)))
	}
	return all
}

// readFacts reads a manifest member by member: one member of a wrong type does not hide the others. Long
// texts are cut.
func readFacts(manifest json.RawMessage) (f facts) {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(manifest, &members) // what cannot be read is empty
	for name, to := range map[string]any{
		"uuid": &f.UUID, "name": &f.Name, "version": &f.Version, "os": &f.OS, "type": &f.Type, "description": &f.Description,
		"homepage": &f.Homepage, "owner": &f.Owner, "state": &f.State, "public": &f.Public, "origin": &f.Origin, "published_at": &f.Published,
	} {
		if value, ok := members[name]; ok {
			_ = json.Unmarshal(value, to)
		}
	}
	for _, text := range []*string{&f.UUID, &f.Name, &f.Version, &f.OS, &f.Type, &f.Homepage, &f.Owner, &f.State, &f.Origin} {
		*text = cut(*text, maxWord)
	}
	f.Description = cut(f.Description, maxDescription)
	f.Tags = members["tags"]
	return f
}

// cut is text of at most n bytes, and the ellipsis in the place of what is cut.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}

// pretty is a manifest for people, a member on each line. A manifest that is too long in that form stands
// as it is, as far as there is room: nested arrays would take thousands of times their length.
func pretty(manifest json.RawMessage) string {
	if indented(manifest) > maxJSON {
		return cut(string(manifest), maxJSON)
	}
	var b bytes.Buffer
	if json.Indent(&b, manifest, "", indent) != nil {
		return ""
	}
	return b.String()
}

const indent = "  "

// indented is at least the length of JSON whose members stand on lines of their own.
func indented(text []byte) (n int) {
	depth, quoted := 0, false
	for i := 0; i < len(text) && n <= maxJSON; i++ {
		n++
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
			n++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			n += 1 + depth*len(indent)
		case c == '}' || c == ']':
			depth = max(depth-1, 0)
			n += 1 + depth*len(indent)
		case c == ',':
			n += 1 + depth*len(indent)
		case c == ':':
			n++
		}
	}
	return n
}
