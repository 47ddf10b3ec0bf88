package manifest

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"

	"imgmirror/verify"
)

// rewrite sets Files and v2, by the edits from the source's text to the text for IMGAPI clients
// (spec 1.1, 1.4). Each member is visited once, in order.
func (d *doc) rewrite() error {
	d.p.edits = d.p.edits[:0]
	o := objectEditor{edits: &d.p.edits, text: d.text, ms: d.ms}
	if d.v1 && d.keys.v < 0 {
		o.first(`"v":2`)
	}
	for i := range d.ms {
		if err := d.member(&o, i); err != nil {
			return err
		}
	}
	d.complete(&o)
	d.m.v2 = apply(d.text, d.p.edits)
	return nil
}

// member decides on one member of the manifest.
func (d *doc) member(o *objectEditor, i int) error {
	m, v := &d.m, d.value(i)
	switch name := string(d.ms[i].name); name {
	case "v":
		if d.v1 {
			o.set(i, "2")
		}
	case "uuid", "origin":
		if text := d.bytes(i); hasUpper(text) {
			if id, ok := readUUID(text, true); ok {
				o.set(i, quote(id.String()))
			}
		}
	case "owner":
		o.setString(i, m.Owner)
	case "state":
		o.setString(i, m.State)
	case "public":
		o.set(i, strconv.FormatBool(m.Public))
	case "disabled":
		o.set(i, strconv.FormatBool(m.Disabled))
	case "published_at":
		if d.published == "" {
			o.drop(i)
		} else {
			o.setString(i, d.published)
		}
	case "files":
		return d.files(o, i)
	case "image_size":
		return d.imageSize(o, i)
	case "name", "version", "type", "os", "urn", "description", "homepage", "eula", "nic_driver", "disk_driver", "cpu_type":
		o.setText(i)
	case "icon":
		if v.Kind() == '{' { // the form in the reference's database
			o.set(i, "true")
		}
	case "activated", "channels", "billing_tags", "traits":
		o.drop(i)
	case "acl":
		if !m.private || d.restricted() {
			o.drop(i)
		}
	case "creator_uuid":
		if d.v1 && d.keys.owner < 0 {
			o.replace(i, `"owner":`+quote(m.Owner))
		} else if d.v1 {
			o.drop(i)
		}
	default:
		if d.v1 && dropped[name] {
			o.drop(i)
		}
	}
	return nil
}

// dropped are the members of v1 manifests that v2 does not have (spec 1.3, 1.4).
var dropped = map[string]bool{
	"vendor_uuid": true, "creator_name": true, "cloud_name": true, "creator_admin": true,
	"restricted_to_uuid": true, "owner_uuid": true,
	"platform_type": true, "created_at": true, "updated_at": true, "_url": true,
	"provider": true, "options": true, "builder_info": true, "metadata_info": true, "sync_info": true, "stats_info": true,
}

// complete adds the members that v2 needs and the source does not have.
func (d *doc) complete(o *objectEditor) {
	m, k := &d.m, &d.keys
	if k.owner < 0 && (!d.v1 || k.creator < 0) {
		o.add(`"owner":` + quote(m.Owner))
	}
	if k.state < 0 {
		o.add(`"state":` + quote(m.State))
	}
	if k.disabled < 0 {
		o.add(`"disabled":` + strconv.FormatBool(m.Disabled))
	}
	if k.public < 0 {
		o.add(`"public":` + strconv.FormatBool(m.Public))
	}
	if k.published < 0 && d.published != "" {
		o.add(`"published_at":` + quote(d.published))
	}
	if m.private && d.restricted() {
		o.add(`"acl":[` + quote(m.ACL[0]) + `]`)
	}
}

// restricted tells that the acl comes from restricted_to_uuid (spec 1.4 step 4).
func (d *doc) restricted() bool {
	return d.v1 && d.str(d.keys.restricted) != ""
}

// imageSize makes a number of a numeric string (spec 1.4 step 9).
func (d *doc) imageSize(o *objectEditor, i int) error {
	v := d.value(i)
	switch n, ok := wholeNumber(v); {
	case v.Kind() == '0' || v.Kind() == 'n':
	case ok && v.Kind() == '"':
		o.set(i, strconv.FormatInt(n, 10))
	case d.v1 && string(v) == `""`:
		o.drop(i)
	case d.v1:
		return d.fail("image_size", "not a number: %s", shorten(string(v)))
	}
	return nil
}

// files reads the array of files and edits each.
func (d *doc) files(o *objectEditor, i int) error {
	v := d.value(i)
	switch v.Kind() {
	case 'n':
		o.drop(i)
		return nil
	case '[':
	default:
		return d.fail("files", "not an array")
	}
	d.p.spans = elements(d.p.spans[:0], d.text, d.ms[i].start)
	d.m.Files = d.p.newFiles(len(d.p.spans))
	for n, e := range d.p.spans {
		if d.text[e.start] != '{' {
			return d.fail(fmt.Sprintf("files[%d]", n), "not an object")
		}
		d.p.inner = members(d.p.inner[:0], d.text, e.start)
		fo := objectEditor{edits: &d.p.edits, text: d.text, at: e.start, ms: d.p.inner}
		d.m.Files[n] = d.file(&fo)
	}
	return nil
}

// file reads one entry of files and edits the entry so that imgadm can live with it: unusable
// values go, and facts learned later take their place (see WithFacts).
func (d *doc) file(o *objectEditor) File {
	var f File
	for i, mb := range o.ms {
		v := o.text[mb.start:mb.end]
		switch string(mb.name) {
		case "sha1":
			if !hexDigest(f.SHA1[:], v) {
				f.SHA1 = verify.Sum{} // hex.Decode may have filled in some bytes
				o.drop(i)
			} else if text, _ := unquote(v); hasUpper(text) {
				o.setString(i, f.SHA1.String())
			}
		case "size":
			n, ok := wholeNumber(v)
			switch {
			case !ok || n <= 0:
				o.drop(i)
				continue
			case v[0] == '"':
				o.set(i, strconv.FormatInt(n, 10))
			}
			f.Size = n
		case "compression":
			text, _ := unquote(v)
			f.stated = strings.ToLower(strings.TrimSpace(d.p.intern(text)))
			switch meant := inferCompression("."+f.stated, ""); {
			case f.stated == "":
				o.drop(i)
			case isCompression(f.stated):
				f.Compression = f.stated
				o.setString(i, f.Compression)
			case meant != "": // "gz"
				f.Compression, f.Inferred = meant, true
				o.setString(i, f.Compression)
			}
		case "md5":
			md5 := make([]byte, 16)
			if hexDigest(md5, v) {
				f.MD5 = md5
			}
			o.drop(i)
		case "path":
			f.Path = string(written(v))
			o.drop(i)
		case "url":
			text, _ := unquote(v)
			f.URL = string(text)
			o.drop(i)
		case "stor", "contentMD5", "mtime":
			o.drop(i)
		case "dataset_guid", "digest", "uncompressedDigest":
			o.setText(i)
		}
	}
	if f.Compression == "" {
		f.Inferred = true
		if f.stated == "" {
			f.Compression = inferCompression(f.Path, f.URL)
		}
		if f.Compression != "" {
			o.add(`"compression":"` + f.Compression + `"`)
		}
	}
	return f
}

// hasUpper tells that a text of hex digits has some in upper case.
func hasUpper(text []byte) bool { return bytes.ContainsAny(text, "ABCDEF") }

func isCompression(s string) bool { return verify.CompressionOf(s) == s }

// inferCompression guesses by the last suffix of the path, else of the url (spec 1.4 step 8); ""
// for an unknown suffix.
func inferCompression(filePath, url string) string {
	name := filePath
	if name == "" {
		name = url
	}
	if i := strings.IndexAny(name, "?#"); i >= 0 {
		name = name[:i]
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".gz", ".tgz":
		return "gzip"
	case ".bz2", ".bz":
		return "bzip2"
	case ".xz":
		return "xz"
	case ".zfs", ".zvol":
		return "none"
	}
	return ""
}
