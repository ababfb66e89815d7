package dialect

import (
	"errors"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/streaming"
)

func options() Options {
	return Options{ID: "chatcmpl-own", Created: 1700000000, Model: "m", Choices: 1, Error: func(err error) []byte {
		return []byte(`{"message":"` + err.Error() + `","type":"server_error","param":null,"code":"cut"}`)
	}}
}

func wanting() Options {
	o := options()
	o.WantsUsage = true
	return o
}

var errCut = errors.New("cut off")

// run encodes events and the end.
func run(t testing.TB, enc streaming.Encoder, events []streaming.Event, end error) string {
	t.Helper()
	var out []byte
	for i := range events {
		var err error
		if out, err = enc.Append(out, &events[i]); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	return string(enc.AppendEnd(out, end))
}

func meta() streaming.Event {
	return streaming.Event{Kind: streaming.Meta, Meta: &streaming.MetaData{ID: "chatcmpl-up", Created: 7, Model: "up"}}
}

func text(i int, s string) streaming.Event {
	return streaming.Event{Kind: streaming.Text, Index: i, Text: s}
}

func stop(i int, reason string) streaming.Event {
	return streaming.Event{Kind: streaming.Stop, Index: i, Stop: reason}
}

func tool(index int, id, name, args string) streaming.Event {
	return streaming.Event{Kind: streaming.ToolCall, Tool: &streaming.ToolDelta{Index: index, ID: id, Name: name, Args: args}}
}

func usage(u streaming.UsageData) streaming.Event {
	return streaming.Event{Kind: streaming.Usage, Usage: &u}
}

func raw(d streaming.Dialect, k streaming.Kind, i int, text string) streaming.Event {
	return streaming.Event{Kind: k, Dialect: d, Index: i, Raw: []byte(text)}
}

const (
	headChat = `data: {"id":"chatcmpl-up","object":"chat.completion.chunk","created":7,"model":"up","choices":[`
	headText = `data: {"id":"chatcmpl-up","object":"text_completion","created":7,"model":"up","choices":[`
	role0    = headChat + `{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	done     = "data: [DONE]\n\n"
)

func delta(d string) string {
	return headChat + `{"index":0,"delta":` + d + `,"logprobs":null,"finish_reason":null}]}` + "\n\n"
}

func finish(reason string) string {
	return headChat + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"` + reason + `"}]}` + "\n\n"
}

func TestChatTyped(t *testing.T) {
	both := text(0, "end")
	both.Stop = "length"
	for name, c := range map[string]struct {
		in   []streaming.Event
		want string
	}{
		"text": {[]streaming.Event{meta(), text(0, "a\n\"é<"), text(0, ""), stop(0, "stop")},
			role0 + delta(`{"content":"a\n\"é<"}`) + finish("stop") + done},
		"text and finish in one":    {[]streaming.Event{meta(), both}, role0 + delta(`{"content":"end"}`) + finish("length") + done},
		"nothing after the finish":  {[]streaming.Event{meta(), stop(0, "stop"), text(0, "x"), stop(0, "length")}, role0 + finish("stop") + done},
		"lifecycle gives the role":  {[]streaming.Event{meta(), {Kind: streaming.Lifecycle}, text(0, "a")}, role0 + delta(`{"content":"a"}`) + done},
		"reasoning":                 {[]streaming.Event{meta(), {Kind: streaming.Reasoning, Text: "hm"}}, role0 + delta(`{"reasoning_content":"hm"}`) + done},
		"no usage unless asked for": {[]streaming.Event{meta(), stop(0, "stop"), usage(streaming.UsageData{Prompt: 1})}, role0 + finish("stop") + done},
		"tools": {[]streaming.Event{meta(), tool(0, "c1", "f", ""), tool(0, "c1", "f", `{"a"`), tool(1, "", "g", "{}"), tool(0, "", "", ":1}"), stop(0, "tool_calls")},
			role0 + delta(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}`) +
				delta(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}`) +
				delta(`{"tool_calls":[{"index":1,"id":"call_up_0_1","type":"function","function":{"name":"g","arguments":"{}"}}]}`) +
				delta(`{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}`) + finish("tool_calls") + done},
	} {
		if got := run(t, NewChat(streaming.SSEFraming, options()), c.in, nil); got != c.want {
			t.Errorf("%s:\ngot\n%swant\n%s", name, got, c.want)
		}
	}
}

func TestChatUsage(t *testing.T) {
	const own = `{"id":"chatcmpl-up","choices":[],"usage":{"total_tokens":9,"x":1}}`
	null := strings.NewReplacer(`]}`+"\n\n", `],"usage":null}`+"\n\n")
	before := null.Replace(role0+finish("stop")) + ""
	for name, c := range map[string]struct {
		usage []streaming.Event
		want  string
	}{
		"counted": {[]streaming.Event{usage(streaming.UsageData{Prompt: 99}), usage(streaming.UsageData{Prompt: 3, Completion: 4, Total: 7})},
			headChat + `],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}` + "\n\n"},
		"details and sum": {[]streaming.Event{usage(streaming.UsageData{Prompt: 3, Completion: 4, Cached: 2, Reasoning: 1, Estimated: true})},
			headChat + `],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}}` + "\n\n"},
		"the upstream's object": {[]streaming.Event{usage(streaming.UsageData{Prompt: 3, Raw: []byte(`{"p":1,` + "\n" + `"q":2}`)})},
			headChat + `],"usage":{"p":1, "q":2}}` + "\n\n"},
		"the upstream's chunk": {[]streaming.Event{usage(streaming.UsageData{Prompt: 1}), raw(streaming.Chat, streaming.Usage, 0, own)},
			"data: " + own + "\n\n"},
		"none came": {nil, ""},
	} {
		in := append([]streaming.Event{meta(), {Kind: streaming.Lifecycle}}, c.usage...)
		in = append(in, stop(0, "stop"))
		if got, want := run(t, NewChat(streaming.SSEFraming, wanting()), in, nil), before+c.want+done; got != want {
			t.Errorf("%s:\ngot\n%swant\n%s", name, got, want)
		}
		if got := run(t, NewChat(streaming.SSEFraming, wanting()), in, errCut); strings.Contains(got, "tokens") {
			t.Errorf("%s: usage although the answer failed: %s", name, got)
		}
	}
}

// Usage kept from an event must not change with the event's memory.
func TestUsageIsCopied(t *testing.T) {
	enc := NewChat(streaming.SSEFraming, wanting())
	ev := raw(streaming.Chat, streaming.Usage, 0, `{"choices":[],"usage":{}}`)
	if _, err := enc.Append(nil, &ev); err != nil {
		t.Fatal(err)
	}
	copy(ev.Raw, strings.Repeat("X", len(ev.Raw)))
	if got, want := string(enc.AppendEnd(nil, nil)), `data: {"choices":[],"usage":{}}`+"\n\n"+done; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRawPasses(t *testing.T) {
	const a = `{"id":"x","choices":[{"index":0,"delta":{"role":"assistant"}}],"new":[1, 2]}`
	for name, c := range map[string]struct {
		enc     streaming.Encoder
		dialect streaming.Dialect
	}{
		"chat":        {NewChat(streaming.SSEFraming, wanting()), streaming.Chat},
		"completions": {NewCompletions(streaming.SSEFraming, wanting()), streaming.Completions},
	} {
		in := []streaming.Event{raw(c.dialect, streaming.Lifecycle, 0, a), raw(c.dialect, streaming.Text, 0, "{\n\"a\":1}")}
		if got, want := run(t, c.enc, in, nil), "data: "+a+"\n\ndata: { \"a\":1}\n\n"+done; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestErrorEnd(t *testing.T) {
	const inner = `{"message":"cut off","type":"server_error","param":null,"code":"cut"}`
	in := []streaming.Event{meta(), text(0, "a")}
	got := run(t, NewChat(streaming.SSEFraming, wanting()), in, errCut)
	if want := `data: {"error":` + inner + "}\n\n"; !strings.HasSuffix(got, "\n\n"+want) {
		t.Errorf("got %q, want %q at its end", got, want)
	}
	o := options()
	o.Error = nil
	if got, want := string(NewChat(streaming.SSEFraming, o).AppendEnd(nil, errCut)), `data: {"error":`+plainError+"}\n\n"; got != want {
		t.Errorf("without a table: got %q, want %q", got, want)
	}
	enc := NewChat(streaming.SSEFraming, options())
	enc.AppendEnd(nil, errCut)
	if got := enc.AppendEnd(nil, nil); len(got) > 0 {
		t.Errorf("a second end wrote %q", got)
	}
	if got, want := string(NewWhole(providers.Chat, options()).AppendEnd(nil, errCut)), `{"error":`+inner+`}`; got != want {
		t.Errorf("body: got %q, want %q", got, want)
	}
}

func TestCompletionsTyped(t *testing.T) {
	in := []streaming.Event{meta(), {Kind: streaming.Lifecycle}, {Kind: streaming.Reasoning, Text: "hm"}, text(0, "a"), stop(0, ""),
		usage(streaming.UsageData{Prompt: 1, Completion: 1})}
	chunk := func(text, stop string) string {
		return headText + `{"index":0,"text":"` + text + `","logprobs":null,"finish_reason":` + stop + `}],"usage":null}` + "\n\n"
	}
	want := chunk("a", "null") + chunk("", `"stop"`) +
		headText + `],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}` + "\n\n" + done
	if got := run(t, NewCompletions(streaming.SSEFraming, wanting()), in, nil); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestNoForm(t *testing.T) {
	for name, c := range map[string]struct {
		enc streaming.Encoder
		ev  streaming.Event
	}{
		"a body in a stream":            {NewChat(streaming.SSEFraming, options()), raw(streaming.Chat, streaming.Whole, 0, "{}")},
		"a foreign payload":             {NewChat(streaming.SSEFraming, options()), raw(streaming.Completions, streaming.Text, 0, "{}")},
		"choice below zero":             {NewChat(streaming.SSEFraming, options()), text(-1, "a")},
		"choice beyond the bound":       {NewChat(streaming.SSEFraming, options()), text(maxChoices, "a")},
		"a tool call in a completion":   {NewCompletions(streaming.SSEFraming, options()), tool(0, "a", "b", "{}")},
		"typed content in responses":    {NewResponses(streaming.SSEFraming, options()), text(0, "a")},
		"an embedding from events":      {NewWhole(providers.Embeddings, options()), text(0, "a")},
		"a raw chunk in a body":         {NewWhole(providers.Chat, options()), raw(streaming.Chat, streaming.Text, 0, "{}")},
		"a tool call in a body of text": {NewWhole(providers.Completions, options()), tool(0, "a", "b", "{}")},
		"too much":                      {NewWhole(providers.Chat, options()), text(0, strings.Repeat("a", maxCollected+1))},
	} {
		if got, err := c.enc.Append(nil, &c.ev); err == nil || len(got) > 0 {
			t.Errorf("%s: got %q, no error", name, got)
		}
	}
}

func TestWhole(t *testing.T) {
	o := options()
	o.Choices = 2
	in := []streaming.Event{meta(), text(1, "b"), {Kind: streaming.Reasoning, Text: "hm"}, text(0, "\xe4"), text(0, "\xb8\xad"), stop(1, "length"), stop(0, "stop"),
		usage(streaming.UsageData{Prompt: 1, Completion: 2})}
	const head = `{"id":"chatcmpl-up","object":"chat.completion","created":7,"model":"up","choices":[`
	want := head +
		`{"index":0,"message":{"role":"assistant","content":"中","refusal":null,"annotations":[],"reasoning_content":"hm"},"logprobs":null,"finish_reason":"stop"},` +
		`{"index":1,"message":{"role":"assistant","content":"b","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"length"}],` +
		`"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`
	if got := run(t, NewWhole(providers.Chat, o), in, nil); got != want {
		t.Errorf("chat:\ngot  %s\nwant %s", got, want)
	}
	in = []streaming.Event{meta(), tool(1, "", "g", "{}"), tool(0, "c1", "f", `{"a":`), tool(0, "c1", "f", `1}`), stop(0, "tool_calls")}
	want = head + `{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"annotations":[],"tool_calls":[` +
		`{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},` +
		`{"id":"call_up_0_1","type":"function","function":{"name":"g","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}]}`
	if got := run(t, NewWhole(providers.Chat, o), in, nil); got != want {
		t.Errorf("tools:\ngot  %s\nwant %s", got, want)
	}
	in = []streaming.Event{meta(), text(0, "a"), stop(0, "stop")}
	want = `{"id":"chatcmpl-up","object":"text_completion","created":7,"model":"up","choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":"stop"}]}`
	if got := run(t, NewWhole(providers.Completions, o), in, nil); got != want {
		t.Errorf("completions:\ngot  %s\nwant %s", got, want)
	}
}

func TestResponses(t *testing.T) {
	named := func(name, text string) streaming.Event {
		ev := raw(streaming.Responses, streaming.Text, 0, text)
		ev.Name = name
		return ev
	}
	const created = `{"type":"response.created","sequence_number":0}`
	const part = `{"type":"response.output_text.delta","delta":"\"sequence_number\":99", "sequence_number": 5}`
	enc := NewResponses(streaming.SSEFraming, options())
	if got := string(enc.AppendHeartbeat(nil)); got != streaming.SSEFraming.Comment {
		t.Errorf("first heartbeat %q", got)
	}
	got := run(t, enc, []streaming.Event{meta(), named("response.created", created), named("", part)}, nil)
	if want := "event: response.created\ndata: " + created + "\n\ndata: " + part + "\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := enc.AppendHeartbeat(nil); len(got) > 0 {
		t.Errorf("a heartbeat after the end: %q", got)
	}

	enc = NewResponses(streaming.SSEFraming, options())
	ev := named("", part)
	if _, err := enc.Append(nil, &ev); err != nil {
		t.Fatal(err)
	}
	if got, want := string(enc.AppendHeartbeat(nil)), "event: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":5}\n\n"; got != want {
		t.Errorf("heartbeat %q, want %q", got, want)
	}
	want := `event: error` + "\n" + `data: {"type":"error","sequence_number":6,"code":"cut","message":"cut off","param":null,` +
		`"error":{"message":"cut off","type":"server_error","param":null,"code":"cut"}}` + "\n\n"
	if got := string(enc.AppendEnd(nil, errCut)); got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}

func TestResponsesAfterTerminal(t *testing.T) {
	for kind, wantsError := range map[string]bool{"error": false, "response.failed": false, "response.completed": true} {
		enc := NewResponses(streaming.SSEFraming, options())
		ev := raw(streaming.Responses, streaming.Stop, 0, `{"sequence_number":3,"type":"`+kind+`"}`)
		if _, err := enc.Append(nil, &ev); err != nil {
			t.Fatal(err)
		}
		if got := enc.AppendHeartbeat(nil); len(got) > 0 {
			t.Errorf("%s: a heartbeat after it: %q", kind, got)
		}
		if got := enc.AppendEnd(nil, errCut); (len(got) > 0) != wantsError {
			t.Errorf("%s: a failure after it wrote %q", kind, got)
		}
	}
}

// On a wire without server-sent events there are no names and no comments.
func TestBareFraming(t *testing.T) {
	bare := streaming.Framing{After: "\n"}
	enc := NewResponses(bare, options())
	ev := raw(streaming.Responses, streaming.Text, 0, `{"type":"response.created","sequence_number":0}`)
	ev.Name = "response.created"
	if got := run(t, enc, []streaming.Event{ev}, nil); got != string(ev.Raw)+"\n" {
		t.Errorf("got %q", got)
	}
	if got := NewChat(bare, options()).AppendHeartbeat(nil); len(got) > 0 {
		t.Errorf("heartbeat %q", got)
	}
}
