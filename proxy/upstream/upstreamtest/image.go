package upstreamtest

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// image is one image as it is served.
type image struct {
	id       string
	doc      []byte // the manifest as it was given
	state    string
	disabled bool
	channels []string
	paths    []string // files[i].path
	files    [][]byte
	icon     []byte
	iconType string
	added    time.Time
}

func (m *image) listed() bool {
	return (m.state == "" || m.state == "active") && !m.disabled
}

// path is the name of file i in the URLs of DSAPI and static servers.
func (m *image) path(i int) string {
	if i < len(m.paths) && m.paths[i] != "" {
		return m.paths[i]
	}
	if i == 0 {
		return "file"
	}
	return "file" + strconv.Itoa(i)
}

// served is the manifest with every url "-automatic-" replaced, as smartos-image-server does it.
func (m *image) served(host string) []byte {
	doc := m.doc
	for i := range m.files {
		url, _ := json.Marshal("http://" + host + "/datasets/" + m.id + "/" + m.path(i))
		doc = bytes.Replace(doc, []byte(`"-automatic-"`), url, 1)
	}
	return doc
}

// Add serves an image: its manifest, v1 or v2, and its files in their order. An image with the same
// uuid is replaced. The manifest is served byte for byte, but for a url "-automatic-". Only active
// images are listed; all are served by uuid. data is kept, not copied.
func (s *Server) Add(manifest []byte, files ...[]byte) error {
	var view struct {
		UUID     string
		State    string
		Disabled bool
		Channels []string
		Files    []struct{ Path string }
	}
	if err := json.Unmarshal(manifest, &view); err != nil {
		return fmt.Errorf("upstreamtest: manifest: %w", err)
	}
	if view.UUID == "" {
		return fmt.Errorf("upstreamtest: manifest without a uuid")
	}
	m := &image{
		id: view.UUID, doc: manifest, state: view.State, disabled: view.Disabled, channels: view.Channels,
		files: files, added: time.Now().Truncate(time.Second),
	}
	for _, f := range view.Files {
		m.paths = append(m.paths, f.Path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.at(m.id); i >= 0 {
		m.icon, m.iconType = s.images[i].icon, s.images[i].iconType
		s.images[i] = m
		return nil
	}
	s.images = append(s.images, m)
	return nil
}

// at is where an image is among those served, -1 for none; mu is held.
func (s *Server) at(id string) int {
	return slices.IndexFunc(s.images, func(m *image) bool { return m.id == id })
}

// SetIcon gives an image that was added an icon. The manifest is not changed by it.
func (s *Server) SetIcon(id uuid.UUID, data []byte) {
	s.change(id, func(m *image) { m.icon, m.iconType = data, http.DetectContentType(data) })
}

// Unlist leaves an image out of the list; it is still served by uuid.
func (s *Server) Unlist(id uuid.UUID) {
	s.change(id, func(m *image) { m.state = "unlisted" })
}

// change replaces an image by a changed copy.
func (s *Server) change(id uuid.UUID, how func(*image)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.at(id.String()); i >= 0 {
		m := *s.images[i]
		how(&m)
		s.images[i] = &m
	}
}

// Remove stops serving an image.
func (s *Server) Remove(id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = slices.DeleteFunc(s.images, func(m *image) bool { return m.id == id.String() })
}

// Manifest makes the v2 manifest of an active, public image with the given files, of
// compression "none". extra replaces or adds fields; a nil value removes one.
func Manifest(id uuid.UUID, name, version string, extra map[string]any, files ...[]byte) []byte {
	doc := map[string]any{
		"v": 2, "uuid": id, "owner": "00000000-0000-0000-0000-000000000000",
		"name": name, "version": version, "state": "active", "disabled": false, "public": true,
		"published_at": "2026-01-02T03:04:05Z", "type": "zone-dataset", "os": "smartos",
		"files": describe(files, func(i int, f map[string]any) { f["compression"] = "none" }),
	}
	return marshal(doc, extra)
}

// ManifestV1 makes a v1 manifest; the path of file i is NAME-VERSION.zfs, or NAME-VERSION-I.zfs.
// Its url is absent. extra as with Manifest.
func ManifestV1(id uuid.UUID, name, version string, extra map[string]any, files ...[]byte) []byte {
	doc := map[string]any{
		"uuid": id, "creator_uuid": "352971aa-31ba-496c-9ade-a379feaecd52", "creator_name": "sdc", "cloud_name": "sdc",
		"urn":  "sdc:sdc:" + name + ":" + version,
		"name": name, "version": version, "description": name, "platform_type": "smartos",
		"published_at": "2012-08-31T16:04:51.970Z", "type": "zone-dataset", "os": "smartos",
		"files": describe(files, func(i int, f map[string]any) {
			f["path"] = name + "-" + version + ".zfs"
			if i > 0 {
				f["path"] = fmt.Sprintf("%s-%s-%d.zfs", name, version, i)
			}
		}),
	}
	return marshal(doc, extra)
}

func describe(files [][]byte, more func(int, map[string]any)) []map[string]any {
	all := make([]map[string]any, len(files))
	for i, data := range files {
		sum := sha1.Sum(data)
		all[i] = map[string]any{"sha1": hex.EncodeToString(sum[:]), "size": len(data)}
		more(i, all[i])
	}
	return all
}

func marshal(doc, extra map[string]any) []byte {
	maps.Copy(doc, extra)
	maps.DeleteFunc(doc, func(_ string, v any) bool { return v == nil })
	text, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("upstreamtest: extra fields of a manifest: %v", err))
	}
	return text
}

// ID gives the n-th of a fixed sequence of uuids.
func ID(n int) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint32(id[:], uint32(n))
	id[6], id[8] = 0x40, 0x80
	id[15] = byte(n)
	return id
}

// Bytes gives n pseudo-random bytes, the same for the same seed.
func Bytes(seed uint64, n int) []byte {
	source := rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24), seed)))
	data := make([]byte, n)
	source.Read(data)
	return data
}
