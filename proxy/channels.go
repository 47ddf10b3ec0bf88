package proxy

import (
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// hasChannels tells whether the mirror offers channels; without, it is as if
// nothing of spec 2.9 existed.
func (s *Server) hasChannels() bool { return len(s.catalog.Current().Channels()) > 0 }

// listChannels answers GET /channels (spec 2.9).
func (s *Server) listChannels(req *request) error {
	return s.document(req, encode(s.catalog.Current().Channels()))
}

// channelOf gives the channel that a query asks for: the one it names, else the
// default one, and the view that it shows. Without channels that is the whole
// list, whatever the query says (spec A38).
func channelOf(list *catalog.List, params [][2]string) (*catalog.View, string, error) {
	channel := list.DefaultChannel()
	if asked := namedChannel(list, params); asked != "" {
		channel = asked
	}
	if view, ok := list.View(channel); ok {
		return view, channel, nil
	}
	message, code := "there is no such channel", "Invalid"
	if channel == "" {
		message, code = "no channel was named, and none is the default", "MissingParameter"
	}
	return nil, "", &apiError{
		status: 422, code: codeValidationFailed, message: message,
		fields: []fieldError{{Field: "channel", Code: code}},
	}
}

// namedChannel is the channel that a query names, known or not; "" for none, and without channels.
func namedChannel(list *catalog.List, params [][2]string) string {
	if len(list.Channels()) == 0 {
		return ""
	}
	channel, _ := param(params, "channel")
	return channel
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
