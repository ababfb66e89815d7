package ollama

import (
	"encoding/json"

	"sluice/providers"
	"sluice/providers/kit/ask"
)

// message is a turn of a conversation as Ollama takes it.
type message struct {
	Role       string   `json:"role"`
	Content    string   `json:"content"`
	Thinking   string   `json:"thinking,omitempty"`
	Images     []string `json:"images,omitempty"` // base64, without anything around it
	ToolCalls  []call   `json:"tool_calls,omitempty"`
	ToolName   string   `json:"tool_name,omitempty"`
	ToolCallID string   `json:"tool_call_id,omitempty"`
}

type call struct {
	ID       string   `json:"id,omitempty"`
	Function function `json:"function"`
}

type function struct {
	Index     int             `json:"index"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

func (r *request) messages(in []ask.Message) ([]byte, error) {
	out := make([]message, len(in))
	for i := range in {
		m := &in[i]
		out[i] = message{Role: m.Role, Content: m.Text(), Thinking: m.Reasoning, ToolCallID: m.CallID}
		if m.Role == "tool" {
			out[i].ToolName = m.Name
		}
		if err := r.images(m, &out[i]); err != nil {
			return nil, err
		}
		for n, c := range m.Calls {
			object, ok := c.Object()
			if !ok {
				return nil, providers.Invalid(m.Param+".tool_calls", m.Param+".tool_calls: the arguments of "+c.Name+" must be a JSON object.")
			}
			out[i].ToolCalls = append(out[i].ToolCalls, call{ID: c.ID, Function: function{Index: n, Name: c.Name, Arguments: object}})
		}
	}
	text, err := json.Marshal(out)
	if err != nil {
		return nil, &providers.Error{Kind: providers.Internal, Message: "the messages could not be encoded", Err: err}
	}
	return text, nil
}

func (r *request) images(in *ask.Message, out *message) error {
	for _, image := range in.Images() {
		_, data, err := image.Data()
		if err != nil {
			return err
		}
		out.Images = append(out.Images, data)
	}
	return nil
}

// tools takes the functions that the model may call. Ollama cannot be told that it must
// call one.
func (r *request) tools() error {
	tools, choice, err := r.asked.Tools()
	if err != nil || len(tools) == 0 || choice.Mode == ask.None {
		return err
	}
	if choice.Mode == ask.Required || choice.Mode == ask.Named {
		if err := r.asked.Cannot("tool_choice", "leaves it to the model whether a tool is called"); err != nil {
			return err
		}
	}
	list := []byte{'['}
	for i, t := range tools {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, t.Raw...)
	}
	r.set("tools", append(list, ']'))
	r.needs = append(r.needs, need{"tools", "tools"})
	r.oneCall = choice.One
	return nil
}
