package providers

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Feature is something that a request may need and a model may lack. Features can be
// joined to a set.
type Feature uint32

// The features: where a request can be sent, what can stand in it, and what can be asked for.
const (
	ChatRoute Feature = 1 << iota
	CompletionsRoute
	EmbeddingsRoute
	ModerationsRoute
	ResponsesRoute
	OtherRoutes // audio, images, rerank: what is passed on unread
	Tensors     // POST /models/{model}/infer

	Vision       // images in messages
	Audio        // input_audio in messages
	Files        // documents in messages
	ToolMessages // calls of tools and their results in messages
	Prefill      // a last message of the assistant's that the answer continues

	Tools
	JSONObject // response_format json_object
	JSONSchema // response_format json_schema
	Logprobs
	Choices // n > 1
	Reasoning
	Suffix

	featureEnd
)

// All is every feature; Routes are those that say where a request can be sent.
const (
	All    = featureEnd - 1
	Routes = Vision - 1
)

// features are the names, as the configuration and /v1/models have them, the parameter
// that asks for each and, of parts of messages, what cannot be given.
var features = [...]struct{ name, param, content string }{
	{name: "chat"}, {name: "completions"}, {name: "embeddings"}, {name: "moderations"}, {name: "responses"},
	{name: "other_routes"}, {name: "tensors"},
	{name: "vision", content: "images"}, {name: "audio", content: "audio"}, {name: "files", content: "files"},
	{name: "tool_messages", content: "calls of tools and their results"},
	{name: "prefill", content: "the beginning of its answer: the last message is the assistant's"},
	{name: "tools", param: "tools"}, {name: "json_object", param: "response_format"}, {name: "json_schema", param: "response_format"},
	{name: "logprobs", param: "logprobs"}, {name: "n", param: "n"}, {name: "reasoning", param: "reasoning_effort"}, {name: "suffix", param: "suffix"},
}

// FeatureNames are the names of all features, in order.
func FeatureNames() []string {
	out := make([]string, len(features))
	for i := range features {
		out[i] = features[i].name
	}
	return out
}

// FeatureOf finds a feature by its name; 0 is none.
func FeatureOf(name string) Feature {
	for i := range features {
		if features[i].name == name {
			return 1 << i
		}
	}
	return 0
}

// Has reports whether a set holds all of another.
func (f Feature) Has(all Feature) bool { return f&all == all }

// String names the features of a set.
func (f Feature) String() string {
	var names []string
	for i := range features {
		if f.Has(1 << i) {
			names = append(names, features[i].name)
		}
	}
	return strings.Join(names, ", ")
}

// Capabilities are what a model is known to do and known not to do. What is in neither
// set is unknown: such a request is sent, and the server judges it.
type Capabilities struct {
	Yes, No Feature
	// Dropped are those that are left out of a request that asks for them, and named in
	// its answer, where they are in No.
	Dropped Feature
	// Model are those of No that this model lacks, as its server or its name says; Set those
	// that the configuration decides. The upstream's protocol has nothing like the others.
	Model, Set Feature
	Kind       string // of the upstream
}

// With adds what another source knows; of what the two contradict each other in, it is No.
func (c Capabilities) With(o Capabilities) Capabilities {
	c.Model |= o.Model &^ c.No
	c.No |= o.No
	c.Yes = (c.Yes | o.Yes) &^ c.No
	c.Dropped |= o.Dropped
	return c
}

// Configured overrules what is known.
func (c Capabilities) Configured(yes, no Feature) Capabilities {
	c.Yes = c.Yes&^no | yes
	c.No = c.No&^yes | no
	c.Set |= yes | no
	c.Model &^= c.Set
	c.Dropped &^= no
	return c
}

// Or is what one of two models can do: no is only what both cannot.
func (c Capabilities) Or(o Capabilities) Capabilities {
	return Capabilities{Yes: c.Yes | o.Yes, No: c.No & o.No}
}

// AppendJSON writes what is known as an object of booleans; nothing when nothing is.
func (c Capabilities) AppendJSON(dst []byte) []byte {
	if c.Yes|c.No == 0 {
		return dst
	}
	sep := byte('{')
	for i := range features {
		f := Feature(1) << i
		if (c.Yes|c.No)&f == 0 {
			continue
		}
		dst = append(append(append(dst, sep, '"'), features[i].name...), '"', ':')
		dst = strconv.AppendBool(dst, c.No&f == 0)
		sep = ','
	}
	return append(dst, '}')
}

// reason continues the sentence "X cannot be used with the model Y: …".
func (c *Capabilities) reason(f Feature) string {
	name := features[bits.TrailingZeros32(uint32(f))].name
	switch {
	case c.Set.Has(f):
		return fmt.Sprintf("it is configured to have no %q", name)
	case c.Model.Has(f):
		return fmt.Sprintf("this model has no %q", name)
	case f < Tools:
		return "its upstream is of kind " + c.Kind
	case f == Logprobs:
		return "its upstream is of kind " + c.Kind + ", which tells no log probabilities"
	case f == Choices:
		return "its upstream is of kind " + c.Kind + ", which gives one answer to a call"
	default:
		return "its upstream is of kind " + c.Kind + ", which has nothing like it"
	}
}

// Refusal is the BadRequest for a request that needs what c lacks. It names the first
// thing: where the request was sent, then what stands in it, then parameters. lacks
// must not be empty.
func (r *Request) Refusal(c Capabilities, lacks Feature) *Error {
	at := bits.TrailingZeros32(uint32(lacks))
	f := Feature(1) << at
	why := c.reason(f)
	if f == Tensors {
		return Invalid("model", fmt.Sprintf("The model %q takes no tensors: %s.", r.Model, why))
	}
	if Routes.Has(f) {
		return Invalid("model", fmt.Sprintf("The model %q cannot be asked at %s: %s.", r.Model, r.Path, why))
	}
	if what := features[at].content; what != "" {
		param := r.param(f)
		return Invalid(param, fmt.Sprintf("%s: the model %q cannot be given %s: %s.", param, r.Model, what, why))
	}
	param := features[at].param
	if own := r.param(f); own != "" {
		param = own
	}
	return Invalid(param, fmt.Sprintf("%s cannot be used with the model %q: %s.", param, r.Model, why))
}
