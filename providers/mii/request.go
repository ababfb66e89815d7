package mii

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/providers"
	"sluice/providers/kit"
	"sluice/providers/kit/ask"
	"sluice/streaming"
)

// job is what is asked of the server for one request.
type job struct {
	meta    streaming.MetaData
	prompts []string // one for each choice
	again   int      // how often each prompt of the caller's stands in prompts
	chat    bool
	stream  bool     // one prompt, whose tokens shall come one by one
	stops   []string // the caller's
	marks   []string // of the model's format
	early   bool     // it may end before the server does, by a sequence of the caller's
	dropped http.Header

	// The parameters, the same set in every call: the server's engine does not survive a
	// batch in which some calls have one and others do not.
	maxNewTokens      int64
	sample            bool
	temperature, topP float64
}

// read makes a job of a caller's request.
func (o *Options) read(req *providers.Request, model string) (*job, error) {
	if req.Op != providers.Chat && req.Op != providers.Completions {
		return nil, ask.NotServed(req, kind)
	}
	q := ask.Read(req, kind, o.Drop)
	j := &job{chat: req.Op == providers.Chat, again: req.Choices}
	q.Take("n")
	prompts, err := o.prompts(q, j)
	if err != nil {
		return nil, err
	}
	if err := o.repeat(req, j, prompts); err != nil {
		return nil, err
	}
	if err := o.parameters(q, j); err != nil {
		return nil, err
	}
	if err := q.Rest(); err != nil {
		return nil, err
	}
	j.stream = len(j.prompts) == 1 && !o.REST && o.Generation.streams() && (req.Stream || j.early)
	j.dropped = q.Header()
	j.name(req, model)
	return j, nil
}

// Bounds on one call, which the server queues whole, whatever stands in it. The first is
// OpenAI's largest n eight times over; the second leaves room for that n of the longest
// prompt that is allowed as the configuration stands at first.
const (
	maxAnswers = 1024
	maxCall    = 16 << 20 // bytes of all prompts, where there are several
)

// repeat sets the prompts, each as often as it shall be answered. Nothing is multiplied
// before the product is known to be bounded.
func (o *Options) repeat(req *providers.Request, j *job, prompts []string) error {
	all := 0
	for _, p := range prompts {
		if o.MaxPrompt > 0 && len(p) > o.MaxPrompt {
			return tooLong(j.chat, fmt.Sprintf("the prompt has %d bytes, and the model %q takes %d", len(p), req.Model, o.MaxPrompt))
		}
		all += len(p) * req.Choices
	}
	param := "prompt"
	if j.chat || len(prompts) == 1 {
		param = "n"
	}
	n := len(prompts) * req.Choices
	switch {
	case n > maxAnswers:
		return providers.Invalid(param, fmt.Sprintf("%s: %d prompts with n = %d ask for %d answers, and the model %q gives at most %d to a request.", param, len(prompts), req.Choices, n, req.Model, maxAnswers))
	case n > 1 && all > maxCall:
		return providers.Invalid(param, fmt.Sprintf("%s: %d prompts with n = %d have %d bytes together, and the model %q takes at most %d in a request.", param, len(prompts), req.Choices, all, req.Model, maxCall))
	}
	j.prompts = make([]string, 0, n)
	for _, p := range prompts {
		for range req.Choices {
			j.prompts = append(j.prompts, p)
		}
	}
	return nil
}

// name makes up what the server does not tell.
func (j *job) name(req *providers.Request, model string) {
	prefix := "cmpl-"
	if j.chat {
		prefix = "chatcmpl-"
	}
	j.meta = streaming.MetaData{ID: prefix + strings.TrimPrefix(req.ID, "req_"), Created: time.Now().Unix(), Model: model, Header: j.dropped}
}

// tooLong is a prompt over a limit, in the words that clients know it by.
func tooLong(chat bool, message string) *providers.Error {
	param := "prompt"
	if chat {
		param = "messages"
	}
	return &providers.Error{Kind: providers.BadRequest, Param: param, Code: "context_length_exceeded", Message: message}
}

// prompts takes what stands before the answers.
func (o *Options) prompts(q *ask.Params, j *job) ([]string, error) {
	if j.chat {
		return o.conversation(q)
	}
	asked, err := q.Prompts()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, p := range asked {
		if p.Tokens != nil {
			return nil, q.CannotRead("prompt", "token ids")
		}
		all = append(all, p.Text)
	}
	return all, nil
}

// conversation makes one prompt of the messages.
func (o *Options) conversation(q *ask.Params) ([]string, error) {
	asked, err := q.Messages()
	if err != nil {
		return nil, err
	}
	var messages []kit.Message
	for i := range asked {
		m := &asked[i]
		switch images := m.Images(); {
		case m.Role == "tool":
			return nil, q.CannotRead(m.Param+".role", "the results of tools")
		case len(m.Calls) > 0:
			return nil, q.CannotRead(m.Param+".tool_calls", "calls of tools")
		case len(images) > 0:
			return nil, q.CannotRead(images[0].Param, "images")
		}
		messages = append(messages, kit.Message{Role: m.Role, Text: m.Text()})
	}
	prompt, err := o.Template.Prompt(messages)
	if err != nil {
		return nil, providers.Invalid("messages", "messages cannot be made a prompt for this model: "+err.Error())
	}
	return []string{prompt}, nil
}

// parameters takes what the server can do, and what is done for it here.
func (o *Options) parameters(q *ask.Params, j *job) (err error) {
	if j.stops, err = q.Stop(); err != nil {
		return err
	}
	j.early = len(j.stops) > 0
	if j.marks = o.Template.TokenStops(); j.chat {
		j.marks = o.Template.Stops
	}
	if err := o.length(q, j); err != nil {
		return err
	}
	temperature, err := number(q, "temperature", 2, o.Temperature)
	if err != nil {
		return err
	}
	topP, err := number(q, "top_p", 1, o.TopP)
	if err != nil {
		return err
	}
	// The server refuses a temperature of 0, and keeps a processor for each value that it
	// was ever sent: two digits are enough for all of them.
	j.temperature, j.topP = hundredths(temperature), max(hundredths(topP), 0.01)
	if j.sample = j.temperature > 0; !j.sample {
		j.temperature = max(hundredths(o.Temperature), 0.01)
	}
	return nil
}

// length bounds the answer. A caller who asked for more than the configuration allows
// finds the parameter among those that were not sent as they were.
func (o *Options) length(q *ask.Params, j *job) error {
	param := "max_tokens"
	if q.Has("max_completion_tokens") {
		param = "max_completion_tokens"
	}
	n, asked, err := q.MaxTokens()
	if err != nil {
		return err
	}
	if !asked {
		n = int64(o.MaxNewTokens)
	}
	if j.maxNewTokens = min(n, int64(o.MaxNewTokensLimit)); j.maxNewTokens < n {
		q.Bounded(param)
	}
	return nil
}

func number(q *ask.Params, name string, high, instead float64) (float64, error) {
	v, err := q.Number(name, 0, high)
	if v == nil || err != nil {
		return instead, err
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err
}

func hundredths(f float64) float64 { return math.Round(f*100) / 100 }
