package wall

import (
	"fmt"
	"strconv"
	"strings"
)

// whole is the answer that is not streamed.
func (a *answer) whole() []byte {
	s := &a.s
	object := "chat.completion"
	if a.legacy {
		object = "text_completion"
	}
	var choices []string
	for i := range a.voices {
		choices = append(choices, a.wholeChoice(i))
	}
	b := `{"id":` + quote(a.id) + `,"object":` + quote(object) + `,"created":` + strconv.FormatInt(a.created, 10) +
		`,"model":` + quote(a.f.Model) + `,"choices":[` + strings.Join(choices, ",") + `]`
	if s.Usage != "none" {
		b += `,"usage":` + a.usage(a.output())
	}
	if s.Extra {
		b += `,"x_extra":{"list":[1,2.5,null]}`
	}
	if s.ErrorNull {
		b += `,"error":null`
	}
	if s.Giant != Never {
		b += `,"x_pad":"` + strings.Repeat("x", max(s.GiantSize-len(b), 0)) + `"`
	}
	b += `,"system_fingerprint":"fp_wall"}`
	if s.Spaced {
		return spaceJSON(nil, []byte(b))
	}
	return []byte(b)
}

func (a *answer) wholeChoice(i int) string {
	v := &a.voices[i]
	text := v.text.text(a.text)
	finish := `,"logprobs":null,"finish_reason":` + quote(a.finish) + `}`
	if a.legacy {
		return fmt.Sprintf(`{"index":%d,"text":%s%s`, i, quote(text), finish)
	}
	content := quote(text)
	if text == "" && a.tools > 0 {
		content = "null"
	}
	m := fmt.Sprintf(`{"index":%d,"message":{"role":"assistant","content":%s,"refusal":null,"annotations":[]`, i, content)
	if a.reasoning > 0 {
		m += `,` + quote(a.reasoningField()) + `:` + quote(v.reasoning.text(a.reasoning))
	}
	var calls []string
	for t := range a.tools {
		calls = append(calls, fmt.Sprintf(`{"id":%s,"type":"function","function":{"name":%s,"arguments":%s}}`,
			quote(a.toolID(i, t)), quote(a.toolName(t)), quote(v.chain.Args(t, a.args))))
	}
	if calls != nil {
		m += `,"tool_calls":[` + strings.Join(calls, ",") + `]`
	}
	return m + `}` + finish
}

// text returns the next n tokens.
func (w *Walker) text(n int) string {
	var b strings.Builder
	for range n {
		b.Write(w.Next())
	}
	return b.String()
}

// failure makes the events of an error inside the stream, as the servers named by the shape send it.
func (a *answer) failure(shape string) (parts []part, done, goOn bool) {
	f := a.s.faultOf(500)
	if a.s.ErrMessage == "" {
		f.message = "boom"
	}
	msg := quote(f.message)
	event := func(name, data string) []part { return []part{{name: name, data: []byte(data)}} }
	raw := func(data string) []part { return []part{{raw: true, data: []byte(data)}} }
	plain := `{"error":` + f.object() + `}`
	switch shape {
	case "string":
		return event("", `{"error":`+msg+`}`), false, false
	case "vllm":
		f.typ = "InternalServerError"
		return event("", `{"error":`+f.numbered()+`}`), true, false
	case "llamacpp":
		return event("", `{"error":{"code":500,"message":`+msg+`,"type":"server_error"}}`), false, false
	case "llamacpp_old":
		return raw(`error: {"code":500,"message":` + msg + `,"type":"server_error"}` + "\n\n"), false, false
	case "tgi":
		return event("", `{"error":{"message":`+msg+`,"http_status_code":422}}`), true, false
	case "tgi_native":
		return event("", `{"error":`+msg+`,"error_type":"generation"}`), false, false
	case "sglang", "sglang_continue":
		body := `{"error":{"object":"error","message":` + msg + `,"type":"InternalServerError","param":null,"code":500}}`
		return event("", body), true, shape == "sglang_continue"
	case "localai":
		return event("", `{"error":{"code":"server_error","message":`+msg+`,"type":"server_error"}}`), true, false
	case "event":
		return event("error", plain), false, false
	case "event_flat":
		return event("error", `{"type":"error","message":`+msg+`}`), false, false
	case "flat":
		return event("", `{"type":"error","message":`+msg+`}`), false, false
	case "padded":
		return event("", `{ "error": `+f.object()+` }`), false, false
	case "raw":
		return raw(plain + "\n\n"), false, false
	}
	if data, done, ok := a.disguised(shape, f); ok {
		return event(a.name(), data), done, false
	}
	return event(a.name(), plain), false, false
}

// disguised makes the errors that look like chunks.
func (a *answer) disguised(shape string, f fault) (data string, done, ok bool) {
	one := func(reason, text string) string {
		return string(a.choice(nil, 0, reason, func(dst []byte, _ int) []byte {
			if a.legacy {
				return append(dst, text...)
			}
			if text == "" {
				return dst
			}
			return append(append(append(dst, `"content":"`...), text...), '"')
		}))
	}
	switch shape {
	case "localai_text":
		return string(a.chunk(nil, []byte(one("stop", "Internal error: "+f.message)), a.nulls)), false, true
	case "ollama":
		choice := `{"index":0,"delta":{"content":""},"finish_reason":null}`
		if a.legacy {
			choice = `{"index":0,"text":"","finish_reason":null}`
		}
		return `{"id":` + quote(a.id) + `,"object":"chat.completion.chunk","created":` + strconv.FormatInt(a.created, 10) +
			`,"model":"","system_fingerprint":"fp_ollama","choices":[` + choice + `]}`, false, true
	case "choices":
		return string(a.chunk(nil, []byte(one("", "")), `,"error":`+f.object()+a.nulls)), false, true
	case "finish":
		return string(a.chunk(nil, []byte(one("error", "")), a.nulls)), true, true
	}
	return "", false, false
}
