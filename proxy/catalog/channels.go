package catalog

import (
	"slices"

	"github.com/google/uuid"

	"imgmirror/manifest"
)

// Channel is one channel that the mirror offers (spec 2.9), in the form of GET /channels.
type Channel struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Default     bool   `json:"default,omitempty"` // what clients get that ask for none; of one channel at most
}

// channels are the mirror's channels. Without any, channels are off and every image is for
// everyone.
type channels []Channel

func (cs channels) on() bool { return len(cs) > 0 }

func (cs channels) has(name string) bool {
	return slices.ContainsFunc(cs, func(c Channel) bool { return c.Name == name })
}

// place gives m its channels in the mirror: those of its own that the mirror has, or as when m has
// none. An image without a channel is shown to no client. m must be as the source gave it.
func (cs channels) place(m manifest.Manifest, as []string) manifest.Manifest {
	own := m.Channels
	if len(own) == 0 {
		own = as
	}
	unknown := func(name string) bool { return !cs.has(name) }
	if slices.ContainsFunc(own, unknown) {
		own = slices.DeleteFunc(slices.Clone(own), unknown)
	}
	return m.WithChannels(own)
}

// placeAll is place for a list; the result is images itself while there are no channels.
func (cs channels) placeAll(images []manifest.Manifest, as []string) []manifest.Manifest {
	if !cs.on() {
		return images
	}
	return replaced(images, func(m *manifest.Manifest) (manifest.Manifest, bool) { return cs.place(*m, as), true })
}

// outside tells that m, as s gave it, is not in the channel that s is asked for. Such an image is
// there for the images that are built on it (spec 7, G8).
func (s *source) outside(m manifest.Manifest) bool {
	return s.Channel != "" && len(m.Channels) > 0 && !m.InChannel(s.Channel)
}

// Channels are the channels that clients may ask for; none when channels are off. Must not be
// modified.
func (l *List) Channels() []Channel { return l.channels }

// DefaultChannel is the channel of clients that name none: "" when a client has to name one,
// manifest.AllChannels when channels are off.
func (l *List) DefaultChannel() string {
	if !l.channels.on() {
		return manifest.AllChannels
	}
	for _, c := range l.channels {
		if c.Default {
			return c.Name
		}
	}
	return ""
}

// View is the part of the list that a channel shows: one of Channels, or manifest.AllChannels for
// the whole. The result is false for any other channel. While channels are off, the whole is the
// only view.
func (l *List) View(channel string) (*View, bool) {
	view, ok := l.views[channel]
	if !ok {
		return nil, false
	}
	return view(), true
}

// Reaches tells whether clients that ask for m in channel (see View) may have m: m is in the
// channel, or an image in the channel is built on m (spec 7, G8). While channels are off, all
// images may be had.
func (l *List) Reaches(channel string, m manifest.Manifest) bool {
	if !l.channels.on() || m.InChannel(channel) {
		return true
	}
	inherited := l.inherited()[m.UUID]
	return len(inherited) > 0 && (channel == manifest.AllChannels || slices.Contains(inherited, channel))
}

// inherit gives the channels that an image has from images built on it, and not by itself.
func (l *List) inherit() map[uuid.UUID][]string {
	out := make(map[uuid.UUID][]string)
	for r := range l.all {
		// Upwards until an ancestor has them all: then so have its own. That ends in a circle, too.
		news := len(r.manifest.Channels) > 0
		for id := r.manifest.Origin; news && id != uuid.Nil; {
			parent, stored := l.record(id)
			var own []string
			if stored {
				own = parent.manifest.Channels
			}
			news = false
			for _, c := range r.manifest.Channels {
				if !slices.Contains(own, c) && !slices.Contains(out[id], c) {
					out[id] = append(out[id], c)
					news = true
				}
			}
			if !stored {
				break
			}
			id = parent.manifest.Origin
		}
	}
	return out
}
