package anthropic

import (
	"os"
	"strings"
	"testing"
)

const loop = `{"model":"x","stream":true,"reasoning_effort":"low","messages":[{"role":"user","content":"Weather?"},
	{"role":"assistant","content":"Let me see.","tool_calls":[{"id":"toolu_01","type":"function","function":{"name":"weather","arguments":"{}"}}]},
	{"role":"tool","tool_call_id":"toolu_01","content":"sun"}],"tools":[{"type":"function","function":{"name":"weather"}}]}`

// TestThinkingComesBack: the thinking in front of a tool call is sent back with the
// call's result, as it was signed, and only then may the model be asked to think on.
func TestThinkingComesBack(t *testing.T) {
	text, err := os.ReadFile("testdata/written/thinking_then_tool.sse")
	if err != nil {
		t.Fatal(err)
	}
	tg := newTarget(options("http://up.test"), "m")
	first := `{"model":"x","stream":true,"reasoning_effort":"low","messages":[{"role":"user","content":"Weather?"}],"tools":[{"type":"function","function":{"name":"weather"}}]}`
	if _, err := collect(t, tg.play(t, first, string(text))); err != nil {
		t.Fatal(err)
	}
	a, err := tg.translate(chatRequest(t, loop))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"role":"assistant","content":[{"type":"thinking","thinking":"I need the weather.","signature":"EqQB"},{"type":"text","text":"Let me see."},{"type":"tool_use","id":"toolu_01","name":"weather","input":{}}]}`
	if got := compact(t, a.out.Messages[1]); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	if a.out.Thinking == nil || len(a.dropped) > 0 {
		t.Errorf("thinking %v, dropped %v", a.out.Thinking, a.dropped)
	}
	other, err := newTarget(options("http://up.test"), "m").translate(chatRequest(t, loop))
	if err != nil || other.out.Thinking != nil || strings.Contains(compact(t, other.out.Messages), "thinking") || len(other.dropped) != 1 {
		t.Errorf("another replica: %v %s %v", err, compact(t, other.out.Messages), other.dropped)
	}
	tg.model = "n"
	if a, err = tg.translate(chatRequest(t, loop)); err != nil || strings.Contains(compact(t, a.out.Messages), "thinking") {
		t.Errorf("another model: %v %s", err, compact(t, a.out.Messages))
	}
}

// TestThinkingThatCannotComeBack: unsigned, cut or too long thinking is not kept.
func TestThinkingThatCannotComeBack(t *testing.T) {
	text, err := os.ReadFile("testdata/written/thinking_then_tool.sse")
	if err != nil {
		t.Fatal(err)
	}
	signature := `event: content_block_delta` + "\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQB"}}` + "\n\n"
	if !strings.Contains(string(text), signature) {
		t.Fatal("the transcript has another form")
	}
	for name, stream := range map[string]string{
		"unsigned": strings.Replace(string(text), signature, "", 1),
		"too long": strings.Replace(string(text), "I need", "I need "+strings.Repeat("really ", 1000), 1),
	} {
		opt := options("http://up.test")
		opt.Memory = 4 << 10
		tg := newTarget(opt, "m")
		first := `{"model":"x","stream":true,"messages":[{"role":"user","content":"Weather?"}],"tools":[{"type":"function","function":{"name":"weather"}}]}`
		if _, err := collect(t, tg.play(t, first, stream)); err != nil {
			t.Fatal(err)
		}
		if got := tg.memory.Recall("toolu_01", "m"); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
