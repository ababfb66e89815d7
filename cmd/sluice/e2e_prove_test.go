//go:build prove

package main

import (
	"fmt"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

// TestNothingIsLeftOfManyStreams is TestNothingIsLeft at length.
func TestNothingIsLeftOfManyStreams(t *testing.T) { checkLeaks(t, 10_000, 100) }

// TestEverySplit cuts an upstream's stream into two writes, at every byte of it.
func TestEverySplit(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	script := "tokens=6,alphabet=utf8,crlf,spaced,reasoning=2"
	whole := g.chat(t, wallModel("split0", script), askUsage)
	size := awaitCall(t, w, "split0", func(q wall.Request) bool { return q.End != wall.Running }).Bytes
	clean := func(a answer) string {
		return strings.Join(a.text[:], "|") + fmt.Sprint(a.finish, a.usage, a.done, a.errors, len(a.payloads))
	}
	for at := range size {
		a := g.chat(t, fmt.Sprintf("wall:%s,splitat=%d", script, at+1), askUsage)
		if clean(a) != clean(whole) {
			t.Fatalf("split at byte %d:\n%s\nwant\n%s", at+1, clean(a), clean(whole))
		}
	}
}
