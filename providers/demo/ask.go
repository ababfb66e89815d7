package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"sluice/providers"
)

// ask is what a request for text says, as far as these models care.
type ask struct {
	model    string
	messages []message
	prompts  []string // of a legacy completion
	size     int      // of the prompts, in tokens
	n        int      // choices for each prompt
	max      int      // tokens of one choice
	stops    []string
	tools    []function
	choice   toolChoice
	parallel bool
}

// Bounds of one answer: the tokens of a choice and of all of them together, and
// n times prompts.
const (
	maxTokens     = 4096
	maxAllTokens  = 64 << 10
	maxAllChoices = 128
)

type message struct {
	Role    string  `json:"role"`
	Content content `json:"content"`
}

// content is a string, a list of parts, or nothing.
type content struct {
	text   string
	images []string // URLs
}

type part struct {
	Type     string          `json:"type"`
	Text     string          `json:"text"`
	ImageURL json.RawMessage `json:"image_url"`
}

func (c *content) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case 'n':
		return nil
	case '"':
		return json.Unmarshal(b, &c.text)
	}
	var parts []part
	if json.Unmarshal(b, &parts) != nil {
		return providers.Invalid("messages", "The content of a message must be a string or an array of parts such as {\"type\":\"text\",\"text\":\"…\"}.")
	}
	var texts []string
	for _, p := range parts {
		if p.Text != "" {
			texts = append(texts, p.Text)
		}
		if p.Type == "image_url" {
			url, err := imageURL(p.ImageURL)
			if err != nil {
				return err
			}
			c.images = append(c.images, url)
		}
	}
	c.text = strings.Join(texts, "\n")
	return nil
}

// imageURL reads {"url":…} and, as some clients send it, the bare string.
func imageURL(b []byte) (string, error) {
	var object struct {
		URL string `json:"url"`
	}
	var url string
	if json.Unmarshal(b, &object) != nil && json.Unmarshal(b, &url) == nil {
		object.URL = url
	}
	if object.URL == "" {
		return "", providers.Invalid("messages", `An image_url part needs {"image_url":{"url":"…"}}.`)
	}
	return object.URL, nil
}

// wire is the body of a chat completion and of a legacy one.
type wire struct {
	Messages            []message       `json:"messages"`
	Prompt              json.RawMessage `json:"prompt"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Stop                json.RawMessage `json:"stop"`
	Tools               []struct {
		Type     string   `json:"type"`
		Function function `json:"function"`
	} `json:"tools"`
	ToolChoice        toolChoice `json:"tool_choice"`
	ParallelToolCalls *bool      `json:"parallel_tool_calls"`
}

func parse(req *providers.Request, model string) (*ask, error) {
	var w wire
	if err := json.Unmarshal(req.Body, &w); err != nil {
		return nil, badBody(err)
	}
	a := &ask{model: model, messages: w.Messages, n: max(req.Choices, 1), choice: w.ToolChoice, prompts: []string{""},
		parallel: w.ParallelToolCalls == nil || *w.ParallelToolCalls}
	for _, t := range w.Tools {
		if t.Type == "function" && t.Function.Name != "" {
			a.tools = append(a.tools, t.Function)
		}
	}
	var err error
	if a.max, err = w.limit(); err != nil {
		return nil, err
	}
	if a.stops, err = stops(w.Stop); err != nil {
		return nil, err
	}
	if req.Op == providers.Completions {
		if err = a.readPrompts(w.Prompt); err != nil {
			return nil, err
		}
	}
	choices := a.n * len(a.prompts)
	if choices > maxAllChoices {
		return nil, providers.Invalid("n", fmt.Sprintf("n times the number of prompts must not be more than %d.", maxAllChoices))
	}
	a.max = min(a.max, maxAllTokens/choices)
	return a, nil
}

func badBody(err error) error {
	if e := providers.AsError(err); e != nil {
		return e
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		field, _, _ := strings.Cut(wrong.Field, ".")
		return providers.Invalid(field, fmt.Sprintf("%s must not be a %s.", wrong.Field, wrong.Value))
	}
	return providers.Invalid("", "The request body is not valid JSON.")
}

func (w *wire) limit() (int, error) {
	field, limit := "max_completion_tokens", w.MaxCompletionTokens
	if limit == nil {
		field, limit = "max_tokens", w.MaxTokens
	}
	switch {
	case limit == nil:
		return maxTokens, nil
	case *limit < 1:
		return 0, providers.Invalid(field, field+" must be at least 1.")
	default:
		return min(*limit, maxTokens), nil
	}
}

func absent(b []byte) bool { return len(b) == 0 || string(b) == "null" }

func stops(b []byte) ([]string, error) {
	if absent(b) {
		return nil, nil
	}
	var list []string
	if b[0] == '"' {
		list = []string{""}
		_ = json.Unmarshal(b, &list[0])
	} else if json.Unmarshal(b, &list) != nil {
		return nil, providers.Invalid("stop", "stop must be a string or an array of strings.")
	}
	if len(list) > 4 {
		return nil, providers.Invalid("stop", "stop must have at most 4 strings.")
	}
	for _, s := range list {
		if s == "" {
			return nil, providers.Invalid("stop", "A string in stop must not be empty.")
		}
	}
	return list, nil
}

// readPrompts takes a string, strings, tokens or arrays of tokens. Tokens have no
// text here, for there is no vocabulary behind them.
func (a *ask) readPrompts(b []byte) error {
	if absent(b) {
		return nil
	}
	inputs, err := readInputs("prompt", b)
	if err != nil {
		return err
	}
	a.prompts = make([]string, len(inputs))
	for i, in := range inputs {
		a.prompts[i] = in.text
		if in.tokens != nil {
			a.prompts[i] = fmt.Sprintf("%d tokens", len(in.tokens))
		}
		a.size += in.size()
	}
	return nil
}

// input is one text or one list of tokens.
type input struct {
	text   string
	tokens []int64
}

// size is how many tokens it has.
func (in *input) size() int { return countTokens(in.text) + len(in.tokens) }

// maxInputs is how many texts one request may bring.
const maxInputs = 2048

// readInputs reads the four shapes that OpenAI takes for input and prompt.
func readInputs(field string, b []byte) ([]input, error) {
	b = bytes.TrimSpace(b)
	var text string
	var texts []string
	var tokens []int64
	var lists [][]int64
	var out []input
	switch {
	case json.Unmarshal(b, &text) == nil:
		out = []input{{text: text}}
	case json.Unmarshal(b, &texts) == nil:
		for _, s := range texts {
			out = append(out, input{text: s})
		}
	case json.Unmarshal(b, &tokens) == nil:
		out = []input{{tokens: tokens}}
	case json.Unmarshal(b, &lists) == nil:
		for _, l := range lists {
			out = append(out, input{tokens: l})
		}
	default:
		return nil, providers.Invalid(field, field+" must be a string, an array of strings, an array of tokens, or an array of arrays of tokens.")
	}
	if len(out) == 0 || len(out) > maxInputs {
		return nil, providers.Invalid(field, fmt.Sprintf("%s must have 1 to %d entries.", field, maxInputs))
	}
	return out, nil
}

// last returns the text of the last message of the user, or the first prompt.
func (a *ask) last() string {
	for i := len(a.messages) - 1; i >= 0; i-- {
		if a.messages[i].Role == "user" {
			return a.messages[i].Content.text
		}
	}
	return a.prompts[0]
}
