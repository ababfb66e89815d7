package tgi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/kit/ask"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// kind is how refusals name this adapter.
const kind = "tgi"

// streamPath is where answers are streamed.
const streamPath = "/generate_stream"

// request is one request as the server gets it.
type request struct {
	req    *providers.Request
	asked  *ask.Params
	path   string
	stream bool // the server is asked for a stream
	prompt string
	params []param
	scored bool // log probabilities are asked for
	// The ends are enforced here, for the server's own leave the sequence in the text.
	marks []string   // of the model's format
	stops []string   // the caller's
	think *kit.Think // nil: thoughts are not looked for
}

// param is one of the server's parameters.
type param struct {
	name  string
	value []byte // JSON text
}

// set sets a parameter; a later value replaces an earlier one.
func (r *request) set(name string, value []byte) {
	if value == nil {
		return
	}
	for i := range r.params {
		if r.params[i].name == name {
			r.params[i].value = value
			return
		}
	}
	r.params = append(r.params, param{name, value})
}

func (r *request) unset(name string) {
	r.params = slices.DeleteFunc(r.params, func(p param) bool { return p.name == name })
}

func (r *request) body() []byte {
	out := jsonscan.AppendQuote([]byte(`{"inputs":`), r.prompt)
	out = append(out, `,"parameters":`...)
	sep := byte('{')
	for _, p := range r.params {
		out = jsonscan.AppendQuote(append(out, sep), p.name)
		out = append(append(out, ':'), p.value...)
		sep = ','
	}
	return append(out, "}}"...)
}

// stopper is nil when there is nothing to stop at.
func (r *request) stopper() *stopper {
	if len(r.marks)+len(r.stops) == 0 {
		return nil
	}
	s := &stopper{marks: kit.NewMatcher(r.marks), stops: kit.NewMatcher(r.stops)}
	if r.think != nil && len(r.stops) > 0 {
		s.split = r.think.Splitter(0)
	}
	return s
}

// thoughtful tells the thoughts in a chat from the answer, where the stopper has not.
func (t target) thoughtful(r *request, src streaming.Stream) streaming.Stream {
	if r.think == nil || len(r.stops) > 0 {
		return src
	}
	return r.think.Filter(src)
}

func (t target) translate(req *providers.Request) (*request, error) {
	r := &request{req: req, asked: ask.Read(req, kind, t.opt.Drop), path: "/generate", stream: req.Stream}
	if r.stream {
		r.path = streamPath
	}
	r.defaults(t.opt.Parameters)
	var err error
	switch req.Op {
	case providers.Chat:
		err = t.chat(r)
	case providers.Completions:
		err = t.complete(r)
	default:
		return nil, ask.NotServed(req, kind)
	}
	if err != nil {
		return nil, err
	}
	for _, take := range []func() error{r.lengthAndSeed, r.sampling, r.logprobs, r.format, r.stop, r.own, r.asked.Rest} {
		if err := take(); err != nil {
			return nil, err
		}
	}
	r.set("details", []byte("true")) // without them nothing is counted and no reason is given
	return r, nil
}

// defaults sets the members of a JSON object.
func (r *request) defaults(object []byte) {
	c := jsonscan.Cursor{B: object}
	if c.Peek() != '{' {
		return
	}
	for c.Object(); c.Key(); {
		name, _ := jsonscan.Unquote([]byte(`"` + string(c.Name) + `"`))
		r.set(name, c.Skip().Of(object))
	}
}

func (t target) chat(r *request) error {
	if t.opt.Template == nil {
		return providers.Invalid("messages", fmt.Sprintf("The model %q takes no conversations: no chat template is configured for its upstream of kind %s. Use /v1/completions.", r.req.Model, kind))
	}
	in, err := r.asked.Messages()
	if err != nil {
		return err
	}
	msgs := make([]kit.Message, len(in))
	for i := range in {
		if msgs[i], err = t.message(r, &in[i]); err != nil {
			return err
		}
	}
	if r.prompt, err = t.opt.Template.Prompt(msgs); err != nil {
		return &providers.Error{Kind: providers.Internal, Target: t.name, Message: "the chat template failed", Err: err}
	}
	r.marks, r.think = t.opt.Template.Stops, t.opt.Think
	return nil
}

// message turns a message into text. Images stand in it as the server's Markdown.
func (t target) message(r *request, m *ask.Message) (kit.Message, error) {
	if m.Role == "tool" || len(m.Calls) > 0 {
		return kit.Message{}, r.asked.CannotRead(m.Param, "calls of tools and their results")
	}
	var parts []string
	for _, p := range m.Parts {
		if p.Image == nil {
			parts = append(parts, withoutFetches(p.Text))
			continue
		}
		if !t.opt.Images {
			return kit.Message{}, r.asked.CannotRead(p.Image.Param, "images")
		}
		mediaType, data, err := p.Image.Data()
		if err != nil {
			return kit.Message{}, err
		}
		parts = append(parts, "![](data:"+mediaType+";base64,"+data+")")
	}
	return kit.Message{Role: m.Role, Text: strings.Join(parts, "\n")}, nil
}

// withoutFetches breaks, by a space, what a server with a vision model would take for
// an image to fetch from an address that the caller names.
func withoutFetches(text string) string {
	const mark = "![]("
	at := strings.Index(text, mark)
	if at < 0 {
		return text
	}
	rest := text[at+len(mark):]
	if strings.HasPrefix(rest, "data:") {
		return text[:at] + mark + withoutFetches(rest)
	}
	return text[:at] + "![ ](" + withoutFetches(rest)
}

func (t target) complete(r *request) error {
	prompts, err := r.asked.Prompts()
	switch {
	case err != nil:
		return err
	case len(prompts) > 1:
		return r.asked.CannotRead("prompt", "several prompts at once")
	case prompts[0].Tokens != nil:
		return r.asked.CannotRead("prompt", "token ids")
	}
	r.prompt = withoutFetches(prompts[0].Text)
	n, ok, err := r.asked.Integer("best_of", 1)
	switch {
	case err != nil:
		return err
	case ok && n > 1 && r.stream:
		return r.asked.Cannot("best_of", "chooses the best of several answers only when it does not stream")
	case ok && n > 1:
		r.set("best_of", strconv.AppendInt(nil, n, 10))
	}
	return nil
}

func (r *request) lengthAndSeed() error {
	n, ok, err := r.asked.MaxTokens()
	if err != nil {
		return err
	}
	if ok {
		r.set("max_new_tokens", strconv.AppendInt(nil, n, 10))
	}
	seed, ok, err := r.asked.Seed()
	if ok {
		r.set("seed", strconv.AppendUint(nil, positive(seed), 10))
	}
	return err
}

// positive maps seeds to those that the server takes, above 0: equal ones stay equal.
func positive(seed int64) uint64 {
	if seed == 0 {
		return 1 << 63
	}
	return uint64(seed)
}

// sampling takes what steers the choice of tokens. The server decodes greedily unless
// it is told otherwise, while OpenAI's default is to sample; it refuses the values by
// which others mean "off".
func (r *request) sampling() error {
	for _, p := range []struct {
		name, own string
		low, high float64
		off       []string
	}{
		{"temperature", "temperature", 0, 100, []string{"0", "0.0"}},
		{"top_p", "top_p", 0, 1, []string{"1", "1.0"}},
		{"typical_p", "typical_p", 0, 1, []string{"1", "1.0"}},
		{"top_k", "top_k", -1, 1 << 30, []string{"0", "-1"}},
		{"frequency_penalty", "frequency_penalty", -2, 2, nil},
		{"repeat_penalty", "repetition_penalty", 0, 100, nil},
		{"repetition_penalty", "repetition_penalty", 0, 100, nil},
	} {
		v, err := r.asked.Number(p.name, p.low, p.high)
		if err != nil {
			return err
		}
		if v != nil && slices.Contains(p.off, string(v)) {
			r.unset(p.own)
			if p.name == "temperature" {
				r.set("do_sample", []byte("false"))
			}
			continue
		}
		r.set(p.own, v)
	}
	if !slices.ContainsFunc(r.params, func(p param) bool { return p.name == "do_sample" }) {
		r.set("do_sample", []byte("true"))
	}
	return nil
}

// logprobs asks for the likeliest tokens; how likely the chosen ones were is always told.
func (r *request) logprobs() error {
	want, top, err := r.asked.Logprobs()
	if r.scored = want; top > 0 {
		r.set("top_n_tokens", strconv.AppendInt(nil, top, 10))
	}
	return err
}

// format takes the demand for JSON, in OpenAI's form or in the server's.
func (r *request) format() error {
	form, schema, err := r.asked.Format()
	if err != nil {
		return err
	}
	switch form {
	case "json_object":
		schema = []byte(`{"type":"object"}`)
		fallthrough
	case "json_schema":
		r.set("grammar", append(append([]byte(`{"type":"json","value":`), schema...), '}'))
	}
	r.set("grammar", r.asked.Take("grammar"))
	return nil
}

// maxStops is how many stop sequences the server takes.
const maxStops = 4

// stop takes the stop sequences. The server is told as many as it takes, so that it
// does not work in vain. It would stop at the caller's in thoughts too: where there may be
// some it is not told them, and is asked for a stream, which is left where the answer ends.
func (r *request) stop() (err error) {
	if r.stops, err = r.asked.Stop(); err != nil {
		return err
	}
	sent := slices.Concat(r.stops, r.marks)
	if r.think != nil && len(r.stops) > 0 {
		sent, r.stream, r.path = r.marks, true, streamPath
	}
	if len(sent) == 0 {
		return nil
	}
	list := []byte{'['}
	for i, s := range sent[:min(len(sent), maxStops)] {
		if i > 0 {
			list = append(list, ',')
		}
		list = jsonscan.AppendQuote(list, s)
	}
	r.set("stop", append(list, ']'))
	return nil
}

// own takes the server's parameters that OpenAI has nothing like.
func (r *request) own() error {
	for _, name := range []string{"truncate", "watermark", "adapter_id", "do_sample"} {
		r.set(name, r.asked.Take(name))
	}
	return nil
}
