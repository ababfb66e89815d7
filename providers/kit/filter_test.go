package kit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/streaming"
	"sluice/streaming/streamtest"
)

type filter func(streaming.Stream) streaming.Stream

// told is what came out of a filter, the text of one kind joined.
type told struct {
	events []streaming.Event
	err    error
	joined string // kind and text of neighbours, such as "text:ab stop:stop"
}

// run sends batches through a filter.
func run(t testing.TB, f filter, steps ...streamtest.Step) (got told) {
	t.Helper()
	last := ""
	for batch, err := range f(streamtest.Stream(t.Context(), steps...)) {
		if got.err = err; err != nil {
			continue
		}
		for i := range batch {
			ev := batch[i].Clone()
			ev.Text = strings.Clone(ev.Text)
			got.events = append(got.events, ev)
			name := map[streaming.Kind]string{streaming.Text: "text", streaming.Reasoning: "thought", streaming.Stop: "stop", streaming.Usage: "usage", streaming.Meta: "meta", streaming.ToolCall: "tool"}[ev.Kind]
			if ev.Index > 0 {
				name += fmt.Sprint(ev.Index)
			}
			if last != name {
				got.joined += "|" + name + ":"
			}
			got.joined += ev.Text + ev.Stop
			last = name
		}
	}
	return got
}

// pieces are text events of choice 0, one batch each, and then a Stop.
func pieces(texts ...string) []streamtest.Step {
	var steps []streamtest.Step
	for _, s := range slices.DeleteFunc(texts, func(s string) bool { return s == "" }) {
		steps = append(steps, streamtest.Step{Batch: text(0, s)})
	}
	return append(steps, streamtest.Step{Batch: stop(0, "stop")})
}

func text(index int, s string) []streaming.Event {
	return []streaming.Event{{Kind: streaming.Text, Index: index, Text: s}}
}

func stop(index int, reason string) []streaming.Event {
	return []streaming.Event{{Kind: streaming.Stop, Index: index, Stop: reason}}
}

func stopping(sequences ...string) filter {
	return Stops{Sequences: sequences, Choices: 1}.Filter
}

func trimming(texts ...string) filter {
	return func(src streaming.Stream) streaming.Stream { return TrimEnd(src, texts) }
}

func TestFilters(t *testing.T) {
	think := Think{}.Filter
	for name, c := range map[string]struct {
		f    filter
		in   []string
		want string
	}{
		"no sequence":                      {stopping(), []string{"a", "b"}, "|text:ab|stop:stop"},
		"an empty sequence":                {stopping(""), []string{"a"}, "|text:a|stop:stop"},
		"within a piece":                   {stopping("END"), []string{"aENDb", "c"}, "|text:a|stop:stop"},
		"over pieces":                      {stopping("END"), []string{"aE", "N", "Db"}, "|text:a|stop:stop"},
		"nearly":                           {stopping("END"), []string{"aE", "N", "db"}, "|text:aENdb|stop:stop"},
		"nearly, at the end":               {stopping("END"), []string{"aEN"}, "|text:aEN|stop:stop"},
		"at once":                          {stopping("END"), []string{"END"}, "|stop:stop"},
		"an overlap":                       {stopping("aab"), []string{"a", "a", "a", "b", "x"}, "|text:a|stop:stop"},
		"the first to end":                 {stopping("abcd", "bc"), []string{"xab", "cd"}, "|text:xa|stop:stop"},
		"the longest of two":               {stopping("bc", "abc"), []string{"xab", "cd"}, "|text:x|stop:stop"},
		"not ASCII":                        {stopping("éß"), []string{"aé", "ßb"}, "|text:a|stop:stop"},
		"a newline":                        {stopping("\n\n"), []string{"a\n", "\nb"}, "|text:a|stop:stop"},
		"no thought":                       {think, []string{"Hello ", "<think>"}, "|text:Hello <think>|stop:stop"},
		"a thought":                        {think, []string{"\n <thi", "nk>\nab", "c</", "think>\n\n", "x"}, "|thought:abc|text:x|stop:stop"},
		"in one piece":                     {think, []string{"<think>a</think>b"}, "|thought:a|text:b|stop:stop"},
		"an empty thought":                 {think, []string{"<think>\n\n</think>\n\nx"}, "|text:x|stop:stop"},
		"a thought without an end":         {think, []string{"<think>a</thi"}, "|thought:a</thi|stop:stop"},
		"nearly a mark in a thought":       {think, []string{"<think>a</thi", "s>b</think>c"}, "|thought:a</this>b|text:c|stop:stop"},
		"one block only":                   {think, []string{"<think>a</think>b<think>c</think>"}, "|thought:a|text:b<think>c</think>|stop:stop"},
		"only white space":                 {think, []string{" ", "\n"}, "|text: \n|stop:stop"},
		"nearly a mark":                    {think, []string{" <", "thin"}, "|text: <thin|stop:stop"},
		"begun by the prompt":              {Think{Begun: true}.Filter, []string{"\na", "</think>", " b"}, "|thought:a|text:b|stop:stop"},
		"other marks":                      {Think{Open: "[T]", Close: "[/T]"}.Filter, []string{"[T]a[/T]b"}, "|thought:a|text:b|stop:stop"},
		"an end":                           {trimming("</s>"), []string{"a", "</s>"}, "|text:a|stop:stop"},
		"an end in pieces":                 {trimming("</s>"), []string{"a<", "/s", ">"}, "|text:a|stop:stop"},
		"one end of two":                   {trimming("</s>"), []string{"a</s>", "</s>"}, "|text:a</s>|stop:stop"},
		"not the end":                      {trimming("</s>"), []string{"<s>a</s>", " b"}, "|text:<s>a</s> b|stop:stop"},
		"the longest end":                  {trimming("b>", "<b>"), []string{"a<b", ">"}, "|text:a|stop:stop"},
		"no end that is nearly one":        {trimming("</s>"), []string{"a</s"}, "|text:a</s|stop:stop"},
		"a sequence behind other thoughts": {func(s streaming.Stream) streaming.Stream { return stopping("b")(think(s)) }, []string{"<think>b</th", "ink>ab"}, "|thought:b|text:a|stop:stop"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := run(t, c.f, pieces(c.in...)...); got.err != nil || got.joined != c.want {
				t.Errorf("%q became %q, %v; want %q", c.in, got.joined, got.err, c.want)
			}
			all := strings.Join(c.in, "")
			for at := range len(all) + 1 {
				if got := run(t, c.f, pieces(all[:at], all[at:])...); got.joined != c.want {
					t.Errorf("split at %d: %q, want %q", at, got.joined, c.want)
				}
			}
		})
	}
}

// What cannot become a match leaves in the step in which it came, as it came.
func TestNothingIsDelayed(t *testing.T) {
	for name, f := range map[string]filter{"stop": stopping("<end>"), "trim": trimming("<end>"), "think": Think{}.Filter} {
		raw := []byte(`{"x":1}`)
		step := func(s string) streamtest.Step {
			return streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Text, Text: s, Raw: raw, Dialect: streaming.Chat}}}
		}
		n := 0
		for batch := range f(streamtest.Stream(t.Context(), step("a"), step("b <"), step("i> c"), step("d"))) {
			n++
			late := n == 2 && name != "think" // "<" may begin the mark
			if got := batch[len(batch)-1]; len(batch) != 1 || !late && n != 3 && string(got.Raw) != string(raw) {
				t.Errorf("%s, step %d: %+v", name, n, batch)
			}
		}
		if n != 4 {
			t.Errorf("%s: %d steps of 4", name, n)
		}
	}
}

func TestStopsOfSeveralChoices(t *testing.T) {
	usage := &streaming.UsageData{Prompt: 1, Completion: 2, Total: 3}
	f := Stops{Sequences: []string{"XX"}, Choices: 2, Usage: func() *streaming.UsageData { return usage }}.Filter
	asked := 0
	src := func(yield func([]streaming.Event, error) bool) {
		for _, batch := range [][]streaming.Event{text(0, "aX"), text(1, "bX"), text(0, "Xc"), text(0, "d"), text(1, "c"), text(1, "XX"), text(1, "never")} {
			if asked++; !yield(batch, nil) {
				return
			}
		}
	}
	got := run(t, func(streaming.Stream) streaming.Stream { return f(src) })
	if want := "|text:a|text1:b|stop:stop|text1:Xc|stop1:stop|usage:"; got.joined != want {
		t.Errorf("%q, want %q", got.joined, want)
	}
	if asked != 6 {
		t.Errorf("%d batches were taken, not the first 6", asked)
	}
	if last := got.events[len(got.events)-1]; last.Usage == nil || last.Usage.Total != 3 {
		t.Errorf("usage %+v", last.Usage)
	}
	// Without a match the stream runs to its end, for usage may follow.
	steps := append(pieces("a"), streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Usage, Usage: usage}}})
	if got := run(t, stopping("XX"), steps...); got.joined != "|text:a|stop:stop|usage:" {
		t.Error(got.joined)
	}
}

// The end of a stream without a Stop, and another kind of content, let go what was held.
// An error drops it: it may be a part of a mark.
func TestHeldText(t *testing.T) {
	failure := errors.New("cut")
	for name, c := range map[string]struct {
		f           filter
		in          string
		want, early string
	}{
		"stop": {stopping("END"), "aEN", "|text:aEN", "|text:a"}, "trim": {trimming("</s>"), "a</s>", "|text:a</s>", "|text:a"},
		"think": {Think{}.Filter, "<think>a</", "|thought:a</", "|thought:a"}, "before a thought": {Think{}.Filter, " <th", "|text: <th", ""},
	} {
		held := streamtest.Step{Batch: text(0, c.in)}
		if got := run(t, c.f, held); got.joined != c.want || got.err != nil {
			t.Errorf("%s, at the end: %q, %v, want %q", name, got.joined, got.err, c.want)
		}
		if got := run(t, c.f, held, streamtest.Step{Err: failure}); got.joined != c.early || !errors.Is(got.err, failure) {
			t.Errorf("%s, failed: %q, %v, want %q", name, got.joined, got.err, c.early)
		}
		call := streamtest.Step{Batch: []streaming.Event{{Kind: streaming.ToolCall, Tool: &streaming.ToolDelta{Name: "f"}}}}
		if got := run(t, c.f, held, call); got.joined != c.want+"|tool:" {
			t.Errorf("%s, before a call: %q", name, got.joined)
		}
	}
}

// A reader who has enough is not asked for more.
func TestFiltersStop(t *testing.T) {
	for _, f := range []filter{stopping("XX"), trimming("XX"), Think{}.Filter} {
		for most := range 5 {
			n := 0
			for range f(streamtest.Stream(t.Context(), append(pieces("aX", "<thi", "b"), streamtest.Step{Err: errors.New("x")})...)) {
				if n++; n > most {
					break
				}
			}
		}
	}
}

// reference is what stop sequences mean, over the whole text.
func reference(text string, stops []string) string {
	for end := range len(text) + 1 {
		best := -1
		for _, s := range stops {
			if s != "" && strings.HasSuffix(text[:end], s) {
				best = max(best, len(s))
			}
		}
		if best >= 0 {
			return text[:end-best]
		}
	}
	return text
}

// FuzzFilters: wherever the pieces begin, the outcome is the same, and for stop
// sequences it is that of the plain definition.
func FuzzFilters(f *testing.F) {
	f.Add("<think>a</think>bENDc</s>", "END", "</s>", []byte{3, 5, 200})
	f.Add("aaab", "aab", "b", []byte{1, 1, 1})
	f.Add(" \n<think>", "é", "", []byte{0, 2})
	f.Fuzz(func(t *testing.T, all, one, two string, cuts []byte) {
		var split []string
		for rest := all; ; {
			if len(cuts) == 0 || rest == "" {
				split = append(split, rest)
				break
			}
			n := min(int(cuts[0]), len(rest))
			split, rest, cuts = append(split, rest[:n]), rest[n:], cuts[1:]
		}
		for name, fl := range map[string]filter{
			"stop": stopping(one, two), "trim": trimming(one, two), "think": Think{}.Filter, "begun": Think{Begun: true}.Filter,
			"all": func(s streaming.Stream) streaming.Stream {
				return stopping(one)(Think{}.Filter(TrimEnd(s, []string{two})))
			},
		} {
			whole, parts := run(t, fl, pieces(all)...), run(t, fl, pieces(split...)...)
			if whole.joined != parts.joined {
				t.Errorf("%s: %q in pieces %q, whole %q", name, split, parts.joined, whole.joined)
			}
			for _, ev := range slices.Concat(whole.events, parts.events) {
				if ev.Kind != streaming.Stop && ev.Text == "" {
					t.Errorf("%s: an empty event", name)
				}
			}
			if want := reference(all, []string{one, two}); name == "stop" {
				var got strings.Builder
				for _, ev := range whole.events {
					got.WriteString(ev.Text)
				}
				if got.String() != want {
					t.Errorf("%q stopped by %q and %q is %q, want %q", all, one, two, got.String(), want)
				}
			}
		}
	})
}

// split is what a block of thoughts means, over the whole text.
func split(text string, begun bool) (thought, answer string) {
	body := strings.TrimLeft(text, white)
	if !begun {
		var is bool
		if body, is = strings.CutPrefix(body, "<think>"); !is {
			return "", text
		}
	}
	thought, answer, _ = strings.Cut(strings.TrimLeft(body, white), "</think>")
	return thought, strings.TrimLeft(answer, white)
}

// FuzzThink: wherever the pieces begin, thoughts and answer are those of the plain
// definition.
func FuzzThink(f *testing.F) {
	for _, s := range []string{"<think>a</think>b", " \n<think>\n\n</think>\n\nx<think>", "<think>a</thi", "<thin", "\t \n", "Hi </think>", "<think></th</think> \u00e9", ""} {
		f.Add(s, []byte{1, 6, 2, 3})
	}
	f.Fuzz(func(t *testing.T, all string, cuts []byte) {
		for _, begun := range []bool{false, true} {
			k, got := Think{Begun: begun}.Splitter(7), map[streaming.Kind]string{}
			var events []streaming.Event
			for rest, i := all, 0; rest != ""; i++ {
				n := len(rest)
				if i < len(cuts) {
					n = min(max(int(cuts[i]), 1), n)
				}
				if k.Passes(rest[:n]) {
					events = append(events, text(7, rest[:n])...)
				} else {
					events = k.Push(events, rest[:n], nil)
				}
				rest = rest[n:]
			}
			for _, ev := range k.Rest(events) {
				if ev.Text == "" || ev.Index != 7 || ev.Kind == streaming.Reasoning && got[streaming.Text] != "" {
					t.Errorf("%q: event %+v behind %q", all, ev, got)
				}
				got[ev.Kind] += ev.Text
			}
			thought, answer := split(all, begun)
			if got[streaming.Reasoning] != thought || got[streaming.Text] != answer {
				t.Errorf("%q became %q, want %q and %q", all, got, thought, answer)
			}
		}
	})
}

func BenchmarkFilters(b *testing.B) {
	batch := text(0, " token")
	for name, f := range map[string]filter{"stop": stopping("\n\n", "END", "###", "</s>"), "think": Think{}.Filter, "trim": trimming("</s>")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			src := func(yield func([]streaming.Event, error) bool) {
				for range b.N {
					if !yield(batch, nil) {
						return
					}
				}
			}
			for range f(src) {
			}
		})
	}
}
