package ask

import (
	"fmt"
	"slices"
	"strings"

	"sluice/providers"
)

// Rest judges what nobody has taken. Parameters that change what is answered are
// refused or dropped, unless their value asks for nothing. Others (accounting, hints
// about speed, names that this package does not know) are ignored.
func (q *Params) Rest() error {
	unused := compact(q.values["tool_choice"]) == `"none"`
	for _, name := range q.names {
		v, left := q.values[name]
		neutral, matters := effective[name]
		if !left || !matters || slices.Contains(neutral, compact(v)) {
			continue
		}
		if unused && (name == "tools" || name == "functions") { // shown, and none may be called
			continue
		}
		if err := q.Cannot(name, why(name)); err != nil {
			return err
		}
	}
	return nil
}

// effective are the parameters that change an answer: OpenAI's, and those that model
// servers have added. Each stands with the values at which it changes nothing.
var effective = map[string][]string{
	"n": {"1"}, "best_of": {"1"}, "echo": {"false"}, "suffix": {`""`},
	"temperature": {}, "top_p": {"1", "1.0"}, "seed": {}, "stop": {"[]", `""`},
	"max_tokens": {}, "max_completion_tokens": {}, "dimensions": {},
	"presence_penalty": zero, "frequency_penalty": zero, "logit_bias": {"{}"},
	"logprobs": {"false"}, "top_logprobs": zero,
	"tools": {"[]"}, "tool_choice": {`"auto"`, `"none"`}, "parallel_tool_calls": {"true", "false"},
	"functions": {"[]"}, "function_call": {`"auto"`, `"none"`},
	"response_format": {`{"type":"text"}`}, "verbosity": {`"medium"`},
	"reasoning_effort": {`"none"`}, "reasoning": {"{}", `{"effort":"none"}`},
	"modalities": {`["text"]`}, "audio": {}, "web_search_options": {},

	"top_k": {"0", "-1"}, "min_p": zero, "typical_p": {"1", "1.0"}, "top_a": zero, "min_tokens": {"0"},
	"repetition_penalty": {"1", "1.0"}, "repeat_penalty": {"1", "1.0"}, "mirostat": {"0"},
	"ignore_eos": {"false"}, "stop_token_ids": {"[]"}, "bad_words": {"[]"}, "logits_processors": {"[]"},
	"grammar": {`""`}, "json_schema": {"{}"}, "structured_outputs": {"{}"},
	"length_penalty": {"1", "1.0"}, "use_beam_search": {"false"}, "early_stopping": {"false"},
	"allowed_token_ids": {"[]"}, "include_stop_str_in_output": {"false"}, "skip_special_tokens": {"true"},
	"prompt_logprobs": {}, "truncate_prompt_tokens": {},
	"enable_thinking": {"false"}, "thinking": {"false", `{"type":"disabled"}`}, "thinking_budget": {"0"},
	"guided_json": {}, "guided_regex": {}, "guided_choice": {}, "guided_grammar": {},
	"chat_template": {}, "chat_template_kwargs": {"{}"},
}

var zero = []string{"0", "0.0", "-1"}

func why(name string) string {
	switch name {
	case "n", "best_of":
		return "gives one answer to a call"
	case "functions", "function_call":
		return "takes functions only as tools"
	case "logprobs", "top_logprobs":
		return "tells no log probabilities"
	default:
		return "has nothing like it"
	}
}

// compact is JSON text without the white space between its parts, good enough to
// compare short values that hold none in strings.
func compact(v []byte) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '\n' || r == '\t' || r == '\r' {
			return -1
		}
		return r
	}, string(v[:min(len(v), 64)]))
}

// NotServed refuses an operation that the upstream has no counterpart of.
func NotServed(req *providers.Request, kind string) error {
	return providers.Invalid("model", fmt.Sprintf("The model %q cannot be asked at %s: its upstream is of kind %s.", req.Model, req.Path, kind))
}
