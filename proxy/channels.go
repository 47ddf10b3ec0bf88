package proxy

import (
	"bytes"
	"encoding/json"

	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// hasChannels tells whether the mirror offers channels; without, it is as if
// nothing of spec 2.9 existed.
func (s *Server) hasChannels() bool { return len(s.catalog.Current().Channels()) > 0 }

// listChannels answers GET /channels (spec 2.9).
func (s *Server) listChannels(req *request) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s.catalog.Current().Channels()); err != nil {
		return err
	}
	body := bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
	etag := tagOf(body)
	if done, err := req.condition(validators{etag: etag}); done {
		return err
	}
	s.json(req, body, etag)
	return nil
}

// channelOf gives the channel that a query asks for: the one it names, else the
// default one, and the view that it shows. Without channels that is the whole
// list, whatever the query says (spec A38).
func channelOf(list *catalog.List, params [][2]string) (*catalog.View, string, error) {
	channel := list.DefaultChannel()
	if asked := namedChannel(list, params); asked != "" {
		channel = asked
	}
	if channel == "" {
		return nil, "", &apiError{
			status: 422, code: codeValidationFailed, message: "no channel was named, and none is the default",
			fields: []fieldError{{Field: "channel", Code: "MissingParameter"}},
		}
	}
	view, ok := list.View(channel)
	if !ok {
		return nil, "", &apiError{
			status: 422, code: codeValidationFailed, message: "there is no such channel",
			fields: []fieldError{{Field: "channel", Code: "Invalid"}},
		}
	}
	return view, channel, nil
}

// namedChannel is the channel that a query names, known or not; "" for none, and
// without channels.
func namedChannel(list *catalog.List, params [][2]string) string {
	if len(list.Channels()) == 0 {
		return ""
	}
	channel, _ := param(params, "channel")
	return channel
}

// reach refuses an image that is not in the channel asked for (spec 2.5).
func (s *Server) reach(e catalog.Entry, channel string) error {
	if !s.catalog.Current().Reaches(channel, e.Manifest) {
		return notFound("image not found")
	}
	return nil
}

// v2 is the image as the client is told of it.
func (req *request) v2(m manifest.Manifest) []byte {
	if req.named {
		return m.V2Channels()
	}
	return m.V2()
}

// varies names the request headers that a manifest or list depends on, besides
// those given: who is told the channels depends on the API's version.
func (s *Server) varies(req *request, value []byte) {
	switch {
	case !s.hasChannels():
	case value == nil:
		value = valueVersion
	default:
		value = valueEncodingVersion
	}
	if value != nil {
		req.setKey(hdrVary, value)
	}
}
