package dialect

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"

	"sluice/providers"
	"sluice/streaming"
)

// probs are tokens with a log probability each, and with one likely other.
func probs(tokens ...string) *streaming.LogprobData {
	d := &streaming.LogprobData{}
	for i, s := range tokens {
		t := streaming.TokenLogprob{TokenProb: streaming.TokenProb{Token: s, Logprob: -0.25 * float64(i+1)}}
		if i == 0 {
			t.Top = []streaming.TokenProb{{Token: "No", Logprob: -0.125}, {Token: s, Logprob: t.Logprob}}
		}
		d.Tokens = append(d.Tokens, t)
	}
	return d
}

func withProbs(ev streaming.Event, d *streaming.LogprobData) streaming.Event {
	ev.Logprobs = d
	return ev
}

// part is a token that is half of "é".
var part = &streaming.LogprobData{Tokens: []streaming.TokenLogprob{
	{TokenProb: streaming.TokenProb{Token: "\ufffd", Bytes: []byte{0xc3}, Logprob: math.Inf(-1)}},
	{TokenProb: streaming.TokenProb{Token: "\ufffd", Bytes: []byte{0xa9}, Logprob: -1e-9}, Top: []streaming.TokenProb{{Token: "\ufffd", Bytes: []byte{0xa8}, Logprob: -30}}},
}}

const (
	chatAB = `{"content":[{"token":"A","logprob":-0.25,"bytes":[65],"top_logprobs":[{"token":"No","logprob":-0.125,"bytes":[78,111]},{"token":"A","logprob":-0.25,"bytes":[65]}]},` +
		`{"token":"b","logprob":-0.5,"bytes":[98],"top_logprobs":[]}],"refusal":null}`
	chatPart = `{"content":[{"token":"\ufffd","logprob":-9999,"bytes":[195],"top_logprobs":[]},{"token":"\ufffd","logprob":-1e-09,"bytes":[169],"top_logprobs":[{"token":"\ufffd","logprob":-30,"bytes":[168]}]}],"refusal":null}`
	chatC    = `{"content":[{"token":"c","logprob":-1,"bytes":[99],"top_logprobs":[]}],"refusal":null}`
)

var lastC = &streaming.LogprobData{Tokens: []streaming.TokenLogprob{{TokenProb: streaming.TokenProb{Token: "c", Logprob: -1}}}}

func answerAB() []streaming.Event {
	return []streaming.Event{meta(), {Kind: streaming.Reasoning, Text: "hm", Logprobs: probs("hm")},
		withProbs(text(0, "Ab"), probs("A", "b")), withProbs(text(0, "é"), part), withProbs(stop(0, "stop"), lastC)}
}

func TestChatLogprobs(t *testing.T) {
	chunk := func(delta, probs, finish string) string {
		return headChat + `{"index":0,"delta":` + delta + `,"logprobs":` + probs + `,"finish_reason":` + finish + `}]}` + "\n\n"
	}
	part := strings.ReplaceAll(chatPart, `\ufffd`, "\ufffd")
	want := role0 + delta(`{"reasoning_content":"hm"}`) + chunk(`{"content":"Ab"}`, chatAB, "null") + chunk(`{"content":"é"}`, part, "null") + chunk(`{}`, chatC, `"stop"`) + done
	if got := run(t, NewChat(streaming.SSEFraming, options()), answerAB(), nil); got != want {
		t.Errorf("streamed\n%swant\n%s", got, want)
	}
	got := run(t, NewWhole(providers.Chat, options()), answerAB(), nil)
	all := `{"content":[` + strings.Join([]string{inner(chatAB), inner(part), inner(chatC)}, ",") + `],"refusal":null}`
	if !strings.Contains(got, `"content":"Abé"`) || !strings.Contains(got, `},"logprobs":`+all+`,"finish_reason":"stop"}`) {
		t.Errorf("whole\n%s\nwant\n%s", got, all)
	}
	inlined := options()
	inlined.thoughts = inline
	got = run(t, NewWhole(providers.Chat, inlined), answerAB(), nil)
	if !strings.Contains(got, `"logprobs":{"content":[{"token":"hm",`) || strings.Count(got, `"top_logprobs"`) != 6 {
		t.Errorf("inline\n%s", got)
	}
	var body openai.ChatCompletionResponse
	if err := json.Unmarshal([]byte(got), &body); err != nil || len(body.Choices[0].LogProbs.Content) != 6 {
		t.Errorf("%v, %+v", err, body)
	}
}

// inner is the list without what stands around it.
func inner(s string) string {
	return strings.TrimSuffix(strings.TrimPrefix(s, `{"content":[`), `],"refusal":null}`)
}

func TestCompletionsLogprobs(t *testing.T) {
	chunk := func(text, probs, finish string) string {
		return headText + `{"index":0,"text":"` + text + `","logprobs":` + probs + `,"finish_reason":` + finish + `}]}` + "\n\n"
	}
	const (
		ab   = `{"tokens":["A","b"],"token_logprobs":[-0.25,-0.5],"top_logprobs":[{"No":-0.125,"A":-0.25},{"b":-0.5}],"text_offset":[0,1]}`
		half = `{"tokens":["bytes:\\xc3","bytes:\\xa9"],"token_logprobs":[-9999,-1e-09],"top_logprobs":[{"bytes:\\xc3":-9999},{"bytes:\\xa8":-30,"bytes:\\xa9":-1e-09}],"text_offset":[2,2]}`
		c    = `{"tokens":["c"],"token_logprobs":[-1],"top_logprobs":null,"text_offset":[3]}`
	)
	want := chunk("Ab", ab, "null") + chunk("é", half, "null") + chunk("", c, `"stop"`) + done
	if got := run(t, NewCompletions(streaming.SSEFraming, options()), answerAB(), nil); got != want {
		t.Errorf("streamed\n%swant\n%s", got, want)
	}
	got := run(t, NewWhole(providers.Completions, options()), answerAB(), nil)
	if !strings.Contains(got, `"text":"Abé","logprobs":{"tokens":["A","b","bytes:`) || !strings.Contains(got, `"text_offset":[0,1,2,2,3]}`) {
		t.Errorf("whole\n%s", got)
	}
	// Inside the text reasoning is counted with its marks, streamed and not.
	for name, enc := range map[string]streaming.Encoder{"streamed": NewCompletions(streaming.SSEFraming, inlined()), "whole": NewWhole(providers.Completions, inlined())} {
		got := run(t, enc, answerAB(), nil)
		offsets := []string{"8", "21", "22", "23", "23", "24"}
		if name == "whole" && !strings.Contains(got, `"text_offset":[`+strings.Join(offsets, ",")+"]") ||
			name == "streamed" && (!strings.Contains(got, `"text_offset":[8]`) || !strings.Contains(got, `"text_offset":[21,22]`) || !strings.Contains(got, `"text_offset":[24]`)) {
			t.Errorf("%s inline\n%s", name, got)
		}
	}
}

func inlined() Options {
	o := options()
	o.thoughts = inline
	return o
}

// What a caller may ask for with each token counts towards the bound of a body.
func TestLogprobsAreBounded(t *testing.T) {
	top := make([]streaming.TokenProb, 20)
	d := &streaming.LogprobData{Tokens: []streaming.TokenLogprob{{TokenProb: streaming.TokenProb{Token: "a"}, Top: top}}}
	enc := NewWhole(providers.Chat, options())
	for range maxCollected / 1024 {
		ev := withProbs(text(0, "a"), d)
		if _, err := enc.Append(nil, &ev); err != nil {
			return
		}
	}
	t.Error("a body without a bound")
}

// Events without log probabilities cost no allocation for them.
func TestNoLogprobsNoAllocations(t *testing.T) {
	enc := NewChat(streaming.SSEFraming, options())
	ev, buf := text(0, " word"), make([]byte, 0, 1024)
	_, _ = enc.Append(buf, &ev)
	if n := testing.AllocsPerRun(100, func() { _, _ = enc.Append(buf[:0], &ev) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
