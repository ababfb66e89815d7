package providers

import (
	"encoding/json"
	"strings"
	"testing"
)

func parseChat(body string) (*Request, error) {
	return Parse(Chat, "/chat/completions", "application/json", []byte(body), 64)
}

func TestParseRefuses(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	for body, want := range map[string]struct{ param, says string }{
		``:                                     {"", "empty"},
		`[]`:                                   {"", "JSON object"},
		`{"model":"m",` + hi:                   {"", "line 1"},
		"{\"model\":\"m\",\n,}":                {"", "line 2, column 1"},
		`{` + hi + `}`:                         {"model", "must provide"},
		`{"model":"",` + hi + `}`:              {"model", "non-empty"},
		`{"model":5,` + hi + `}`:               {"model", "non-empty"},
		`{"model":"a","model":"b",` + hi + `}`: {"model", "more than once"},
		`{"model":"a","Model":"b",` + hi + `}`: {"model", "more than once"},
		`{"model":"a","mod\u0065l":"b",` + hi + `}`:               {"model", "more than once"},
		`{"model":"a",` + hi + `,"MESSAGES":[]}`:                  {"messages", "more than once"},
		`{"model":"a",` + hi + `,"me\u017fsages":[]}`:             {"messages", "more than once"},
		`{"model":"a",` + hi + `,"meſſageſ":[]}`:                  {"messages", "more than once"},
		`{"model":"a","reasoning":{},"REASONING":{},` + hi + `}`:  {"reasoning", "more than once"},
		`{"model":"` + strings.Repeat("x", 257) + `",` + hi + `}`: {"model", "256 bytes"},
		`{"model":"m","stream":1,` + hi + `}`:                     {"stream", "true or false"},
		`{"model":"m","stream_options":[],` + hi + `}`:            {"stream_options", "object"},
		`{"model":"m"}`:                  {"messages", "missing"},
		`{"model":"m","messages":[ ]}`:   {"messages", "non-empty"},
		`{"model":"m","messages":"hi"}`:  {"messages", "non-empty"},
		`{"model":"m","input":"hi"}`:     {"messages", "Responses API"},
		`{"model":"m","n":0,` + hi + `}`: {"n", "1 to 128"},
		`{"model":"m",` + hi + `,"x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`: {"", "deeper than 64"},
	} {
		_, err := parseChat(body)
		e := AsError(err)
		if e == nil || e.Kind != BadRequest || e.Param != want.param || !strings.Contains(e.Message, want.says) {
			t.Errorf("%.80s: got %v (%+v), want param %q and %q", body, err, e, want.param, want.says)
		}
	}
}

func TestRewrite(t *testing.T) {
	const tail = `"messages":[{"role":"user","content":"hi"}],"seed":9007199254740993,"x_new":{"b":1,"a":2}}`
	for body, want := range map[string]string{
		`{"model":"m",` + tail:                                                        `{"model":"up",` + tail,
		`{"stream":true,"model":"m",` + tail:                                          `{"stream_options":{"include_usage":true},"stream":true,"model":"up",` + tail,
		`{"stream":true,"stream_options":null,"model":"m",` + tail:                    `{"stream":true,"stream_options":{"include_usage":true},"model":"up",` + tail,
		`{"stream":true,"stream_options":{},"model":"m",` + tail:                      `{"stream":true,"stream_options":{"include_usage":true},"model":"up",` + tail,
		`{"stream":true,"stream_options":{"a":1},"model":"m",` + tail:                 `{"stream":true,"stream_options":{"include_usage":true,"a":1},"model":"up",` + tail,
		`{"stream":true,"stream_options":{"include_usage":false},"model":"m",` + tail: `{"stream":true,"stream_options":{"include_usage":true},"model":"up",` + tail,
		`{"stream":true,"stream_options":{"include_usage":true},"model":"m",` + tail:  `{"stream":true,"stream_options":{"include_usage":true},"model":"up",` + tail,
	} {
		r, err := parseChat(body)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if got := string(r.Rewrite("up", true)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got := r.Rewrite("m", false); &got[0] != &r.Body[0] {
			t.Error("a body without a change was copied")
		}
	}
}

func TestParseForm(t *testing.T) {
	body := "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n\x00\r\n" +
		"--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--B--\r\n"
	r, err := Parse(Passthrough, "/audio/transcriptions", "multipart/form-data; boundary=B", []byte(body), 64)
	if err != nil || r.Model != "whisper-1" {
		t.Fatalf("%+v %v", r, err)
	}
	if got := string(r.Rewrite("large", true)); got != strings.Replace(body, "whisper-1", "large", 1) {
		t.Errorf("got %q", got)
	}
	if _, err := Parse(Passthrough, "/x", "multipart/form-data; boundary=B", []byte("--B--\r\n"), 64); AsError(err) == nil {
		t.Errorf("a form without a model passed: %v", err)
	}
}

func TestParseFormRefusesNames(t *testing.T) {
	for name, want := range map[string]string{"": "not be empty", "a\xffb": "UTF-8", strings.Repeat("x", 257): "256 bytes"} {
		body := "--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + name + "\r\n--B--\r\n"
		_, err := Parse(Passthrough, "/audio/transcriptions", "multipart/form-data; boundary=B", []byte(body), 64)
		if e := AsError(err); e == nil || e.Kind != BadRequest || e.Param != "model" || !strings.Contains(e.Message, want) {
			t.Errorf("%.20q: %v, want %q", name, err, want)
		}
	}
	if _, err := parseChat(`{"model":"` + strings.Repeat("x", 256) + `","messages":[0]}`); err != nil {
		t.Errorf("256 bytes: %v", err)
	}
}

func TestStreamOnlyWhereThereAreStreams(t *testing.T) {
	const body = `{"model":"m","stream":true,"input":"hi","messages":[{}]}`
	form := "--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--B\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--B--\r\n"
	for op, want := range map[Op]bool{Chat: true, Completions: true, Responses: true, Passthrough: true, Embeddings: false, Moderations: false} {
		r, err := Parse(op, "/x", "application/json", []byte(body), 64)
		if err != nil || r.Stream != want || string(r.Rewrite("m", true)) != body && !want {
			t.Errorf("%v: %+v, %v", op, r, err)
		}
		if r, err := Parse(op, "/x", "multipart/form-data; boundary=B", []byte(form), 64); err != nil || r.Stream != want {
			t.Errorf("%v, form: %+v, %v", op, r, err)
		}
	}
}

func TestReasoning(t *testing.T) {
	for member, want := range map[string]bool{
		`"x":1`: false, `"reasoning_effort":"low"`: true, `"reasoning_effort":"none"`: false, `"reasoning_effort":null`: false,
		`"reasoning":{}`: true, `"reasoning":{"effort":"high"}`: true, `"reasoning":{"summary":"auto", "effort" : "none" }`: false,
		`"reasoning":{"effort":null}`: false, `"reasoning":null`: false, `"reasoning":"high"`: false,
	} {
		r, err := Parse(Responses, "/responses", "application/json", []byte(`{"model":"m","input":"hi",`+member+`}`), 64)
		if err != nil || r.Reasoning != want {
			t.Errorf("%s: %v, %v", member, r, err)
		}
	}
}

func TestFinal(t *testing.T) {
	for _, e := range []*Error{{Kind: RateLimited, Code: "insufficient_quota"}, {Kind: RateLimited, Type: "insufficient_quota"}} {
		if !e.Final() || !e.Retryable() {
			t.Errorf("%+v: another target may still answer, this one will not", e)
		}
	}
	if (&Error{Kind: RateLimited, Code: "rate_limit_exceeded"}).Final() {
		t.Error("a rate limit passes")
	}
}

// FuzzParse: nothing panics, what passes is valid JSON, and the rewritten body is
// valid, names the model and asks for usage.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":"m","stream":true,"stream_options":{"include_usage":false},"messages":[{}],"n":2}`))
	f.Add([]byte(`{"model":"\u006d","stream":true,"messages":["a"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Parse(Chat, "/chat/completions", "application/json", body, 64)
		if err != nil {
			if AsError(err) == nil {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		out := r.Rewrite("other\"model", true)
		var got struct {
			Model         string
			Stream        bool
			StreamOptions struct {
				IncludeUsage bool `json:"include_usage"`
			} `json:"stream_options"`
		}
		if err := json.Unmarshal(out, &got); err != nil {
			var raw map[string]json.RawMessage
			if json.Unmarshal(out, &raw) != nil {
				t.Fatalf("%q became %q: %v", body, out, err)
			}
			return
		}
		if got.Stream && !got.StreamOptions.IncludeUsage && strings.Count(strings.ToLower(string(out)), "include_usage") == 1 {
			t.Errorf("%q became %q", body, out)
		}
	})
}

func BenchmarkParse64K(b *testing.B) {
	body := []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("word ", 13000) + `"}]}`)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := parseChat(string(body)); err != nil {
			b.Fatal(err)
		}
	}
}
