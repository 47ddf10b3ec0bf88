package manifest

import "time"

// Undated tells that the image is activated and the source gave no date: Published is the date of
// ParseOptions.Date or WithDate, or zero. Only a manifest that has just been parsed from its
// source's text knows this.
func (m Manifest) Undated() bool { return m.undated }

// WithDate is m, which is Undated, as if ParseOptions.Date had been t.
func (m Manifest) WithDate(t time.Time) Manifest {
	date, ok := dateText(t)
	if !m.undated || !ok {
		return m
	}
	dated, err := Parse(setMembers(m.raw, map[string]string{"published_at": quote(date)}), ParseOptions{ServePrivate: m.private})
	if err != nil {
		return m
	}
	dated.undated, dated.Channels = true, m.Channels
	return dated
}

// Activated is m as published now: an unactivated image becomes active, and an image without a date
// gets today's. Raw changes as well.
func (m Manifest) Activated(now time.Time) (Manifest, error) {
	set := make(map[string]string)
	if m.State == stateUnactivated {
		set["state"], set["activated"] = quote(stateActive), "true"
		if m.Disabled {
			set["state"] = quote(stateDisabled)
		}
	}
	if date, ok := dateText(now); ok && (m.undated || m.Published.IsZero()) {
		set["published_at"] = quote(date)
	}
	if len(set) == 0 {
		return m, nil
	}
	return Parse(setMembers(m.raw, set), ParseOptions{ServePrivate: m.private})
}

// dateText is t as published_at, to the second; ok is false for a time that no image can have.
func dateText(t time.Time) (text string, ok bool) {
	if t.Unix() <= 0 || t.UTC().Year() > 9999 {
		return "", false
	}
	return t.UTC().Format(v2Seconds), true
}

// setMembers gives the object text the members of set: each in the place of the member of the same
// name, else behind all others. set is empty afterwards, but for these others.
func setMembers(text []byte, set map[string]string) []byte {
	var edits []edit
	o := objectEditor{edits: &edits, text: text, ms: members(nil, text, 0)}
	for i, mb := range o.ms {
		if value, ok := set[string(mb.name)]; ok {
			o.set(i, value)
			delete(set, string(mb.name))
		}
	}
	for _, name := range []string{"state", "activated", "published_at", "files"} {
		if value, ok := set[name]; ok {
			o.add(quote(name) + ":" + value)
		}
	}
	return apply(text, edits)
}
