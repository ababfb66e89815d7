package gemini

import (
	"encoding/json"
	"strconv"
	"strings"

	"sluice/providers"
	"sluice/providers/kit/ask"
)

// request is a caller's request on its way into the form of this API.
type request struct {
	target
	rules
	req    *providers.Request
	asked  *ask.Params
	out    params
	one    bool // at most one call may reach the caller
	stream bool // the server is asked for a stream
}

// params is the body of generateContent. Fields that are not known there are refused by
// the server, so nothing of the caller's goes in unread. Names are camelCase.
type params struct {
	Contents   []content   `json:"contents"`
	System     *content    `json:"systemInstruction,omitempty"`
	Tools      []tools     `json:"tools,omitempty"`
	ToolConfig *toolConfig `json:"toolConfig,omitempty"`
	Safety     []safety    `json:"safetySettings,omitempty"`
	Config     generation  `json:"generationConfig,omitzero"`
	Tier       string      `json:"serviceTier,omitempty"`
	Cached     string      `json:"cachedContent,omitempty"`
}

// generation is generationConfig. Numbers stand as the caller wrote them.
type generation struct {
	MaxTokens   int64           `json:"maxOutputTokens,omitempty"`
	Candidates  int             `json:"candidateCount,omitempty"`
	Stops       []string        `json:"stopSequences,omitempty"`
	Temperature json.RawMessage `json:"temperature,omitempty"`
	TopP        json.RawMessage `json:"topP,omitempty"`
	TopK        json.RawMessage `json:"topK,omitempty"`
	Seed        *int64          `json:"seed,omitempty"`
	Presence    json.RawMessage `json:"presencePenalty,omitempty"`
	Frequency   json.RawMessage `json:"frequencyPenalty,omitempty"`
	MIME        string          `json:"responseMimeType,omitempty"`
	Schema      json.RawMessage `json:"responseJsonSchema,omitempty"`
	Thinking    *thinking       `json:"thinkingConfig,omitempty"`
	Scored      bool            `json:"responseLogprobs,omitempty"`
	Likely      int64           `json:"logprobs,omitempty"` // how many others with each
}

type safety struct {
	Category  string `json:"category"`
	Threshold string `json:"threshold"`
}

// harms are the categories that have a threshold.
var harms = []string{"HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT", "CIVIC_INTEGRITY"}

// translate makes a request of the caller's. The error names the first thing that
// cannot be asked of this model.
func (t target) translate(req *providers.Request) (*request, error) {
	r := &request{target: t, rules: t.rules(), req: req, asked: ask.Read(req, kind, t.opt.Drop), stream: req.Stream}
	steps := []func() error{r.converse, r.callTools, r.bound, r.sample, r.penalize, r.shape, r.think, r.logprobs, r.label, r.asked.Rest}
	switch req.Op {
	case providers.Chat:
	case providers.Completions:
		steps[0] = r.prompt
	default:
		return nil, ask.NotServed(req, kind)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// encode is a body as it is sent.
func (p *Provider) encode(body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, &providers.Error{Kind: providers.Internal, Target: p.name, Message: "the request could not be written in the upstream's form", Err: err}
	}
	return b, nil
}

// prompt asks for the completion of one text, which is a chat of one message.
func (r *request) prompt() error {
	prompts, err := r.asked.Prompts()
	switch {
	case err != nil:
		return err
	case len(prompts) > 1:
		return r.asked.CannotRead("prompt", "several prompts at once")
	case prompts[0].Tokens != nil:
		return r.asked.CannotRead("prompt", "token ids")
	case prompts[0].Text == "":
		return r.asked.Wrong("prompt", "a text that is not empty")
	}
	r.say("user", part{Text: prompts[0].Text})
	return nil
}

func (r *request) bound() (err error) {
	if r.out.Config.MaxTokens, _, err = r.asked.MaxTokens(); err != nil {
		return err
	}
	if r.out.Config.Stops, err = r.asked.Stop(); err != nil {
		return err
	}
	r.asked.Take("n")
	if r.req.Choices > 1 {
		r.out.Config.Candidates = r.req.Choices
	}
	return nil
}

func (r *request) sample() error {
	for _, p := range []struct {
		name      string
		to        *json.RawMessage
		low, high float64
	}{
		{"temperature", &r.out.Config.Temperature, 0, 2},
		{"top_p", &r.out.Config.TopP, 0, 1},
		{"top_k", &r.out.Config.TopK, 0, 1e6},
	} {
		v, err := r.asked.Number(p.name, p.low, p.high)
		if err != nil {
			return err
		}
		*p.to = v
	}
	seed, ok, err := r.asked.Seed()
	if err != nil || !ok {
		return err
	}
	if seed != int64(int32(seed)) {
		return r.asked.Wrong("seed", "an integer of 32 bits for this model")
	}
	r.out.Config.Seed = &seed
	return nil
}

func (r *request) penalize() error {
	for _, p := range []struct {
		name string
		to   *json.RawMessage
	}{{"presence_penalty", &r.out.Config.Presence}, {"frequency_penalty", &r.out.Config.Frequency}} {
		v, err := r.asked.Number(p.name, -2, 2)
		if err != nil {
			return err
		}
		x, _ := strconv.ParseFloat(string(v), 64)
		switch {
		case x == 0:
		case r.penalties:
			*p.to = v
		default:
			if err := r.asked.Cannot(p.name, "takes no penalties for this model"); err != nil {
				return err
			}
		}
	}
	return nil
}

// shape translates response_format.
func (r *request) shape() error {
	form, schema, err := r.asked.Format()
	if err != nil || form == "" {
		return err
	}
	r.out.Config.MIME, r.out.Config.Schema = "application/json", schema
	return nil
}

// logprobs asks for log probabilities, which not every model has. None tells them in a
// stream: streamGenerateContent refuses such a request.
func (r *request) logprobs() (err error) {
	r.out.Config.Scored, r.out.Config.Likely, err = r.asked.Logprobs()
	r.stream = r.stream && !r.out.Config.Scored
	return err
}

// label sets what is neither text nor its form.
func (r *request) label() error {
	tier, err := r.asked.String("service_tier")
	if err != nil {
		return err
	}
	switch tier {
	case "flex", "priority":
		r.out.Tier = tier
	case "default":
		r.out.Tier = "standard"
	}
	if r.out.Cached, err = r.asked.String("cached_content"); err != nil {
		return err
	}
	if r.out.Cached != "" && !r.opt.NamedFiles {
		return r.asked.CannotRead("cached_content", "content that Google keeps, for it would read it with the gateway's credential")
	}
	if r.out.Cached != "" && !strings.Contains(r.out.Cached, "cachedContents/") {
		return r.asked.Wrong("cached_content", `a name such as "cachedContents/abc"`)
	}
	if r.opt.Safety != "" {
		for _, h := range harms {
			r.out.Safety = append(r.out.Safety, safety{"HARM_CATEGORY_" + h, r.opt.Safety})
		}
	}
	return nil
}
