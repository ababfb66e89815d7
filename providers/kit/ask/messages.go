package ask

import (
	"fmt"
	"strings"

	"sluice/providers"
	"sluice/streaming/jsonscan"
)

// Message is one turn of a conversation.
type Message struct {
	Param string // where it stands, such as "messages[2]"
	// Role is system (also for developer), user, assistant or tool (also for function).
	Role      string
	Parts     []Part
	Reasoning string // what an assistant thought before it answered
	Calls     []Call // what an assistant called
	CallID    string // what a tool answers
	// Name is a tool's name, found by CallID when it is not said, or that of a participant.
	Name string
}

// Part is a piece of a message: a text, an image, or other media.
type Part struct {
	Text  string
	Image *Image
	Media *Media // only where the adapter has called TakeMedia
}

// Call is a tool call of an earlier turn. Args is JSON text as the model wrote it.
type Call struct{ ID, Name, Args string }

// Text joins the texts of a message by newlines, as chat templates do.
func (m *Message) Text() string {
	if len(m.Parts) == 1 {
		return m.Parts[0].Text
	}
	var texts []string
	for _, p := range m.Parts {
		if p.Image == nil && p.Media == nil {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, "\n")
}

// Images returns the images of a message.
func (m *Message) Images() []*Image {
	var all []*Image
	for _, p := range m.Parts {
		if p.Image != nil {
			all = append(all, p.Image)
		}
	}
	return all
}

// Messages takes the conversation of a chat request.
func (q *Params) Messages() ([]Message, error) {
	v := q.Take("messages")
	c := jsonscan.Cursor{B: v, Limit: bodyDepth}
	var all []Message
	names := map[string]string{} // of tools, by call
	for c.Array(); c.Elem(); {
		m := Message{Param: fmt.Sprintf("messages[%d]", len(all))}
		if err := q.message(&c, &m); err != nil {
			return nil, err
		}
		for _, call := range m.Calls {
			names[call.ID] = call.Name
		}
		if m.Role == "tool" && m.Name == "" {
			m.Name = names[m.CallID]
		}
		all = append(all, m)
	}
	return all, nil
}

func (q *Params) message(c *jsonscan.Cursor, m *Message) error {
	if c.Peek() != '{' {
		return q.Wrong(m.Param, "an object with role and content")
	}
	var role, content, calls []byte
	for c.Object(); c.Key(); {
		name := string(c.Name)
		v := c.Skip().Of(c.B)
		switch name {
		case "role":
			role = v
		case "content":
			content = v
		case "tool_calls":
			calls = v
		case "tool_call_id":
			m.CallID, _ = jsonscan.Unquote(v)
		case "name":
			m.Name, _ = jsonscan.Unquote(v)
		case "reasoning_content", "reasoning", "thinking":
			if s, _ := jsonscan.Unquote(v); s != "" {
				m.Reasoning = s
			}
		}
	}
	if err := q.role(m, role); err != nil {
		return err
	}
	if err := q.content(m, content); err != nil {
		return err
	}
	return q.calls(m, calls)
}

func (q *Params) role(m *Message, v []byte) error {
	switch m.Role, _ = jsonscan.Unquote(v); m.Role {
	case "system", "user", "assistant", "tool":
	case "developer":
		m.Role = "system"
	case "function":
		m.Role = "tool"
	default:
		return q.Wrong(m.Param+".role", "one of system, developer, user, assistant, tool")
	}
	return nil
}

func (q *Params) content(m *Message, v []byte) error {
	switch {
	case len(v) == 0 || string(v) == "null":
		return nil
	case v[0] == '"':
		s, _ := jsonscan.Unquote(v)
		m.Parts = []Part{{Text: s}}
		return nil
	case v[0] != '[':
		return q.Wrong(m.Param+".content", "a string or an array of parts")
	}
	c := jsonscan.Cursor{B: v, Limit: bodyDepth}
	for c.Array(); c.Elem(); {
		param := fmt.Sprintf("%s.content[%d]", m.Param, len(m.Parts))
		p, err := q.part(c.Skip().Of(v), param)
		if err != nil {
			return err
		}
		m.Parts = append(m.Parts, p)
	}
	return nil
}

func (q *Params) part(v []byte, param string) (Part, error) {
	kind, _ := jsonscan.Unquote(member(v, "type"))
	switch kind {
	case "text", "refusal":
		s, ok := jsonscan.Unquote(member(v, kind))
		if !ok {
			return Part{}, q.Wrong(param+"."+kind, "a string")
		}
		return Part{Text: s}, nil
	case "image_url":
		inner := member(v, "image_url")
		url, ok := jsonscan.Unquote(inner) // some clients send it bare
		if !ok {
			url, ok = jsonscan.Unquote(member(inner, "url"))
		}
		if !ok {
			return Part{}, q.Wrong(param+".image_url.url", "a string")
		}
		return Part{Image: &Image{Param: param + ".image_url.url", URL: url, Model: q.req.Model}}, nil
	case "input_audio", "file":
		if q.media {
			m, err := q.readMedia(member(v, kind), param, kind)
			return Part{Media: m}, err
		}
		return Part{}, q.CannotRead(param, "content of type "+kind)
	case "":
		return Part{}, q.Wrong(param, `an object with a type, such as {"type":"text","text":"…"}`)
	default:
		return Part{}, q.CannotRead(param, "content of type "+kind)
	}
}

// CannotRead refuses content that the upstream has no place for. It is never dropped,
// for the answer would be about something else.
func (q *Params) CannotRead(param, what string) error {
	return providers.Invalid(param, fmt.Sprintf("%s: the model %q cannot be given %s: its upstream is of kind %s.", param, q.req.Model, what, q.kind))
}

func (q *Params) calls(m *Message, v []byte) error {
	if len(v) == 0 || string(v) == "null" {
		return nil
	}
	c := jsonscan.Cursor{B: v, Limit: bodyDepth}
	if c.Peek() != '[' {
		return q.Wrong(m.Param+".tool_calls", "an array")
	}
	for c.Array(); c.Elem(); {
		call := c.Skip().Of(v)
		f := member(call, "function")
		one := Call{}
		one.ID, _ = jsonscan.Unquote(member(call, "id"))
		one.Name, _ = jsonscan.Unquote(member(f, "name"))
		args := member(f, "arguments")
		var ok bool
		if one.Args, ok = jsonscan.Unquote(args); !ok {
			one.Args = string(args) // some clients send the object itself
		}
		if one.Name == "" {
			return q.Wrong(fmt.Sprintf("%s.tool_calls[%d].function.name", m.Param, len(m.Calls)), "the name of a function")
		}
		m.Calls = append(m.Calls, one)
	}
	return nil
}

// Object returns the arguments of a call as a JSON object; {} when there are none.
// ok is false when they are something else.
func (c *Call) Object() (object []byte, ok bool) {
	if strings.TrimSpace(c.Args) == "" {
		return []byte("{}"), true
	}
	return []byte(c.Args), isObject([]byte(c.Args))
}
