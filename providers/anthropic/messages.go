package anthropic

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sluice/providers"
)

// turn is one message of this API: the server merges neighbours of one role, so they
// are merged here, where results of tools can be put first.
type turn struct {
	Role    string  `json:"role"`
	Content []block `json:"content"`
}

// block is one part of a turn; Type says which fields it has.
type block struct {
	Type         string          `json:"type"`
	Text         string          `json:"text,omitempty"`
	Source       *source         `json:"source,omitempty"`
	Title        string          `json:"title,omitempty"`
	ID           string          `json:"id,omitempty"`
	Name         string          `json:"name,omitempty"`
	Input        json.RawMessage `json:"input,omitempty"`
	ToolUseID    string          `json:"tool_use_id,omitempty"`
	Content      []block         `json:"content,omitempty"`
	Thinking     *string         `json:"thinking,omitempty"` // may be empty beside a signature
	Signature    string          `json:"signature,omitempty"`
	Data         string          `json:"data,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

// message is one of OpenAI's.
type message struct {
	Role         string          `json:"role"`
	Content      json.RawMessage `json:"content"`
	Refusal      string          `json:"refusal"`
	ToolCalls    []toolCall      `json:"tool_calls"`
	ToolCallID   string          `json:"tool_call_id"`
	FunctionCall json.RawMessage `json:"function_call"`
}

type toolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// converse translates the messages, or the one prompt of a legacy completion.
func (a *request) converse() error {
	if a.req.Op == providers.Completions {
		return a.prompt()
	}
	var list []message
	if err := a.take("messages", &list, "an array of messages, with a role, and content that is a string or an array of parts"); err != nil {
		return err
	}
	for i := range list {
		if err := a.message(fmt.Sprintf("messages[%d]", i), &list[i]); err != nil {
			return err
		}
	}
	if err := a.answered("messages"); err != nil {
		return err
	}
	a.trimPrefill()
	if len(a.out.Messages) == 0 {
		return providers.Invalid("messages", fmt.Sprintf("The model %q needs a message of the user with some content.", a.req.Model))
	}
	return nil
}

// prompt asks for the completion of one text, which is a chat of one message.
func (a *request) prompt() error {
	raw := a.fields["prompt"]
	var text string
	var list []string
	switch {
	case json.Unmarshal(raw, &text) == nil:
	case json.Unmarshal(raw, &list) == nil && len(list) == 1:
		text = list[0]
	default:
		return providers.Invalid("prompt", fmt.Sprintf("prompt must be one string for the model %q, which answers chats: it takes neither tokens nor several prompts at once.", a.req.Model))
	}
	if text == "" {
		return providers.Invalid("prompt", "prompt must not be empty.")
	}
	a.say("user", block{Type: "text", Text: text})
	return nil
}

func (a *request) message(at string, m *message) error {
	switch m.Role {
	case "system", "developer":
		parts, err := a.parts(at, m.Content, textOnly)
		a.out.System = append(a.out.System, parts...)
		return err
	case "user":
		parts, err := a.parts(at, m.Content, anything)
		a.say("user", parts...)
		return err
	case "assistant":
		if err := a.answered(at); err != nil {
			return err
		}
		return a.assistant(at, m)
	case "tool":
		return a.result(at, m)
	default:
		return providers.Invalid(at+".role", fmt.Sprintf("The role %q is none that the model %q knows: send system, developer, user, assistant or tool.", m.Role, a.req.Model))
	}
}

// say adds to the conversation.
func (a *request) say(role string, blocks ...block) {
	if len(blocks) == 0 {
		return
	}
	if n := len(a.out.Messages); n > 0 && a.out.Messages[n-1].Role == role {
		last := &a.out.Messages[n-1]
		last.Content = append(last.Content, blocks...)
		return
	}
	a.out.Messages = append(a.out.Messages, turn{Role: role, Content: blocks})
}

// assistant puts what the model thought before a call, as far as it is known, in front
// of it, and of the text that went before the first.
func (a *request) assistant(at string, m *message) error {
	if len(m.FunctionCall) > 0 && string(m.FunctionCall) != "null" {
		return providers.Invalid(at+".function_call", "function_call is the old form: send tool_calls.")
	}
	blocks, err := a.parts(at, m.Content, textOnly)
	if err != nil {
		return err
	}
	if m.Refusal != "" {
		blocks = append(blocks, block{Type: "text", Text: m.Refusal})
	}
	for i := range m.ToolCalls {
		c := &m.ToolCalls[i]
		use, err := a.toolUse(fmt.Sprintf("%s.tool_calls[%d]", at, i), c)
		if err != nil {
			return err
		}
		thought := a.memory.Recall(c.ID, a.model)
		if i == 0 {
			blocks = slices.Concat(thought, blocks)
		} else {
			blocks = append(blocks, thought...)
		}
		blocks = append(blocks, use)
	}
	a.say("assistant", blocks...)
	return nil
}

func (a *request) toolUse(at string, c *toolCall) (block, error) {
	if c.ID == "" || c.Function.Name == "" || c.Type != "" && c.Type != "function" {
		return block{}, providers.Invalid(at, "A tool call needs an id, the type \"function\" and the function's name.")
	}
	input := json.RawMessage(strings.TrimSpace(c.Function.Arguments))
	if len(input) == 0 {
		input = json.RawMessage("{}")
	}
	if !json.Valid(input) || input[0] != '{' {
		return block{}, providers.Invalid(at+".function.arguments", fmt.Sprintf("The arguments of a tool call must be a JSON object for the model %q.", a.req.Model))
	}
	a.open = append(a.open, c.ID)
	return block{Type: "tool_use", ID: safeID(c.ID), Name: c.Function.Name, Input: input}, nil
}

// result adds what a tool gave. The API wants all results of a turn in one message and
// in front of everything else in it.
func (a *request) result(at string, m *message) error {
	i := slices.Index(a.open, m.ToolCallID)
	if i < 0 {
		return providers.Invalid(at+".tool_call_id", fmt.Sprintf("No tool call with the id %q waits for a result.", m.ToolCallID))
	}
	a.open = slices.Delete(a.open, i, i+1)
	parts, err := a.parts(at, m.Content, anything)
	if err != nil {
		return err
	}
	r := block{Type: "tool_result", ToolUseID: safeID(m.ToolCallID), Content: parts}
	n := len(a.out.Messages) - 1
	if a.out.Messages[n].Role != "user" {
		a.say("user", r)
		return nil
	}
	last := &a.out.Messages[n]
	at0 := slices.IndexFunc(last.Content, func(b block) bool { return b.Type != "tool_result" })
	if at0 < 0 {
		at0 = len(last.Content)
	}
	last.Content = slices.Insert(last.Content, at0, r)
	return nil
}

// answered checks that no tool call is left without a result.
func (a *request) answered(at string) error {
	if len(a.open) == 0 {
		return nil
	}
	return providers.Invalid(at, fmt.Sprintf("The tool call with the id %q has no result: a message of the role tool must follow it.", a.open[0]))
}

// trimPrefill cuts white space that the API refuses at the end of a text which the
// model is to go on with.
func (a *request) trimPrefill() {
	n := len(a.out.Messages) - 1
	if n < 0 || a.out.Messages[n].Role != "assistant" {
		return
	}
	last := &a.out.Messages[n]
	b := &last.Content[len(last.Content)-1]
	if b.Text = strings.TrimRight(b.Text, " \t\r\n"); b.Type == "text" && b.Text == "" {
		last.Content = last.Content[:len(last.Content)-1]
	}
	if len(last.Content) == 0 {
		a.out.Messages = a.out.Messages[:n]
	}
}

// maxID is how long an id of a tool call may be to be sent as it is.
const maxID = 128

// safeID makes an id that the API takes of one that another provider made up, always
// the same.
func safeID(id string) string {
	odd := func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	if len(id) <= maxID && !strings.ContainsFunc(id, odd) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "toolu_" + hex.EncodeToString(sum[:12])
}
