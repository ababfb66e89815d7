package kserve

import (
	"strconv"

	"sluice/providers/kit/ask"
	"sluice/streaming/jsonscan"
)

// samplingParams say how a text is sampled. max_tokens and stop are taken apart.
var samplingParams = []string{
	"temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "presence_penalty", "frequency_penalty",
	"repetition_penalty", "repeat_penalty", "min_tokens", "ignore_eos",
}

// takeParams takes the parameters that the model has inputs for, each of a value that
// the input can hold; the others are left to be refused.
func (q *question) takeParams(asked *ask.Params) error {
	q.params = map[string][]byte{}
	all := q.model.takes(FromSampling)
	take := func(name string) error {
		value, err := takeValue(asked, name)
		if value == nil || err != nil {
			return err
		}
		for i := range q.model.Inputs {
			in := &q.model.Inputs[i]
			if in.Source != FromParam || in.Param != name {
				continue
			}
			if _, err := readData(in.Datatype, value); err != nil {
				return asked.Wrong(name, "a value of type "+in.Datatype)
			}
		}
		q.params[name] = value
		return nil
	}
	for i := range q.model.Inputs {
		if in := &q.model.Inputs[i]; in.Source == FromParam && q.params[in.Param] == nil {
			if err := take(in.Param); err != nil {
				return err
			}
		}
	}
	if !all {
		return nil
	}
	for _, name := range append([]string{"max_tokens"}, samplingParams...) {
		if q.params[name] == nil {
			if err := take(name); err != nil {
				return err
			}
		}
	}
	q.sampling = samplingObject(q.params)
	return nil
}

// takeValue takes one parameter as JSON text, under either of its names.
func takeValue(asked *ask.Params, name string) ([]byte, error) {
	switch name {
	case "max_tokens", "max_completion_tokens":
		n, ok, err := asked.MaxTokens()
		if !ok || err != nil {
			return nil, err
		}
		return strconv.AppendInt(nil, n, 10), nil
	case "temperature":
		return asked.Number(name, 0, 100)
	case "top_p":
		return asked.Number(name, 0, 1)
	default:
		return asked.Take(name), nil
	}
}

// samplingObject is the parameters as one JSON object.
func samplingObject(params map[string][]byte) []byte {
	out := []byte{'{'}
	for _, name := range append([]string{"max_tokens"}, samplingParams...) {
		v := params[name]
		if v == nil {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = jsonscan.AppendQuote(out, name)
		out = append(append(out, ':'), v...)
	}
	return append(out, '}')
}
