package manifest

import (
	"cmp"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// notInV1 are the members of v2 that DSAPI does not have, and the members that V1 writes itself
// (spec 1.6).
var notInV1 = map[string]bool{
	"v": true, "state": true, "disabled": true, "public": true, "owner": true, "acl": true,
	"billing_tags": true, "traits": true, "channels": true, "icon": true, "eula": true, "error": true,
	"creator_uuid": true, "vendor_uuid": true, "creator_name": true, "cloud_name": true, "urn": true,
	"platform_type": true, "published_at": true, "created_at": true, "updated_at": true,
}

// V1 is the DSAPI form (spec 1.6); each call makes a new text. base is
// "scheme://host[:port][/prefix]" without a slash at its end, for files[].url. A channel is added
// to these URLs: the client asked for the image in this channel, and other channels may not have
// the image.
func (m Manifest) V1(base, channel string) []byte {
	if len(m.v2) == 0 {
		return nil
	}
	var memberRoom [32]member
	var editRoom [32]edit
	ms := members(memberRoom[:0], m.v2, 0)
	edits := editRoom[:0]
	o := objectEditor{edits: &edits, text: m.v2, ms: ms}
	for i, mb := range ms {
		switch name := string(mb.name); {
		case notInV1[name]:
			o.drop(i)
		case name == "files" && m.v2[mb.start] == '[':
			m.v1Files(&edits, mb.start, base, channel)
		case name == "image_size" && m.Type == "zvol" && o.value(i).Kind() == '0':
			o.set(i, `"`+string(o.value(i))+`"`)
		}
	}

	v := m.v1Only(ms)
	sep := "," + o.lead()
	var b []byte
	for _, mb := range [...][2]string{
		{"creator_uuid", v.creator}, {"vendor_uuid", v.vendor}, {"creator_name", v.creatorName},
		{"cloud_name", v.cloudName}, {"urn", v.urn}, {"platform_type", "smartos"},
		{"published_at", v.published}, {"created_at", v.published}, {"updated_at", v.published}, // empty: no date
	} {
		if mb[1] == "" {
			continue
		}
		if len(b) > 0 {
			b = append(b, sep...)
		}
		b = append(append(append(b, '"'), mb[0]...), `":`...)
		b, _ = jsontext.AppendQuote(b, mb[1])
	}
	o.add(string(b))
	return apply(m.v2, edits)
}

// URN is the urn that V1 shows: the source's own, else a derived one.
func (m Manifest) URN() string {
	if len(m.v2) == 0 {
		return ""
	}
	var room [32]member
	return m.v1Only(members(room[:0], m.v2, 0)).urn
}

// v1Only are the values that V1 has and V2 lacks, or has in another place.
type v1Only struct {
	creator, vendor, creatorName, cloudName, urn, published string
}

// v1Only takes the values of a source that speaks DSAPI, and derives the others; ms are V2's
// members.
func (m *Manifest) v1Only(ms []member) v1Only {
	v := v1Only{creator: creator(m)}
	var urn, creatorName, cloudName string
	read := func(text []byte, ms []member) {
		for _, mb := range ms {
			var to *string
			switch string(mb.name) {
			case "vendor_uuid":
				to = &v.vendor
			case "creator_name":
				to = &creatorName
			case "cloud_name":
				to = &cloudName
			case "urn":
				to = &urn
			case "published_at":
				to = &v.published
			default:
				continue
			}
			s, _ := unquote(text[mb.start:mb.end])
			*to = string(s)
		}
	}
	if &m.raw[0] != &m.v2[0] {
		var room [32]member
		read(m.raw, members(room[:0], m.raw, 0))
	}
	v.published = ""
	read(m.v2, ms)

	cloud, rest, _ := strings.Cut(urn, ":")
	second, _, _ := strings.Cut(rest, ":")
	v.vendor = cmp.Or(v.vendor, v.creator)
	v.creatorName = cmp.Or(creatorName, second, "sdc")
	v.cloudName = cmp.Or(cloudName, cloud, "sdc")
	v.urn = cmp.Or(urn, v.cloudName+":"+v.creatorName+":"+strings.ReplaceAll(m.Name, " ", "-")+":"+m.Version)
	return v
}

// v1Files adds path and url to each entry of the files that begin at m.v2[at].
func (m *Manifest) v1Files(edits *[]edit, at int, base, channel string) {
	paths := m.FilePaths()
	query := ""
	if channel != "" {
		query = "?channel=" + url.QueryEscape(channel)
	}
	var spanRoom [4]span
	for n, e := range elements(spanRoom[:0], m.v2, at) {
		var room [8]member
		o := objectEditor{edits: edits, text: m.v2, at: e.start, ms: members(room[:0], m.v2, e.start)}
		o.add(`"path":` + quote(paths[n]) + "," + o.lead() +
			`"url":` + quote(base+"/datasets/"+m.UUID.String()+"/"+url.PathEscape(paths[n])+query))
	}
}

// FilePath is one of FilePaths; "" for a file that does not exist.
func (m Manifest) FilePath(i int) string {
	if i < 0 || i >= len(m.Files) {
		return ""
	}
	return m.FilePaths()[i]
}

// FilePaths are the v1 files[].path: the source's own, else derived ones (spec 1.6). Each is one
// path segment, and each file of an image has another one.
func (m Manifest) FilePaths() []string {
	paths := make([]string, len(m.Files))
	taken := make(map[string]bool, len(m.Files))
	for i, f := range m.Files {
		p := f.Path
		if !isSegment(p) || taken[p] {
			p = m.derivedPath(i)
		}
		for taken[p] {
			p = "_" + p
		}
		paths[i], taken[p] = p, true
	}
	return paths
}

// isSegment tells that s is one segment of a URL's path without any escape.
func isSegment(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '/' || r == '\\' || r < ' ' || r == 0x7f
	})
}

func (m *Manifest) derivedPath(i int) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', '0' <= r && r <= '9', strings.ContainsRune("._+-", r):
			return r
		}
		return '_'
	}, m.Name+"-"+m.Version)
	if i > 0 {
		name += "-" + strconv.Itoa(i)
	}
	kind := ".zfs"
	if m.Type == "zvol" {
		kind = ".zvol"
	}
	return name + kind + suffixes[m.Files[i].Compression]
}

// suffixes are the ends of file names by compression.
var suffixes = map[string]string{"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz"}
