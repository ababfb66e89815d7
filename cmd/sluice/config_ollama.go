package main

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// Ollama is what an upstream of kind "ollama" has beyond others.
type Ollama struct {
	KeepAlive ModelLifetime `toml:"keep_alive" doc:"How long a model stays loaded after a call: a duration, \"-1\" for ever, \"0\" not at all; \"\" leaves it to the server. A caller's keep_alive goes before it."`
	Options   JSONObject    `toml:"options" example:"'{ \"num_ctx\": 8192 }'" doc:"Ollama's options for every call, as a JSON object; what a caller asks for goes before them."`
	Think     string        `toml:"think" oneof:"off,split,begun" doc:"Whether <think> blocks that the server leaves in the text of chats are told apart as reasoning; begun: the template opens the block"`
	Raw       bool          `toml:"raw" doc:"Whether prompts of /v1/completions go without the model's template."`
}

func (o *Ollama) setDefaults() { *o = Ollama{Think: defaultThink} }

// JSONObject is the text of a JSON object; "" is none.
type JSONObject string

// MarshalText is the inverse of UnmarshalText.
func (o JSONObject) MarshalText() ([]byte, error) { return []byte(o), nil }

// UnmarshalText takes JSON text as it is.
func (o *JSONObject) UnmarshalText(text []byte) error {
	var members map[string]json.RawMessage
	if len(text) > 0 && (json.Unmarshal(text, &members) != nil || members == nil) {
		return errors.New(`want a JSON object, such as '{ "top_k": 20 }'`)
	}
	*o = JSONObject(text)
	return nil
}

// Bytes gives the JSON text, nil for none.
func (o JSONObject) Bytes() []byte {
	if o == "" {
		return nil
	}
	return []byte(o)
}

// ModelLifetime is a duration with its unit, or a number of seconds that may be below 0.
type ModelLifetime string

// MarshalText is the inverse of UnmarshalText.
func (l ModelLifetime) MarshalText() ([]byte, error) { return []byte(l), nil }

// UnmarshalText reads what Ollama takes for keep_alive.
func (l *ModelLifetime) UnmarshalText(text []byte) error {
	s := string(text)
	_, seconds := strconv.ParseInt(s, 10, 64)
	_, duration := time.ParseDuration(s)
	if s != "" && seconds != nil && duration != nil {
		return errors.New(`want a duration such as "5m", or "-1" for ever`)
	}
	*l = ModelLifetime(s)
	return nil
}
