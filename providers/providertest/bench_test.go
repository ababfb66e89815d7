package providertest

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/streaming"
)

// copied keeps what the compiler would leave out.
var copied []byte

// linesOf are lines of a protocol that knows text and an end.
func linesOf(events int) []byte { return append(bytes.Repeat([]byte(" token\n"), events), "END\n"...) }

// adapterThat reads lines; keep gets the text of each.
func adapterThat(keep func(text string)) Suite {
	return Suite{Play: func(_ *providers.Request, _ *streaming.Progress, body io.Reader) streaming.Stream {
		return func(yield func([]streaming.Event, error) bool) {
			in := bufio.NewScanner(body)
			for in.Scan() {
				ev := streaming.Event{Kind: streaming.Text, Text: in.Text()}
				keep(ev.Text)
				if ev.Text == "END" {
					ev.Stop = "stop"
				}
				if !yield([]streaming.Event{ev}, nil) {
					return
				}
			}
		}
	}}
}

// TestGrowth shows that the law of allocations finds those who break it.
func TestGrowth(t *testing.T) {
	var all strings.Builder
	var texts []string
	var seen []byte
	for name, c := range map[string]struct {
		keep func(string)
		want string // a part of the fault; "": none
	}{
		"nothing is kept":     {func(string) {}, ""},
		"the answer is kept":  {func(s string) { all.WriteString(s) }, "held"},
		"the events are kept": {func(s string) { texts = append(texts, s) }, "held"},
		"it is copied often": {func(s string) {
			if seen = append(seen, s...); len(seen)%64 == 0 {
				copied = bytes.Clone(seen)
			}
		}, "in longer answers"},
	} {
		t.Run(name, func(t *testing.T) {
			s := adapterThat(c.keep)
			play := s.Play
			s.Play = func(req *providers.Request, p *streaming.Progress, body io.Reader) streaming.Stream {
				all.Reset()
				texts, seen = nil, nil
				return play(req, p, body)
			}
			g := s.growth(t, linesOf, oneByOne)
			faults := strings.Join(g.faults(2), "; ")
			if (faults == "") != (c.want == "") || !strings.Contains(faults, c.want) {
				t.Errorf("%q, want one with %q (%+v)", faults, c.want, g)
			}
			if faults := g.faults(0.5); len(faults) == 0 || !strings.Contains(faults[0], "allocations for each event") {
				t.Errorf("%q", faults)
			}
		})
	}
}
