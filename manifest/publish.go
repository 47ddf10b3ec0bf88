package manifest

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"imgmirror/verify"
)

// What imgadm and the image servers ask of manifests (spec 1.1).
var (
	ownName    = regexp.MustCompile(`^[A-Za-z0-9._/ -]+$`)
	ownVersion = regexp.MustCompile(`^[A-Za-z0-9._/+-]+$`)

	ownTypes   = []string{"zone-dataset", "lx-dataset", "zvol", "docker", "lxd", "other"}
	ownSystems = []string{"smartos", "linux", "windows", "bsd", "illumos", "other"}
)

const (
	maxName    = 1024
	maxVersion = 512
)

// ParsePublished reads the manifest, v2 or v1, of an image that is being published here. The rules
// are stricter than those of Parse for images of strangers; what the manifest says of its file is
// CheckHead's. An image is public unless the manifest says otherwise, becomes active by being
// published, and without a date has the one of now (`imgadm create` writes none of these). Errors
// match ErrInvalid.
func ParsePublished(text []byte) (Manifest, error) {
	m, err := Parse(bytes.Clone(text), ParseOptions{ServePrivate: true})
	if err == nil {
		m, err = m.Activated(time.Now())
	}
	if err != nil {
		return m, err
	}
	if field, reason := fault(m); field != "" {
		return Manifest{}, &ParseError{Image: m.UUID, Field: field, Reason: reason}
	}
	return m, nil
}

// fault gives the first field that is wrong, and how; "" when none is.
func fault(m Manifest) (field, reason string) {
	switch {
	case m.UUID == uuid.Nil:
		return "uuid", "must not be all zero"
	case !ownName.MatchString(m.Name), len(m.Name) > maxName:
		return "name", fmt.Sprintf("%.50q: must be letters, digits, spaces and . _ / -, %d at most", m.Name, maxName)
	case !ownVersion.MatchString(m.Version), len(m.Version) > maxVersion:
		return "version", fmt.Sprintf("%.50q: must be letters, digits and . _ / + -, %d at most", m.Version, maxVersion)
	case !slices.Contains(ownTypes, m.Type):
		return "type", fmt.Sprintf("%.50q: must be one of %q", m.Type, ownTypes)
	case !slices.Contains(ownSystems, m.OS):
		return "os", fmt.Sprintf("%.50q: must be one of %q", m.OS, ownSystems)
	case m.Disabled:
		return "disabled", "is true: only active images can be published"
	case !m.Active():
		return "state", fmt.Sprintf("is %s: only active images can be published", m.State)
	case m.Icon:
		return "icon", "published images have none"
	case !m.HasOrigin() && named(m, "origin"):
		return "origin", "must be a UUID"
	case m.Origin == m.UUID:
		return "origin", "is the image itself"
	case len(m.Files) != 1:
		return "files", fmt.Sprintf("there are %d, must be one", len(m.Files))
	case m.Files[0].SHA1.IsZero():
		return "files[0].sha1", "is missing"
	case m.Files[0].Size <= 0:
		return "files[0].size", "is missing"
	case m.Files[0].Compression == "":
		return "files[0].compression", "must be gzip, bzip2, xz or none"
	}
	if field, reason = zvolFault(m); field == "" {
		field, reason = memberFault(m)
	}
	return field, reason
}

// memberFault is fault of members whose values imgadm refuses. Empty members count as absent, and members that
// imgadm does not know are the publisher's own.
func memberFault(m Manifest) (field, reason string) {
	o := objectEditor{text: m.v2, ms: members(nil, m.v2, 0)}
	for i, mb := range o.ms {
		name := string(mb.name)
		right, known := installMembers[name]
		if !known || !named(m, name) {
			continue
		}
		if !right(m.Type, o.value(i)) {
			return name, fmt.Sprintf("is %.50s: imgadm refuses this value", o.value(i))
		}
		if name == "requirements" {
			var refused []edit
			if installRequirements(&refused, m.v2, mb.start); len(refused) > 0 {
				return name, fmt.Sprintf("has %.50s: imgadm refuses this member", m.v2[refused[0].start:refused[0].end])
			}
		}
	}
	return "", ""
}

// named tells whether the manifest has something in a field: neither null nor "".
func named(m Manifest, field string) bool {
	v := lookup(m.v2, field)
	return v != nil && v.Kind() != 'n' && string(v) != `""`
}

// zvolFault is fault of the fields that an image of type zvol must have, and no other may.
func zvolFault(m Manifest) (field, reason string) {
	for _, name := range []string{"nic_driver", "disk_driver", "cpu_type", "image_size"} {
		v := lookup(m.v2, name)
		there := named(m, name) || v != nil && name == "image_size"
		switch {
		case there && v.Kind() != '"' && name != "image_size":
			return "nic_driver, disk_driver, cpu_type", "must be strings"
		case m.Type == "zvol" && !there:
			return name, "is missing: an image of type zvol must have it"
		case m.Type != "zvol" && there:
			return name, "is for images of type zvol only"
		}
	}
	return "", ""
}

// CheckHead holds the first bytes of m's only file against what m says of the file: its
// compression, and for types whose file must be a ZFS stream, the stream (the error matches
// verify.ErrNoStream). See verify.Head.CheckStream for what passes.
func (m Manifest) CheckHead(h verify.Head) error {
	if m.HoldsStream() {
		if err := h.CheckStream(); err != nil {
			return fmt.Errorf("%w: type %s needs one, as it is or compressed by gzip, bzip2 or xz", err, m.Type)
		}
	}
	if says, is := m.Files[0].Compression, h.Compression(); says != is {
		return fmt.Errorf("compression is %s by the file's first bytes, the manifest says %s", is, says)
	}
	return nil
}
