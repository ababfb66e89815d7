package router

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

// erlangC is the probability of having to wait at so many servers with one queue.
func erlangC(servers int, load float64) float64 {
	offered := load * float64(servers)
	term, total := 1.0, 1.0
	for k := 1; k < servers; k++ {
		term *= offered / float64(k)
		total += term
	}
	term *= offered / float64(servers) / (1 - load)
	return term / (total + term)
}

// textbook is the 99th percentile of the waiting time, in service times, where each server has
// a queue of its own (M/M/1) and where all have one (M/M/n).
func textbook(servers int, load float64) (own, one float64) {
	own = math.Log(100*load) / (1 - load)
	one = math.Log(100*erlangC(servers, load)) / (float64(servers) * (1 - load))
	return own, max(one, 0)
}

func TestTextbook(t *testing.T) {
	if got := erlangC(1, 0.7); math.Abs(got-0.7) > 1e-12 {
		t.Errorf("one server: %g", got)
	}
	if got := erlangC(2, 0.5); math.Abs(got-1.0/3) > 1e-12 {
		t.Errorf("two servers, half loaded: %g, want a third", got)
	}
	if own, one := textbook(10, 0.9); math.Abs(own-45) > 0.1 || one < 3 || one > 5 {
		t.Errorf("%g and %g", own, one)
	}
}

const plotFile = "../../docs/balance.svg"

// TestQueueingPlot draws what TestQueueing simulates, at several loads: UPDATE_GOLDEN=1 writes
// the picture of docs/routing.md.
func TestQueueingPlot(t *testing.T) {
	text, err := os.ReadFile(plotFile)
	if err == nil && (!strings.HasPrefix(string(text), "<svg ") || !strings.HasSuffix(string(text), "</svg>\n")) {
		t.Errorf("%s is no picture", plotFile)
	}
	if os.Getenv("UPDATE_GOLDEN") == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	loads := []float64{0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95}
	lines := []line{{name: "each its own queue (M/M/1)", colour: "#999", dash: "5 4"}, {name: "one queue for all (M/M/10)", colour: "#999", dash: "2 3"}}
	for _, load := range loads {
		own, one := textbook(10, load)
		lines[0].values, lines[1].values = append(lines[0].values, own), append(lines[1].values, one)
	}
	for i, policy := range []string{"random", "round_robin", "two_choices", "least_running"} {
		l := line{name: policy, colour: [...]string{"#b33", "#c80", "#27b", "#283"}[i]}
		for _, load := range loads {
			synctest.Test(t, func(t *testing.T) { l.values = append(l.values, waits(policy, 10, load, 120_000)) })
		}
		t.Logf("%-14s %.1f", policy, l.values)
		lines = append(lines, l)
	}
	if err := os.WriteFile(plotFile, []byte(draw(loads, lines)), 0o600); err != nil {
		t.Fatal(err)
	}
}

type line struct {
	name, colour, dash string
	values             []float64
}

// draw is a picture with a logarithmic axis from a tenth to a hundred service times.
func draw(loads []float64, lines []line) string {
	const left, top, width, height = 50, 20, 420, 300
	x := func(load float64) float64 { return left + (load-loads[0])/(loads[len(loads)-1]-loads[0])*width }
	y := func(v float64) float64 { return top + height*(2-math.Log10(max(v, 0.1)))/3 }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 370" font-family="sans-serif" font-size="12" role="img">`+"\n"+
		`<title>Waiting time by balance policy</title>`+"\n"+`<rect width="680" height="370" fill="#fff"/>`+"\n")
	for _, v := range []float64{0.1, 1, 10, 100} {
		fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", left, y(v), width, left-6, y(v)+4, v)
	}
	for _, l := range loads {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x(l), top+height+18, l)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">load of ten servers</text>`+"\n", left+width/2, top+height+40)
	fmt.Fprintf(&b, `<text x="14" y="%d" text-anchor="middle" transform="rotate(-90 14 %d)">99th percentile of the wait, in service times</text>`+"\n", top+height/2, top+height/2)
	for _, l := range lines {
		fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s" d="`, l.colour, l.dash)
		for i, v := range l.values {
			fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], x(loads[i]), y(v))
		}
		b.WriteString(`"/>` + "\n")
	}
	for i, l := range lines {
		at := top + 20 + 20*i
		fmt.Fprintf(&b, `<path d="M%d %dh24" stroke="%s" stroke-width="2" stroke-dasharray="%s"/><text x="%d" y="%d">%s</text>`+"\n", left+width+15, at, l.colour, l.dash, left+width+44, at+4, l.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
