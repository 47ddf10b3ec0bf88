package manifest

import (
	"slices"
	"strings"
)

// AllChannels is the channel parameter that asks for the images of every channel.
const AllChannels = "*"

// InChannel tells whether the image is in the channel name, or, for AllChannels, in any.
func (m Manifest) InChannel(name string) bool {
	if name == AllChannels {
		return len(m.Channels) > 0
	}
	return slices.Contains(m.Channels, name)
}

// WithChannels is m with other Channels, which must not be modified afterwards. V2 and Raw do not
// change.
func (m Manifest) WithChannels(channels []string) Manifest {
	m.Channels = channels
	return m
}

// V2Channels is V2 with the image's Channels as its last member, for clients of version 2 of the
// API at a server with channels (spec 2.2). Without Channels the result is V2 itself, else each
// call makes a new text.
func (m Manifest) V2Channels() []byte {
	if len(m.Channels) == 0 || len(m.v2) == 0 {
		return m.v2
	}
	return m.appendV2(make([]byte, 0, len(m.v2)+channelsRoom(m.Channels)), m.Channels)
}

// channelsRoom is the number of bytes that the member channels takes, or slightly above.
func channelsRoom(channels []string) int {
	if len(channels) == 0 {
		return 0
	}
	n := len(`,"channels":[]`)
	for _, c := range channels {
		n += len(c) + len(`"",`)
	}
	return n
}

// appendV2 appends V2 with the member channels, unless there are none.
func (m *Manifest) appendV2(b []byte, channels []string) []byte {
	if len(channels) == 0 || len(m.v2) == 0 {
		return append(b, m.v2...)
	}
	// V2 is an object with members, and nothing follows its brace.
	end := len(m.v2) - 1
	for strings.IndexByte(" \t\r\n", m.v2[end-1]) >= 0 {
		end--
	}
	b = append(b, m.v2[:end]...)
	b = append(b, `,"channels":[`...)
	for i, c := range channels {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, quote(c)...)
	}
	b = append(b, ']')
	return append(b, m.v2[end:]...)
}

// BuildList joins the V2 forms into the JSON array that GET /images answers with.
func BuildList(images []Manifest) []byte {
	return buildList(images, func(*Manifest) []string { return nil })
}

// BuildChannelsList is BuildList of the V2Channels forms.
func BuildChannelsList(images []Manifest) []byte {
	return buildList(images, func(m *Manifest) []string { return m.Channels })
}

func buildList(images []Manifest, channels func(*Manifest) []string) []byte {
	n := len("[]")
	for i := range images {
		n += len(images[i].v2) + channelsRoom(channels(&images[i])) + len(",\n")
	}
	b := append(make([]byte, 0, n), '[')
	for i := range images {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = images[i].appendV2(b, channels(&images[i]))
	}
	return append(b, ']')
}
