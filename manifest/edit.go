package manifest

import "github.com/go-json-experiment/json/jsontext"

// edit replaces text[start:end].
type edit struct {
	start, end int
	text       string
}

// apply makes the edits, which are in order and do not overlap. Without any,
// the result is text itself, not a copy.
func apply(text []byte, edits []edit) []byte {
	if len(edits) == 0 {
		return text
	}
	n := len(text)
	for _, e := range edits {
		n += len(e.text) - (e.end - e.start)
	}
	out := make([]byte, 0, n)
	at := 0
	for _, e := range edits {
		out = append(out, text[at:e.start]...)
		out = append(out, e.text...)
		at = e.end
	}
	return append(out, text[at:]...)
}

// objectEditor collects the edits that change one object, and nothing else of the text around the
// object. set, replace and drop are called in the order of the members, once for a member at most;
// the other members stay. The calls of add follow.
type objectEditor struct {
	edits *[]edit
	text  []byte
	at    int // of the object's brace
	ms    []member
	gone  int // members dropped before the first that stays; -1 after add
}

// value is the text of member i's value.
func (o *objectEditor) value(i int) jsontext.Value { return o.text[o.ms[i].start:o.ms[i].end] }

// lead is the white space that the source puts before a member.
func (o *objectEditor) lead() string {
	if len(o.ms) == 0 {
		return ""
	}
	return string(o.text[o.at+1 : o.ms[0].key])
}

// first puts a member before all others; call it before anything else.
func (o *objectEditor) first(member string) {
	at := o.at + 1
	if len(o.ms) > 0 {
		at = o.ms[0].key
	}
	*o.edits = append(*o.edits, edit{at, at, member + "," + o.lead()})
}

// set gives member i another value.
func (o *objectEditor) set(i int, value string) {
	if string(o.value(i)) != value {
		*o.edits = append(*o.edits, edit{o.ms[i].start, o.ms[i].end, value})
	}
}

// setString gives member i the value want, unless the member has this value in any spelling.
func (o *objectEditor) setString(i int, want string) {
	if text, ok := unquote(o.value(i)); !ok || string(text) != want {
		o.set(i, quote(want))
	}
}

// setText makes a string of a member that is a number, with the digits of the source.
func (o *objectEditor) setText(i int) {
	if v := o.value(i); isNumber(v) {
		o.set(i, `"`+string(v)+`"`)
	}
}

// replace puts another member into the place of member i.
func (o *objectEditor) replace(i int, member string) {
	*o.edits = append(*o.edits, edit{o.ms[i].key, o.ms[i].end, member})
}

// drop removes member i with the comma between it and its neighbour.
func (o *objectEditor) drop(i int) {
	start, end := o.ms[i].key, o.ms[i].end
	if i > o.gone {
		start = o.ms[i-1].end
	} else if o.gone++; o.gone < len(o.ms) {
		end = o.ms[o.gone].key
	}
	*o.edits = append(*o.edits, edit{start, end, ""})
}

// add puts a member after all others.
func (o *objectEditor) add(member string) {
	at := o.at + 1
	if len(o.ms) > 0 {
		at = o.ms[len(o.ms)-1].end
	}
	if o.gone < len(o.ms) {
		member = "," + o.lead() + member
	}
	*o.edits = append(*o.edits, edit{at, at, member})
	o.gone = -1
}
