package ollama

import (
	"strconv"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/streaming/jsonscan"
)

// kind is how refusals name this adapter.
const kind = "ollama"

// request is one request as Ollama gets it.
type request struct {
	path    string
	came    string // the type of the answer
	asked   *ask.Params
	members []member
	options []member

	oneCall  bool // at most one tool call may reach the caller
	inBase64 bool // embeddings
	inputs   int  // of embeddings

	needs  []need // that can be left out
	effort string // of thinking that was asked for; "" leaves it to the model
}

// member is a member of a JSON object.
type member struct {
	name  string
	value []byte // JSON text
}

// need is something that the model must be able to do, and the parameter that asks for it.
type need struct{ capability, param string }

func (r *request) set(name string, value []byte) {
	if value != nil {
		r.members = append(r.members, member{name, value})
	}
}

func (r *request) setString(name, value string) {
	if value != "" {
		r.set(name, jsonscan.AppendQuote(nil, value))
	}
}

// option sets one of the model's options; a later one replaces an earlier one.
func (r *request) option(name string, value []byte) {
	for i := range r.options {
		if r.options[i].name == name && value != nil {
			r.options[i].value = value
			return
		}
	}
	if value != nil {
		r.options = append(r.options, member{name, value})
	}
}

// addOptions sets the members of a JSON object.
func (r *request) addOptions(object []byte) {
	c := jsonscan.Cursor{B: object, Limit: maxDepth}
	if c.Peek() != '{' {
		return
	}
	for c.Object(); c.Key(); {
		name, _ := jsonscan.Unquote([]byte(`"` + string(c.Name) + `"`))
		r.option(name, c.Skip().Of(object))
	}
}

// body puts the request together.
func (r *request) body() []byte {
	out := appendObject(nil, r.members)
	if len(r.options) == 0 {
		return out
	}
	out = append(out[:len(out)-1], `,"options":`...)
	return append(appendObject(out, r.options), '}')
}

// appendObject adds an object that has one member at least.
func appendObject(dst []byte, members []member) []byte {
	sep := byte('{')
	for _, m := range members {
		dst = jsonscan.AppendQuote(append(dst, sep), m.name)
		dst = append(append(dst, ':'), m.value...)
		sep = ','
	}
	return append(dst, '}')
}

// translate makes Ollama's request of the caller's.
func (t target) translate(req *providers.Request) (*request, error) {
	r := &request{asked: ask.Read(req, kind, t.opt.Drop)}
	r.setString("model", t.model)
	r.addOptions(t.opt.ModelOptions)
	var fill func(*request) error
	switch req.Op {
	case providers.Chat:
		r.path, fill = "/api/chat", t.chat
	case providers.Completions:
		r.path, fill = "/api/generate", t.generate
	case providers.Embeddings:
		r.path, fill = "/api/embed", t.embed
	default:
		return nil, ask.NotServed(req, kind)
	}
	if err := fill(r); err != nil {
		return nil, err
	}
	return r, r.asked.Rest()
}

func (t target) chat(r *request) error {
	msgs, err := r.asked.Messages()
	if err != nil {
		return err
	}
	encoded, err := r.messages(msgs)
	if err != nil {
		return err
	}
	r.set("messages", encoded)
	if err := r.tools(); err != nil {
		return err
	}
	return t.generation(r)
}

func (t target) generate(r *request) error {
	prompts, err := r.asked.Prompts()
	switch {
	case err != nil:
		return err
	case len(prompts) > 1:
		return r.asked.CannotRead("prompt", "several prompts at once")
	case prompts[0].Tokens != nil:
		return r.asked.CannotRead("prompt", "token ids")
	}
	r.set("prompt", jsonscan.AppendQuote(nil, prompts[0].Text))
	suffix, err := r.asked.String("suffix")
	if err != nil {
		return err
	}
	if suffix != "" {
		r.setString("suffix", suffix)
		r.needs = append(r.needs, need{"insert", "suffix"})
	}
	for _, own := range []string{"system", "template", "context", "images"} {
		r.set(own, r.asked.Take(own))
	}
	raw := r.asked.Take("raw")
	if raw == nil && t.opt.Raw {
		raw = []byte("true")
	}
	r.set("raw", raw)
	return t.generation(r)
}

func (t target) embed(r *request) error {
	texts, err := r.asked.Inputs()
	if err != nil {
		return err
	}
	r.set("input", quoteAll(texts))
	r.inputs = len(texts)
	if r.inBase64, err = r.asked.Base64(); err != nil {
		return err
	}
	n, ok, err := r.asked.Integer("dimensions", 1)
	if err != nil {
		return err
	}
	if ok {
		r.set("dimensions", strconv.AppendInt(nil, n, 10))
	}
	r.set("truncate", r.asked.Take("truncate"))
	return t.common(r)
}

// generation takes what chat and completions have in common.
func (t target) generation(r *request) error {
	r.set("stream", []byte("true")) // a whole answer is collected from the same stream
	if err := r.format(); err != nil {
		return err
	}
	var err error
	if r.effort, err = r.asked.Effort(); err != nil {
		return err
	}
	if own := r.asked.Take("think"); own != nil {
		r.set("think", own)
		r.effort = ""
	}
	for _, own := range []string{"truncate", "shift"} {
		r.set(own, r.asked.Take(own))
	}
	if err := r.logprobs(); err != nil {
		return err
	}
	if err := t.common(r); err != nil {
		return err
	}
	return r.sampling()
}

// logprobs asks for log probabilities, which servers have from version 0.12.11 on; older
// ones answer without.
func (r *request) logprobs() error {
	want, top, err := r.asked.Logprobs()
	if err != nil || !want {
		return err
	}
	r.set("logprobs", []byte("true"))
	if top > 0 {
		r.set("top_logprobs", strconv.AppendInt(nil, top, 10))
	}
	return nil
}

// common takes what every call can carry.
func (t target) common(r *request) error {
	keep := r.asked.Take("keep_alive")
	if keep == nil && t.opt.KeepAlive != "" {
		keep = []byte(t.opt.KeepAlive)
		if _, err := strconv.ParseInt(t.opt.KeepAlive, 10, 64); err != nil {
			keep = jsonscan.AppendQuote(nil, t.opt.KeepAlive)
		}
	}
	r.set("keep_alive", keep)
	own := r.asked.Take("options")
	if own != nil && own[0] != '{' {
		return r.asked.Wrong("options", "an object of Ollama's options")
	}
	r.addOptions(own)
	return nil
}

// format takes the demand for JSON, in OpenAI's form or in Ollama's.
func (r *request) format() error {
	form, schema, err := r.asked.Format()
	switch {
	case err != nil:
		return err
	case form == "json_object":
		schema = []byte(`"json"`)
	}
	if own := r.asked.Take("format"); own != nil {
		schema = own
	}
	r.set("format", schema)
	return nil
}

// sampling takes the parameters that have an option of Ollama's.
func (r *request) sampling() error {
	for _, p := range []struct {
		name, option string
		low, high    float64
	}{
		{"temperature", "temperature", 0, 100}, {"top_p", "top_p", 0, 1}, {"min_p", "min_p", 0, 1}, {"typical_p", "typical_p", 0, 1},
		{"presence_penalty", "presence_penalty", -2, 2}, {"frequency_penalty", "frequency_penalty", -2, 2},
		{"repetition_penalty", "repeat_penalty", 0, 100}, {"repeat_penalty", "repeat_penalty", 0, 100},
	} {
		v, err := r.asked.Number(p.name, p.low, p.high)
		if err != nil {
			return err
		}
		r.option(p.option, v)
	}
	if err := r.integers(); err != nil {
		return err
	}
	stop, err := r.asked.Stop()
	if len(stop) > 0 {
		r.option("stop", quoteAll(stop))
	}
	return err
}

func (r *request) integers() error {
	for _, p := range []struct {
		option string
		take   func() (int64, bool, error)
	}{
		{"num_predict", r.asked.MaxTokens}, {"seed", r.asked.Seed},
		{"top_k", func() (int64, bool, error) { return r.asked.Integer("top_k", -1) }},
	} {
		n, ok, err := p.take()
		if err != nil {
			return err
		}
		if ok {
			r.option(p.option, strconv.AppendInt(nil, n, 10))
		}
	}
	return nil
}

// quoteAll makes a JSON array of strings.
func quoteAll(all []string) []byte {
	out := []byte{'['}
	for i, s := range all {
		if i > 0 {
			out = append(out, ',')
		}
		out = jsonscan.AppendQuote(out, s)
	}
	return append(out, ']')
}
