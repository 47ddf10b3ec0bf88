package proxy

import (
	_ "embed"
	"net/url"
	"strings"
)

// nodeScript makes a SmartOS node a client of the mirror whose URL takes the place of scriptMirror.
//
//go:embed node.sh
var nodeScript string

// scriptMirror stands in nodeScript between single quotes.
const scriptMirror = "@MIRROR@"

var (
	typeScript   = []byte("text/plain; charset=utf-8")
	valueNoCache = []byte("no-cache")
)

// sendScript answers GET /node.sh. Root runs the script: a Host header that is no name and no address
// is refused.
func (s *Server) sendScript(req *request) error {
	if s.opts.PublicURL == "" && !saneHost(string(req.ctx.Request.Header.Host())) {
		return badRequest("the Host header is neither a name nor an address")
	}
	req.setKey(hdrContentType, typeScript)
	req.setKey(hdrTypeOptions, valueNosniff)
	req.setKey(hdrCacheControl, valueNoCache)
	req.ctx.Response.SetBodyString(scriptFor(s.selfURL(req)))
	return nil
}

// scriptFor is the script with the mirror's URL, without the URL's user and password. The URL stands
// between single quotes, and in the method of the service between double quotes.
func scriptFor(mirror string) string {
	if u, err := url.Parse(mirror); err == nil {
		u.User = nil
		mirror = u.String()
	}
	return strings.ReplaceAll(nodeScript, scriptMirror, shellSafe.Replace(mirror))
}

// shellSafe encodes what means something to a shell between quotes.
var shellSafe = strings.NewReplacer("'", "%27", "$", "%24", "`", "%60", `"`, "%22", `\`, "%5C")
