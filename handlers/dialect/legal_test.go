package dialect

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	openai "github.com/sashabaranov/go-openai"

	"sluice/streaming"
)

// reader holds what comes out of an encoder against the contract of clients.
type reader struct {
	completions bool
	usageAsked  bool
	role, done  map[int]bool
	text        map[int]string
	tools       map[int]bool
	names       string // id, created and model of the first chunk
	usage, end  bool
}

func newReader(completions, usageAsked bool) *reader {
	return &reader{completions: completions, usageAsked: usageAsked,
		role: map[int]bool{}, done: map[int]bool{}, text: map[int]string{}, tools: map[int]bool{}}
}

func (r *reader) payloads(t testing.TB, wire string) []string {
	t.Helper()
	var out []string
	f := streaming.NewFrames(strings.NewReader(wire), 1<<20)
	defer f.Close()
	for {
		frames, err := f.Next()
		for _, fr := range frames {
			out = append(out, string(fr.Data))
		}
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (r *reader) read(wire string, t testing.TB) {
	t.Helper()
	for _, p := range r.payloads(t, wire) {
		if err := r.payload(p); err != nil {
			t.Errorf("%v in %s", err, p)
		}
	}
}

func (r *reader) payload(p string) error {
	switch {
	case r.end:
		return fmt.Errorf("a payload after the end")
	case p == "[DONE]":
		r.end = true
		return nil
	case r.usage:
		return fmt.Errorf("a chunk after the usage")
	}
	if err := r.shape(p); err != nil {
		return err
	}
	if r.completions {
		var c openai.CompletionResponse
		if err := json.Unmarshal([]byte(p), &c); err != nil {
			return err
		}
		for _, ch := range c.Choices {
			r.role[ch.Index] = true
			if err := r.content(ch.Index, ch.Text, string(ch.FinishReason)); err != nil {
				return err
			}
		}
		return nil
	}
	var c openai.ChatCompletionStreamResponse
	if err := json.Unmarshal([]byte(p), &c); err != nil {
		return err
	}
	for i := range c.Choices {
		if err := r.chat(&c.Choices[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) chat(ch *openai.ChatCompletionStreamChoice) error {
	if given := ch.Delta.Role != ""; given == r.role[ch.Index] {
		return fmt.Errorf("choice %d: role given %v, had it %v", ch.Index, given, r.role[ch.Index])
	}
	r.role[ch.Index] = true
	for _, call := range ch.Delta.ToolCalls {
		if call.Index == nil {
			return fmt.Errorf("a tool call without index")
		}
		if first := call.ID != "" && call.Function.Name != "" && call.Type == openai.ToolTypeFunction; first == r.tools[*call.Index] {
			return fmt.Errorf("call %d: named %v, was named %v", *call.Index, first, r.tools[*call.Index])
		}
		r.tools[*call.Index] = true
	}
	return r.content(ch.Index, ch.Delta.Content+ch.Delta.ReasoningContent, string(ch.FinishReason))
}

func (r *reader) content(i int, text, finish string) error {
	if r.done[i] {
		return fmt.Errorf("choice %d goes on after its finish", i)
	}
	r.text[i] += text
	r.done[i] = finish != ""
	return nil
}

// shape checks the members that every chunk has.
func (r *reader) shape(p string) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(p), &m); err != nil {
		return err
	}
	names := string(m["id"]) + string(m["created"]) + string(m["model"])
	if r.names == "" {
		r.names = names
	}
	if m["id"] == nil || m["created"] == nil || m["model"] == nil || m["object"] == nil || m["error"] != nil || names != r.names {
		return fmt.Errorf("the members of a chunk")
	}
	u, has := m["usage"]
	if has != r.usageAsked {
		return fmt.Errorf("usage there: %v", has)
	}
	if r.usage = has && string(u) != "null"; r.usage && string(m["choices"]) != "[]" {
		return fmt.Errorf("usage beside choices")
	}
	return nil
}

// want is which heartbeat is legal: comment, chunk of a choice, or nothing.
func (r *reader) want(n int) (comment bool, choice int) {
	finished := 0
	choice = -1
	for i := range n {
		if r.done[i] {
			finished++
		} else if r.role[i] && choice < 0 {
			choice = i
		}
	}
	return choice < 0 && finished < n && !r.end, choice
}

func rawChunk(completions bool, i int, delta, finish string) streaming.Event {
	d, object := streaming.Chat, "chat.completion.chunk"
	member := `"delta":` + delta
	if completions {
		d, object, member = streaming.Completions, "text_completion", `"text":"x"`
	}
	kind, stop := streaming.Text, ""
	reason := "null"
	if finish != "" {
		kind, stop, reason = streaming.Stop, finish, `"`+finish+`"`
	}
	return streaming.Event{Kind: kind, Dialect: d, Index: i, Stop: stop, Raw: fmt.Appendf(nil,
		`{"id":"chatcmpl-raw","object":%q,"created":8,"model":"rawmodel","choices":[{"index":%d,%s,"finish_reason":%s}],"usage":null}`, object, i, member, reason)}
}

// scripts are answers as adapters give them; n is the number of choices.
func scripts(completions bool) map[string]struct {
	n      int
	events []streaming.Event
} {
	rawOf := func(i int) []streaming.Event {
		return []streaming.Event{rawChunk(completions, i, `{"role":"assistant","content":""}`, ""),
			rawChunk(completions, i, `{"content":"x"}`, ""), rawChunk(completions, i, `{}`, "stop")}
	}
	u := usage(streaming.UsageData{Prompt: 1, Completion: 2})
	typed := []streaming.Event{meta(), text(0, "a"), text(0, "b"), u, stop(0, "stop"), u}
	if !completions {
		typed = []streaming.Event{meta(), text(0, "a"), tool(0, "c", "f", "{"), tool(0, "", "", "}"), stop(0, "tool_calls"), u}
	}
	a, b := rawOf(0), rawOf(1)
	return map[string]struct {
		n      int
		events []streaming.Event
	}{
		"typed":             {1, typed},
		"typed two":         {2, []streaming.Event{meta(), text(0, "a"), text(1, "b"), stop(0, "stop"), text(1, "c"), stop(1, "stop"), u}},
		"raw":               {1, append(rawOf(0), u)},
		"raw two, mixed":    {2, []streaming.Event{meta(), a[0], b[0], b[1], b[2], a[1], a[2], u}},
		"raw two in order":  {2, slices.Concat(a, b)},
		"raw goes on typed": {1, []streaming.Event{a[0], a[1], meta(), text(0, "more"), stop(0, "stop"), u}},
	}
}

// In every state of an answer a heartbeat is what the contract allows, and the
// answer stays correct with any number of them in every place.
func TestHeartbeats(t *testing.T) {
	for _, completions := range []bool{false, true} {
		for name, s := range scripts(completions) {
			t.Run(fmt.Sprintf("%s completions=%v", name, completions), func(t *testing.T) {
				o := wanting()
				o.Choices = s.n
				enc := NewChat(streaming.SSEFraming, o)
				if completions {
					enc = NewCompletions(streaming.SSEFraming, o)
				}
				r := newReader(completions, true)
				beatAll(t, enc, r, s.n, s.events)
				if !r.end || len(r.done) != s.n {
					t.Errorf("unfinished: %+v", r)
				}
			})
		}
	}
}

func beatAll(t *testing.T, enc streaming.Encoder, r *reader, n int, events []streaming.Event) {
	t.Helper()
	beat := func() {
		t.Helper()
		comment, choice := r.want(n)
		for range 2 {
			got := string(enc.AppendHeartbeat(nil))
			switch {
			case comment && got != streaming.SSEFraming.Comment,
				!comment && choice < 0 && got != "",
				choice >= 0 && !strings.Contains(got, fmt.Sprintf(`"choices":[{"index":%d,`, choice)),
				choice >= 0 && !strings.Contains(got, `"delta":{},`) && !strings.Contains(got, `"text":"",`):
				t.Errorf("heartbeat %q; comment legal: %v, choice %d", got, comment, choice)
			}
			r.read(got, t)
		}
	}
	beat()
	for i := range events {
		out, err := enc.Append(nil, &events[i])
		if err != nil {
			t.Fatal(err)
		}
		r.read(string(out), t)
		beat()
	}
	r.read(string(enc.AppendEnd(nil, nil)), t)
	beat()
}

// An upstream that begins without a name (a filter result) gives it later.
func TestHeartbeatNamedLate(t *testing.T) {
	enc := NewChat(streaming.SSEFraming, options())
	first := raw(streaming.Chat, streaming.Lifecycle, 0, `{"id":"","object":"","created":0,"model":"","choices":[]}`)
	second := rawChunk(false, 0, `{"role":"assistant"}`, "")
	for _, ev := range []streaming.Event{first, second} {
		if _, err := enc.Append(nil, &ev); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(enc.AppendHeartbeat(nil)); !strings.HasPrefix(got, `data: {"id":"chatcmpl-raw","object":"chat.completion.chunk","created":8,"model":"rawmodel",`) {
		t.Errorf("heartbeat %q", got)
	}
}

// FuzzText: whatever bytes a model brings, every payload is one line of valid JSON
// and valid text arrives unchanged.
func FuzzText(f *testing.F) {
	f.Add("plain", "id")
	f.Add("\xff\xfe\n\r\"\\\u2028</script>", "a\"b")
	f.Add("data: [DONE]\n\n", "")
	f.Fuzz(func(t *testing.T, content, name string) {
		want := strings.ToValidUTF8(content, "")
		for _, completions := range []bool{false, true} {
			o := wanting()
			o.ID, o.Model = name, name
			enc, own := NewChat(streaming.SSEFraming, o), newReader(completions, true)
			events := []streaming.Event{text(0, content), {Kind: streaming.Reasoning, Text: ""}, stop(0, content), usage(streaming.UsageData{})}
			if completions {
				enc = NewCompletions(streaming.SSEFraming, o)
			}
			own.read(run(t, enc, events, nil), t)
			if want == content && own.text[0] != content {
				t.Errorf("%q became %q", content, own.text[0])
			}
			if !own.done[0] || !own.end {
				t.Errorf("no end after %q", content)
			}
		}
	})
}

func benchEvents() []streaming.Event {
	first := rawChunk(false, 0, `{"role":"assistant","content":""}`, "")
	next := rawChunk(false, 0, `{"content":" token"}`, "")
	return []streaming.Event{first, next}
}

// The clean path copies and allocates nothing.
func TestCleanPathAllocates(t *testing.T) {
	for name, enc := range map[string]streaming.Encoder{"chat": NewChat(streaming.SSEFraming, wanting()), "responses": NewResponses(streaming.SSEFraming, options())} {
		events := benchEvents()
		if name == "responses" {
			for i := range events {
				events[i].Dialect, events[i].Name = streaming.Responses, "response.output_text.delta"
			}
		}
		dst, err := enc.Append(make([]byte, 0, 4096), &events[0])
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() {
			if _, err := enc.Append(dst[:0], &events[1]); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations per event", name, n)
		}
	}
}

func BenchmarkChatRaw(b *testing.B) {
	enc, events := NewChat(streaming.SSEFraming, wanting()), benchEvents()
	dst, err := enc.Append(make([]byte, 0, 4096), &events[0])
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(events[1].Raw)))
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = enc.Append(dst[:0], &events[1])
	}
}

func BenchmarkChatTyped(b *testing.B) {
	enc := NewChat(streaming.SSEFraming, wanting())
	ev := text(0, " token")
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = enc.Append(dst[:0], &ev)
	}
}
