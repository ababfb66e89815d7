package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/providers/providertest/wall"
)

// inputConfig has an upstream with models of its own, and small bodies.
func inputConfig(base string) string {
	return fmt.Sprintf(`
[sizes]
body = "64KiB"
body_vision = "64KiB"
[[upstreams]]
name = "wall"
base_url = %q
models = ["wall*", "org/a model", "org/é"]
list_models = false
`, base)
}

const (
	chatPath = "/chat/completions"
	message  = `"messages":[{"role":"user","content":"hi"}]`
)

func nested(depth int) string {
	// The object around it and the array in it are two levels.
	return `{"model":"wall",` + message + `,"x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
}

// badInputs are what nobody should send.
var badInputs = []struct {
	name, method, path, body string
	headers                  []string
	status                   int
	param, code, words       string
}{
	{"empty body", http.MethodPost, chatPath, "", nil, 400, "", "", "empty"},
	{"blank body", http.MethodPost, chatPath, " \n", nil, 400, "", "", "JSON object"},
	{"no JSON", http.MethodPost, chatPath, "{\"model\":\n nope}", nil, 400, "", "", "line 2"},
	{"cut JSON", http.MethodPost, chatPath, `{"model":"wall",` + message, nil, 400, "", "", "JSON"},
	{"more than JSON", http.MethodPost, chatPath, `{"model":"wall",` + message + `} {}`, nil, 400, "", "", "JSON"},
	{"a control character", http.MethodPost, chatPath, "{\"model\":\"wa\x01ll\"," + message + "}", nil, 400, "", "", "JSON"},
	{"an array", http.MethodPost, chatPath, `[]`, nil, 400, "", "", "object"},
	{"null", http.MethodPost, chatPath, `null`, nil, 400, "", "", "object"},
	{"too deep", http.MethodPost, chatPath, nested(65), nil, 400, "", "", "64"},
	{"far too deep", http.MethodPost, chatPath, `{"x":` + strings.Repeat(`{"x":`, 10_000), nil, 400, "", "", "64"},
	{"model twice", http.MethodPost, chatPath, `{"model":"wall","model":"wall2",` + message + `}`, nil, 400, "model", "", "more than once"},
	{"model in two cases", http.MethodPost, chatPath, `{"model":"wall","Model":"wall2",` + message + `}`, nil, 400, "model", "", "more than once"},
	{"model with an escape", http.MethodPost, chatPath, `{"model":"wall","mode\u006c":"wall2",` + message + `}`, nil, 400, "model", "", "more than once"},
	{"stream twice", http.MethodPost, chatPath, `{"model":"wall","stream":true,"STREAM":false,` + message + `}`, nil, 400, "stream", "", "more than once"},
	{"messages twice", http.MethodPost, chatPath, `{"model":"wall",` + message + `,` + message + `}`, nil, 400, "messages", "", "more than once"},
	{"no model", http.MethodPost, chatPath, `{` + message + `}`, nil, 400, "model", "", "model"},
	{"model is a number", http.MethodPost, chatPath, `{"model":1,` + message + `}`, nil, 400, "model", "", "string"},
	{"model is null", http.MethodPost, chatPath, `{"model":null,` + message + `}`, nil, 400, "model", "", "string"},
	{"model is empty", http.MethodPost, chatPath, `{"model":"",` + message + `}`, nil, 400, "model", "", "non-empty"},
	{"no messages", http.MethodPost, chatPath, `{"model":"wall"}`, nil, 400, "messages", "", "missing"},
	{"messages is null", http.MethodPost, chatPath, `{"model":"wall","messages":null}`, nil, 400, "messages", "", "array"},
	{"messages is a string", http.MethodPost, chatPath, `{"model":"wall","messages":"hi"}`, nil, 400, "messages", "", "array"},
	{"messages is an object", http.MethodPost, chatPath, `{"model":"wall","messages":{}}`, nil, 400, "messages", "", "array"},
	{"messages is empty", http.MethodPost, chatPath, `{"model":"wall","messages":[ ]}`, nil, 400, "messages", "", "non-empty"},
	{"messages is true", http.MethodPost, chatPath, `{"model":"wall","messages":true}`, nil, 400, "messages", "", "array"},
	{"messages is a digit", http.MethodPost, chatPath, `{"model":"wall","messages":1}`, nil, 400, "messages", "", "array"},
	{"stream is a string", http.MethodPost, chatPath, `{"model":"wall","stream":"yes",` + message + `}`, nil, 400, "stream", "", "true or false"},
	{"stream_options is a number", http.MethodPost, chatPath, `{"model":"wall","stream":true,"stream_options":5,` + message + `}`, nil, 400, "stream_options", "", "object"},
	{"n is 0", http.MethodPost, chatPath, `{"model":"wall","n":0,` + message + `}`, nil, 400, "n", "", "1 to 128"},
	{"n is a string", http.MethodPost, chatPath, `{"model":"wall","n":"2",` + message + `}`, nil, 400, "n", "", "1 to 128"},
	{"n is 129", http.MethodPost, chatPath, `{"model":"wall","n":129,` + message + `}`, nil, 400, "n", "", "1 to 128"},
	{"a Responses body", http.MethodPost, chatPath, `{"model":"wall","input":"hi"}`, nil, 400, "messages", "", "/v1/responses"},
	{"embeddings without input", http.MethodPost, "/embeddings", `{"model":"wall"}`, nil, 400, "input", "", "missing"},
	{"moderations without input", http.MethodPost, "/moderations", `{"model":"wall"}`, nil, 400, "input", "", "missing"},
	{"completions without model", http.MethodPost, "/completions", `{"prompt":"hi"}`, nil, 400, "model", "", "model"},
	{"unknown model", http.MethodPost, chatPath, `{"model":"demo-ecko",` + message + `}`, nil, 404, "model", "model_not_found", "Did you mean demo-echo"},
	{"model unlike any", http.MethodPost, chatPath, `{"model":"xxxxxxxxxxxxxxxxxxxxxxxx",` + message + `}`, nil, 404, "model", "model_not_found", "/v1/models"},
	{"model of no list", http.MethodGet, "/models/demo-ecko", "", nil, 404, "model", "model_not_found", "demo-ecko"},
	{"unknown route", http.MethodPost, "/nothing", `{}`, nil, 404, "", "unknown_url", "/v1/nothing"},
	{"a root that is none", http.MethodGet, "//", "", nil, 404, "", "unknown_url", "/v1"},
	{"GET of a POST route", http.MethodGet, chatPath, "", nil, 405, "", "method_not_allowed", "GET"},
	{"DELETE of a POST route", http.MethodDelete, chatPath, "", nil, 405, "", "method_not_allowed", "DELETE"},
	{"POST of a GET route", http.MethodPost, "/models", "{}", nil, 405, "", "method_not_allowed", "POST"},
	{"too large", http.MethodPost, chatPath, `{"model":"wall",` + message + `,"x":"` + strings.Repeat("x", 64<<10) + `"}`, nil, 413, "", "request_too_large", "64 KiB"},
	{"text", http.MethodPost, chatPath, `{"model":"wall",` + message + `}`, []string{"Content-Type: text/plain"}, 415, "", "unsupported_media_type", "application/json"},
	{"a form of chat", http.MethodPost, chatPath, `x`, []string{"Content-Type: multipart/form-data; boundary=x"}, 415, "", "unsupported_media_type", "application/json"},
	{"a type that is none", http.MethodPost, chatPath, `{}`, []string{"Content-Type: ;;"}, 415, "", "unsupported_media_type", ""},
	{"a form without boundary", http.MethodPost, "/audio/transcriptions", `x`, []string{"Content-Type: multipart/form-data"}, 415, "", "unsupported_media_type", "boundary"},
	{"a form without model", http.MethodPost, "/audio/transcriptions", "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\na\r\n--x--\r\n", []string{"Content-Type: multipart/form-data; boundary=x"}, 400, "model", "", "model"},
	{"a form that is none", http.MethodPost, "/audio/transcriptions", `{"model":"wall"}`, []string{"Content-Type: multipart/form-data; boundary=x"}, 400, "model", "", "model"},
	{"a form with two models", http.MethodPost, "/audio/transcriptions", strings.Repeat("--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwall\r\n", 2) + "--x--\r\n", []string{"Content-Type: multipart/form-data; boundary=x"}, 400, "model", "", "more than one"},
	{"no key", http.MethodPost, chatPath, `{}`, []string{"Authorization: "}, 401, "", "invalid_api_key", "API key"},
	{"wrong key", http.MethodPost, chatPath, `{}`, []string{"Authorization: Bearer sk-wrong"}, 401, "", "invalid_api_key", "Incorrect"},
	{"wrong api-key", http.MethodPost, chatPath, `{}`, []string{"Authorization: ", "Api-Key: sk-wrong"}, 401, "", "invalid_api_key", "Incorrect"},
	{"another scheme", http.MethodPost, chatPath, `{}`, []string{"Authorization: Basic " + testKey}, 401, "", "invalid_api_key", "API key"},
	{"no key for models", http.MethodGet, "/models", "", []string{"Authorization: "}, 401, "", "invalid_api_key", "API key"},
	{"no key for a model", http.MethodGet, "/models/wall", "", []string{"Authorization: "}, 401, "", "invalid_api_key", "API key"},
	{"two keys", http.MethodPost, chatPath, `{}`, []string{"Api-Key: sk-other"}, 400, "", "", "Two different"},
}

// TestBadInput wants every bad request answered with its status and OpenAI's
// envelope, and none of them to reach the upstream.
func TestBadInput(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, inputConfig(base))
	for _, tc := range badInputs {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := g.do(t, tc.method, tc.path, tc.body, tc.headers...)
			e := a.refused(t, tc.status)
			if e.Param != tc.param || e.Code != tc.code || !strings.Contains(e.Message, tc.words) {
				t.Errorf("%+v, want param %q, code %q and the words %q", e, tc.param, tc.code, tc.words)
			}
			if strings.Contains(a.body, "sk-wrong") || !strings.HasPrefix(a.header.Get("X-Request-Id"), "req_") {
				t.Errorf("headers %v, body %s", a.header, a.body)
			}
			if tc.status == 401 && a.header.Get("Www-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
			if tc.status == 405 && a.header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
	t.Cleanup(func() {
		for _, q := range w.Requests() {
			t.Errorf("this reached the upstream: %s %s %.200s", q.Method, q.Path, q.Body)
		}
	})
}

const goodChat = `{"model":"wall",` + message + `}`

// goodInputs look unusual and are right. ROOT is the API without /v1.
var goodInputs = []struct {
	name, method, path, body string
	headers                  []string
	status                   int
	words                    string
}{
	{"64 levels", http.MethodPost, chatPath, nested(64), nil, 200, "chat.completion"},
	{"a trailing slash", http.MethodPost, chatPath + "/", goodChat, nil, 200, "chat.completion"},
	{"without /v1", http.MethodPost, "ROOT" + chatPath, goodChat, nil, 200, "chat.completion"},
	{"an api-key", http.MethodPost, chatPath, goodChat, []string{"Authorization: ", "Api-Key: " + testKey}, 200, "chat.completion"},
	{"the same key twice", http.MethodPost, chatPath, goodChat, []string{"Api-Key: " + testKey}, 200, "chat.completion"},
	{"bearer in small letters", http.MethodPost, chatPath, goodChat, []string{"Authorization: bearer " + testKey}, 200, "chat.completion"},
	{"no Content-Type", http.MethodPost, chatPath, goodChat, []string{"Content-Type: "}, 200, "chat.completion"},
	{"a charset", http.MethodPost, chatPath, goodChat, []string{"Content-Type: application/json; charset=utf-8"}, 200, "chat.completion"},
	{"null where nothing is meant", http.MethodPost, chatPath, `{"model":"wall","stream":null,"stream_options":null,"n":null,` + message + `}`, nil, 200, "chat.completion"},
	{"moderations without model", http.MethodPost, "/moderations", `{"input":"hi"}`, nil, 404, "omni-moderation-latest"},
	{"the list", http.MethodGet, "/models", "", nil, 200, `{"id":"org/a model","object":"model",`},
	{"the list with a slash", http.MethodGet, "/models/", "", nil, 200, `"id":"demo-echo"`},
	{"an id with a slash", http.MethodGet, "/models/org/a%20model", "", nil, 200, `"id":"org/a model"`},
	{"an escaped slash", http.MethodGet, "/models/org%2Fa%20model", "", nil, 200, `"id":"org/a model"`},
	{"an escaped letter", http.MethodGet, "/models/org%2F%C3%A9", "", nil, 200, `"id":"org/é"`},
	{"HEAD of the list", http.MethodHead, "/models", "", nil, 200, ""},
	{"HEAD of a model", http.MethodHead, "/models/demo-echo", "", nil, 200, ""},
	{"HEAD of nothing", http.MethodHead, "/nothing", "", nil, 404, ""},
	{"HEAD of a POST route", http.MethodHead, chatPath, "", nil, 405, ""},
	{"HEAD without key", http.MethodHead, "/models", "", []string{"Authorization: "}, 401, ""},
	{"alive", http.MethodGet, "ROOT/livez", "", []string{"Authorization: "}, 200, "ok"},
	{"ready", http.MethodGet, "ROOT/readyz", "", []string{"Authorization: "}, 200, "ok"},
}

func TestGoodInput(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, inputConfig(base))
	for _, tc := range goodInputs {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := strings.Replace(tc.path, "ROOT", strings.TrimSuffix(g.URL, "/v1"), 1)
			a := g.do(t, tc.method, path, tc.body, tc.headers...)
			if a.status != tc.status || a.failure != nil || !strings.Contains(a.body, tc.words) || tc.method == http.MethodHead && a.body != "" {
				t.Errorf("status %d, %v: %s", a.status, a.failure, a.body)
			}
		})
	}
}

// TestCORS is what a browser asks before it asks.
func TestCORS(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, inputConfig(base))
	const origin = "Origin: https://chat.example"
	asked := "authorization,content-type,x-stainless-lang,x-made-up-tomorrow"
	pre := g.do(t, http.MethodOptions, chatPath, "", origin, "Authorization: ",
		"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: "+asked)
	h := pre.header
	if pre.status != 204 || h.Get("Access-Control-Allow-Origin") != "https://chat.example" || h.Get("Access-Control-Allow-Headers") != asked ||
		!strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") || h.Get("Access-Control-Max-Age") != "86400" {
		t.Errorf("preflight: %d %v", pre.status, h)
	}
	for name, a := range map[string]answer{
		"SSE":   g.do(t, http.MethodPost, chatPath, chatBody("wall", true, ""), origin),
		"body":  g.do(t, http.MethodPost, chatPath, chatBody("wall", false, ""), origin),
		"error": g.do(t, http.MethodPost, chatPath, "", origin),
		"401":   g.do(t, http.MethodGet, "/models", "", origin, "Authorization: "),
		"404":   g.do(t, http.MethodGet, "/nothing", "", origin),
	} {
		exposed := strings.ToLower(a.header.Get("Access-Control-Expose-Headers"))
		if a.header.Get("Access-Control-Allow-Origin") != "https://chat.example" || !strings.Contains(exposed, "x-request-id") || !strings.Contains(exposed, "retry-after") {
			t.Errorf("%s: %v", name, a.header)
		}
		if !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: Vary: %q", name, a.header.Values("Vary"))
		}
	}
	strict := boot(t, "[cors]\norigins = [\"https://good.example\"]\n")
	for who, want := range map[string]string{"https://good.example": "https://good.example", "https://evil.example": ""} {
		a := strict.do(t, http.MethodOptions, chatPath, "", "Origin: "+who, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
		if got := a.header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("%s is allowed %q", who, got)
		}
	}
}

// endless counts what is read of a body that never ends.
type endless struct {
	read    atomic.Int64 // net/http may read on behind an answer
	limit   int64
	pattern string
}

func (e *endless) Read(p []byte) (int, error) {
	if e.read.Load() >= e.limit {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = e.pattern[i%len(e.pattern)]
	}
	e.read.Add(int64(len(p)))
	return len(p), nil
}

// TestHugeBody refuses a body before the rest of it is read, with and without a
// length, with and without a key.
func TestHugeBody(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, inputConfig(base))
	for _, tc := range []struct {
		name    string
		length  int64
		key     string
		pattern string
		status  int
	}{
		{"by its length", 1 << 30, testKey, " ", 413},
		{"chunked", -1, testKey, " ", 413},
		{"chunked and deep", -1, testKey, "[", 413},
		{"chunked without a key", -1, "sk-wrong", " ", 401},
		{"by its length without a key", 1 << 30, "sk-wrong", " ", 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			body := &endless{limit: 1 << 30, pattern: tc.pattern}
			r := g.request(t.Context(), t, http.MethodPost, chatPath, "", "Authorization: Bearer "+tc.key, "Content-Type: application/json")
			r.Body, r.ContentLength = io.NopCloser(body), tc.length
			a := g.send(t, r)
			a.refused(t, tc.status)
			if n := body.read.Load(); n > 16<<20 {
				t.Errorf("%d bytes went out before the refusal", n)
			}
		})
	}
}
