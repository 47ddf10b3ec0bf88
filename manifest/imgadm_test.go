package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

var (
	reUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	reSHA1 = regexp.MustCompile(`^[0-9a-f]{40}$`)
	reTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$`)
)

// imgadmAccepts looks at an IMGAPI manifest as imgadm does when it lists, shows and imports it, and
// complains of what would make it crash or refuse. complete tells whether sha1 and size must be there.
func imgadmAccepts(v2 []byte, complete bool) error {
	var m map[string]any
	if err := json.Unmarshal(v2, &m); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if v, _ := m["v"].(float64); v < 2 {
		s, _ := m["v"].(string)
		if v, _ := strconv.ParseFloat(s, 64); v < 2 {
			return fmt.Errorf("v = %v", m["v"])
		}
	}
	for _, key := range []string{"uuid", "name", "version", "type", "os", "state"} {
		if s, _ := m[key].(string); s == "" {
			return fmt.Errorf("%s = %#v", key, m[key])
		}
	}
	if !reUUID.MatchString(m["uuid"].(string)) {
		return fmt.Errorf("uuid = %q", m["uuid"])
	}
	switch m["state"] {
	case "active", "disabled", "unactivated", "creating", "failed":
	default:
		return fmt.Errorf("state = %q", m["state"])
	}
	published, dated := m["published_at"]
	if s, _ := published.(string); dated && !reTime.MatchString(s) {
		return fmt.Errorf("published_at = %#v", published)
	}
	if !dated && m["state"] == "active" {
		return fmt.Errorf("active without published_at")
	}
	if tags, _ := m["tags"].(map[string]any); m["type"] == "docker" && tags == nil {
		return fmt.Errorf("docker without tags")
	}
	for _, key := range []string{"activated", "channels", "billing_tags", "traits"} {
		if _, leaks := m[key]; leaks {
			return fmt.Errorf("%s is shown", key)
		}
	}
	if icon, has := m["icon"]; has {
		if _, ok := icon.(map[string]any); ok {
			return fmt.Errorf("icon = %v", icon)
		}
	}
	files, has := m["files"]
	if !has {
		return nil
	}
	list, ok := files.([]any)
	if !ok {
		return fmt.Errorf("files = %v", files)
	}
	for i, f := range list {
		file, ok := f.(map[string]any)
		if !ok {
			return fmt.Errorf("files[%d] = %v", i, f)
		}
		for _, key := range []string{"stor", "contentMD5", "mtime", "md5", "path", "url"} {
			if _, leaks := file[key]; leaks {
				return fmt.Errorf("files[%d].%s is shown", i, key)
			}
		}
		switch compression, has := file["compression"]; compression {
		case "gzip", "bzip2", "xz", "none":
		default:
			if s, ok := compression.(string); complete || has && (!ok || s == "") {
				return fmt.Errorf("files[%d].compression = %#v", i, compression)
			}
		}
		if sha1, has := file["sha1"]; has || complete {
			if s, _ := sha1.(string); !reSHA1.MatchString(s) {
				return fmt.Errorf("files[%d].sha1 = %#v", i, sha1)
			}
		}
		if size, has := file["size"]; has || complete {
			if n, _ := size.(float64); n <= 0 || n != math.Trunc(n) {
				return fmt.Errorf("files[%d].size = %#v", i, size)
			}
		}
	}
	return nil
}

// dsapiAccepts looks at a DSAPI manifest as imgadm's upgrader does (spec 1.4, reference column).
func dsapiAccepts(v1 []byte, base string) error {
	var m map[string]any
	if err := json.Unmarshal(v1, &m); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	for _, key := range []string{
		"v", "state", "disabled", "public", "owner", "acl", "billing_tags", "traits", "channels", "icon", "eula", "error",
	} {
		if _, has := m[key]; has {
			return fmt.Errorf("%s is there", key)
		}
	}
	for _, key := range []string{
		"uuid", "name", "version", "type", "os", "creator_uuid", "vendor_uuid", "creator_name", "cloud_name", "urn",
		"platform_type", "published_at", "created_at", "updated_at",
	} {
		if s, _ := m[key].(string); s == "" {
			return fmt.Errorf("%s = %#v", key, m[key])
		}
	}
	if m["published_at"] != m["created_at"] || m["published_at"] != m["updated_at"] || !reTime.MatchString(m["published_at"].(string)) {
		return fmt.Errorf("dates %v %v %v", m["published_at"], m["created_at"], m["updated_at"])
	}
	if size, has := m["image_size"]; has && m["type"] == "zvol" {
		if s, _ := size.(string); s == "" {
			return fmt.Errorf("image_size = %#v", size)
		}
	}
	files, _ := m["files"].([]any)
	if len(files) == 0 {
		return fmt.Errorf("no files")
	}
	for i, f := range files {
		file := f.(map[string]any)
		path, _ := file["path"].(string)
		url, _ := file["url"].(string)
		if path == "" || strings.Contains(path, "/") || !strings.HasPrefix(url, base+"/datasets/"+m["uuid"].(string)+"/") {
			return fmt.Errorf("files[%d]: path %q url %q", i, path, url)
		}
	}
	return nil
}
