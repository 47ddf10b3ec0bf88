package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// keys are the places in parser.ms of the members that decide how to read the others; -1: absent.
type keys struct {
	v, uuid, name, version, typ, os, state, owner, creator, restricted, public, disabled,
	activated, published, created, files, acl, channels, icon, origin, tags int
}

func findKeys(ms []member) keys {
	k := keys{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}
	for i := range ms {
		switch string(ms[i].name) {
		case "v":
			k.v = i
		case "uuid":
			k.uuid = i
		case "name":
			k.name = i
		case "version":
			k.version = i
		case "type":
			k.typ = i
		case "os":
			k.os = i
		case "state":
			k.state = i
		case "owner":
			k.owner = i
		case "creator_uuid":
			k.creator = i
		case "restricted_to_uuid":
			k.restricted = i
		case "public":
			k.public = i
		case "disabled":
			k.disabled = i
		case "activated":
			k.activated = i
		case "published_at":
			k.published = i
		case "created_at":
			k.created = i
		case "files":
			k.files = i
		case "acl":
			k.acl = i
		case "channels":
			k.channels = i
		case "icon":
			k.icon = i
		case "origin":
			k.origin = i
		case "tags":
			k.tags = i
		}
	}
	return k
}

// doc is one manifest that is being read.
type doc struct {
	p    *parser
	text []byte
	ms   []member
	keys keys
	m    Manifest

	v1        bool   // not yet v2: to be upgraded
	published string // the published_at of V2; "": none
	undated   bool   // the source gives no date, though the image is activated
}

// accepted reads one manifest from text that check has accepted.
func (p *parser) accepted(text []byte) (Manifest, error) {
	if len(text) == 0 || text[0] != '{' {
		if p.terse {
			return Manifest{}, p.refuse(uuid.Nil, false)
		}
		return Manifest{}, &ParseError{Reason: "not a JSON object"}
	}
	p.ms = members(p.ms[:0], text, 0)
	d := &p.doc
	*d = doc{p: p, text: text, ms: p.ms, keys: findKeys(p.ms)}
	d.m.raw = text
	d.m.private = p.options.ServePrivate
	if err := d.view(); err != nil {
		return Manifest{}, err
	}
	if date, ok := dateText(p.options.Date); ok && d.undated {
		m, err := p.accepted(setMembers(text, map[string]string{"published_at": quote(date)}))
		m.undated = err == nil
		return m, err
	}
	d.m.undated = d.undated
	if err := d.rewrite(); err != nil {
		return Manifest{}, err
	}
	return d.m, nil
}

// value gives member i; nil when it is absent.
func (d *doc) value(i int) jsontext.Value {
	if i < 0 {
		return nil
	}
	return jsontext.Value(d.text[d.ms[i].start:d.ms[i].end])
}

// bytes gives the text of member i if it is a string, else nothing.
func (d *doc) bytes(i int) []byte {
	text, _ := unquote(d.value(i))
	return text
}

// str is bytes as a string that is likely to occur again.
func (d *doc) str(i int) string { return d.p.intern(d.bytes(i)) }

func (d *doc) fail(field, format string, args ...any) error {
	if d.p.terse {
		return d.p.refuse(d.m.UUID, false)
	}
	return &ParseError{Image: d.m.UUID, Field: field, Reason: fmt.Sprintf(format, args...)}
}

func (d *doc) skip(field, reason string) error {
	if d.p.terse {
		return d.p.refuse(d.m.UUID, true)
	}
	return &ParseError{Image: d.m.UUID, Field: field, Reason: reason, skip: true}
}

// view fills in the exported fields of Manifest except Files, and applies the ingestion policy
// (spec 1.8).
func (d *doc) view() error {
	m, k := &d.m, &d.keys
	id := d.bytes(k.uuid)
	var ok bool
	if m.UUID, ok = readUUID(id, true); !ok {
		if len(id) == 0 {
			return d.fail("uuid", "missing")
		}
		return d.fail("uuid", "not a uuid: %q", shorten(string(id)))
	}
	for _, f := range []struct {
		name string
		at   int
		to   *string
	}{{"name", k.name, &m.Name}, {"version", k.version, &m.Version}, {"type", k.typ, &m.Type}, {"os", k.os, &m.OS}} {
		if *f.to = d.p.intern(written(d.value(f.at))); *f.to == "" {
			if v := d.value(f.at); v != nil && v.Kind() != '"' && v.Kind() != 'n' {
				return d.fail(f.name, "neither a string nor a number")
			}
			return d.fail(f.name, "missing")
		}
	}

	v2 := number(d.value(k.v)) >= 2
	d.v1 = !v2
	if d.v1 && m.Type == "vmimage" {
		return d.skip("type", "vmimage is not importable")
	}
	if tags := d.value(k.tags); m.Type == "docker" && (tags == nil || tags.Kind() != '{') {
		return d.fail("tags", "missing in a docker image, which makes imgadm's listing fail")
	}

	m.Owner = d.owner()
	m.Disabled, _ = truth(d.value(k.disabled))
	d.privacy()
	m.Channels = d.list(k.channels)
	m.Origin, _ = readUUID(d.bytes(k.origin), true)
	if icon := d.value(k.icon); icon != nil {
		m.Icon, _ = truth(icon)
		m.Icon = m.Icon || icon.Kind() == '{'
	}
	return d.stateAndDate()
}

// owner follows step 2 of spec 1.4 for v1, and takes the owner of v2; without an owner the result
// is the unset one.
func (d *doc) owner() string {
	owner, _ := d.lowerUUID(d.keys.owner)
	if !d.v1 {
		return cmp.Or(owner, unsetOwner)
	}
	creator, ok := d.lowerUUID(d.keys.creator)
	if ok {
		return creator
	}
	return cmp.Or(owner, creator, unsetOwner) // a malformed creator is the source's own
}

// lowerUUID gives member i as a string, in lower case if it is a uuid.
func (d *doc) lowerUUID(i int) (s string, ok bool) {
	s = d.str(i)
	if _, ok = readUUID(s, true); ok {
		s = strings.ToLower(s)
	}
	return s, ok
}

// privacy sets Public and ACL. A manifest that says private stays private (spec A3). A manifest
// that says nothing counts as public, unless an acl speaks against this.
func (d *doc) privacy() {
	m, k := &d.m, &d.keys
	m.ACL = d.list(k.acl)
	if restricted := d.str(k.restricted); d.v1 && restricted != "" {
		m.Public, m.ACL = false, []string{strings.ToLower(restricted)}
		return
	}
	v := d.value(k.public)
	if v == nil || v.Kind() == 'n' {
		m.Public = len(m.ACL) == 0
		return
	}
	m.Public, _ = truth(v)
}

// list reads an array of strings; one string alone counts as a list of one, as in rows of the
// reference's database. UUIDs come out in lower case.
func (d *doc) list(i int) (out []string) {
	one := func(v []byte) {
		text, _ := unquote(v)
		if _, ok := readUUID(text, true); ok {
			text = bytes.ToLower(text)
		}
		if len(text) > 0 {
			out = append(out, d.p.intern(text))
		}
	}
	v := d.value(i)
	if v == nil {
		return nil
	}
	if v.Kind() != '[' {
		one(v)
		return out
	}
	d.p.spans = elements(d.p.spans[:0], v, 0)
	for _, e := range d.p.spans {
		one(v[e.start:e.end])
	}
	return out
}

// stateAndDate sets State and Published (spec 1.1, 1.4 step 6, 1.5, A33).
func (d *doc) stateAndDate() error {
	m, k := &d.m, &d.keys
	d.published, m.Published, _ = parseTime(string(d.bytes(k.published)))

	state := d.str(k.state)
	proper := d.v1 && len(d.bytes(k.creator)) > 0 // in DSAPI proper only disabled counts: there is no state
	switch {
	case state == "nuked":
		return d.skip("state", "nuked")
	case state == "pending":
		m.State = stateUnactivated
	case state == stateActive, state == "deprecated", state == "", proper:
		m.State = d.computedState()
	case isState(state):
		m.State = state
	default: // an unknown state does not mean active
		m.State = stateUnactivated
	}
	if v := d.value(k.disabled); m.State == stateDisabled && (v == nil || v.Kind() == 'n') {
		m.Disabled = true
	}

	if d.published == "" && (m.State == stateActive || m.State == stateDisabled) {
		var ok bool
		if d.published, m.Published, ok = parseTime(string(d.bytes(k.created))); !ok {
			d.published, d.undated = epoch, true
		}
	}
	return nil
}

func isState(s string) bool {
	switch s {
	case stateActive, stateDisabled, stateUnactivated, stateCreating, stateFailed:
		return true
	}
	return false
}

// computedState is the state of an image whose source names none: active, unless another member
// speaks against this.
func (d *doc) computedState() string {
	activated, known := truth(d.value(d.keys.activated))
	switch {
	case known && !activated:
		return stateUnactivated
	case d.m.Disabled:
		return stateDisabled
	default:
		return stateActive
	}
}
