package main

import (
	"runtime"
	"testing"
)

// Go gets a processor more, unless the environment says how many.
func TestAddProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	addProcessor("7")
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("%d processors with GOMAXPROCS set, %d before", n, before)
	}
	addProcessor("")
	if n := runtime.GOMAXPROCS(0); n != before+1 {
		t.Errorf("%d processors, %d before", n, before)
	}
}
