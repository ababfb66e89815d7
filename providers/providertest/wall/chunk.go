package wall

import (
	"slices"
	"strconv"
	"strings"
)

// prepare builds the parts of a chunk that stay the same.
func (a *answer) prepare() {
	s := &a.s
	var fields []string
	add := func(leave bool, key, value string) {
		if !leave {
			fields = append(fields, `"`+key+`":`+value)
		}
	}
	id := a.id
	if s.EmptyID {
		id = ""
	}
	object := "chat.completion.chunk"
	if a.legacy {
		object = "text_completion"
	}
	add(s.NoID, "id", quote(id))
	add(s.NoObject, "object", quote(object))
	add(s.NoCreated, "created", strconv.FormatInt(a.created, 10))
	add(s.NoModel, "model", quote(a.f.Model))
	add(false, "system_fingerprint", `"fp_wall"`)
	if s.Extra {
		add(false, "x_extra", `{"list":[1,2.5,null],"text":"a\"b"}`)
	}
	if s.ErrorNull {
		add(false, "error", "null")
	}
	common := strings.Join(fields, ",")
	if s.ChoicesFirst {
		a.head, a.foot = []byte(`{"choices":[`), []byte(`],`+common)
	} else {
		a.head, a.foot = []byte(`{`+common+`,"choices":[`), []byte(`]`)
	}
	asked := a.f.StreamOptions != nil && a.f.StreamOptions.IncludeUsage
	if s.Usage == "" {
		s.Usage = "none"
		if asked {
			s.Usage = "trailer"
		}
	}
	switch {
	case s.Usage == "zero_then_real":
		a.nulls = `,"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`
	case asked && s.Usage != "none", s.Usage == "every_null", s.Usage == "null_after":
		a.nulls = `,"usage":null`
	}
}

// usage is the usage object after output tokens.
func (a *answer) usage(output int) string {
	reasoning := min(output, a.reasoning*len(a.voices))
	return `{"prompt_tokens":` + strconv.Itoa(a.f.prompt) + `,"completion_tokens":` + strconv.Itoa(output) +
		`,"total_tokens":` + strconv.Itoa(a.f.prompt+output) +
		`,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":` +
		strconv.Itoa(reasoning) + `,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`
}

// chunk appends a chunk around choices; usage is `,"usage":...` or empty.
func (a *answer) chunk(dst, choices []byte, usage string) []byte {
	dst = append(append(append(dst, a.head...), choices...), a.foot...)
	if a.s.Obfuscation {
		dst = append(append(append(dst, `,"obfuscation":"`...), "aZ3kP0qLxT9wBn"[:1+len(choices)%14]...), '"')
	}
	return append(append(dst, usage...), '}')
}

// bare builds a chunk with an empty list of choices.
func (a *answer) bare(usage string) []byte {
	b := a.chunk(nil, nil, usage)
	if !a.s.NoChoices {
		return b
	}
	if a.s.ChoicesFirst {
		return slices.Concat([]byte("{"), b[len(`{"choices":[],`):])
	}
	i := strings.Index(string(b), `,"choices":[]`)
	return slices.Concat(b[:i], b[i+len(`,"choices":[]`):])
}

func (a *answer) name() string {
	if a.s.EventNames {
		return "chat.completion.chunk"
	}
	return ""
}

func (a *answer) ping() part {
	choice := `{"index":0,"delta":{},"logprobs":null,"finish_reason":null}`
	if a.legacy {
		choice = `{"index":0,"text":"","logprobs":null,"finish_reason":null}`
	}
	return part{data: a.chunk(nil, []byte(choice), a.nulls)}
}

// each yields one chunk per choice, or one with all of them; inner builds the inside of a choice's delta.
func (a *answer) each(yield func(part) bool, k kind, usage, reason string, inner func(dst []byte, choice int) []byte) bool {
	for i := range a.voices {
		if i > 0 && a.s.MultiChoice {
			a.inner = append(a.inner, ',')
		} else {
			a.inner = a.inner[:0]
		}
		a.inner = a.choice(a.inner, i, reason, inner)
		if a.s.MultiChoice && i+1 < len(a.voices) {
			continue
		}
		a.buf = a.chunk(a.buf[:0], a.inner, usage)
		if !yield(part{kind: k, name: a.name(), data: a.buf, more: i > 0 && !a.s.MultiChoice}) {
			return false
		}
	}
	return true
}

func (a *answer) choice(dst []byte, i int, reason string, inner func([]byte, int) []byte) []byte {
	dst = append(dst, '{')
	if !a.s.NoIndex {
		dst = append(strconv.AppendInt(append(dst, `"index":`...), int64(i), 10), ',')
	}
	if a.legacy {
		dst = append(dst, `"text":"`...)
		dst = append(inner(dst, i), '"')
	} else {
		dst = append(dst, `"delta":{`...)
		dst = append(inner(dst, i), '}')
	}
	if a.s.Extra {
		dst = append(dst, `,"x_extra":true`...)
	}
	dst = append(dst, `,"logprobs":`...)
	if a.s.Logprobs && reason == "" {
		dst = append(dst, `{"content":[{"token":"x","logprob":-0.25,"bytes":[120],"top_logprobs":[]}],"refusal":null}`...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":`...)
	switch {
	case reason != "":
		dst = append(dst, quote(reason)...)
	case a.s.FinishEmpty:
		dst = append(dst, `""`...)
	default:
		dst = append(dst, "null"...)
	}
	return append(dst, '}')
}

// delta appends the inside of a delta: step number step of choice i.
func (a *answer) delta(dst []byte, i, step int) []byte {
	v := &a.voices[i]
	if a.legacy {
		return appendJSONString(dst, v.text.Next())
	}
	if a.s.Role == "each" || a.s.Role == "first" && step == 0 {
		dst = append(dst, `"role":"assistant",`...)
	}
	if a.s.Extra {
		dst = append(dst, `"x_extra":{"deep":[{}]},`...)
	}
	if step >= a.reasoning && step < a.reasoning+a.text {
		return append(appendJSONString(append(dst, `"content":"`...), v.text.Next()), '"')
	}
	if a.s.ContentNull {
		dst = append(dst, `"content":null,`...)
	}
	if step < a.reasoning {
		dst = append(append(append(dst, '"'), a.reasoningField()...), `":"`...)
		return append(appendJSONString(dst, v.reasoning.Next()), '"')
	}
	dst = append(dst, `"tool_calls":[{`...)
	dst = a.toolDelta(dst, i, step-a.reasoning-a.text)
	return append(dst, `}]`...)
}

func (a *answer) reasoningField() string {
	if a.s.ReasoningField != "" {
		return a.s.ReasoningField
	}
	return "reasoning_content"
}

// toolDelta appends fragment j of all tool calls of choice i. Each call is a header, the opening of its arguments,
// one fragment per token, and the closing.
func (a *answer) toolDelta(dst []byte, i, j int) []byte {
	call, frag := a.fragment(j)
	if !a.s.ToolNoIndex {
		dst = append(strconv.AppendInt(append(dst, `"index":`...), int64(call), 10), ',')
	}
	header := frag == 0 || a.s.ToolRepeatID
	if header {
		dst = append(append(dst, `"id":`...), quote(a.toolID(i, call))...)
		dst = append(append(dst, `,"type":"function","function":{"name":`...), quote(a.toolName(call))...)
		dst = append(dst, `,"arguments":"`...)
	} else {
		dst = append(dst, `"function":{"arguments":"`...)
	}
	return append(a.arguments(dst, i, call, frag), `"}`...)
}

// fragment tells which fragment of which call comes at place j.
func (a *answer) fragment(j int) (call, frag int) {
	switch {
	case a.s.ToolWhole:
		return j, 0
	case a.s.ToolInterleave:
		return j % a.tools, j / a.tools
	}
	return j / (a.args + 3), j % (a.args + 3)
}

// arguments appends what a fragment adds to the arguments, as the inside of a JSON string.
func (a *answer) arguments(dst []byte, i, call, frag int) []byte {
	v := &a.voices[i]
	switch {
	case a.s.ToolWhole:
		return appendJSONString(dst, v.chain.Args(call, a.args))
	case frag == 0:
		return dst
	case frag == 1:
		return appendJSONString(dst, argsHead)
	case frag == a.args+2:
		return appendJSONString(dst, argsTail)
	}
	return appendJSONString(dst, appendJSONString(nil, v.tools[call].Next()))
}

func (a *answer) toolID(i, call int) string {
	return "call_" + strings.TrimPrefix(a.id, "chatcmpl-") + "_" + strconv.Itoa(i) + "_" + strconv.Itoa(call)
}

// toolName takes the names of the request's tools in turn.
func (a *answer) toolName(call int) string {
	if n := len(a.f.Tools); n > 0 {
		t := a.f.Tools[call%n]
		if t.Function.Name != "" {
			return t.Function.Name
		}
		if t.Name != "" {
			return t.Name
		}
	}
	return "wall_tool_" + strconv.Itoa(call)
}
