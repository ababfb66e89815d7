package wall

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// post sends a chat request and returns what arrived of the body, with the error that ended it.
func post(t testing.TB, base, path string, body any) (*http.Response, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	return res, string(got), err
}

func chatBody(spec string, stream bool) map[string]any {
	return map[string]any{
		"model": "m", "stream": stream,
		"messages": []map[string]string{{"role": "user", "content": "one two [[wall " + spec + "]]"}},
	}
}

func chatStream(t testing.TB, base, spec string) (string, error) {
	t.Helper()
	_, body, err := post(t, base, "/chat/completions", chatBody(spec, true))
	return body, err
}

// payloads returns the data lines of a body in the plainest framing.
func payloads(body string) (out []string) {
	for line := range strings.SplitSeq(body, "\n") {
		if data, ok := strings.CutPrefix(line, "data:"); ok {
			out = append(out, strings.TrimPrefix(data, " "))
		}
	}
	return out
}

type chunk struct {
	ID      *string
	Choices []struct {
		Index *int
		Delta struct {
			Role, Content, Reasoning string
			ReasoningContent         string `json:"reasoning_content"`
			ToolCalls                []struct {
				Index    *int
				ID       string
				Function struct{ Name, Arguments string }
			} `json:"tool_calls"`
		}
		Text         string
		FinishReason *string `json:"finish_reason"`
	}
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	}
	Error json.RawMessage
}

type collected struct {
	text, reasoning string
	args            map[int]string
	finish          string
	done            bool
	usages          []int
	bad             int
	chunks          []chunk
}

func collect(body string) collected {
	c := collected{args: map[int]string{}}
	for _, data := range payloads(body) {
		if data == "[DONE]" {
			c.done = true
			continue
		}
		var ch chunk
		if json.Unmarshal([]byte(data), &ch) != nil {
			c.bad++
			continue
		}
		c.chunks = append(c.chunks, ch)
		if ch.Usage != nil {
			c.usages = append(c.usages, ch.Usage.CompletionTokens)
		}
		for _, choice := range ch.Choices {
			if choice.Index != nil && *choice.Index != 0 {
				continue
			}
			c.text += choice.Delta.Content + choice.Text
			c.reasoning += choice.Delta.ReasoningContent + choice.Delta.Reasoning
			for _, tc := range choice.Delta.ToolCalls {
				if tc.Index != nil {
					c.args[*tc.Index] += tc.Function.Arguments
				}
			}
			if choice.FinishReason != nil {
				c.finish = *choice.FinishReason
			}
		}
	}
	return c
}

func awaitKey(t testing.TB, w *Wall, spec string) Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	q, err := w.Await(ctx, func(q Request) bool { return strings.TrimSpace(q.Key) == spec && q.End != Running })
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestBadCallsAreNamed(t *testing.T) {
	base, w := Start(t, Named("a"))
	for spec, want := range map[string]string{
		"bogus=1": "bogus", "tokens=x": "tokens", "error=1:nonsense": "nonsense", "cut=17": "cut=17", "fail=1:999": "fail",
		"seed=%zz": "seed", "script=none": "none", "tokens=5 reset=6": "reset=6", "error=pre": "pre", "splitat=4+x": "splitat",
	} {
		res, body, err := post(t, base, "/chat/completions", chatBody(spec, true))
		if err != nil || res.StatusCode != 400 || !strings.Contains(body, want) {
			t.Errorf("%s: %v %s", spec, err, body)
		}
		total := w.Stats().Total
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if q, err := w.Await(ctx, func(q Request) bool { return q.ID == total && q.End != Running }); err != nil || q.End != Invalid {
			t.Errorf("%s: recorded %q, %v", spec, q.End, err)
		}
		cancel()
	}
	for _, tc := range []struct {
		path   string
		body   any
		status int
	}{
		{"/nothing", chatBody("", false), 404},
		{"/chat/completions", "text", 400},
		{"/chat/completions", map[string]any{"model": "m"}, 400},
		{"/chat/completions", map[string]any{"messages": []any{}}, 400},
		{"/chat/completions", map[string]any{"model": "[[wall tokens=1", "messages": []any{}}, 400},
	} {
		if res, body, err := post(t, base, tc.path, tc.body); err != nil || res.StatusCode != tc.status {
			t.Errorf("%s %v: %v %s", tc.path, tc.body, err, body)
		}
	}
	locked, _ := Start(t, APIKey("k"))
	if res, _, err := post(t, locked, "/chat/completions", chatBody("", false)); err != nil || res.StatusCode != 401 {
		t.Errorf("no key: %v", err)
	}
}

func TestAttempts(t *testing.T) {
	base, w := Start(t, Named("a"))
	w.Script("named", Script{Status: 500}, Script{Tokens: 2})
	statuses := func(model, spec string, n int) (out []int) {
		for range n {
			body := chatBody(spec, false)
			if model != "" {
				body["model"] = model
			}
			res, raw, err := post(t, base, "/chat/completions", body)
			if err != nil {
				out = append(out, 0)
				continue
			}
			out = append(out, res.StatusCode)
			if spec == "" && res.StatusCode == 200 && !strings.Contains(raw, `"content":"`+Text("wall", 2)+`"`) {
				t.Errorf("named script: %s", raw)
			}
		}
		return out
	}
	for _, tc := range []struct {
		model, spec, want string
	}{
		{"", "fail=2:503", "[503 503 200 200]"},
		{"", "fail=1:503 cut=2 stall=1", "[503]"},
		{"", "2*status=503 | status=429 | tokens=5", "[503 503 429 200]"},
		{"", "key=x 3*tokens=1", "bad"},
		{"wall:fail=1:reset", "key=y", "[0 200 200 200]"},
		{"named", "", "[500 200 200 200]"},
		{"named", "key=z", "[500 200 200 200]"},
		{"m", "script=named key=q", "[500 200 200 200]"},
	} {
		if tc.want == "bad" {
			if _, err := Parse(tc.spec); err == nil {
				t.Errorf("%s parsed", tc.spec)
			}
			continue
		}
		if got := fmt.Sprint(statuses(tc.model, tc.spec, len(strings.Fields(tc.want)))); got != tc.want {
			t.Errorf("%s %s: %s", tc.model, tc.spec, got)
		}
	}
	w.SetDefault(Script{Status: 503})
	if got := fmt.Sprint(statuses("other", "tokens=1", 1)); got != "[503]" {
		t.Errorf("default: %s", got)
	}
	w.SetDefault()
	w.ScriptPath("/v1/models", Script{Status: 500})
	if res, err := http.Get(base + "/models"); err != nil || res.StatusCode != 500 {
		t.Errorf("path script: %v", err)
	}
}

func TestTagFinding(t *testing.T) {
	for _, tc := range []struct{ body, name, want string }{
		{"x [[wall a=1]] y", "", " a=1"},
		{"[[wall a]] [[wall b]]", "", " b"},
		{"[[wallpaper]] [[wall b]]", "", " b"},
		{"[[wall@one a]] [[wall b]]", "one", "a"},
		{"[[wall@one a]] [[wall b]]", "two", " b"},
		{"[[wall@one a]]", "two", "-"},
		{`[[wall a\nb]]`, "", " a b"},
		{"[[wall]]", "", ""},
		{"nothing", "", "-"},
	} {
		spec, ok, err := findTag(tc.body, tc.name)
		if !ok {
			spec = "-"
		}
		if err != nil || spec != tc.want {
			t.Errorf("%s at %q: %q, %v", tc.body, tc.name, spec, err)
		}
	}
}
