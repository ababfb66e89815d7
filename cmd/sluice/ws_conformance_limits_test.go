package main

import (
	"fmt"
	"strings"
	"testing"
)

// roundTrips is how many messages follow each other in group 9.7. The suite sends
// 1,000; the long proofs do too.
var roundTrips = 100

// TestWebSocketConformanceLimits is group 9: messages of up to 16 MiB, in one piece, in
// fragments and in small writes. The gateway stands at its default limits, and the
// last of them, too large for it, is below.
func TestWebSocketConformanceLimits(t *testing.T) {
	t.Parallel()
	g := digesting(t, "")
	var cases []wireCase
	add := func(number string, i, size, chop, fragment int) {
		message, answer := sized(size)
		f := fragment
		if f == 0 {
			f = size
		}
		cases = append(cases, wireCase{id: fmt.Sprintf("9.%c.%d", number[0], i+1), chop: chop, send: fragments(wireText, message, f), want: []string{answer}})
		if len(number) > 1 {
			cases = append(cases, wireCase{id: fmt.Sprintf("9.%c.%d", number[1], i+1), chop: chop, send: fragments(wireBinary, message, f), want: []string{binaryRefusal}})
		}
	}
	for i, size := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20} {
		add("12", i, size, 0, 0)
	}
	for i := range 9 {
		add("34", i, 4<<20, 0, 64<<(2*i))
	}
	for i := range 6 {
		add("56", i, 1<<20, 64<<i, 0)
	}
	runWireCases(t, g, cases)
}

// TestWebSocketTooLarge is 9.1.6, which is too large for a request without images, and
// what is too large for any.
func TestWebSocketTooLarge(t *testing.T) {
	t.Parallel()
	g := digesting(t, "")
	message, _ := sized(16 << 20)
	runWireCases(t, g, []wireCase{
		{id: "9.1.6", send: []wireFrame{textFrame(message)}, want: []string{"error 413"}},
		{id: "9.1.6 in fragments", send: fragments(wireText, message, 64<<10), want: []string{"error 413"}},
		{id: "32 MiB", send: []wireFrame{textFrame(message + message)}, fail: 1009},
	})
	t.Run("endless", func(t *testing.T) {
		t.Parallel()
		w := g.openWire(t)
		w.send(0, wireFrame{op: wireText, payload: "{", more: true})
		piece := wireFrame{payload: strings.Repeat(" ", 64<<10), more: true}.append(nil)
		var err error
		for sent := 0; err == nil && sent < 64<<20; sent += len(piece) {
			_, err = w.Write(piece)
		}
		if err == nil {
			t.Error("64 MiB of one message are taken")
		}
		w.failed(t, 1009)
	})
}

// TestWebSocketConformanceRoundTrips is 9.7, with pings in place of 9.8's binary messages.
func TestWebSocketConformanceRoundTrips(t *testing.T) {
	t.Parallel()
	g := digesting(t, "[log]\naccess = \"off\"\n")
	for i, size := range []int{0, 16, 64, 256, 1024, 4096} {
		t.Run(fmt.Sprintf("9.7.%d", i+1), func(t *testing.T) {
			t.Parallel()
			w := g.openWire(t)
			content := strings.Repeat("*", size)
			for range roundTrips {
				w.send(0, textFrame(create("c", content)))
				w.want(t, "answer "+digest(content))
			}
			w.leave(t)
		})
	}
	t.Run("pings", func(t *testing.T) {
		t.Parallel()
		w := g.openWire(t)
		for i := range roundTrips {
			w.send(0, pingFrame(fmt.Sprint(i)))
			w.want(t, fmt.Sprintf("pong %d", i))
		}
		w.leave(t)
	})
}
