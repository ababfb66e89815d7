package router

import (
	"cmp"
	"slices"
	"strings"

	"sluice/providers"
)

const maxNear = 3

// nearest returns up to three model names that the caller may have meant.
func nearest(name string, models []providers.Model) []string {
	type scored struct {
		id   string
		away int
	}
	var near []scored
	for _, m := range models {
		away := distance(strings.ToLower(name), strings.ToLower(m.ID))
		if away <= max(2, len(name)/3) {
			near = append(near, scored{m.ID, away})
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int { return cmp.Compare(a.away, b.away) })
	var out []string
	for _, s := range near[:min(len(near), maxNear)] {
		out = append(out, s.id)
	}
	return out
}

// distance counts the edits between two names (Levenshtein); far lengths cost nothing to refuse.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 8 || d < -8 || len(a) > 128 {
		return 1 << 10
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			step := diagonal
			if a[i] != b[j] {
				step++
			}
			diagonal = row[j+1]
			row[j+1] = min(step, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
