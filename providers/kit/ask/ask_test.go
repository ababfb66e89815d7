package ask

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/providers"
	"sluice/streaming"
)

// reading reads a body as the gateway would.
func reading(t testing.TB, op providers.Op, body string, drop bool) *Params {
	t.Helper()
	req, err := providers.Parse(op, "/x", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return Read(req, "test", drop)
}

func chat(t testing.TB, members string) *Params {
	t.Helper()
	return reading(t, providers.Chat, `{"model":"m","messages":[{"role":"user","content":"Hi"}]`+members+`}`, false)
}

// param is the field that an error names, and "" for none.
func param(err error) string {
	if e := providers.AsError(err); e != nil {
		return e.Param
	}
	return fmt.Sprint(err)
}

func TestScalars(t *testing.T) {
	for name, c := range map[string]struct {
		members string
		read    func(q *Params) (any, error)
		want    string // what is read, or the field refused
	}{
		"number":               {`,"temperature":0.70`, func(q *Params) (any, error) { v, err := q.Number("temperature", 0, 2); return string(v), err }, "0.70"},
		"number absent":        {``, func(q *Params) (any, error) { v, err := q.Number("temperature", 0, 2); return v == nil, err }, "true"},
		"number too large":     {`,"temperature":2.1`, func(q *Params) (any, error) { return q.Number("temperature", 0, 2) }, "!temperature"},
		"number as string":     {`,"temperature":"1"`, func(q *Params) (any, error) { return q.Number("temperature", 0, 2) }, "!temperature"},
		"tokens, new name":     {`,"max_tokens":5,"max_completion_tokens":7`, func(q *Params) (any, error) { n, _, err := q.MaxTokens(); return n, err }, "7"},
		"tokens, old name":     {`,"max_tokens":5`, func(q *Params) (any, error) { n, _, err := q.MaxTokens(); return n, err }, "5"},
		"tokens null":          {`,"max_tokens":null`, func(q *Params) (any, error) { _, ok, err := q.MaxTokens(); return ok, err }, "false"},
		"no tokens":            {`,"max_tokens":0`, func(q *Params) (any, error) { _, ok, err := q.MaxTokens(); return ok, err }, "!max_tokens"},
		"half a token":         {`,"max_completion_tokens":1.5`, func(q *Params) (any, error) { _, ok, err := q.MaxTokens(); return ok, err }, "!max_completion_tokens"},
		"seed below zero":      {`,"seed":-9`, func(q *Params) (any, error) { n, _, err := q.Seed(); return n, err }, "-9"},
		"seed":                 {`,"seed":"x"`, func(q *Params) (any, error) { n, _, err := q.Seed(); return n, err }, "!seed"},
		"bool":                 {`,"raw":true`, func(q *Params) (any, error) { return q.Bool("raw") }, "true"},
		"no bool":              {`,"raw":1`, func(q *Params) (any, error) { return q.Bool("raw") }, "!raw"},
		"string":               {`,"suffix":"a\nb"`, func(q *Params) (any, error) { return q.String("suffix") }, "a\nb"},
		"no string":            {`,"suffix":[]`, func(q *Params) (any, error) { return q.String("suffix") }, "!suffix"},
		"stop":                 {`,"stop":"x"`, func(q *Params) (any, error) { return q.Stop() }, "[x]"},
		"stops":                {`,"stop":["x","","y"]`, func(q *Params) (any, error) { return q.Stop() }, "[x y]"},
		"no stops":             {`,"stop":[null]`, func(q *Params) (any, error) { return q.Stop() }, "!stop"},
		"effort":               {`,"reasoning_effort":"high"`, func(q *Params) (any, error) { return q.Effort() }, "high"},
		"effort in an object":  {`,"reasoning":{"effort":"low"}`, func(q *Params) (any, error) { return q.Effort() }, "low"},
		"no effort in it":      {`,"reasoning":{}`, func(q *Params) (any, error) { return q.Effort() }, ""},
		"effort unheard of":    {`,"reasoning_effort":"huge"`, func(q *Params) (any, error) { return q.Effort() }, "!reasoning_effort"},
		"format":               {`,"response_format":{"type":"json_schema","json_schema":{"schema":{"a":[1]}}}`, func(q *Params) (any, error) { k, s, err := q.Format(); return k + string(s), err }, `json_schema{"a":[1]}`},
		"format without any":   {`,"response_format":{"type":"json_schema"}`, func(q *Params) (any, error) { k, _, err := q.Format(); return k, err }, "!response_format.json_schema.schema"},
		"format of text":       {`,"response_format":{"type":"text"}`, func(q *Params) (any, error) { k, _, err := q.Format(); return k, err }, ""},
		"format unknown":       {`,"response_format":"json"`, func(q *Params) (any, error) { k, _, err := q.Format(); return k, err }, "!response_format.type"},
		"a name with escapes":  {`,"s\u0065ed":3`, func(q *Params) (any, error) { n, _, err := q.Seed(); return n, err }, "3"},
		"an integer of others": {`,"top_k":-2`, func(q *Params) (any, error) { n, _, err := q.Integer("top_k", -1); return n, err }, "!top_k"},
	} {
		got, err := c.read(chat(t, c.members))
		text := fmt.Sprint(got)
		if err != nil {
			text = "!" + param(err)
		}
		if text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

func TestLogprobs(t *testing.T) {
	for _, c := range []struct {
		op            providers.Op
		members, want string
	}{
		{providers.Chat, ``, "false 0"}, {providers.Chat, `,"logprobs":false,"top_logprobs":0`, "false 0"}, {providers.Chat, `,"logprobs":null`, "false 0"},
		{providers.Chat, `,"logprobs":true`, "true 0"}, {providers.Chat, `,"logprobs":true,"top_logprobs":20`, "true 20"},
		{providers.Chat, `,"top_logprobs":1`, "!logprobs"}, {providers.Chat, `,"logprobs":true,"top_logprobs":21`, "!top_logprobs"},
		{providers.Chat, `,"logprobs":3`, "!logprobs"}, {providers.Chat, `,"logprobs":true,"top_logprobs":-1`, "!top_logprobs"},
		{providers.Completions, ``, "false 0"}, {providers.Completions, `,"logprobs":false`, "false 0"}, {providers.Completions, `,"logprobs":0`, "true 0"},
		{providers.Completions, `,"logprobs":5`, "true 5"}, {providers.Completions, `,"logprobs":true`, "!logprobs"}, {providers.Completions, `,"logprobs":21`, "!logprobs"},
	} {
		q := reading(t, c.op, `{"model":"m","prompt":"x","messages":[{"role":"user","content":"Hi"}]`+c.members+`}`, true)
		want, top, err := q.Logprobs()
		got := fmt.Sprint(want, top)
		if err != nil {
			got = "!" + param(err)
		}
		if got != c.want || err == nil && (q.Has("logprobs") || q.Has("top_logprobs")) {
			t.Errorf("%s %s: %s, want %s", c.op, c.members, got, c.want)
		}
	}
}

func TestRest(t *testing.T) {
	for members, want := range map[string]string{
		``: "", `,"user":"u","store":true,"metadata":{"a":"b"},"service_tier":"auto","prediction":{}`: "",
		`,"n":1,"logprobs":false,"top_logprobs":0,"logit_bias":{ },"parallel_tool_calls":false`: "",
		`,"response_format":{ "type" : "text" },"modalities":["text"],"tool_choice":"none"`:     "",
		`,"frequency_penalty":0.0,"top_p":1,"chat_id":"x","temperature":null`:                   "",
		`,"tools":[{}],"tool_choice":"none"`:                                                    "", `,"tool_choice" : "none" ,"functions":[{}]`: "", `,"tools":[{}],"tool_choice":"auto"`: "tools",
		`,"length_penalty":1.0,"use_beam_search":false,"allowed_token_ids":[],"enable_thinking":false,"thinking":{"type": "disabled"}`: "",
		`,"length_penalty":0.8`: "length_penalty", `,"use_beam_search":true`: "use_beam_search", `,"allowed_token_ids":[1]`: "allowed_token_ids",
		`,"prompt_logprobs":0`: "prompt_logprobs", `,"truncate_prompt_tokens":9`: "truncate_prompt_tokens",
		`,"enable_thinking":true`: "enable_thinking", `,"thinking":{"type":"enabled"}`: "thinking", `,"thinking_budget":9`: "thinking_budget",
		`,"n":2`: "n", `,"logprobs":true`: "logprobs", `,"tools":[{}]`: "tools", `,"logit_bias":{"1":2}`: "logit_bias",
		`,"presence_penalty":0.5`: "presence_penalty", `,"grammar":"root ::= x"`: "grammar", `,"seed":1`: "seed",
		`,"stop":"x"`: "stop", `,"response_format":{"type":"json_object"}`: "response_format", `,"audio":{}`: "audio",
	} {
		q := chat(t, members)
		q.Take("messages")
		err := q.Rest()
		if (err == nil) != (want == "") || err != nil && param(err) != want {
			t.Errorf("%s: %v, want %q refused", members, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), `the model "m": its upstream is of kind test, which`) {
			t.Errorf("%s: %v", members, err)
		}
	}
}

func TestDrop(t *testing.T) {
	q := reading(t, providers.Chat, `{"model":"m","messages":[{}],"n":3,"user":"u","tools":[{"type":"custom"}],"logprobs":true}`, true)
	if tools, _, err := q.Tools(); err != nil || len(tools) > 0 {
		t.Errorf("tools %v, %v", tools, err)
	}
	if err := q.Rest(); err != nil {
		t.Error(err)
	}
	if got := q.Header().Get("x-sluice-dropped-params"); got != "tools[0], n, logprobs" {
		t.Errorf("dropped %q", got)
	}
	if h := chat(t, "").Header(); h != nil {
		t.Errorf("nothing dropped, and %v", h)
	}
}

// While another target may serve a request whole, nothing is left out of it.
func TestStrict(t *testing.T) {
	req, err := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(`{"model":"m","messages":[{}],"top_k":3}`), 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := Read(req, "test", true).Rest(); err != nil {
		t.Error(err)
	}
	if e := providers.AsError(Read(req.Strictly(), "test", true).Rest()); e == nil || !e.NotServed() || e.Param != "top_k" || req.Strict {
		t.Errorf("%+v", e)
	}
}

func TestMessages(t *testing.T) {
	q := reading(t, providers.Chat, `{"model":"m","messages":[
		{"role":"developer","content":"S"},
		{"role":"user","name":"Ann","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,x","detail":"low"}},{"type":"text","text":"b"}]},
		{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
			{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","function":{"name":"g","arguments":{"b":2}}},{"id":"c3","function":{"name":"h"}}]},
		{"role":"tool","tool_call_id":"c2","content":"r"},{"role":"function","name":"f","content":"s"},
		{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}]}`, false)
	got, err := q.Messages()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i := range got {
		m := &got[i]
		fmt.Fprintf(&out, "%s %s %q name=%s id=%s think=%s images=%d", m.Param, m.Role, m.Text(), m.Name, m.CallID, m.Reasoning, len(m.Images()))
		for _, c := range m.Calls {
			object, ok := c.Object()
			fmt.Fprintf(&out, " %s %s %s %t", c.ID, c.Name, object, ok)
		}
		out.WriteString("\n")
	}
	want := `messages[0] system "S" name= id= think= images=0
messages[1] user "a\nb" name=Ann id= think= images=1
messages[2] assistant "" name= id= think=hm images=0 c1 f {"a":1} true c2 g {"b":2} true c3 h {} true
messages[3] tool "r" name=g id=c2 think= images=0
messages[4] tool "s" name=f id= think= images=0
messages[5] assistant "no" name= id= think= images=0
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestMessagesRefused(t *testing.T) {
	for message, want := range map[string]string{
		`"Hi"`:                                     "messages[0]",
		`{"content":"Hi"}`:                         "messages[0].role",
		`{"role":"bot","content":"Hi"}`:            "messages[0].role",
		`{"role":"user","content":7}`:              "messages[0].content",
		`{"role":"user","content":[{"text":"x"}]}`: "messages[0].content[0]",
		`{"role":"user","content":[{"type":"text","text":"x"},{"type":"input_audio","input_audio":{}}]}`:         "messages[0].content[1]",
		`{"role":"user","content":[{"type":"text"}]}`:                                                            "messages[0].content[0].text",
		`{"role":"user","content":[{"type":"image_url","image_url":{}}]}`:                                        "messages[0].content[0].image_url.url",
		`{"role":"assistant","tool_calls":{}}`:                                                                   "messages[0].tool_calls",
		`{"role":"assistant","tool_calls":[{"function":{"name":"f"}},{"id":"x","function":{"arguments":"{}"}}]}`: "messages[0].tool_calls[1].function.name",
	} {
		_, err := reading(t, providers.Chat, `{"model":"m","messages":[`+message+`]}`, true).Messages()
		if param(err) != want {
			t.Errorf("%s: %v, want %s refused", message, err, want)
		}
	}
}

func TestTools(t *testing.T) {
	const tool = `{"type":"function","function":{"name":"f","description":"d","strict":true,"parameters":{"type":"object"}}}`
	for members, want := range map[string]string{
		``: "[] {0  false}", `,"tools":[],"tool_choice":"required"`: "[] {0  false}",
		`,"tools":[` + tool + `]`:                                                           `[f/d/{"type":"object"}/true] {0  false}`,
		`,"tools":[` + tool + `],"tool_choice":"none"`:                                      `[f/d/{"type":"object"}/true] {1  false}`,
		`,"tools":[` + tool + `],"tool_choice":"required","parallel_tool_calls":false`:      `[f/d/{"type":"object"}/true] {2  true}`,
		`,"tools":[` + tool + `],"tool_choice":{"type":"function","function":{"name":"f"}}`: `[f/d/{"type":"object"}/true] {3 f false}`,
		`,"tools":[{"type":"function","function":{"name":"f","parameters":null}}]`:          `[f///false] {0  false}`,
		`,"tools":{}`: "!tools", `,"tools":[` + tool + `,{"type":"web_search"}]`: "!tools[1]", `,"tools":[{"type":"function"}]`: "!tools[0].function.name",
		`,"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]`: "!tools[0].function.parameters",
		`,"tools":[` + tool + `],"tool_choice":"maybe"`:                          "!tool_choice",
		`,"tools":[` + tool + `],"tool_choice":{"type":"function"}`:              "!tool_choice.function.name",
		`,"tools":[` + tool + `],"tool_choice":{"type":"mcp"}`:                   "!tool_choice",
	} {
		tools, choice, err := chat(t, members).Tools()
		var names []string
		for _, tool := range tools {
			names = append(names, fmt.Sprintf("%s/%s/%s/%t", tool.Name, tool.Description, tool.Parameters, tool.Strict))
		}
		got := fmt.Sprint(names, choice)
		if err != nil {
			got = "!" + param(err)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", members, got, want)
		}
	}
}

func TestImageData(t *testing.T) {
	for url, want := range map[string]string{
		"data:image/png;base64,iVBORw0KGgo=":              "image/png iVBORw0KGgo=",
		"DATA:image/PNG;charset=x;BASE64,iVBORw0KGgo":     "image/png iVBORw0KGgo=",
		"data:;base64,R0lGODlh":                           "image/gif R0lGODlh",
		"data:image/heic;base64,-_-_":                     "image/heic +/+/",
		"data:image/jpeg;base64,_9j_\n4A\r\n==":           "image/jpeg /9j/4A==",
		"data:image/jpg;base64,/9j/4A%3D%3D":              "image/jpg /9j/4A==",
		"data:image/png;base64,/9j/4A==":                  "image/png /9j/4A==",
		"data:image/gif;base64,R0lGODdh":                  "image/gif R0lGODdh",
		"data:image/webp;base64,UklGRgAAAABXRUJQVlA4IA==": "image/webp UklGRgAAAABXRUJQVlA4IA==",
		"data:image/bmp;base64,Qk0AAA==":                  "image/bmp Qk0AAA==",
		"data:image/tiff;base64,SUkqAAgA":                 "image/tiff SUkqAAgA",
		"data:image/tiff;base64,TU0AKgAA":                 "image/tiff TU0AKgAA",
		"data:image/png;base64,QUJDRA==":                  `!p is no image that the model "m" can be given`,
		"data:image/jpg;base64,QUJDRA==":                  "!begins like no PNG",
		"data:;base64,QUJDRA==":                           "!begins like no PNG",
		"data:image/png;base64,iVBORw0K":                  "!begins like no PNG",
		"data:image/webp;base64,UklGRgAAAABXQVZFVlA4IA==": "!begins like no PNG",
		"data:image/webp;base64,UklGRgAA":                 "!begins like no PNG",
		"https://example.com/a.png":                       "!must be a data URL",
		"QUJD":                                            "!must be a data URL",
		"data:image/png,QUJD":                             "!no data URL in base64",
		"data:image/png;base64":                           "!no data URL in base64",
		"data:image/png;base64,":                          "!no valid base64",
		"data:image/png;base64,QUJDR":                     "!no valid base64",
		"data:image/png;base64,QUI==":                     "!no valid base64",
		"data:image/png;base64,Q=JD":                      "!no valid base64",
		"data:image/png;base64,QÜJD":                      "!no valid base64",
		"data:application/pdf;base64,QUJD":                "!its type is application/pdf",
		"data:image/png;base64,QUJD!":                     "!no valid base64",
	} {
		kind, data, err := (&Image{Param: "p", URL: url, Model: "m"}).Data()
		if got := kind + " " + data; err == nil && got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
		if says, refused := strings.CutPrefix(want, "!"); refused != (err != nil) || refused && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}

func TestPrompts(t *testing.T) {
	for v, want := range map[string]string{
		`"a"`: "[{a }]", `["a","b"]`: "[{a } {b }]", `[1,2]`: "[{ [1,2]}]", `[[1],[2,3]]`: "[{ [1]} { [2,3]}]", `null`: "[{ }]",
		`[]`: "!", `7`: "!", `[1,"a"]`: "!", `[[]]`: "!", `[null]`: "!", `{}`: "!",
	} {
		got, err := reading(t, providers.Completions, `{"model":"m","prompt":`+v+`}`, false).Prompts()
		var text []string
		for _, p := range got {
			text = append(text, fmt.Sprintf("{%s %s}", p.Text, p.Tokens))
		}
		out := "[" + strings.Join(text, " ") + "]"
		if err != nil {
			out = "!"
		}
		if out != want {
			t.Errorf("%s: %s, %v; want %s", v, out, err, want)
		}
	}
}

func TestEmbeddings(t *testing.T) {
	q := reading(t, providers.Embeddings, `{"model":"m","input":["a","b"],"encoding_format":"base64"}`, false)
	texts, err := q.Inputs()
	in64, err64 := q.Base64()
	if err != nil || err64 != nil || !in64 || !slices.Equal(texts, []string{"a", "b"}) {
		t.Errorf("%q %t %v %v", texts, in64, err, err64)
	}
	u := &streaming.UsageData{Prompt: 3, Total: 3}
	vectors := [][]byte{[]byte(`[1, -0.5]`), []byte(`[1e-3]`)}
	plain, ok := Embeddings("m", vectors, false, u)
	const want = `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1, -0.5]},{"object":"embedding","index":1,"embedding":[1e-3]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}`
	if !ok || string(plain) != want {
		t.Errorf("got %s", plain)
	}
	packed, ok := Embeddings("m", vectors[:1], true, u)
	if !ok || !strings.Contains(string(packed), `"embedding":"AACAPwAAAL8="`) || !json.Valid(packed) {
		t.Errorf("got %s", packed)
	}
	for _, v := range []string{`{}`, `[1,"a"]`, `[1,null]`, `[1`, `[1] 2`} {
		for _, in64 := range []bool{true, false} {
			if got, ok := Embeddings("m", [][]byte{[]byte(v)}, in64, u); ok {
				t.Errorf("%s: %s", v, got)
			}
		}
	}
	for _, in := range []string{`7`, `[]`, `[1,2]`, `[["a"]]`, `["a",null]`} {
		if _, err := reading(t, providers.Embeddings, `{"model":"m","input":`+in+`}`, false).Inputs(); param(err) != "input" {
			t.Errorf("input %s: %v", in, err)
		}
	}
}

// FuzzRead: no body that the gateway accepts makes a reader panic, and what is read
// of its messages is what stands there.
func FuzzRead(f *testing.F) {
	f.Add(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"data:;base64,QQ"}]}],"tools":[{"type":"function","function":{"name":"f"}}]}`)
	f.Add(`{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{"}}]}],"response_format":{"type":"json_schema","json_schema":{"schema":{}}},"stop":[""],"reasoning":{"effort":null}}`)
	f.Add(`{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"QQ","format":"wav"}},{"type":"file","file":{"file_data":"data:a/b;base64,QQ"}}]}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		req, err := providers.Parse(providers.Chat, "/x", "application/json", []byte(body), 64)
		if err != nil {
			return
		}
		for _, drop := range []bool{true, false} {
			q := Read(req, "test", drop)
			if drop {
				q.TakeMedia()
			}
			msgs, err := q.Messages()
			for i := range msgs {
				for _, image := range msgs[i].Images() {
					_, _, _ = image.Data() // refusing it is right as well
				}
			}
			if err != nil && param(err) == "" {
				t.Errorf("an error that names nothing: %v", err)
			}
			for _, read := range []func() error{
				func() error { _, _, err := q.Tools(); return err }, func() error { _, _, err := q.Format(); return err },
				func() error { _, err := q.Stop(); return err }, func() error { _, err := q.Effort(); return err },
				func() error { _, _, err := q.MaxTokens(); return err }, q.Rest,
			} {
				if err := read(); err != nil && param(err) == "" {
					t.Errorf("an error that names nothing: %v", err)
				}
			}
		}
	})
}
