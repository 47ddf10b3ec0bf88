package manifest

import "testing"

// A manifest in an envelope is kept byte for byte.
func TestEnvelope(t *testing.T) {
	f := func(frame any, raw, want string) {
		t.Helper()
		if got, err := Envelope(frame, []byte(raw)); string(got) != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	f(struct {
		Source string `json:"source"`
	}{"a}"}, `{"name": "<&>" }`, `{"source":"a}","manifest":{"name": "<&>" }}`+"\n")
	f(struct{}{}, "{}", `{"manifest":{}}`+"\n")
}
