package wall

import (
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// responses answers POST /responses.
func (c *call) responses() error {
	a := c.answer("resp_", false)
	r := &response{answer: a}
	if c.f.Stream {
		return c.play(r)
	}
	if err := c.think(a.steps()); err != nil {
		return err
	}
	c.rec.tokens.Add(int64(a.steps()))
	r.everything()
	return c.plain(200, "application/json", []byte(r.object(r.status(), "null")))
}

// response makes the events of the Responses API: the full official sequence.
type response struct {
	*answer
	items []string // finished output items
}

func (r *response) status() string {
	if r.finish == "length" || r.finish == "content_filter" {
		return "incomplete"
	}
	return "completed"
}

// object is the response object with the items so far.
func (r *response) object(status, failure string) string {
	incomplete, usage := "null", "null"
	if status == "incomplete" {
		incomplete = `{"reason":"max_output_tokens"}`
		if r.finish == "content_filter" {
			incomplete = `{"reason":"content_filter"}`
		}
	}
	if status == "completed" || status == "incomplete" {
		usage = fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"cached_tokens":0},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}`,
			r.f.prompt, r.output(), r.reasoning, r.f.prompt+r.output())
	}
	if r.s.Usage == "none" {
		usage = "null"
	}
	extra := ""
	if r.s.Extra {
		extra = `,"x_extra":{"list":[1,2.5,null]}`
	}
	return `{"id":` + quote(r.id) + `,"object":"response","created_at":` + strconv.FormatInt(r.created, 10) + `,"status":` + quote(status) +
		`,"error":` + failure + `,"incomplete_details":` + incomplete + `,"instructions":null,"max_output_tokens":null,"model":` + quote(r.f.Model) +
		`,"output":[` + strings.Join(r.items, ",") + `],"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{"effort":null,"summary":null}` +
		`,"store":true,"temperature":1,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_p":1,"truncation":"disabled"` +
		`,"usage":` + usage + `,"user":null,"metadata":{}` + extra + `}`
}

func (r *response) itemID(prefix string) string {
	return prefix + strings.TrimPrefix(r.id, "resp_") + "_" + strconv.Itoa(len(r.items))
}

// everything fills in the items of an answer that is not streamed.
func (r *response) everything() {
	for range r.parts() {
	}
}

// emitter yields events of one response with their numbers.
type emitter struct {
	r     *response
	yield func(part) bool
	ok    bool
	buf   []byte
}

// event yields one event; members are its own, with a leading comma.
func (e *emitter) event(k kind, typ, members string) {
	if !e.ok {
		return
	}
	pt := numbered(e.buf[:0], k, typ, members)
	e.buf = pt.data
	e.ok = e.yield(pt)
}

// numbered builds an event in dst; the player puts its sequence number in.
func numbered(dst []byte, k kind, typ, members string) part {
	dst = append(append(append(dst, `{"type":"`...), typ...), `","sequence_number":`...)
	at := len(dst)
	return part{kind: k, name: typ, data: append(append(dst, members...), '}'), seq: at}
}

func (r *response) parts() iter.Seq[part] {
	return func(yield func(part) bool) {
		e := &emitter{r: r, yield: yield, ok: true}
		e.event(preamble, "response.created", `,"response":`+r.object("in_progress", "null"))
		e.event(preamble, "response.in_progress", `,"response":`+r.object("in_progress", "null"))
		if r.reasoning > 0 {
			r.thinking(e)
		}
		if r.text > 0 || r.tools == 0 {
			r.message(e)
		}
		for t := range r.tools {
			r.function(e, t)
		}
		if !r.s.NoFinish {
			e.event(finish, "response."+r.status(), `,"response":`+r.object(r.status(), "null"))
		}
	}
}

func (r *response) thinking(e *emitter) {
	id, at := r.itemID("rs_"), len(r.items)
	where := fmt.Sprintf(`,"item_id":%s,"output_index":%d,"summary_index":0`, quote(id), at)
	e.event(preamble, "response.output_item.added", fmt.Sprintf(`,"output_index":%d,"item":{"id":%s,"type":"reasoning","summary":[]}`, at, quote(id)))
	e.event(preamble, "response.reasoning_summary_part.added", where+`,"part":{"type":"summary_text","text":""}`)
	for range r.reasoning {
		e.event(delta, "response.reasoning_summary_text.delta", where+`,"delta":`+quote(string(r.voices[0].reasoning.Next())))
	}
	text := quote(r.voices[0].chain.Reasoning().Text(r.reasoning))
	e.event(extra, "response.reasoning_summary_text.done", where+`,"text":`+text)
	e.event(extra, "response.reasoning_summary_part.done", where+`,"part":{"type":"summary_text","text":`+text+`}`)
	r.done(e, `{"id":`+quote(id)+`,"type":"reasoning","summary":[{"type":"summary_text","text":`+text+`}]}`)
}

func (r *response) done(e *emitter, item string) {
	e.event(extra, "response.output_item.done", fmt.Sprintf(`,"output_index":%d,"item":%s`, len(r.items), item))
	r.items = append(r.items, item)
}

func (r *response) message(e *emitter) {
	id, at := r.itemID("msg_"), len(r.items)
	where := fmt.Sprintf(`,"item_id":%s,"output_index":%d,"content_index":0`, quote(id), at)
	item := func(status, content string) string {
		return fmt.Sprintf(`{"id":%s,"type":"message","status":%q,"role":"assistant","content":[%s]}`, quote(id), status, content)
	}
	output := func(text string) string {
		return `{"type":"output_text","text":` + text + `,"annotations":[],"logprobs":[]}`
	}
	e.event(preamble, "response.output_item.added", fmt.Sprintf(`,"output_index":%d,"item":%s`, at, item("in_progress", "")))
	e.event(preamble, "response.content_part.added", where+`,"part":`+output(`""`))
	var said strings.Builder
	for range r.text {
		token := r.voices[0].text.Next()
		said.Write(token)
		e.event(delta, "response.output_text.delta", where+`,"delta":`+quote(string(token))+`,"logprobs":[]`)
	}
	text := quote(said.String())
	e.event(extra, "response.output_text.done", where+`,"text":`+text+`,"logprobs":[]`)
	e.event(extra, "response.content_part.done", where+`,"part":`+output(text))
	r.done(e, item("completed", output(text)))
}

// function yields one call; like in chat it has a header, an opening, its tokens and a closing, all deltas.
func (r *response) function(e *emitter, t int) {
	id, at, args := r.itemID("fc_"), len(r.items), r.voices[0].chain.Args(t, r.args)
	where := fmt.Sprintf(`,"item_id":%s,"output_index":%d`, quote(id), at)
	item := func(status, args string) string {
		return fmt.Sprintf(`{"id":%s,"type":"function_call","status":%q,"call_id":%s,"name":%s,"arguments":%s}`,
			quote(id), status, quote(r.toolID(0, t)), quote(r.toolName(t)), args)
	}
	e.event(delta, "response.output_item.added", fmt.Sprintf(`,"output_index":%d,"item":%s`, at, item("in_progress", `""`)))
	const name = "response.function_call_arguments.delta"
	if r.s.ToolWhole {
		e.event(extra, name, where+`,"delta":`+quote(args))
	} else {
		for frag := 1; frag <= r.args+2; frag++ {
			e.event(delta, name, where+`,"delta":"`+string(r.arguments(nil, 0, t, frag))+`"`)
		}
	}
	e.event(extra, "response.function_call_arguments.done", where+`,"name":`+quote(r.toolName(t))+`,"arguments":`+quote(args))
	r.done(e, item("completed", quote(args)))
}

// failure makes the error events: the shape "openai" carries the flat keys and the nested object at once.
func (r *response) failure(shape string) (parts []part, done, goOn bool) {
	f := r.s.faultOf(500)
	if r.s.ErrMessage == "" {
		f.message = "boom"
	}
	event := func(name, members string) []part {
		return []part{numbered(nil, extra, name, members)}
	}
	flat := `,"code":` + nullable(f.code) + `,"message":` + quote(f.message) + `,"param":` + nullable(f.param)
	switch shape {
	case "flat", "event_flat":
		return event("error", flat), false, false
	case "event":
		return event("error", `,"error":`+f.object()), false, false
	case "failed":
		failure, err := json.Marshal(map[string]string{"code": "server_error", "message": f.message})
		if err != nil {
			failure = []byte("null")
		}
		return event("response.failed", `,"response":`+r.object("failed", string(failure))), false, false
	case "incomplete":
		return event("response.incomplete", `,"response":`+r.object("incomplete", "null")), false, false
	case "openai":
		return event("error", flat+`,"error":`+f.object()), false, false
	}
	return r.answer.failure(shape)
}

func (r *response) ping() part { return numbered(nil, extra, "keepalive", "") }
