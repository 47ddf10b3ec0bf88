package bundle

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"imgmirror/manifest"
)

// webList makes the list of manifests that lets a plain web server be a source
// (spec 4.1): what IMGAPI clients would get, each file with its path in the folder of its image.
type webList struct{ b []byte }

func (l *webList) add(m manifest.Manifest, files []File) error {
	text, err := withPaths(m.V2(), files)
	if err != nil {
		return fmt.Errorf("manifest of image %s: %w", m.UUID, err)
	}
	if len(l.b) == 0 {
		l.b = append(l.b, "[\n"...)
	} else {
		l.b = append(l.b, ",\n"...)
	}
	l.b = append(l.b, text...)
	return nil
}

func (l *webList) bytes() []byte {
	if len(l.b) == 0 {
		return []byte("[]\n")
	}
	return append(l.b, "\n]\n"...)
}

// withPaths puts "path" into each of a v2 manifest's files, and leaves the rest as
// it is. A browser that takes the list for HTML finds no tags in it.
func withPaths(v2 []byte, files []File) ([]byte, error) {
	d := jsontext.NewDecoder(bytes.NewReader(v2), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	out := []byte{'{'}
	for d.PeekKind() != '}' {
		key, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(out, key...), ':')
		isFiles := string(key) == `"files"`
		value, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		if !isFiles {
			out = append(out, value...)
			continue
		}
		if out, err = appendFiles(out, value, files); err != nil {
			return nil, err
		}
	}
	var escaped bytes.Buffer
	stdjson.HTMLEscape(&escaped, append(out, '}'))
	return escaped.Bytes(), nil
}

func appendFiles(out []byte, list jsontext.Value, files []File) ([]byte, error) {
	var elements []jsontext.Value
	if err := json.Unmarshal(list, &elements, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, err
	}
	if len(elements) != len(files) {
		return nil, fmt.Errorf("%d files, want %d", len(elements), len(files))
	}
	for i, e := range elements {
		_, name := splitName(files[i].Path)
		out = append(out, "[,"[min(i, 1)])
		out = append(out, `{"path":"`+name+`",`...)
		out = append(out, bytes.TrimSpace(e)[1:]...)
	}
	return append(out, ']'), nil
}
