package proxy

import (
	"imgmirror/manifest"
	"imgmirror/proxy/catalog"
)

// hasChannels tells whether the mirror offers channels. A mirror without channels serves nothing
// of spec 2.9.
func (s *Server) hasChannels() bool { return len(s.catalog.Current().Channels()) > 0 }

// listChannels answers GET /channels (spec 2.9).
func (s *Server) listChannels(req *request) error {
	return s.document(req, 0, func() []byte { return encode(s.catalog.Current().Channels()) })
}

// channelOf gives the channel that a query names, else the default channel, and the channel's view.
// A list without channels gives the view of the whole list for every query (spec A38). The error is
// ready for the client.
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

// namedChannel is the channel that a query names, known or unknown; "" for none or channels off.
func namedChannel(list *catalog.List, params [][2]string) string {
	if len(list.Channels()) == 0 {
		return ""
	}
	channel, _ := param(params, "channel")
	return channel
}

// v2 is the manifest that the client gets: with channels when req.named says so.
func (req *request) v2(m manifest.Manifest) []byte {
	if req.named {
		return m.V2Channels()
	}
	return m.V2()
}

// varies sets Vary for a manifest or list that depends on the request headers in value (nil =
// none). A mirror with channels adds Accept-Version, which decides whether the channels are sent.
func (s *Server) varies(req *request, value []byte) { req.varies(value, s.hasChannels()) }

// varies is Server.varies of a mirror with or without channels.
func (req *request) varies(value []byte, channels bool) {
	switch {
	case !channels:
	case value == nil:
		value = valueVersion
	default:
		value = valueEncodingVersion
	}
	if value != nil {
		req.setKey(hdrVary, value)
	}
}
