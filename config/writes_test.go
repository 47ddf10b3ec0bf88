package config

import (
	"fmt"
	"testing"
)

func TestPrefixes(t *testing.T) {
	w := Writes{Allow: []string{"10.0.0.7", "10.1.2.3/16", "::ffff:10.0.0.8", "fd00::1"}}
	if got, want := fmt.Sprint(w.Prefixes()), "[10.0.0.7/32 10.1.0.0/16 10.0.0.8/32 fd00::1/128]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestOpenWritesWarn(t *testing.T) {
	const everyone = "writes.allow[1]: 0.0.0.0/0 has every address: everyone who reaches the mirror can publish images"
	c := mustLoad(t, "writes: {enabled: true, allow: [10.0.0.0/8, 0.0.0.0/0]}", LoadOptions{})
	if fmt.Sprint(c.Warnings) != "["+everyone+"]" {
		t.Errorf("%q", c.Warnings)
	}
	if c = mustLoad(t, "writes: {allow: [0.0.0.0/0]}", LoadOptions{}); len(c.Warnings) > 0 {
		t.Errorf("without writes: %q", c.Warnings)
	}
}
