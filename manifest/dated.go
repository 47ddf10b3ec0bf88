package manifest

import "time"

// Undated tells that the source gave the image no date, though it is activated: Published is the one of
// ParseOptions.Date or WithDate, or zero. It is known of a manifest just parsed from what its source sent.
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

// Activated is m for those who publish it now: an image that is not activated yet is active, and one without a
// date has the date now. Raw is changed with it.
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

// dateText is t as published_at, to the second; ok is false for what is no date of an image.
func dateText(t time.Time) (text string, ok bool) {
	if t.Unix() <= 0 || t.UTC().Year() > 9999 {
		return "", false
	}
	return t.UTC().Format("2006-01-02T15:04:05Z"), true
}

// setMembers gives the object text these members: in the place of those of the same name, else after all others.
func setMembers(text []byte, set map[string]string) []byte {
	var edits []edit
	o := objectEditor{edits: &edits, text: text, ms: members(nil, text, 0)}
	done := make(map[string]bool, len(set))
	for i, mb := range o.ms {
		name := string(mb.name)
		if value, ok := set[name]; ok {
			o.set(i, value)
			done[name] = true
		} else {
			o.keep(i)
		}
	}
	for _, name := range []string{"state", "activated", "published_at"} {
		if value, ok := set[name]; ok && !done[name] {
			o.add(quote(name) + ":" + value)
		}
	}
	return apply(text, edits)
}
