package manifest

import (
	"maps"
	"net/url"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// InstallText is V2 without the members that `imgadm install -m` refuses or crashes on: members
// that imgadm's validator does not know, or whose values the validator refuses (spec 1.1, 1.2),
// `channels` among them. All other bytes stay; the result is V2 itself when nothing is left out. A
// refused name, version, type, os or second file stays: without these the image is nothing.
func (m Manifest) InstallText() []byte {
	if len(m.v2) == 0 {
		return nil
	}
	var memberRoom [32]member
	var edits []edit
	o := objectEditor{edits: &edits, text: m.v2, ms: members(memberRoom[:0], m.v2, 0)}
	for i, mb := range o.ms {
		switch right, known := installMembers[string(mb.name)]; {
		case !known || !right(m.Type, o.value(i)):
			o.drop(i)
		case string(mb.name) == "requirements":
			installRequirements(&edits, m.v2, mb.start)
		}
	}
	return apply(m.v2, edits)
}

// installMembers are the members that imgadm's validator knows, each with a check of its value in
// an image of type typ.
var installMembers = map[string]func(typ string, v jsontext.Value) bool{
	"v": always, "uuid": always, "name": always, "version": always, "type": always, "os": always, "files": always,
	"state": always, "disabled": always, "public": always, "published_at": always, // V2 has made these right
	"owner": isUUIDText, "origin": isUUIDText, "urn": func(_ string, v jsontext.Value) bool { return isText(v) },
	"description":        func(_ string, v jsontext.Value) bool { s, ok := textOf(v); return ok && len(s) <= 10240 },
	"homepage":           isWebURL,
	"eula":               isWebURL,
	"icon":               isBool,
	"generate_passwords": isBool,
	"error":              isObject,
	"tags":               func(typ string, v jsontext.Value) bool { return isObject(typ, v) && len(v) <= 102400 },
	"requirements":       isObject,
	"acl": func(typ string, v jsontext.Value) bool {
		return each(v, func(e jsontext.Value) bool { return isUUIDText(typ, e) })
	},
	"users":                 func(_ string, v jsontext.Value) bool { return each(v, hasExactly("name")) },
	"inherited_directories": func(typ string, v jsontext.Value) bool { return typ == "zone-dataset" && each(v, isText) },
	"nic_driver":            isDriver, "disk_driver": isDriver, "cpu_type": isDriver,
	"image_size": func(typ string, v jsontext.Value) bool { return typ == "zvol" && isInteger(v) },
}

// installRequirements drops the refused members of the object that begins at text[at].
func installRequirements(edits *[]edit, text []byte, at int) {
	o := objectEditor{edits: edits, text: text, at: at, ms: members(nil, text, at)}
	for i, mb := range o.ms {
		v, right := o.value(i), false
		switch string(mb.name) {
		case "networks":
			right = each(v, hasExactly("description", "name"))
		case "brand":
			right = isText(v)
		case "ssh_key":
			right = v.Kind() == 't' || v.Kind() == 'f'
		case "min_ram":
			right = isInteger(v)
		case "max_ram":
			right = isInteger(v) && number(v) >= number(lookup(text[at:], "min_ram"))
		case "min_platform", "max_platform":
			right = isPlatforms(v)
		case "bootrom":
			brand, _ := textOf(lookup(text[at:], "brand"))
			s, _ := textOf(v)
			right = brand == "bhyve" && (s == "bios" || s == "uefi")
		}
		if !right {
			o.drop(i)
		}
	}
}

func always(string, jsontext.Value) bool { return true }

func textOf(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	s, ok := unquote(v)
	return string(s), ok
}

func isText(v jsontext.Value) bool { _, ok := textOf(v); return ok }

func isUUIDText(_ string, v jsontext.Value) bool {
	s, _ := textOf(v)
	_, ok := ParseUUID(s)
	return ok
}

func isWebURL(_ string, v jsontext.Value) bool {
	s, ok := textOf(v)
	u, err := url.Parse(s)
	return ok && err == nil && (u.Scheme == "http" || u.Scheme == "https") && len(s) <= 1024
}

// isBool tells that v is a boolean, or the text of a boolean: the validator takes both.
func isBool(_ string, v jsontext.Value) bool {
	s, _ := textOf(v)
	return v.Kind() == 't' || v.Kind() == 'f' || s == "true" || s == "false"
}

func isObject(_ string, v jsontext.Value) bool { return v.Kind() == '{' }

func isDriver(typ string, v jsontext.Value) bool { return typ == "zvol" && isText(v) }

func isInteger(v jsontext.Value) bool {
	var n int64
	return v.Kind() == '0' && json.Unmarshal(v, &n) == nil
}

// each tells that v is a list whose elements are all right.
func each(v jsontext.Value, right func(jsontext.Value) bool) bool {
	if v.Kind() != '[' {
		return false
	}
	return !slices.ContainsFunc(elements(nil, v, 0), func(e span) bool { return !right(v[e.start:e.end]) })
}

// hasExactly tells that a value is an object with these members, which are sorted, and no others.
func hasExactly(names ...string) func(jsontext.Value) bool {
	return func(v jsontext.Value) bool {
		var object map[string]jsontext.Value
		return json.Unmarshal(v, &object) == nil && slices.Equal(slices.Sorted(maps.Keys(object)), names)
	}
}

// rePlatform is a platform stamp (spec 0).
var rePlatform = regexp.MustCompile(`^20(1[2-9]|[2-9]\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])[0-5]\d[0-5]\dZ$`)

// isPlatforms tells that v has platform stamps as its members, one at least.
func isPlatforms(v jsontext.Value) bool {
	var stamps map[string]string
	if json.Unmarshal(v, &stamps) != nil || len(stamps) == 0 {
		return false
	}
	for _, stamp := range stamps {
		if !rePlatform.MatchString(stamp) {
			return false
		}
	}
	return true
}
