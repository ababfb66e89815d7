package providers

import (
	"bytes"
	"strconv"
	"strings"

	"sluice/streaming/jsonscan"
)

// Needs is what a model must be able to do to serve the request. Parse has found it on
// its way through the body; names in the body that are written with escapes are left to
// the upstream's judgement.
func (r *Request) Needs() Feature { return r.asks.needs | r.route() }

// route is the feature that the operation stands for.
func (r *Request) route() Feature {
	if r.Op < Passthrough {
		return ChatRoute << r.Op
	}
	if strings.HasPrefix(r.Path, "/models/") && strings.HasSuffix(r.Path, "/infer") {
		return Tensors
	}
	return OtherRoutes
}

// asks is what a body asks of a model, and where.
type asks struct {
	needs Feature
	// The first part of each kind, and the first turn that has to do with tools.
	image, audio, file, turn place
	turns                    int  // messages, or items of input
	functions                bool // the old form of tools
	topLogprobs              bool // without logprobs
	object                   bool // reasoning as an object
	choiceNone               bool // tools are shown, and none may be called
}

// place is a part of a message; its numbers begin at 1, so that 0 is nowhere.
type place struct{ message, part int32 }

// param names what in the body asks for a feature; "" is the usual parameter.
func (r *Request) param(f Feature) string {
	a := &r.asks
	switch f {
	case Vision:
		return r.at(a.image)
	case Audio:
		return r.at(a.audio)
	case Files:
		return r.at(a.file)
	case ToolMessages:
		return r.at(a.turn)
	case Prefill:
		return r.at(place{message: int32(a.turns)})
	case Tools:
		if a.functions {
			return "functions"
		}
	case Logprobs:
		if a.topLogprobs {
			return "top_logprobs"
		}
	case JSONObject, JSONSchema:
		if r.Op == Responses {
			return "text.format"
		}
	case Reasoning:
		if a.object {
			return "reasoning"
		}
	}
	return ""
}

func (r *Request) at(p place) string {
	list := "messages"
	if r.Op == Responses {
		list = "input"
	}
	list += "[" + strconv.Itoa(int(p.message)-1) + "]"
	if p.part > 0 {
		list += ".content[" + strconv.Itoa(int(p.part)-1) + "]"
	}
	return list
}

// member consumes the value of a top-level member and notes what it asks for. The cost
// for a plain chat is that of skipping it.
func (r *Request) member(c *jsonscan.Cursor, name string) jsonscan.Span {
	switch name {
	case "messages":
		if r.Op == Chat {
			return r.asks.conversation(c)
		}
	case "input":
		if r.Op == Responses {
			return r.asks.conversation(c)
		}
	case "user", "prompt_cache_key":
		v := c.Skip()
		if text := v.Of(c.B); !c.Bad && len(text) <= maxModelName {
			r.hint(name, text)
		}
		return v
	case "tools", "functions", "tool_choice", "response_format", "text", "logprobs", "top_logprobs", "suffix":
		v := c.Skip()
		if !c.Bad && (r.Op <= Completions || r.Op == Responses) {
			r.asks.parameter(r.Op, name, v.Of(c.B))
		}
		return v
	}
	return c.Skip()
}

func (a *asks) parameter(op Op, name string, v []byte) {
	switch name {
	case "tools", "functions":
		if v[0] == '[' && len(bytes.TrimSpace(v[1:len(v)-1])) > 0 {
			a.needs |= Tools
			a.functions = name == "functions"
		}
	case "tool_choice":
		a.choiceNone = string(v) == `"none"`
	case "response_format":
		if op == Chat {
			a.needs |= formatOf(v)
		}
	case "text":
		if op == Responses && v[0] == '{' {
			a.needs |= formatOf(memberOf(v, "format"))
		}
	case "logprobs":
		if string(v) != "false" && string(v) != "null" {
			a.needs |= Logprobs
			a.topLogprobs = false
		}
	case "top_logprobs":
		if string(v) != "0" && string(v) != "null" && !a.needs.Has(Logprobs) {
			a.needs |= Logprobs
			a.topLogprobs = true
		}
	case "suffix":
		if op == Completions && string(v) != `""` && string(v) != "null" {
			a.needs |= Suffix
		}
	}
}

// formatOf is what the form of an answer asks for.
func formatOf(v []byte) Feature {
	if len(v) == 0 || v[0] != '{' {
		return 0
	}
	switch string(memberOf(v, "type")) {
	case `"json_object"`:
		return JSONObject
	case `"json_schema"`:
		return JSONSchema
	}
	return 0
}

// memberOf is the last member of an object with a name; nil when there is none.
func memberOf(object []byte, name string) (value []byte) {
	c := jsonscan.Cursor{B: object, Limit: 1 << 20} // Parse has bounded it
	for c.Object(); c.Key(); {
		is := string(c.Name) == name
		if v := c.Skip().Of(object); is {
			value = v
		}
	}
	return value
}

// finish adds what Parse knows from elsewhere.
func (a *asks) finish(r *Request) {
	if a.choiceNone {
		a.needs &^= Tools
	}
	if r.Choices > 1 {
		a.needs |= Choices
	}
	if r.Reasoning {
		a.needs |= Reasoning
	}
	if r.Op == Responses {
		a.needs &^= Prefill // what is told there is history
	}
}

// conversation consumes a list of messages.
func (a *asks) conversation(c *jsonscan.Cursor) jsonscan.Span {
	if c.Peek() != '[' {
		return c.Skip()
	}
	start := c.I
	last := false
	for c.Array(); c.Elem(); {
		a.turns++
		last = a.message(c)
	}
	if last {
		a.needs |= Prefill
	}
	return jsonscan.Span{Start: start, End: c.I}
}

// message reports whether a message is a text of the assistant's.
func (a *asks) message(c *jsonscan.Cursor) (assistant bool) {
	if c.Peek() != '{' {
		c.Skip()
		return false
	}
	calls := false
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "role":
			switch string(c.Skip().Of(c.B)) {
			case `"assistant"`:
				assistant = true
			case `"tool"`, `"function"`:
				a.useTools()
			}
		case "content":
			if c.Peek() == '[' {
				a.parts(c)
			} else {
				c.Skip()
			}
		case "tool_calls":
			if v := c.Skip(); v.End-v.Start > len("[]") && c.B[v.Start] == '[' {
				calls = true
				a.useTools()
			}
		default:
			c.Skip()
		}
	}
	return assistant && !calls
}

func (a *asks) useTools() {
	if !a.needs.Has(ToolMessages) {
		a.needs |= ToolMessages
		a.turn = place{message: int32(a.turns)}
	}
}

// parts consumes the content of a message.
func (a *asks) parts(c *jsonscan.Cursor) {
	at := place{message: int32(a.turns)}
	for c.Array(); c.Elem(); {
		at.part++
		if c.Peek() != '{' {
			c.Skip()
			continue
		}
		for c.Object(); c.Key(); {
			kind := string(c.Name) == "type"
			if v := c.Skip().Of(c.B); kind {
				a.part(v, at)
			}
		}
	}
}

func (a *asks) part(kind []byte, at place) {
	switch string(kind) {
	case `"image_url"`, `"input_image"`:
		a.first(Vision, &a.image, at)
	case `"input_audio"`:
		a.first(Audio, &a.audio, at)
	case `"file"`, `"input_file"`:
		a.first(Files, &a.file, at)
	}
}

func (a *asks) first(f Feature, where *place, at place) {
	if !a.needs.Has(f) {
		a.needs |= f
		*where = at
	}
}
