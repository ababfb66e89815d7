package providertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// capable is what the router asks of an adapter.
type capable interface {
	Capabilities(ctx context.Context, of providers.Feature) providers.Capabilities
}

// pixel is a PNG.
const pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

const user = `{"role":"user","content":"Hi"}`

// needing are requests by the feature that each needs beside its route: the members of
// its body.
var needing = []struct {
	feature providers.Feature
	op      providers.Op
	path    string
	members string
}{
	{0, providers.Chat, "/chat/completions", `"messages":[` + user + `]`},
	{0, providers.Completions, "/completions", `"prompt":"Hi"`},
	{0, providers.Embeddings, "/embeddings", `"input":"Hi"`},
	{0, providers.Moderations, "/moderations", `"input":"Hi"`},
	{0, providers.Responses, "/responses", `"input":"Hi"`},
	{0, providers.Passthrough, "/rerank", `"query":"Hi","documents":["a"]`},
	{0, providers.Passthrough, "/models/" + Model + "/infer", `"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]`},
	{providers.Vision, providers.Chat, "/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + pixel + `"}}`)},
	{providers.Audio, providers.Chat, "/chat/completions", part(`{"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}}`)},
	{providers.Files, providers.Chat, "/chat/completions", part(`{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBERi0="}}`)},
	{providers.ToolMessages, providers.Chat, "/chat/completions", `"messages":[` + user +
		`,{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"x"}]`},
	{providers.Prefill, providers.Chat, "/chat/completions", `"messages":[` + user + `,{"role":"assistant","content":"He"}]`},
	{providers.Tools, providers.Chat, "/chat/completions", with(`"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]`)},
	{0, providers.Chat, "/chat/completions", with(`"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}],"tool_choice":"none"`)},
	{providers.JSONObject, providers.Chat, "/chat/completions", with(`"response_format":{"type":"json_object"}`)},
	{providers.JSONSchema, providers.Chat, "/chat/completions", with(`"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{"type":"object","properties":{}}}}`)},
	{providers.Logprobs, providers.Chat, "/chat/completions", with(`"logprobs":true`)},
	{providers.Logprobs, providers.Completions, "/completions", `"prompt":"Hi","logprobs":1`},
	{providers.Choices, providers.Chat, "/chat/completions", with(`"n":2`)},
	{providers.Reasoning, providers.Chat, "/chat/completions", with(`"reasoning_effort":"low"`)},
	{providers.Suffix, providers.Completions, "/completions", `"prompt":"Hi","suffix":"end"`},
}

func with(member string) string { return `"messages":[` + user + `],` + member }

func part(p string) string {
	return `"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},` + p + `]}]`
}

// capabilities: what an adapter declares that it cannot do is refused with the parameter
// and the model named before it is sent, and it refuses nothing by itself that it did
// not declare, for then another target could have served the request.
func (s *Suite) capabilities(t *testing.T) {
	for _, c := range needing {
		name := strings.TrimPrefix(c.path, "/")
		if c.feature != 0 {
			name += " with " + c.feature.String()
		}
		t.Run(name, func(t *testing.T) {
			settle(t)
			req := &providers.Request{Op: c.op, Path: c.path, ContentType: "application/json", Body: []byte("{" + c.members + "}"), Model: Model, Choices: 1}
			if !req.Needs().Has(providers.Tensors) {
				var err error
				if req, err = providers.Parse(c.op, c.path, "application/json", fmt.Appendf(nil, `{"model":%q,%s}`, Model, c.members), 64); err != nil {
					t.Fatal(err)
				}
			}
			if !req.Needs().Has(c.feature) {
				t.Fatalf("it needs %s", req.Needs())
			}
			s.refusesAsDeclared(t, req)
		})
	}
}

func (s *Suite) refusesAsDeclared(t *testing.T, req *providers.Request) {
	req.ID = "req_1"
	p := s.New(t, s.serve(t, &Script{Status: 500, Type: "application/json", Body: []byte(`{"error":"no"}`)}))
	adapter, ok := p.(capable)
	if !ok {
		t.Fatal("the adapter does not tell what it can do")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	can := adapter.Capabilities(ctx, req.Needs())
	if can.Yes&can.No != 0 || can.Kind == "" {
		t.Errorf("both yes and no: %s; kind %q", can.Yes&can.No, can.Kind)
	}
	lacks := can.No & req.Needs()
	if lacks&^can.Dropped != 0 {
		e := req.Refusal(can, lacks&^can.Dropped)
		if e.Kind != providers.BadRequest || e.Param == "" || !strings.Contains(e.Message, Model) {
			t.Errorf("refused as %+v", e)
		}
		return
	}
	progress := streaming.NewProgress(time.Now())
	got := listen(p.Stream(ctx, req, progress), progress, 0)
	e := providers.AsError(got.err)
	if e != nil && e.Status == 0 && (e.Kind == providers.BadRequest || e.Kind == providers.NotFound) {
		t.Errorf("refused although it is not declared: %v", e)
	}
}
