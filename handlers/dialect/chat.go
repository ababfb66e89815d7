package dialect

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// NewChat encodes a stream of chat.completion.chunk. A choice that is built from
// typed events begins with its role; the first payload of a choice that arrives in
// this dialect must bring the role itself.
func NewChat(f streaming.Framing, o Options) streaming.Encoder {
	return newChunks(f, o, form{
		own: streaming.Chat, object: "chat.completion.chunk", roles: true, nothing: `"delta":{}`,
	})
}

// NewCompletions encodes a stream of text_completion chunks. Reasoning has no place
// in them and is left out, unless it is presented inside the text; a tool call is an error.
func NewCompletions(f streaming.Framing, o Options) streaming.Encoder {
	return newChunks(f, o, form{
		own: streaming.Completions, object: "text_completion", nothing: `"text":""`,
	})
}

// appendContent adds the member of a choice that carries text.
func (s *chunks) appendContent(dst []byte, c *choice, text string) []byte {
	if !s.roles {
		c.length += utf8.RuneCountInString(text)
		dst = append(dst, `"text":`...)
		return jsonscan.AppendQuote(dst, text)
	}
	dst = append(dst, `"delta":{"content":`...)
	dst = jsonscan.AppendQuote(dst, text)
	return append(dst, '}')
}

// appendTool adds a fragment of a tool call. Clients glue repeated ids and names
// together, so both stand once per call, in its first fragment.
func (s *chunks) appendTool(dst []byte, c *choice, ev *streaming.Event) []byte {
	dst = append(dst, `"delta":{"tool_calls":[{"index":`...)
	dst = strconv.AppendInt(dst, int64(ev.Tool.Index), 10)
	if _, known := c.tools[ev.Tool.Index]; !known {
		if c.tools == nil {
			c.tools = make(map[int]struct{})
		}
		c.tools[ev.Tool.Index] = struct{}{}
		dst = append(dst, `,"id":`...)
		dst = jsonscan.AppendQuote(dst, callID(ev.Tool.ID, s.opts.ID, ev.Index, ev.Tool.Index))
		dst = append(dst, `,"type":"function","function":{"name":`...)
		dst = jsonscan.AppendQuote(dst, ev.Tool.Name)
		dst = append(dst, `,"arguments":`...)
	} else {
		dst = append(dst, `,"function":{"arguments":`...)
	}
	dst = jsonscan.AppendQuote(dst, ev.Tool.Args)
	return append(dst, `}}]}`...)
}

// callID makes an id for a call whose upstream has none, for clients answer by it.
func callID(id, answer string, choice, call int) string {
	if id != "" {
		return id
	}
	if _, tail, ok := strings.Cut(answer, "-"); ok {
		answer = tail
	}
	return "call_" + answer + "_" + strconv.Itoa(choice) + "_" + strconv.Itoa(call)
}
