// Package stat knows the small statistics a benchmark report needs: medians,
// percentiles and ratios that are formed round by round before they are
// summarised, so that drift of the machine between rounds cancels out.
package stat

import (
	"math"
	"slices"
)

// Summary is the median of some values with their range. N is how many finite
// values went in; with N == 0 the other fields are NaN.
type Summary struct {
	Median, Min, Max float64
	N                int
}

// Summarize ignores NaN and infinite values. It does not change values.
func Summarize(values []float64) Summary {
	kept := finite(values)
	if len(kept) == 0 {
		return Summary{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	slices.Sort(kept)
	return Summary{Median: middle(kept), Min: kept[0], Max: kept[len(kept)-1], N: len(kept)}
}

// Ratios divides a by b element by element: round i of one target by round i of
// another. Rounds that only one side has, and rounds with a divisor that is not
// positive, give NaN, which Summarize skips.
func Ratios(a, b []float64) []float64 {
	out := make([]float64, max(len(a), len(b)))
	for i := range out {
		out[i] = math.NaN()
		if i < len(a) && i < len(b) && b[i] > 0 {
			out[i] = a[i] / b[i]
		}
	}
	return out
}

// Percentile is the nearest-rank percentile, 0 < p <= 100; NaN for no values.
// It does not change values.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func finite(values []float64) []float64 {
	kept := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			kept = append(kept, v)
		}
	}
	return kept
}

func middle(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
