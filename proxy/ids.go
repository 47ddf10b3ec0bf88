package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// idsAtOnce is how many ids of requests are made in one piece of memory.
const idsAtOnce = 16

// idLength is the length of a UUID as text.
const idLength = 36

// ids are fresh ids for the requests of a connection: random UUIDs, version 4. The next sixteen are one
// text, so that a request costs no allocation of its own. An id is no secret.
type ids struct{ rest string }

func (i *ids) next() string {
	if i.rest == "" {
		b := make([]byte, 0, idsAtOnce*idLength)
		for range idsAtOnce {
			b = appendID(b)
		}
		i.rest = string(b)
	}
	id := i.rest[:idLength]
	i.rest = i.rest[idLength:]
	return id
}

// appendID appends a random UUID.
func appendID(b []byte) []byte {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	b = append(hex.AppendEncode(b, id[:4]), '-')
	b = append(hex.AppendEncode(b, id[4:6]), '-')
	b = append(hex.AppendEncode(b, id[6:8]), '-')
	b = append(hex.AppendEncode(b, id[8:10]), '-')
	return hex.AppendEncode(b, id[10:])
}
