package dialect

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/streaming"
)

// shown is a Meta that says how reasoning is presented.
func shown(how string) streaming.Event {
	ev := meta()
	ev.Meta.Header = http.Header{ReasoningHeader: {how}}
	return ev
}

func thought(i int, s string) streaming.Event {
	return streaming.Event{Kind: streaming.Reasoning, Index: i, Text: s}
}

// deltas are the deltas of an encoded stream, one per line, with the finish reason.
func deltas(t *testing.T, stream string) string {
	t.Helper()
	var out []string
	for line := range strings.SplitSeq(stream, "\n") {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var c struct {
			Choices []struct {
				Index  int
				Delta  json.RawMessage
				Text   *string
				Finish *string `json:"finish_reason"`
			}
		}
		if err := json.Unmarshal([]byte(data), &c); err != nil || len(c.Choices) != 1 {
			t.Fatalf("%v in %s", err, data)
		}
		one := c.Choices[0]
		text := string(one.Delta)
		if one.Text != nil {
			text = *one.Text
		}
		if one.Index > 0 {
			text = "1:" + text
		}
		if one.Finish != nil {
			text += " " + *one.Finish
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

const roleDelta = `{"role":"assistant","content":"","refusal":null}`

func TestThoughtsTyped(t *testing.T) {
	calls := tool(0, "c1", "f", "{}")
	for name, c := range map[string]struct {
		how  string
		in   []streaming.Event
		want []string
	}{
		"usual": {"", []streaming.Event{thought(0, "a"), text(0, "b"), stop(0, "stop")}, []string{roleDelta, `{"reasoning_content":"a"}`, `{"content":"b"}`, `{} stop`}},
		"both": {ReasoningBoth, []streaming.Event{thought(0, "a\n"), text(0, "b"), stop(0, "stop")},
			[]string{roleDelta, `{"reasoning_content":"a\n","reasoning":"a\n"}`, `{"content":"b"}`, `{} stop`}},
		"inline": {ReasoningInline, []streaming.Event{thought(0, "a"), thought(0, "b"), {Kind: streaming.Lifecycle}, text(0, "c"), text(0, "d"), stop(0, "stop")},
			[]string{roleDelta, `{"content":"<think>\na"}`, `{"content":"b"}`, `{"content":"\n</think>\n\n"}`, `{"content":"c"}`, `{"content":"d"}`, `{} stop`}},
		"inline, thoughts alone": {ReasoningInline, []streaming.Event{thought(0, "a"), stop(0, "length")},
			[]string{roleDelta, `{"content":"<think>\na"}`, `{"content":"\n</think>\n\n"}`, `{} length`}},
		"inline, then a call": {ReasoningInline, []streaming.Event{thought(0, "a"), calls, stop(0, "tool_calls")},
			[]string{roleDelta, `{"content":"<think>\na"}`, `{"content":"\n</think>\n\n"}`, `{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}`, `{} tool_calls`}},
		"inline, without any": {ReasoningInline, []streaming.Event{text(0, "c"), stop(0, "stop")}, []string{roleDelta, `{"content":"c"}`, `{} stop`}},
		"inline, two choices": {ReasoningInline, []streaming.Event{thought(0, "a"), text(1, "x"), stop(1, "stop"), text(0, "b"), stop(0, "stop")},
			[]string{roleDelta, `{"content":"<think>\na"}`, "1:" + roleDelta, `1:{"content":"x"}`, `1:{} stop`, `{"content":"\n</think>\n\n"}`, `{"content":"b"}`, `{} stop`}},
	} {
		got := deltas(t, run(t, NewChat(streaming.SSEFraming, options()), append([]streaming.Event{shown(c.how)}, c.in...), nil))
		if want := strings.Join(c.want, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
	in := []streaming.Event{shown(ReasoningInline), thought(0, "a"), text(0, "b"), stop(0, "stop")}
	if got, want := deltas(t, run(t, NewCompletions(streaming.SSEFraming, options()), in, nil)), "<think>\na\n\n</think>\n\n\nb\n stop"; got != want {
		t.Errorf("completions: %q, want %q", got, want)
	}
}

func TestThoughtsRaw(t *testing.T) {
	chunk := func(k streaming.Kind, finish, delta string) streaming.Event {
		ev := raw(streaming.Chat, k, 0, `{"id":"x","created":1,"model":"m","choices":[{"index":0,"delta":`+delta+`,"finish_reason":`+finish+`}],"new":[1, 2]}`)
		if finish != "null" {
			ev.Stop = strings.Trim(finish, `"`)
		}
		return ev
	}
	piece := func(k streaming.Kind, delta string) streaming.Event { return chunk(k, "null", delta) }
	const (
		first = `{"role":"assistant","content":""}`
		call  = `"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"reasoning_content\":"}}]`
		more  = `"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]`
	)
	answer := []streaming.Event{
		piece(streaming.Lifecycle, first), piece(streaming.Reasoning, `{"reasoning":"a\ud83d","reasoning_content":"a\ud83d","x":1}`),
		piece(streaming.Reasoning, `{"content":null,"reasoning_content":"b"}`), piece(streaming.Lifecycle, `{}`),
		piece(streaming.Text, `{"content":"c","reasoning_content":null}`), piece(streaming.Text, `{"content":"\"reasoning_content\""}`), chunk(streaming.Stop, `"stop"`, `{}`),
	}
	for name, c := range map[string]struct {
		how  string
		in   []streaming.Event
		want []string
	}{
		"both": {ReasoningBoth, answer, []string{first, `{"reasoning_content":"a\ud83d","reasoning":"a\ud83d","x":1}`, `{"content":null,"reasoning_content":"b","reasoning":"b"}`, `{}`,
			`{"content":"c","reasoning_content":null}`, `{"content":"\"reasoning_content\""}`, `{} stop`}},
		"inline": {ReasoningInline, answer, []string{first, `{"content":"<think>\na\ud83d","x":1}`, `{"content":"b"}`, `{}`, `{"content":"\n</think>\n\n"}`,
			`{"content":"c","reasoning_content":null}`, `{"content":"\"reasoning_content\""}`, `{} stop`}},
		"the end and the beginning in one": {ReasoningInline, []streaming.Event{piece(streaming.Reasoning, `{"role":"assistant","reasoning_content":"a"}`), piece(streaming.Text, `{"content":"c","reasoning_content":"b"}`), chunk(streaming.Stop, `"stop"`, `{}`)},
			[]string{`{"role":"assistant","content":"<think>\na"}`, `{"content":"b\n</think>\n\nc"}`, `{} stop`}},
		"with the finish": {ReasoningInline, []streaming.Event{chunk(streaming.Reasoning, `"length"`, `{"role":"assistant","reasoning_content":"a"}`)}, []string{`{"role":"assistant","content":"<think>\na\n</think>\n\n"} length`}},
		"no text behind":  {ReasoningInline, []streaming.Event{piece(streaming.Reasoning, `{"role":"assistant","reasoning_content":"a"}`), chunk(streaming.Stop, `"stop"`, `{}`)}, []string{`{"role":"assistant","content":"<think>\na"}`, `{"content":"\n</think>\n\n"}`, `{} stop`}},
		"beside a call": {ReasoningInline, []streaming.Event{piece(streaming.Reasoning, `{"role":"assistant","reasoning_content":"a"}`), piece(streaming.ToolCall, `{"reasoning_content":"b",`+call+`}`), piece(streaming.ToolCall, `{`+more+`}`), chunk(streaming.Stop, `"tool_calls"`, `{}`)},
			[]string{`{"role":"assistant","content":"<think>\na"}`, `{"content":"b\n</think>\n\n",` + call + `}`, `{` + more + `}`, `{} tool_calls`}},
		"beside a call alone": {ReasoningInline, []streaming.Event{chunk(streaming.ToolCall, `"tool_calls"`, `{"role":"assistant","content":null,`+call+`,"reasoning_content":"b"}`)},
			[]string{`{"role":"assistant","content":"<think>\nb\n</think>\n\n",` + call + `} tool_calls`}},
		"beside a call, both": {ReasoningBoth, []streaming.Event{piece(streaming.ToolCall, `{"role":"assistant","reasoning_content":"b",`+call+`}`), chunk(streaming.Stop, `"tool_calls"`, `{}`)},
			[]string{`{"role":"assistant","reasoning_content":"b","reasoning":"b",` + call + `}`, `{} tool_calls`}},
		"a second block": {ReasoningInline, []streaming.Event{piece(streaming.Text, `{"role":"assistant","content":"x"}`), piece(streaming.Reasoning, `{"reasoning_content":"a"}`), piece(streaming.Text, `{"content":"c","reasoning_content":"b"}`), chunk(streaming.Stop, `"stop"`, `{}`)},
			[]string{`{"role":"assistant","content":"x"}`, `{"content":"<think>\na"}`, `{"content":"b\n</think>\n\nc"}`, `{} stop`}},
		"typed behind": {ReasoningInline, []streaming.Event{answer[0], answer[1], text(0, "b"), stop(0, "stop")}, []string{first, `{"content":"<think>\na\ud83d","x":1}`, `{"content":"\n</think>\n\n"}`, `{"content":"b"}`, `{} stop`}},
	} {
		out := run(t, NewChat(streaming.SSEFraming, options()), append([]streaming.Event{shown(c.how)}, c.in...), nil)
		if got, want := deltas(t, out), strings.Join(c.want, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
		for _, ev := range c.in {
			if len(ev.Raw) > 0 && !strings.Contains(out, `"new":[1, 2]`) {
				t.Errorf("%s: an unknown member is gone: %s", name, out)
			}
		}
	}
	usual := run(t, NewChat(streaming.SSEFraming, options()), append([]streaming.Event{meta()}, answer...), nil)
	for _, ev := range answer {
		if !strings.Contains(usual, "data: "+string(ev.Raw)+"\n\n") {
			t.Errorf("usual: %s does not pass as it is", ev.Raw)
		}
	}
}

// A cut answer does not end its block: what came is a beginning of the whole one.
func TestThoughtsOfCutAnswers(t *testing.T) {
	out := run(t, NewChat(streaming.SSEFraming, options()), []streaming.Event{shown(ReasoningInline), thought(0, "a")}, errCut)
	if strings.Contains(out, "</think>") || !strings.Contains(out, `"error"`) {
		t.Error(out)
	}
}

func TestThoughtsWhole(t *testing.T) {
	in := []streaming.Event{thought(0, "a"), text(0, "b"), thought(1, "c"), stop(0, "stop"), stop(1, "length")}
	for how, want := range map[string][]string{
		"":              {`"content":"b"`, `"reasoning_content":"a"}`, `"content":""`, `"reasoning_content":"c"}`},
		ReasoningBoth:   {`"reasoning_content":"a","reasoning":"a"}`, `"reasoning_content":"c","reasoning":"c"}`},
		ReasoningInline: {`"content":"<think>\na\n</think>\n\nb","refusal":null,"annotations":[]}`, `"content":"<think>\nc\n</think>\n\n",`},
	} {
		got := run(t, NewWhole(providers.Chat, options()), append([]streaming.Event{shown(how)}, in...), nil)
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%q: no %s in %s", how, part, got)
			}
		}
		if !json.Valid([]byte(got)) || how == ReasoningInline && strings.Contains(got, "reasoning") {
			t.Errorf("%q: %s", how, got)
		}
	}
	got := run(t, NewWhole(providers.Completions, options()), append([]streaming.Event{shown(ReasoningInline)}, in...), nil)
	if !strings.Contains(got, `"text":"<think>\na\n</think>\n\nb"`) {
		t.Errorf("completions: %s", got)
	}
}

func TestPresent(t *testing.T) {
	const body = `{"id":"x", "choices":[{"index":0,"message":{"role":"assistant","reasoning":"a","reasoning_content":"a","content":"b\n","z":[1]}},` +
		`{"index":1,"message":{"content":null,"reasoning_content":"c\"","tool_calls":[]}},{"index":2,"message":{"content":"d","reasoning_content":null}}],"usage": {"x":1}}`
	for how, want := range map[string]string{
		"": body, ReasoningContent: body,
		ReasoningBoth: `{"id":"x", "choices":[{"index":0,"message":{"role":"assistant","reasoning_content":"a","reasoning":"a","content":"b\n","z":[1]}},` +
			`{"index":1,"message":{"content":null,"reasoning_content":"c\"","reasoning":"c\"","tool_calls":[]}},{"index":2,"message":{"content":"d","reasoning_content":null}}],"usage": {"x":1}}`,
		ReasoningInline: `{"id":"x", "choices":[{"index":0,"message":{"role":"assistant","content":"<think>\na\n</think>\n\nb\n","z":[1]}},` +
			`{"index":1,"message":{"content":"<think>\nc\"\n</think>\n\n","tool_calls":[]}},{"index":2,"message":{"content":"d","reasoning_content":null}}],"usage": {"x":1}}`,
	} {
		if got := string(Present(providers.Chat, []byte(body), how)); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", how, got, want)
		}
	}
	for _, same := range []string{`{"choices":[{"message":{"content":"a"}}]}`, `{"choices":null,"x":"reasoning_content"}`, `[]`, `{"choices":[{"message":{"reasoning_content":"a"`, ``} {
		if got := string(Present(providers.Chat, []byte(same), ReasoningInline)); got != same {
			t.Errorf("%s became %s", same, got)
		}
	}
	if got := string(Present(providers.Embeddings, []byte(body), ReasoningInline)); got != body {
		t.Errorf("another operation: %s", got)
	}
}

// Chunks without reasoning cost nothing more when it is presented in another way.
func BenchmarkChatRawInline(b *testing.B) {
	ev := raw(streaming.Chat, streaming.Text, 0, `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}`)
	for name, how := range map[string]string{"usual": "", "inline": ReasoningInline} {
		b.Run(name, func(b *testing.B) {
			enc := NewChat(streaming.SSEFraming, options())
			first := shown(how)
			buf, _ := enc.Append(nil, &first)
			b.ReportAllocs()
			for b.Loop() {
				buf, _ = enc.Append(buf[:0], &ev)
			}
		})
	}
}
