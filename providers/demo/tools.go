package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"sluice/providers"
	"sluice/streaming"
)

// function is one tool that a caller offers.
type function struct {
	Name       string          `json:"name"`
	Parameters json.RawMessage `json:"parameters"`
}

// toolChoice is a mode, or the name of one function.
type toolChoice struct{ mode, name string }

func (t *toolChoice) UnmarshalJSON(b []byte) error {
	if b[0] == 'n' {
		return nil
	}
	if json.Unmarshal(b, &t.mode) == nil {
		return nil
	}
	var object struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if json.Unmarshal(b, &object) != nil {
		return providers.Invalid("tool_choice", `tool_choice must be "none", "auto", "required" or {"type":"function","function":{"name":"…"}}.`)
	}
	t.name = object.Function.Name
	return nil
}

// maxCalls is how many tools are called at once.
const maxCalls = 2

// useTools calls what is offered, and answers in words once a tool has answered or
// nothing is offered.
func (a *ask) useTools(pl *plan, id string) error {
	calls, err := a.chosen()
	if err != nil {
		return err
	}
	if results := a.results(); len(results) > 0 {
		a.fill(pl, func(string, int) string {
			return "Sluice's built-in demo has used your tools. They answered: " + strings.Join(results, "; ")
		})
		return nil
	}
	if len(calls) == 0 {
		a.fill(pl, func(said string, n int) string {
			return echoText(said, n) + " (Offer me tools and I will call them.)"
		})
		return nil
	}
	for n := range a.n {
		s := script{stop: "tool_calls"}
		for i, f := range calls {
			tokens, err := callTokens(f, i, callID(id, n, i))
			if err != nil {
				return err
			}
			s.tokens = append(s.tokens, tokens...)
		}
		s.limit(a.max)
		pl.choices = append(pl.choices, s)
	}
	return nil
}

func (a *ask) chosen() ([]function, error) {
	switch {
	case a.choice.name != "":
		for _, f := range a.tools {
			if f.Name == a.choice.name {
				return []function{f}, nil
			}
		}
		return nil, providers.Invalid("tool_choice", fmt.Sprintf("tool_choice names %q, which is not among the tools.", a.choice.name))
	case a.choice.mode == "none":
		return nil, nil
	case !a.parallel:
		return a.tools[:min(len(a.tools), 1)], nil
	default:
		return a.tools[:min(len(a.tools), maxCalls)], nil
	}
}

// results are the tool messages at the end of the conversation.
func (a *ask) results() []string {
	from := len(a.messages)
	for from > 0 && a.messages[from-1].Role == "tool" {
		from--
	}
	var out []string
	for _, m := range a.messages[from:] {
		out = append(out, m.Content.text)
	}
	return out
}

func callID(id string, choice, call int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", id, choice, call))
	return "call_" + hex.EncodeToString(sum[:12])
}

// fragmentBytes is how much of the arguments makes one token.
const fragmentBytes = 8

// callTokens makes one call: its name first, then its arguments in pieces.
func callTokens(f function, index int, id string) ([]streaming.Event, error) {
	args, err := arguments(f)
	if err != nil {
		return nil, err
	}
	fragment := func(t streaming.ToolDelta) streaming.Event {
		t.Index = index
		return streaming.Event{Kind: streaming.ToolCall, Tool: &t}
	}
	out := []streaming.Event{fragment(streaming.ToolDelta{ID: id, Name: f.Name})}
	for rest := string(args); rest != ""; {
		var piece string
		piece, rest = cutBytes(rest, fragmentBytes)
		out = append(out, fragment(streaming.ToolDelta{Args: piece}))
	}
	return out, nil
}

// cutBytes takes about size bytes, whole characters only.
func cutBytes(text string, size int) (head, rest string) {
	for i := range text {
		if i >= size {
			return text[:i], text[i:]
		}
	}
	return text, ""
}
