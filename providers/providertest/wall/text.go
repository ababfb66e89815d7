package wall

import (
	"encoding/json"
	"iter"
	"slices"
	"strings"
)

// answer is the content of a chat, completions or Responses answer.
type answer struct {
	*call
	id                    string
	legacy                bool // text_completion
	chain                 Chain
	skip                  int // tokens of the chain that a prefill already holds
	reasoning, text, args int
	tools                 int
	finish                string
	voices                []voice

	head, foot []byte // of a chunk, around the choices
	nulls      string // ,"usage":null
	buf, inner []byte
}

// voice is one choice.
type voice struct {
	chain           Chain
	reasoning, text *Walker
	tools           []*Walker
}

func (c *call) answer(prefix string, legacy bool) *answer {
	a := &answer{call: c, id: c.id(prefix), legacy: legacy, chain: c.s.chain(), tools: c.s.Tools}
	a.reasoning, a.text, a.args = c.s.content()
	if legacy {
		a.reasoning, a.tools = 0, 0
	}
	if c.s.Prefill == "continue" {
		// A prefill that is not of the chain is one of zero tokens.
		a.skip, _ = a.chain.Verify(c.prefill())
		a.text = max(0, a.text-a.skip)
	}
	a.finish = "stop"
	if a.tools > 0 {
		a.finish = "tool_calls"
	}
	for _, limit := range []*int{c.f.MaxTokens, c.f.MaxCompletionTokens, c.f.MaxOutputTokens} {
		if limit != nil && a.reasoning+a.text > max(*limit, 0) {
			a.finish = "length"
			a.reasoning = min(a.reasoning, max(*limit, 0))
			a.text = max(*limit, 0) - a.reasoning
		}
	}
	if c.s.Finish != "" {
		a.finish = c.s.Finish
	}
	for i := range c.f.choices {
		a.voices = append(a.voices, a.voice(i))
	}
	c.rec.update(func(q *Request) { q.Output = a.output() })
	return a
}

func (a *answer) voice(i int) voice {
	chain := a.chain.Choice(i)
	v := voice{chain: chain, reasoning: chain.Reasoning().Walk(), text: chain.Walk()}
	for range a.skip {
		v.text.Next()
	}
	for t := range a.tools {
		v.tools = append(v.tools, chain.Tool(t).Walk())
	}
	return v
}

// prefill returns the text of a trailing assistant message, or what a prompt holds of the chain at
// its end.
func (c *call) prefill() string {
	var prompt string
	if json.Unmarshal(c.f.Prompt, &prompt) == nil {
		return chainAt(c.s.chain(), prompt)
	}
	if len(c.f.Messages) == 0 || c.f.Messages[len(c.f.Messages)-1].Role != "assistant" {
		return ""
	}
	var text string
	raw := c.f.Messages[len(c.f.Messages)-1].Content
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var parts []struct{ Text string }
	_ = json.Unmarshal(raw, &parts)
	for _, p := range parts {
		text += p.Text
	}
	return text
}

// chainAt returns the longest beginning of the chain with which a text ends.
func chainAt(chain Chain, text string) (found string) {
	var b strings.Builder
	for w := chain.Walk(); b.Len() < len(text); {
		b.Write(w.Next())
		if strings.HasSuffix(text, b.String()) {
			found = b.String()
		}
	}
	return found
}

// output is the number of completion tokens: every token of every choice; a tool call costs its arguments and three.
func (a *answer) output() int {
	return len(a.voices) * (a.reasoning + a.text + a.tools*(a.args+3))
}

// steps is the number of deltas of one choice.
func (a *answer) steps() int {
	per := a.args + 3
	if a.s.ToolWhole {
		per = 1
	}
	return a.reasoning + a.text + a.tools*per
}

func (c *call) chat() error {
	if len(c.f.Messages) == 0 {
		c.invalid(400, "'messages' is a required property")
		return errEnded
	}
	return c.text(c.answer("chatcmpl-", false))
}

func (c *call) completions() error { return c.text(c.answer("cmpl-", true)) }

func (c *call) text(a *answer) error {
	if c.f.Stream {
		a.prepare()
		return c.play(a)
	}
	if err := c.think(a.steps()); err != nil {
		return err
	}
	c.rec.tokens.Add(int64(a.steps() * len(a.voices)))
	return c.plain(200, "application/json", a.whole())
}

// think waits as long as a streamed answer of so many deltas takes, and fails where it would. It stands before the
// headers of an answer that is not streamed.
func (c *call) think(steps int) error {
	writes := 0
	if steps > 0 {
		writes = (steps - 1) / max(c.s.Burst, 1)
	}
	if err := c.out.sleep(c.s.First); err != nil {
		return err
	}
	for range writes {
		if c.s.Delay == 0 {
			break
		}
		if err := c.out.sleep(c.s.Delay); err != nil {
			return err
		}
	}
	if c.s.Error != Never {
		return c.refuseWith(c.s.faultOf(500), c.s.ErrorShape)
	}
	return nil
}

// parts makes the events of a stream.
func (a *answer) parts() iter.Seq[part] {
	return func(yield func(part) bool) {
		if a.opening(yield) && a.deltas(yield) && a.closing(yield) {
			a.trailing(yield)
		}
	}
}

func (a *answer) opening(yield func(part) bool) bool {
	s := &a.s
	if s.Filter {
		b := slices.Insert(a.chunk(nil, nil, a.nulls), 1, []byte(`"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}],`)...)
		if !yield(part{kind: preamble, name: a.name(), data: b}) {
			return false
		}
	}
	if !a.legacy && (s.Role == "" || s.Role == "late" || s.Role == "early") {
		role := func(dst []byte, _ int) []byte {
			if s.ContentNull {
				return append(dst, `"role":"assistant","content":null`...)
			}
			return append(dst, `"role":"assistant","content":"","refusal":null`...)
		}
		if !a.each(yield, preamble, a.usageNow(0), "", role) {
			return false
		}
	}
	return !s.Alien || yield(part{kind: preamble, data: []byte(`{"type":"mcp_tool_result","name":"lookup","result":"ok"}`)})
}

// usageNow is the usage member of a chunk after steps deltas.
func (a *answer) usageNow(steps int) string {
	if a.s.Usage == "every" {
		return `,"usage":` + a.usage(min(steps*len(a.voices), a.output()))
	}
	return a.nulls
}

func (a *answer) deltas(yield func(part) bool) bool {
	total := a.steps()
	for step := range total {
		if a.s.Usage == "mid" && step == total/2 && !yield(part{kind: extra, name: a.name(), data: a.bare(`,"usage":` + a.usage(a.output()))}) {
			return false
		}
		reason := ""
		if a.s.FinishInLast && !a.s.NoFinish && step == total-1 {
			reason = a.finish
		}
		usage := a.usageNow(step + 1)
		if reason != "" && a.s.Usage == "finish" {
			usage = `,"usage":` + a.usage(a.output())
		}
		if !a.each(yield, delta, usage, reason, func(dst []byte, i int) []byte { return a.delta(dst, i, step) }) {
			return false
		}
	}
	return true
}

func (a *answer) closing(yield func(part) bool) bool {
	if a.s.NoFinish || a.s.FinishInLast && a.steps() > 0 {
		return true
	}
	usage := a.usageNow(a.steps())
	if a.s.Usage == "finish" {
		usage = `,"usage":` + a.usage(a.output())
	}
	return a.each(yield, finish, usage, a.finish, func(dst []byte, _ int) []byte {
		if a.s.ContentNull && !a.legacy {
			return append(dst, `"content":null`...)
		}
		return dst
	})
}

func (a *answer) trailing(yield func(part) bool) {
	trailer := func() bool {
		return yield(part{kind: tail, name: a.name(), data: a.bare(`,"usage":` + a.usage(a.output()))})
	}
	ok := true
	switch a.s.Usage {
	case "trailer", "every", "every_null", "zero_then_real":
		ok = trailer()
	case "twice":
		if ok = trailer(); ok {
			ok = trailer()
		}
	case "null_after":
		ok = trailer() && yield(part{kind: tail, name: a.name(), data: a.bare(`,"usage":null`)})
	}
	if ok && !a.s.NoDone {
		ok = yield(donePart)
	}
	if ok && a.s.Usage == "after_done" {
		ok = trailer()
	}
	if !ok {
		return
	}
	switch a.s.AfterDone {
	case "chunk":
		a.each(yield, tail, a.nulls, "", func(dst []byte, i int) []byte {
			if a.legacy {
				return append(dst, "after done"...)
			}
			return append(dst, `"content":"after done"`...)
		})
	case "junk":
		yield(part{kind: tail, data: []byte("{junk")})
	case "done":
		yield(donePart)
	case "comment":
		yield(part{kind: tail, raw: true, data: []byte(": after done\n\n")})
	}
}
