package openai

import (
	"math"
	"strconv"

	"sluice/providers"
	"sluice/providers/kit/ask"
	"sluice/streaming/jsonscan"
)

// Profile names a server that has OpenAI's API with ways of its own.
type Profile uint8

const (
	// Plain servers get what callers send.
	Plain Profile = iota
	// MII is mii.entrypoints.openai_api_server of DeepSpeed-MII. It takes messages of text
	// alone, ignores what it does not know, streams one choice only, cannot be asked for a
	// temperature of 0, and has stop sequences that are one token of the vocabulary and
	// spoil other calls beside them: it is never sent one.
	MII
)

// kindMII is how refusals name the upstream.
const kindMII = "openai with the profile mii"

// What every deployment behind the server does, and what can be left out of a request.
const (
	doesMII      = providers.ChatRoute | providers.CompletionsRoute | providers.Choices
	leavesOutMII = providers.Tools | providers.JSONObject | providers.JSONSchema | providers.Logprobs | providers.Reasoning | providers.Suffix
)

// coldest is the lowest temperature that is sent: the server fails on 0. At it no other
// token than the likeliest has a chance worth the name.
const coldest = 0.01

// ownLimitMII is max_tokens where a caller sets none.
const ownLimitMII = 128

// askMII builds the one body that the server reads as the caller means it.
func (o *Options) askMII(req *providers.Request, model string) (call, error) {
	if req.Op != providers.Chat && req.Op != providers.Completions {
		return call{}, ask.NotServed(req, kindMII)
	}
	q := ask.Read(req, kindMII, o.Drop)
	q.Take("n")
	m := writer{dst: []byte{'{'}}
	m.member("model", jsonscan.AppendQuote(nil, model))
	content, prompts := o.messagesMII, 1
	if req.Op == providers.Completions {
		content = o.promptsMII
	}
	var err error
	if prompts, err = content(q, &m); err != nil {
		return call{}, err
	}
	c := call{choices: req.Choices * prompts, eos: o.EOS}
	c.stream = req.Stream && c.choices == 1 // of several only the first would come
	if c.stops, err = q.Stop(); err != nil {
		return call{}, err
	}
	limit, err := parametersMII(q, &m)
	if err != nil {
		return call{}, err
	}
	c.bound = limit * int64(c.choices)
	if err := q.Rest(); err != nil {
		return call{}, err
	}
	m.member("n", intValue(req.Choices))
	m.member("stream", strconv.AppendBool(nil, c.stream))
	c.body, c.dropped = append(m.dst, '}'), q.Header()
	return c, nil
}

// messagesMII writes messages whose every member is a string.
func (o *Options) messagesMII(q *ask.Params, m *writer) (prompts int, err error) {
	messages, err := q.Messages()
	if err != nil {
		return 0, err
	}
	m.key("messages")
	for i := range messages {
		msg := &messages[i]
		switch images := msg.Images(); {
		case msg.Role == "tool":
			return 0, q.CannotRead(msg.Param+".role", "the results of tools")
		case len(msg.Calls) > 0:
			return 0, q.CannotRead(msg.Param+".tool_calls", "calls of tools")
		case len(images) > 0:
			return 0, q.CannotRead(images[0].Param, "images")
		case msg.Role == "assistant" && i == len(messages)-1: // the server would begin another turn
			return 0, q.CannotRead(msg.Param, "the beginning of its answer")
		}
		before := byte(',')
		if i == 0 {
			before = '['
		}
		one := writer{dst: append(m.dst, before, '{')}
		one.member("role", jsonscan.AppendQuote(nil, msg.Role))
		one.member("content", jsonscan.AppendQuote(nil, msg.Text()))
		if msg.Name != "" {
			one.member("name", jsonscan.AppendQuote(nil, msg.Name))
		}
		m.dst = append(one.dst, '}')
	}
	m.dst = append(m.dst, ']')
	return 1, nil
}

func (o *Options) promptsMII(q *ask.Params, m *writer) (prompts int, err error) {
	all, err := q.Prompts()
	if err != nil {
		return 0, err
	}
	m.key("prompt")
	if len(all) == 1 && all[0].Tokens == nil {
		m.dst = jsonscan.AppendQuote(m.dst, all[0].Text)
		return 1, nil
	}
	for i, p := range all {
		if p.Tokens != nil {
			return 0, q.CannotRead("prompt", "token ids")
		}
		before := byte(',')
		if i == 0 {
			before = '['
		}
		m.dst = jsonscan.AppendQuote(append(m.dst, before), p.Text)
	}
	m.dst = append(m.dst, ']')
	return len(all), nil
}

// parametersMII writes what the server heeds, and returns how many tokens it makes at
// most for each choice. It keeps a processor for each temperature and top_p that it was
// ever sent: two digits are enough for all of them.
func parametersMII(q *ask.Params, m *writer) (limit int64, err error) {
	for _, p := range []struct {
		name string
		high float64
	}{{"temperature", 2}, {"top_p", 1}} {
		v, err := q.Number(p.name, 0, p.high)
		if err != nil {
			return 0, err
		}
		if f, err := strconv.ParseFloat(string(v), 64); err == nil {
			m.member(p.name, strconv.AppendFloat(nil, max(math.Round(f*100)/100, coldest), 'g', -1, 64))
		}
	}
	limit, ok, err := q.MaxTokens()
	if err != nil {
		return 0, err
	}
	if ok {
		m.member("max_tokens", strconv.AppendInt(nil, limit, 10))
	} else {
		limit = ownLimitMII
	}
	least, ok, err := q.Integer("min_tokens", 0)
	if err != nil {
		return 0, err
	}
	if ok && least > 0 {
		m.member("min_tokens", strconv.AppendInt(nil, least, 10))
	}
	if k, ok, err := q.Integer("top_k", -1); err != nil || !ok || k < 1 {
		return limit, err
	}
	return limit, q.Cannot("top_k", "fails for good when some calls have it and others do not")
}
