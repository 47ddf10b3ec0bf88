//go:build linux

package main

import "slices"

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratios are those of each round. A round in which either is 0 has none.
func ratios(of, to []float64) (all []float64) {
	for i := range min(len(of), len(to)) {
		if of[i] > 0 && to[i] > 0 {
			all = append(all, of[i]/to[i])
		}
	}
	return all
}
