package accesslog

import (
	"net"
	"time"
)

// The texts of an Entry, in the order in which they wait.
const (
	textMethod = iota
	textPath
	textCache
	textRemote
	textID
	textAgent
	textErr
	kindsOfText
)

// facts are an Entry but for the texts, without pointers.
type facts struct {
	end      instant
	duration time.Duration
	bytes    int64
	received int64
	status   int
	failed   bool // there is a textErr
	isTCP    bool // ip and port are the address, not textRemote
	ip       [16]byte
	port     uint16
	lengths  [kindsOfText]int
}

// instant is a time without a pointer, to be told in the local zone.
type instant struct {
	sec  int64 // since 1970
	nano int32
}

// take takes the facts of e. texts are the texts that belong to them, and length is the length of all texts.
func (f *facts) take(e *Entry) (texts [kindsOfText]string, length int) {
	*f = facts{
		end:      instant{sec: e.End.Unix(), nano: int32(e.End.Nanosecond())}, //nolint:gosec // below a billion
		duration: e.Duration, bytes: e.Bytes, received: e.Received, status: e.Status, failed: e.Err != nil,
	}
	texts = [kindsOfText]string{textMethod: e.Method, textPath: e.Path, textCache: e.Cache, textID: e.RequestID, textAgent: e.UserAgent}
	if tcp, ok := e.Remote.(*net.TCPAddr); ok && tcp.Zone == "" {
		f.isTCP = copy(f.ip[:], tcp.IP.To16()) > 0
		f.port = uint16(tcp.Port) //nolint:gosec // ports are no larger
	}
	if !f.isTCP {
		texts[textRemote] = e.Remote.String()
	}
	if f.failed {
		texts[textErr] = e.Err.Error()
	}
	for kind, text := range texts {
		f.lengths[kind] = len(text)
		length += len(text)
	}
	return texts, length
}

// appendTexts appends texts as format.append takes them.
func appendTexts(b []byte, texts *[kindsOfText]string) []byte {
	for _, text := range texts {
		b = append(b, text...)
	}
	return b
}
