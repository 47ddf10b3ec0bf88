package proxy

import (
	"bytes"
	"strconv"

	"imgmirror/proxy/catalog"
)

// encodingNames are the names of the encodings in headers.
var encodingNames = [...][]byte{catalog.Identity: []byte("identity"), catalog.Gzip: []byte("gzip"), catalog.Zstd: []byte("zstd")}

// setEncoding sends the encoding of the body.
func (req *request) setEncoding(e catalog.Encoding) {
	if e != catalog.Identity {
		req.setKey(hdrEncoding, encodingNames[e])
	}
}

// acceptedEncoding reads an Accept-Encoding header (RFC 9110, 12.5.3): the encoding with the greatest weight
// among those that the header names. Of equal ones zstd comes before gzip, and both before no encoding:
// they are smaller. "*" names nothing: a client that can read an encoding says which one.
func acceptedEncoding(header []byte) catalog.Encoding {
	best, most := catalog.Identity, 0
	for len(header) > 0 {
		var coding []byte
		coding, header = cutByte(header, ',')
		name, params := cutByte(coding, ';')
		name = bytes.TrimSpace(name)
		for e, is := range encodingNames {
			if !bytes.EqualFold(name, is) {
				continue
			}
			if w := weightOf(params); w > most || w == most && w > 0 && catalog.Encoding(e) > best {
				best, most = catalog.Encoding(e), w
			}
		}
	}
	return best
}

// weightOf is the weight in the parameters of a coding, in thousandths; no weight, and text that is none, give
// 1000.
func weightOf(params []byte) int {
	for len(params) > 0 {
		var param []byte
		param, params = cutByte(params, ';')
		key, value := cutByte(param, '=')
		if key = bytes.TrimSpace(key); len(key) == 1 && (key[0]|0x20) == 'q' {
			q, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 32)
			if err == nil && q >= 0 && q < 1 {
				return int(q*1000 + 0.5)
			}
			return 1000
		}
	}
	return 1000
}
