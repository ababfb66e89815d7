package providers

import (
	"strings"
	"testing"
)

func TestNeeds(t *testing.T) {
	const hi = `{"role":"user","content":"hi"}`
	image := `{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD"}}`
	for _, c := range []struct {
		op         Op
		path, body string
		want       string // features beside the route, and the parameter of the last
	}{
		{Chat, "", `"messages":[` + hi + `]`, ""},
		{Chat, "", `"messages":[` + hi + `],"tools":[],"tool_choice":"auto","logprobs":false,"top_logprobs":0,"n":1,"response_format":{"type":"text"},"reasoning_effort":"none","suffix":"x"`, ""},
		{Chat, "", `"messages":[` + hi + `],"tools":null,"logprobs":null,"top_logprobs":null,"n":null,"response_format":null,"reasoning":null`, ""},
		{Chat, "", `"messages":[` + hi + `],"tools":[{"type":"function"}]`, "tools tools"},
		{Chat, "", `"tool_choice":"none","messages":[` + hi + `],"tools":[{"type":"function"}]`, ""},
		{Chat, "", `"messages":[` + hi + `],"functions":[{}]`, "tools functions"},
		{Chat, "", `"messages":[` + hi + `],"response_format":{ "json_schema":{"type":"x"}, "type" : "json_schema"}`, "json_schema response_format"},
		{Chat, "", `"messages":[` + hi + `],"response_format":{"type":"json_object"}`, "json_object response_format"},
		{Chat, "", `"messages":[` + hi + `],"response_format":"json"`, ""},
		{Chat, "", `"messages":[` + hi + `],"logprobs":true,"top_logprobs":3`, "logprobs logprobs"},
		{Chat, "", `"messages":[` + hi + `],"top_logprobs":3`, "logprobs top_logprobs"},
		{Chat, "", `"messages":[` + hi + `],"n":2`, "n n"},
		{Chat, "", `"messages":[` + hi + `],"reasoning_effort":"low"`, "reasoning reasoning_effort"},
		{Chat, "", `"messages":[` + hi + `],"reasoning":{"effort":"low"}`, "reasoning reasoning"},
		{Chat, "", `"messages":[` + hi + `,{"role":"user","content":[{"type":"text","text":"image_url"},` + image + `,` + image + `]}]`, "vision messages[1].content[1]"},
		{Chat, "", `"messages":[{"content":[{"image_url":{"url":"x"},"type":"image_url"}],"role":"user"}]`, "vision messages[0].content[0]"},
		{Chat, "", `"messages":[` + hi + `,{"role":"user","content":[{"type":"input_audio"}]}]`, "audio messages[1].content[0]"},
		{Chat, "", `"messages":[{"role":"user","content":[{"type":"file"}]},` + hi + `]`, "files messages[0].content[0]"},
		{Chat, "", `"messages":[` + hi + `,{"content":"He","role":"assistant"}]`, "prefill messages[1]"},
		{Chat, "", `"messages":[` + hi + `,{"role":"assistant","content":"He"},` + hi + `]`, ""},
		{Chat, "", `"messages":[` + hi + `,{"role":"assistant","tool_calls":[{}]},{"role":"tool","content":"x"}]`, "tool_messages messages[1]"},
		{Chat, "", `"messages":[` + hi + `,{"role":"assistant","tool_calls":[],"content":""},` + hi + `]`, ""},
		{Chat, "", `"messages":["odd",[],{"role":5,"content":[5,{"type":7}]}]`, ""},
		{Chat, "", `"messages":[` + hi + `],"input":[{"role":"user","content":[{"type":"input_image"}]}]`, ""},
		{Completions, "", `"prompt":"x","suffix":"y","logprobs":0`, "logprobs, suffix suffix"},
		{Completions, "", `"prompt":"x","suffix":"","response_format":{"type":"json_object"}`, ""},
		{Completions, "", `"prompt":"x","messages":[` + image + `]`, ""},
		{Embeddings, "", `"input":["x"],"tools":[{}],"logprobs":true`, ""},
		{Responses, "", `"input":"x"`, ""},
		{Responses, "", `"input":[{"role":"user","content":[{"type":"input_text"},{"type":"input_image"}]},{"role":"assistant","content":"x"}]`, "vision input[0].content[1]"},
		{Responses, "", `"input":"x","text":{"format":{"type":"json_schema"}}`, "json_schema text.format"},
		{Responses, "", `"input":[{"role":"user","content":"x"}],"text":{"format":{"type":"json_schema"}}`, "json_schema text.format"},
		{Passthrough, "/rerank", `"tools":[{}],"n":4,"messages":[` + image + `]`, ""},
	} {
		r, err := Parse(c.op, c.path, "application/json", []byte(`{"model":"m",`+c.body+`}`), 64)
		if err != nil {
			t.Fatalf("%s: %v", c.body, err)
		}
		got := r.Needs() &^ Routes
		text := got.String()
		if got != 0 {
			highest := FeatureOf(text[strings.LastIndexByte(text, ' ')+1:])
			text += " " + r.Refusal(Capabilities{No: got}, highest).Param
		}
		if text != c.want {
			t.Errorf("%s %s: %q, want %q", c.op, c.body, text, c.want)
		}
	}
}

func TestNeedsARoute(t *testing.T) {
	for _, c := range []struct {
		op   Op
		path string
		want Feature
	}{
		{Chat, "", ChatRoute}, {Completions, "", CompletionsRoute}, {Embeddings, "", EmbeddingsRoute}, {Moderations, "", ModerationsRoute},
		{Responses, "", ResponsesRoute}, {Passthrough, "/rerank", OtherRoutes}, {Passthrough, "/models/a/infer", Tensors},
	} {
		if got := (&Request{Op: c.op, Path: c.path}).Needs(); got != c.want || !Routes.Has(got) {
			t.Errorf("%s %s needs %s, want %s", c.op, c.path, got, c.want)
		}
	}
}

func TestRefusal(t *testing.T) {
	r, err := Parse(Chat, "/chat/completions", "application/json", []byte(`{"model":"m","n":2,"tools":[{}],"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	kind := Capabilities{No: ^Feature(0), Kind: "toy"}
	for _, c := range []struct {
		can   Capabilities
		lacks Feature
		want  string
	}{
		{kind, ChatRoute | Vision, `model: The model "m" cannot be asked at /chat/completions: its upstream is of kind toy.`},
		{kind, Tensors, `model: The model "m" takes no tensors: its upstream is of kind toy.`},
		{kind, Vision | Choices, `messages[0].content[0]: messages[0].content[0]: the model "m" cannot be given images: its upstream is of kind toy.`},
		{kind, Choices, `n: n cannot be used with the model "m": its upstream is of kind toy, which gives one answer to a call.`},
		{kind, Tools, `tools: tools cannot be used with the model "m": its upstream is of kind toy, which has nothing like it.`},
		{Capabilities{No: Tools, Model: Tools}, Tools, `tools: tools cannot be used with the model "m": this model has no "tools".`},
		{kind.Configured(0, Vision), Vision, `messages[0].content[0]: messages[0].content[0]: the model "m" cannot be given images: it is configured to have no "vision".`},
	} {
		e := r.Refusal(c.can, c.lacks)
		if got := e.Param + ": " + e.Message; got != c.want || e.Kind != BadRequest {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	kind := Capabilities{Yes: ChatRoute | Tools, No: Logprobs, Dropped: Logprobs, Kind: "toy"}
	both := kind.With(Capabilities{Yes: Logprobs | Vision, No: Tools, Model: Tools})
	if want := (Capabilities{Yes: ChatRoute | Vision, No: Logprobs | Tools, Dropped: Logprobs, Model: Tools, Kind: "toy"}); both != want {
		t.Errorf("joined %+v, want %+v", both, want)
	}
	set := both.Configured(Tools, Logprobs|Vision)
	if want := (Capabilities{Yes: ChatRoute | Tools, No: Logprobs | Vision, Set: Tools | Logprobs | Vision, Kind: "toy"}); set != want {
		t.Errorf("configured %+v, want %+v", set, want)
	}
	if or := set.Or(Capabilities{Yes: Vision, No: Logprobs}); or != (Capabilities{Yes: ChatRoute | Tools | Vision, No: Logprobs}) {
		t.Errorf("either %+v", or)
	}
	if got := string(set.AppendJSON(nil)); got != `{"chat":true,"vision":false,"tools":true,"logprobs":false}` {
		t.Errorf("JSON %s", got)
	}
	if got := (Capabilities{}).AppendJSON(nil); got != nil {
		t.Errorf("nothing known, and %s", got)
	}
	for i, name := range FeatureNames() {
		if FeatureOf(name) != 1<<i || featureEnd != 1<<len(features) {
			t.Errorf("the name %s is not that of feature %d", name, i)
		}
	}
}

// BenchmarkParseTurns is a long plain chat of short messages: finding what it needs must not be seen.
func BenchmarkParseTurns(b *testing.B) {
	turn := `{"role":"user","content":"` + strings.Repeat("word ", 20) + `"},{"role":"assistant","content":"` + strings.Repeat("text ", 20) + `"},`
	body := []byte(`{"model":"m","stream":true,"temperature":0.5,"messages":[` + strings.Repeat(turn, 100) + `{"role":"user","content":"hi"}]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(Chat, "/chat/completions", "application/json", body, 64); err != nil {
			b.Fatal(err)
		}
	}
}
