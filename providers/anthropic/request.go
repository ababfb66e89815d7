package anthropic

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/streaming/jsonscan"
)

// upstreamKind is how refusals name this adapter.
const upstreamKind = "anthropic"

// request is a caller's request on its way into the form of this API.
type request struct {
	target
	rules
	req     *providers.Request
	asked   *ask.Params
	effort  string            // how much the model shall think; "" is not said
	fields  map[string][]byte // the top-level members that are not null, as JSON
	out     params
	dropped []string // what the upstream is not sent although it was asked for
	inTool  bool     // the answer comes as the input of answerTool
	thinks  bool
	forces  bool // a tool must be called
	open    []string
}

// params is the body of POST /v1/messages. Fields that are not known there are refused
// by the server, so nothing of the caller's goes in unread.
type params struct {
	Model        string          `json:"model"`
	MaxTokens    int64           `json:"max_tokens"`
	Stream       bool            `json:"stream,omitempty"`
	System       []block         `json:"system,omitempty"`
	Messages     []turn          `json:"messages"`
	Tools        []tool          `json:"tools,omitempty"`
	ToolChoice   *toolChoice     `json:"tool_choice,omitempty"`
	Thinking     any             `json:"thinking,omitempty"`
	Output       *output         `json:"output_config,omitempty"`
	Stops        []string        `json:"stop_sequences,omitempty"`
	Temperature  json.RawMessage `json:"temperature,omitempty"`
	TopP         json.RawMessage `json:"top_p,omitempty"`
	TopK         json.RawMessage `json:"top_k,omitempty"`
	Metadata     *metadata       `json:"metadata,omitempty"`
	ServiceTier  string          `json:"service_tier,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

// output is output_config.
type output struct {
	Effort string  `json:"effort,omitempty"`
	Format *format `json:"format,omitempty"`
}

type format struct {
	Type   string          `json:"type"`
	Schema json.RawMessage `json:"schema"`
}

type metadata struct {
	UserID string `json:"user_id"`
}

// translated are the members of a request that are read here or elsewhere in this
// package.
var translated = []string{
	"model", "messages", "prompt", "stream", "max_tokens", "max_completion_tokens", "stop", "temperature", "top_p", "top_k",
	"tools", "tool_choice", "parallel_tool_calls", "response_format", "thinking", "cache_control",
	"user", "safety_identifier", "service_tier",
}

// translate makes a request of the caller's. The error names the first thing that cannot be
// asked of this model.
func (t target) translate(req *providers.Request) (*request, error) {
	if req.Op != providers.Chat && req.Op != providers.Completions {
		return nil, ask.NotServed(req, upstreamKind)
	}
	a := &request{target: t, rules: t.rules(), req: req, asked: ask.Read(req, upstreamKind, t.opt.Drop)}
	if err := a.read(req.Body); err != nil {
		return nil, err
	}
	a.out = params{Model: t.model, Stream: req.Stream, CacheControl: a.fields["cache_control"]}
	steps := []func() error{a.effortOf, a.refuseRest, a.bound, a.stops, a.callTools, a.shape, a.converse, a.declareCalled, a.think, a.sample, a.label}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// body is the request as it is sent.
func (a *request) body() ([]byte, error) {
	b, err := json.Marshal(&a.out)
	if err != nil {
		return nil, &providers.Error{Kind: providers.Internal, Target: a.name, Message: "the request could not be written in the upstream's form", Err: err}
	}
	return b, nil
}

func (a *request) read(body []byte) error {
	a.fields = map[string][]byte{}
	c := jsonscan.Cursor{B: body, Limit: 1 << 12} // its depth has been bounded on arrival
	for c.Object(); c.Key(); {
		name := string(c.Name)
		if v := c.Skip().Of(body); string(v) != "null" {
			a.fields[name] = v
		}
	}
	if !c.End() {
		return providers.Invalid("", "The request body is not valid JSON.")
	}
	return nil
}

// take decodes a member into v, if it is there.
func (a *request) take(name string, v any, want string) error {
	raw, ok := a.fields[name]
	if !ok {
		return nil
	}
	if json.Unmarshal(raw, v) != nil {
		return providers.Invalid(name, name+" must be "+want+".")
	}
	return nil
}

// unsupported refuses a parameter, or leaves it out where the configuration says so.
// why continues the sentence "its upstream is of kind anthropic, which …".
func (a *request) unsupported(param, why string) error { return a.asked.Cannot(param, why) }

// drop leaves out what must not be sent and whose lack a caller can live with.
func (a *request) drop(param string) {
	if !slices.Contains(a.dropped, param) {
		a.dropped = append(a.dropped, param)
	}
}

// refuseRest judges what is not translated.
func (a *request) refuseRest() error {
	for _, name := range translated {
		a.asked.Take(name)
	}
	return a.asked.Rest()
}

// bound sets max_tokens, which the API demands.
func (a *request) bound() error {
	name := "max_completion_tokens"
	if a.fields[name] == nil {
		name = "max_tokens"
	}
	a.out.MaxTokens = a.limit
	if err := a.take(name, &a.out.MaxTokens, "an integer"); err != nil {
		return err
	}
	if a.out.MaxTokens < 1 {
		return providers.Invalid(name, name+" must be at least 1.")
	}
	return nil
}

func (a *request) stops() error {
	raw := a.fields["stop"]
	if len(raw) > 0 && raw[0] == '"' {
		raw = slices.Concat([]byte("["), raw, []byte("]"))
	}
	var list []string
	if len(raw) > 0 && json.Unmarshal(raw, &list) != nil {
		return providers.Invalid("stop", "stop must be a string or an array of strings.")
	}
	for _, s := range list {
		switch {
		case s == "":
		case strings.TrimSpace(s) == "":
			if err := a.unsupported("stop", "takes no stop sequence of white space alone"); err != nil {
				return err
			}
		default:
			a.out.Stops = append(a.out.Stops, s)
		}
	}
	return nil
}

// sample sends temperature, top_p and top_k as far as the model takes them. What it
// does not take is left out, for a caller who sends its client's default must not fail.
func (a *request) sample() error {
	for _, p := range []struct {
		name    string
		to      *json.RawMessage
		most    float64
		neutral string
	}{{"temperature", &a.out.Temperature, 2, "1"}, {"top_p", &a.out.TopP, 1, "1"}, {"top_k", &a.out.TopK, 1e6, "0"}} {
		raw := a.fields[p.name]
		if raw == nil {
			continue
		}
		x, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || x < 0 || x > p.most {
			return providers.Invalid(p.name, fmt.Sprintf("%s must be a number from 0 to %g.", p.name, p.most))
		}
		switch {
		case strconv.FormatFloat(x, 'g', -1, 64) == p.neutral:
		case !a.sampling || a.thinks || p.name == "top_p" && a.out.Temperature != nil && !a.both:
			a.drop(p.name)
		case p.name == "temperature" && x > 1: // OpenAI's goes to 2, this one's to 1
			*p.to = json.RawMessage("1")
		default:
			*p.to = json.RawMessage(raw)
		}
	}
	return nil
}

// maxUserID is how long the API lets user_id be, in bytes.
const maxUserID = 256

// label passes on who asks, as the caller's own opaque word for it, and the tier.
func (a *request) label() error {
	for _, name := range []string{"safety_identifier", "user"} {
		id, _ := jsonscan.Unquote(a.fields[name])
		if id != "" && len(id) <= maxUserID {
			a.out.Metadata = &metadata{UserID: id}
			break
		}
	}
	switch string(a.fields["service_tier"]) {
	case `"auto"`, `"priority"`:
		a.out.ServiceTier = "auto"
	case `"default"`:
		a.out.ServiceTier = "standard_only"
	}
	return nil
}
