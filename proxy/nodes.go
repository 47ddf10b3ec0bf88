package proxy

import (
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"imgmirror/proxy/nodes"
)

// Journal takes down what clients have asked for; *nodes.Journal is one. Note must not wait.
type Journal interface {
	Note(r nodes.Request)
}

// kindOf is what a request for rt asks for; false: nothing that a node asks for. Checks of health
// and the page are for others.
func kindOf(rt *route) (kind nodes.Kind, known bool) {
	switch rt {
	case routeFile, routeDatasetFile, routeStaticFile:
		return nodes.File, true
	case routeImage, routeDataset:
		return nodes.Manifest, true
	case routeImages, routeDatasets, routeIndex:
		return nodes.List, true
	case routePing, routeIcon, routeChannels, routePaths, routeState:
		return nodes.Other, true
	}
	return 0, false
}

// note hands a request to the journal. The address is the one of the connection: headers of a proxy
// in front, which any client can send, count nothing. took is the time to the end of the body, err
// the cause of the body's early end.
func (s *Server) note(r *record, sent int64, took time.Duration, err error) {
	kind, known := kindOf(r.route)
	tcp, ok := r.remote.(*net.TCPAddr)
	if s.opts.Nodes == nil || !known || !ok || r.status == fasthttp.StatusFound { // to the page
		return
	}
	n := nodes.Request{
		Address: tcp.AddrPort().Addr().Unmap().WithZone(""),
		Agent:   r.agent,
		Ended:   r.start.Add(took),
		Took:    took,
		Kind:    kind,
		Failed:  err != nil || r.status >= fasthttp.StatusInternalServerError,
	}
	if kind == nodes.File && r.cache != "" && r.method == fasthttp.MethodGet && r.size > 0 {
		n.Result, n.Sent = r.cache, sent
		n.Image, n.Start, n.Size = r.image, r.first, r.size
	} else if kind == nodes.File {
		n.Kind = nodes.Other // no file was sent
	}
	s.opts.Nodes.Note(n)
}
