package manifest

import (
	"bytes"
	"encoding/json"
)

// Envelope gives the JSON of frame, a struct that tells nothing of the key "manifest", with that key added, and a newline.
// raw is in there byte for byte, which json.Marshal would not keep.
func Envelope(frame any, raw []byte) ([]byte, error) {
	text, err := json.Marshal(frame)
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSuffix(text, []byte("}"))
	if len(text) > 1 {
		text = append(text, ',')
	}
	return append(append(append(text, `"manifest":`...), raw...), "}\n"...), nil
}
