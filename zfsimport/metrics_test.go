package zfsimport

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Every label value is there from the start, and no metric twice.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	if _, err := New(Options{Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 5+2+2 {
		t.Errorf("%d series, %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if _, err := New(Options{Registerer: reg}); err == nil {
		t.Error("the same metrics twice, and no error")
	}
}
