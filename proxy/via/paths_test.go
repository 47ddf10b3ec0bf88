package via

import (
	"strings"
	"testing"
)

// TestPathsBounds: a few bytes of text make no more memory than a mirror's true answer.
func TestPathsBounds(t *testing.T) {
	f := func(text, fault string) {
		t.Helper()
		_, err := ParsePaths([]byte(text))
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%.60s: %v, want %q", text, err, fault)
		}
	}
	many := func(element string, n int) string { return strings.TrimSuffix(strings.Repeat(element+",", n), ",") }
	f(`{"rest":[],"others":[`+many("{}", maxGroups)+`],"later":1}`, "")
	f(`{"rest":null,"others":null}`, "")
	f(`{"others":[`+many("{}", maxGroups+1)+`]}`, "too many ways")
	f(`{"others":[{"through":[`+many(`""`, maxWay+1)+`]}]}`, "too many mirrors")
	f(`{"rest":[`+many(`""`, maxWay+1)+`]}`, "too many mirrors")
	f(`{"rest":7}`, "a list is wanted")
	f(`{"others":[{"images":["x"]}]}`, "invalid UUID")
}
