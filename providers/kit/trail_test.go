package kit

import (
	"fmt"
	"strings"
	"testing"

	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// scored is a text event whose tokens are given one by one; the number of each is its log
// probability.
func scored(n *int, tokens ...string) streamtest.Step {
	d := &streaming.LogprobData{}
	for _, s := range tokens {
		*n--
		d.Tokens = append(d.Tokens, streaming.TokenLogprob{TokenProb: streaming.TokenProb{Token: s, Logprob: float64(*n)}})
	}
	return streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Text, Text: strings.Join(tokens, ""), Logprobs: d}}}
}

// written is what came out, each event with its tokens.
func written(events []streaming.Event) string {
	var out strings.Builder
	for _, ev := range events {
		fmt.Fprintf(&out, "%d:%q", ev.Kind, ev.Text)
		if ev.Logprobs != nil {
			for _, t := range ev.Logprobs.Tokens {
				fmt.Fprintf(&out, " %s%v", t.Token, t.Logprob)
			}
		}
		out.WriteByte(' ')
	}
	return out.String()
}

// Log probabilities go with the text that they are of: held with it, cut off with it, and
// in the first piece that holds any of their token.
func TestTrail(t *testing.T) {
	think := Think{}.Filter
	for name, c := range map[string]struct {
		f    filter
		in   [][]string
		want string
	}{
		"nothing held":        {stopping("END"), [][]string{{"a", "b"}, {"c"}}, `2:"ab" a-1 b-2 2:"c" c-3 5:"" `},
		"held, let go":        {stopping("END"), [][]string{{"a", "E"}, {"N", "x"}}, `2:"a" a-1 2:"ENx" E-2 N-3 x-4 5:"" `},
		"held to the end":     {stopping("END"), [][]string{{"a", "E"}}, `2:"a" a-1 2:"E" E-2 5:"" `},
		"cut off":             {stopping("END"), [][]string{{"a", "E"}, {"N", "D", "x"}}, `2:"a" a-1 5:"" `},
		"cut in a token":      {stopping("END"), [][]string{{"a bE"}, {"NDx"}}, `2:"a b" a bE-1 5:"" `},
		"cut within one":      {stopping("END"), [][]string{{"a", "ENDx", "y"}}, `2:"a" a-1 5:"" `},
		"held in a token":     {stopping("END"), [][]string{{"aE"}, {"Mb"}}, `2:"a" aE-1 2:"EMb" Mb-2 5:"" `},
		"a thought":           {think, [][]string{{"<thi"}, {"nk>"}, {"\n"}, {"a", "b"}, {"</think>"}, {"\n"}, {" x"}, {"y"}}, `3:"ab" a-4 b-5 2:"x"  x-8 2:"y" y-9 5:"" `},
		"a thought at once":   {think, [][]string{{"<think>", "a", "</think>", "\n\n", "b"}}, `3:"a" a-2 2:"b" b-5 5:"" `},
		"nearly a mark":       {think, [][]string{{"<", "th"}, {"at>"}}, `2:"<that>" <-1 th-2 at>-3 5:"" `},
		"nearly its end":      {think, [][]string{{"<think>", "a", "</"}, {"b"}}, `3:"a" a-2 3:"</b" </-3 b-4 5:"" `},
		"an end that is none": {think, [][]string{{"<think>", "a", "</"}}, `3:"a" a-2 3:"</" </-3 5:"" `},
		"thought, then stop": {func(s streaming.Stream) streaming.Stream { return stopping("END")(think(s)) },
			[][]string{{"<think>"}, {"END", "</think>"}, {"a", "EN"}, {"D", "b"}}, `3:"END" END-2 2:"a" a-4 5:"" `},
	} {
		n := 0
		var steps []streamtest.Step
		for _, tokens := range c.in {
			steps = append(steps, scored(&n, tokens...))
		}
		steps = append(steps, streamtest.Step{Batch: stop(0, "stop")})
		if got := run(t, c.f, steps...); written(got.events) != c.want {
			t.Errorf("%s: %s\nwant %s", name, written(got.events), c.want)
		}
	}
}

// Whoever asks for no log probabilities pays nothing for them.
func TestTrailOfNothing(t *testing.T) {
	m := NewMatcher([]string{"END"})
	if n := testing.AllocsPerRun(100, func() { _, _, _ = m.Push(" word", nil) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
