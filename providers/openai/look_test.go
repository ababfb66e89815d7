package openai

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
)

// A payload with very many choices would be copied once for each of them.
func TestChoicesInOnePayloadAreBounded(t *testing.T) {
	payload := func(n int) string {
		choices := make([]string, n)
		for i := range choices {
			choices[i] = fmt.Sprintf(`{"index":%d,"text":"x","finish_reason":"stop"}`, i)
		}
		return `data: {"id":"a","object":"text_completion","created":1,"model":"m","choices":[` + strings.Join(choices, ",") + "]}\n\ndata: [DONE]\n\n"
	}
	for n, want := range map[int]string{
		128: "complete\nrepaired 0, malformed 0",
		129: "without a finish_reason\nrepaired 0, malformed 1",
	} {
		if got := play(t, providers.Completions, "", strings.NewReader(payload(n))); !strings.Contains(got, want) {
			t.Errorf("%d choices: %s, want %s", n, got[max(0, len(got)-200):], want)
		}
	}
}

func TestIndexes(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "7": 7, "128": 128, "999": 999, "1000": 1000, "4095": 4095,
		"4096": -1, "9999": -1, "10000": -1, "-1": -1, "1.5": -1, "1e2": -1, `"1"`: -1, "": -1, "[]": -1} {
		n, ok := smallInt([]byte(text))
		if ok != (want >= 0) || n != max(want, 0) {
			t.Errorf("%s: %d %v", text, n, ok)
		}
	}
}

func TestChoiceSet(t *testing.T) {
	var s choiceSet
	indexes := []int{0, 63, 64, 127, 4095, 128, 191, 192, 1000}
	for i, n := range indexes {
		for _, later := range indexes[i:] {
			if s.has(later) {
				t.Errorf("%d is there before it was added", later)
			}
		}
		if !s.add(n) || s.add(n) || !s.has(n) {
			t.Errorf("%d was not added once", n)
		}
	}
	if n := testing.AllocsPerRun(10, func() { var s choiceSet; s.add(127) }); n != 0 {
		t.Errorf("%v allocations for a low index", n)
	}
}

// A connection that breaks may have taken choices with it that had not begun. After
// a clean end fewer than asked for are legal: some servers ignore n.
func TestChoicesThatNeverBegan(t *testing.T) {
	const chunk = `data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}` + "\n\n"
	for _, c := range []struct {
		wanted   int
		tail     io.Reader
		complete bool
	}{
		{1, iotest.ErrReader(io.ErrUnexpectedEOF), true},
		{2, iotest.ErrReader(io.ErrUnexpectedEOF), false},
		{2, strings.NewReader(""), true},
		{2, strings.NewReader("data: [DONE]\n\n"), true},
	} {
		p := New(Options{Upstream: upstream.Options{Name: "up"}, MaxEvent: 1 << 20})
		req := &providers.Request{ID: "req_1", Op: providers.Chat, Model: "m", Stream: true, Choices: c.wanted}
		var end error
		got := p.relayEvents(req, &call{}, io.MultiReader(strings.NewReader(chunk), c.tail), streaming.NewProgress(time.Now()), func(_ []streaming.Event, err error) bool {
			end = err
			return true
		})
		e := providers.AsError(end)
		if got != c.complete || !c.complete && (e == nil || e.Kind != providers.Truncated) {
			t.Errorf("%d wanted: complete %v, %v", c.wanted, got, end)
		}
	}
}

// Another model name alone is no repair and keeps every other byte.
func TestPresentAsIsNoRepair(t *testing.T) {
	const chunk = `{"id":"a", "usage":null,"object":"chat.completion.chunk","created":1, "model":"up-1" ,"choices":[{"index":0,"delta":{%s"content":"x"},"finish_reason":%s}]%s}`
	text := "data: " + fmt.Sprintf(chunk, `"role":"assistant",`, "null", "") + "\n\ndata: " + fmt.Sprintf(chunk, "", `"stop"`, ` , "x":1`) + "\n\ndata: [DONE]\n\n"
	after := strings.NewReplacer(` "usage":null,`, "", `"up-1"`, `"public"`)
	got := play(t, providers.Chat, "public", strings.NewReader(text))
	for _, want := range []string{
		"] " + after.Replace(fmt.Sprintf(chunk, `"role":"assistant",`, "null", "")) + "\n",
		"] " + after.Replace(fmt.Sprintf(chunk, "", `"stop"`, ` , "x":1`)) + "\n",
		"complete\nrepaired 0, malformed 0",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks\n%s", got, want)
		}
	}
	behind := strings.NewReplacer(` "usage":null,`, "", `"x":1`, `"x":1,"usage":null`)
	got = play(t, providers.Chat, "a much longer name", strings.NewReader(behind.Replace(text)))
	if strings.Contains(got, "usage") || !strings.Contains(got, ` , "x":1}`) || !strings.Contains(got, "repaired 0, malformed 0") {
		t.Error(got)
	}
	got = play(t, providers.Chat, "public", strings.NewReader(strings.ReplaceAll(text, `"model":"up-1" ,`, "")))
	if strings.Count(got, `"model":"public"`) != 2 || !strings.Contains(got, "repaired 2") {
		t.Errorf("no model at all: %s", got)
	}
}

// Only what a tool call says counts as content, not the JSON around it.
func TestSizeOfToolCalls(t *testing.T) {
	for text, want := range map[string]int{
		`[{"index":0,"id":"call_0123456789","type":"function","function":{"name":"look_up","arguments":""}}]`:  7,
		`[{"index":0,"function":{"arguments":"{\"a\""}},{"index":1,"function":{"name":"f","arguments":"{}"}}]`: 4 + 1 + 2,
		`[{"index":0,"function":{"name":null,"arguments":{"a":1}}}]`:                                           7,
		`[{"index":0}]`: 0,
	} {
		var l look
		if !l.scan([]byte(`{"choices":[{"index":0,"delta":{"tool_calls":`+text+`}}]}`)) || l.kind != streaming.ToolCall || l.size != want {
			t.Errorf("%s: kind %d, size %d, want %d", text, l.kind, l.size, want)
		}
	}
}

func BenchmarkPresentAs(b *testing.B) {
	chunk := []byte(`{"id":"chatcmpl-0123456789abcdefghijklmnop","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}`)
	first := bytes.Replace(chunk, []byte(`{"content":" token"}`), []byte(`{"role":"assistant","content":""}`), 1)
	r := &reader{state: newState(&providers.Request{Op: providers.Chat, ID: "1", PresentAs: "public"}), target: "up", progress: streaming.NewProgress(time.Now())}
	if err := r.payload(&streaming.Frame{Data: first}); err != nil {
		b.Fatal(err)
	}
	f := &streaming.Frame{Data: chunk}
	b.ReportAllocs()
	for b.Loop() {
		r.batch = r.batch[:0]
		if err := r.payload(f); err != nil {
			b.Fatal(err)
		}
	}
}
