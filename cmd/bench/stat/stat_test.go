package stat

import (
	"math"
	"slices"
	"testing"
)

func TestSummarize(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	tests := []struct {
		name   string
		values []float64
		want   Summary
	}{
		{"odd", []float64{3, 1, 2}, Summary{Median: 2, Min: 1, Max: 3, N: 3}},
		{"even", []float64{4, 1, 2, 3}, Summary{Median: 2.5, Min: 1, Max: 4, N: 4}},
		{"one", []float64{7}, Summary{Median: 7, Min: 7, Max: 7, N: 1}},
		{"skips what is not a number", []float64{nan, 5, inf, 1}, Summary{Median: 3, Min: 1, Max: 5, N: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.values)
			if got := Summarize(tt.values); got != tt.want {
				t.Errorf("Summarize(%v) = %+v, want %+v", tt.values, got, tt.want)
			}
			if !slices.EqualFunc(before, tt.values, func(a, b float64) bool { return a == b || (a != a && b != b) }) {
				t.Errorf("values were changed: %v", tt.values)
			}
		})
	}
	if got := Summarize(nil); got.N != 0 || !math.IsNaN(got.Median) {
		t.Errorf("Summarize(nil) = %+v, want NaN and N 0", got)
	}
}

func TestRatios(t *testing.T) {
	got := Ratios([]float64{10, 9, 8, 7}, []float64{5, 0, -1})
	if got[0] != 2 {
		t.Errorf("ratio of round 0 = %v, want 2", got[0])
	}
	for i := 1; i < 4; i++ {
		if !math.IsNaN(got[i]) {
			t.Errorf("ratio of round %d = %v, want NaN", i, got[i])
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	tests := []struct {
		values []float64
		p      float64
		want   float64
	}{
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0.1, 1},
		{[]float64{3, 1}, 50, 1}, {[]float64{4}, 99, 4},
	}
	for _, tt := range tests {
		if got := Percentile(tt.values, tt.p); got != tt.want {
			t.Errorf("p%v of %d values = %v, want %v", tt.p, len(tt.values), got, tt.want)
		}
	}
	if !math.IsNaN(Percentile(nil, 50)) {
		t.Error("percentile of nothing is not NaN")
	}
}
