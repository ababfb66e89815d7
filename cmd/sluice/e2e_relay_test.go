package main

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"sluice/providers/providertest/wall"
)

// canned is an upstream that answers every call with the same bytes and keeps
// what it was sent.
type canned struct {
	contentType, answer string

	mu     sync.Mutex
	body   string
	header http.Header
	path   string
}

func (c *canned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	c.body, c.header, c.path = string(body), r.Header.Clone(), r.URL.Path
	c.mu.Unlock()
	w.Header().Set("Content-Type", c.contentType)
	_, _ = io.WriteString(w, c.answer)
}

func (c *canned) got() (path, body string, h http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.path, c.body, c.header
}

// overAlias is a gateway whose model "alias" is another one at the canned upstream.
func overAlias(t *testing.T, c *canned, more string) *gatewayUnderTest {
	t.Helper()
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	return boot(t, fmt.Sprintf(`
[[upstreams]]
name = "canned"
base_url = "%s/base/v1"
api_key = "sk-upstream"
models = ["unused"]
list_models = false
[[models]]
name = "alias"
targets = [{ upstream = "canned", model = "vendor/model-1" }]
%s`, s.URL, more))
}

// oddMembers are what a decoder would lose or change: order, blanks, escapes, large
// and long numbers, keys in another case, fields that nobody knows.
const oddMembers = `"zeta":1,"alpha":[1, 2,3 ],"seed":12345678901234567890,"temperature":0.70,"x":1e400,"y":-0.0,` +
	`"Unknown":{"b":null,"a":"\u00e9\ud83d\ude00\/<>&"},"tool_choice":"auto","metadata":{"k":"v"},"n":1`

// oddMembersOfAnswers are the same for answers.
const oddMembersOfAnswers = `"zeta":[1 ,2],"created":1,"big":123456789012345678901234567890,"f":1.10,"s":"\u00e9\/<>","object":`

// TestBytesSurvive sends odd JSON both ways. The model's name is changed for the
// upstream and the wish for usage is added to a stream; nothing else is touched.
func TestBytesSurvive(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ path, input, object string }{
		{"/chat/completions", ` "messages" : [{"role":"user","content":"hi","x_extra":{"deep":[1]}}] `, `"chat.completion"`},
		{"/completions", `"prompt":"hi"`, `"text_completion"`},
		{"/embeddings", `"input":["a",[1,2]],"encoding_format":"base64"`, `"list"`},
		{"/moderations", `"input":"hi"`, `"moderation"`},
		{"/responses", `"input":"hi"`, `"response"`},
		{"/rerank", `"query":"q","documents":["a"]`, `"rerank"`},
		{"/images/generations", `"prompt":"p"`, `"image"`},
		{"/audio/speech", `"input":"hi","voice":"alloy"`, `"speech"`},
	} {
		t.Run(tc.path, func(t *testing.T) {
			t.Parallel()
			c := &canned{contentType: "application/json", answer: "{\n  \"id\":\"x-1\", " + oddMembersOfAnswers + tc.object + `,"model":"vendor/model-1","choices":[] , "usage":{"prompt_tokens":3,"completion_tokens":2,"x":1.50}}` + "\n"}
			g := overAlias(t, c, "")
			sent := "{ \"model\" : \"alias\" ,\n" + oddMembers + "," + tc.input + "}"
			a := g.do(t, http.MethodPost, tc.path, sent, "X-Secret: client", "Cookie: a=b", "OpenAI-Organization: client", "User-Agent: client")
			if a.status != 200 || a.body != c.answer {
				t.Errorf("%d, the answer came as\n%s\nand was\n%s", a.status, a.body, c.answer)
			}
			path, body, h := c.got()
			if want := strings.Replace(sent, `"alias"`, `"vendor/model-1"`, 1); path != "/base/v1"+tc.path || body != want {
				t.Errorf("%s got\n%s\nwant\n%s", path, body, want)
			}
			checkUpstreamHeader(t, h)
		})
	}
}

// checkUpstreamHeader proves that nothing of the caller's reached the upstream.
func checkUpstreamHeader(t *testing.T, h http.Header) {
	t.Helper()
	if h.Get("Authorization") != "Bearer sk-upstream" || h.Get("Content-Type") != "application/json" || h.Get("Accept-Encoding") != "identity" {
		t.Errorf("the upstream got %v", h)
	}
	for name := range h {
		switch name {
		case "Accept", "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "User-Agent":
		default:
			t.Errorf("the upstream got %s: %q", name, h[name])
		}
	}
	if strings.Contains(fmt.Sprint(h), "client") {
		t.Errorf("the upstream got something of the caller's: %v", h)
	}
}

// TestChunksSurvive is the same for streams of the client's own dialect.
func TestChunksSurvive(t *testing.T) {
	t.Parallel()
	chunk := func(object, choice, more string) string {
		return `{"id":"x-1","choices":[{` + choice + `,"index":0,"x_unknown":{"a":[1 , 2]}}],"zz":12345678901234567890,"s":"\u00e9\/","object":` + object + `,"created":1,"model":"vendor/model-1"` + more + `}`
	}
	const chat, text = `"chat.completion.chunk"`, `"text_completion"`
	for _, tc := range []struct {
		path, input string
		payloads    []string
	}{
		{"/chat/completions", `"messages":[{"role":"user","content":"hi"}]`, []string{
			chunk(chat, `"delta":{"role":"assistant","content":""}`, ""),
			chunk(chat, `"delta":{"content":"caf\u00e9 \ud83d","x":1.0},"logprobs":{"content":[{"token":"a","logprob":-0.10}]}`, ""),
			chunk(chat, `"delta":{"unheard_of":{"piece":"\ude00"}}`, `,"x_last":{}`),
			chunk(chat, `"delta":{},"finish_reason":"stop"`, "")}},
		{"/completions", `"prompt":"hi"`, []string{
			chunk(text, `"text":"caf\u00e9"`, ""), chunk(text, `"text":"","finish_reason":"length"`, "")}},
	} {
		t.Run(tc.path, func(t *testing.T) {
			t.Parallel()
			stream := "data: " + strings.Join(tc.payloads, "\n\ndata: ") + "\n\n"
			c := &canned{contentType: "text/event-stream", answer: stream + "data: [DONE]\n\n"}
			g := overAlias(t, c, "")
			sent := "{ \"model\" : \"alias\" ,\"stream\":true,\n" + oddMembers + "," + tc.input + "}"
			if a := g.do(t, http.MethodPost, tc.path, sent); a.body != c.answer {
				t.Errorf("the stream came as\n%s\nand was\n%s", a.body, c.answer)
			}
			want := `{"stream_options":{"include_usage":true},` + strings.Replace(sent, `"alias"`, `"vendor/model-1"`, 1)[1:]
			if _, body, _ := c.got(); body != want {
				t.Errorf("the upstream got\n%s\nwant\n%s", body, want)
			}
		})
	}
	t.Run("/responses", func(t *testing.T) {
		t.Parallel()
		c := &canned{contentType: "text/event-stream", answer: "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"zz\":1.0}\n\n" +
			"event: response.of.tomorrow\ndata: {\"type\":\"response.of.tomorrow\",\"sequence_number\":1,\"delta\":\"x\",\"s\":\"\\/\"}\n\n" +
			"event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":2,\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n"}
		g := overAlias(t, c, "")
		sent := `{"model":"alias","stream":true,` + oddMembers + `,"input":"hi"}`
		if a := g.do(t, http.MethodPost, "/responses", sent); a.body != c.answer {
			t.Errorf("the stream came as\n%s", a.body)
		}
		if _, body, _ := c.got(); body != strings.Replace(sent, `"alias"`, `"vendor/model-1"`, 1) {
			t.Errorf("the upstream got\n%s", body)
		}
		if line := g.accessLine(t, "alias"); line["in"]+" "+line["out"]+" "+line["estimated"] != "1 2 false" {
			t.Errorf("access line: %v", line)
		}
	})
}

// TestPresentAs shows another model's name in every form of answer.
func TestPresentAs(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, "")+"[[models]]\nname = \"alias\"\npresent_as = \"house-model\"\ntargets = [{ upstream = \"wall\", model = \"vendor/secret\" }]\n")
	for _, a := range []answer{g.chat(t, "alias", askUsage), g.whole(t, "alias", "")} {
		if n := strings.Count(a.body, `"model":"house-model"`); a.status != 200 || n == 0 || n != strings.Count(a.body, `"model":`) || strings.Contains(a.body, "vendor") {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

// TestForm relays a transcription: the model in the form is changed, the file is not.
func TestForm(t *testing.T) {
	t.Parallel()
	c := &canned{contentType: "application/json", answer: `{"text":"said"}`}
	g := overAlias(t, c, "")
	form := func(model string) (string, string) {
		var b bytes.Buffer
		m := multipart.NewWriter(&b)
		_ = m.SetBoundary("a-boundary-that-is-no-part")
		file, _ := m.CreateFormFile("file", "a\"b.mp3")
		for i := range 1 << 16 {
			_, _ = file.Write([]byte{byte(i), byte(i >> 8), '\r', '\n', '-', '-'})
		}
		_ = m.WriteField("model", model)
		_ = m.WriteField("response_format", "json")
		_ = m.Close()
		return b.String(), m.FormDataContentType()
	}
	sent, contentType := form("alias")
	a := g.do(t, http.MethodPost, "/audio/transcriptions", sent, "Content-Type: "+contentType)
	if a.status != 200 || a.body != c.answer {
		t.Errorf("%d %s", a.status, a.body)
	}
	want, _ := form("vendor/model-1")
	if _, body, h := c.got(); body != want || h.Get("Content-Type") != contentType {
		t.Errorf("the upstream got %d bytes of %q, want %d", len(body), h.Get("Content-Type"), len(want))
	}
}

// TestRawRelays compares what the gateway passes on with what the upstream says to
// anyone.
func TestRawRelays(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, tc := range []struct{ path, body string }{
		{"/audio/speech", `{"model":"wall:tokens=40","input":"hi","voice":"alloy"}`},
		{"/audio/speech", `{"model":"wall:status=429,retry_after=30","input":"hi","voice":"alloy"}`},
		{"/images/generations", `{"model":"wall","prompt":"a kettle"}`},
		{"/rerank", `{"model":"wall","query":"q","documents":["a","b"]}`},
		{"/embeddings", `{"model":"wall","input":["a","b"]}`},
		{"/moderations", `{"model":"wall","input":"a"}`},
	} {
		t.Run(tc.path, func(t *testing.T) {
			t.Parallel()
			direct := g.do(t, http.MethodPost, base+tc.path, tc.body)
			a := g.do(t, http.MethodPost, tc.path, tc.body)
			// The wall numbers its answers and looks at the clock.
			numbers := regexp.MustCompile(`wall\d+|"created":\d+`)
			same := numbers.ReplaceAllString(a.body, "") == numbers.ReplaceAllString(direct.body, "")
			if a.status != direct.status || a.failure != nil || !same && a.status == 200 || a.header.Get("Content-Type") != direct.header.Get("Content-Type") {
				t.Errorf("%d %s, %d bytes; directly %d %s, %d bytes", a.status, a.header.Get("Content-Type"), len(a.body), direct.status, direct.header.Get("Content-Type"), len(direct.body))
			}
		})
	}
	t.Run("bytes flow", func(t *testing.T) {
		t.Parallel()
		res, err := g.Client.Do(g.request(t.Context(), t, http.MethodPost, "/audio/speech", `{"model":"wall:tokens=2,stall=1,key=flow","input":"hi","voice":"alloy"}`))
		if err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, 1<<10)
		if _, err := io.ReadFull(res.Body, piece); err != nil {
			t.Error(err)
		}
		if q := awaitCall(t, w, "flow", func(wall.Request) bool { return true }); q.End != wall.Running {
			t.Errorf("the first bytes came after the upstream's end: %q", q.End)
		}
		_ = res.Body.Close()
		awaitCall(t, w, "flow", func(q wall.Request) bool { return q.End == wall.ClientGone })
	})
}

// TestCutBytes proves that a body that is passed on unread and cut does not end well.
func TestCutBytes(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	gateways := bootEnds(t, base)
	for i, script := range []string{"tokens=8,abort=3", "tokens=8,reset=3", "tokens=8,stall=3"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			g := gateways.of(script)
			model := wallModel(fmt.Sprint("cutbytes", i), script)
			a := g.do(t, http.MethodPost, "/audio/speech", fmt.Sprintf(`{"model":%q,"input":"hi","voice":"alloy"}`, model))
			if a.status != 200 || a.failure == nil || len(a.body) != 3<<10 {
				t.Errorf("%d, %d bytes, ended with %v", a.status, len(a.body), a.failure)
			}
			if line := g.accessLine(t, model); !strings.HasPrefix(line["end"], "upstream_t") {
				t.Errorf("access line: %v", line)
			}
		})
	}
	a := gateways.patient.do(t, http.MethodPost, "/audio/speech", `{"model":"wall:reset=headers","input":"hi","voice":"alloy"}`)
	if a.status == 200 && a.failure == nil {
		t.Errorf("a body cut before its first byte came as a good one")
	}
}

// TestResponsesEnds is the truth of ends for the Responses API.
func TestResponsesEnds(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	gateways := bootEnds(t, base)
	for i, tc := range []struct{ script, end, last string }{
		{"", "ok", "event: response.completed\n"},
		{"finish=length", "ok", "event: response.incomplete\n"},
		{"split=every,crlf", "ok", "event: response.completed\n"},
		{"cut=5", "upstream_truncated", "event: error\n"},
		{"reset=5", "upstream_truncated", "event: error\n"},
		{"nofinish", "upstream_truncated", "event: error\n"},
		{"stall=5", "upstream_timeout", "event: error\n"},
		{"error=5:openai", "", "event: error\n"},
		{"error=5:failed", "", "event: response.failed\n"},
	} {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			g := gateways.of(tc.script)
			model := wallModel(fmt.Sprint("responses", i), tc.script)
			a := g.do(t, http.MethodPost, "/responses", fmt.Sprintf(`{"model":%q,"stream":true,"input":"hi"}`, model))
			frames := strings.Split(strings.TrimSuffix(a.body, "\n\n"), "\n\n")
			last := frames[len(frames)-1]
			if a.status != 200 || a.failure != nil || !strings.HasPrefix(last, tc.last) || strings.Contains(a.body, "[DONE]") || strings.Count(a.body, tc.last) != 1 {
				t.Errorf("%d, %v, ends with %.600s", a.status, a.failure, last)
			}
			if line := g.accessLine(t, model); line["end"] != tc.end && tc.end != "" {
				t.Errorf("access line: %v", line)
			} else if tc.end == "" && line["end"] == "ok" {
				t.Errorf("the upstream's failure counts as a good end: %v", line)
			}
		})
	}
	t.Run("an error before content is tried again", func(t *testing.T) {
		t.Parallel()
		g := boot(t, overWall(base, ""))
		for _, script := range []string{"1*error=0:openai | tokens=4", "1*error=0:failed | tokens=5"} {
			a := g.do(t, http.MethodPost, "/responses", fmt.Sprintf(`{"model":"again","stream":true,"input":"[[wall %s]]"}`, script))
			if a.status != 200 || !strings.Contains(a.body, "event: response.completed\n") || strings.Count(a.body, "event: response.created\n") != 1 || strings.Contains(a.body, "boom") {
				t.Errorf("%s: %d %s", script, a.status, a.body)
			}
		}
	})
	a := gateways.patient.do(t, http.MethodPost, "/responses", `{"model":"wall:cut=0","stream":true,"input":"hi"}`)
	if e := a.refused(t, 502); e.Code != "upstream_truncated" {
		t.Errorf("%+v", e)
	}
}

// TestDemoRefusesHonestly asks the demo models for what they do not have.
func TestDemoRefusesHonestly(t *testing.T) {
	t.Parallel()
	g := boot(t, "")
	for _, path := range []string{"/responses", "/audio/speech", "/images/generations", "/rerank"} {
		a := g.do(t, http.MethodPost, path, `{"model":"demo-echo","input":"hi","query":"q","documents":["a"],"prompt":"p"}`)
		if e := a.refused(t, http.StatusBadRequest); e.Param != "model" || !strings.Contains(e.Message, path) {
			t.Errorf("%s: %+v", path, e)
		}
	}
	a := g.chat(t, "demo-echo", "")
	if !a.done || !strings.Contains(a.text[0], "one") {
		t.Errorf("%d %+v", a.status, a.sse)
	}
}
