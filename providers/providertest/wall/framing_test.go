package wall

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestToolShapes(t *testing.T) {
	base, _ := Start(t)
	for _, tc := range []struct {
		spec string
		want func(body string, c collected) bool
	}{
		{"tools=2", func(b string, c collected) bool { return strings.Count(b, `"name":`) == 2 && len(c.chunks) == 1+2*7+1 }},
		{"tools=2 tool_interleave", func(b string, c collected) bool { return *c.chunks[2].Choices[0].Delta.ToolCalls[0].Index == 1 }},
		{"tools=2 tool_repeat_id", func(b string, c collected) bool { return strings.Count(b, `"name":`) == 14 }},
		{"tools=2 tool_whole", func(b string, c collected) bool { return len(c.chunks) == 4 }},
		{"tools=1 tool_whole content_null role=each nofinish", func(b string, c collected) bool { return len(c.chunks) == 1 }},
	} {
		body, err := chatStream(t, base, tc.spec)
		c := collect(body)
		if err != nil || !tc.want(body, c) || !c.done {
			t.Errorf("%s: %v\n%s", tc.spec, err, body)
		}
		for i, args := range c.args {
			if n, err := (Chain{Seed: "wall"}).VerifyArgs(i, args); n != 4 || err != nil {
				t.Errorf("%s: call %d: %d, %v", tc.spec, i, n, err)
			}
		}
		if len(c.args) == 0 {
			t.Errorf("%s: no calls", tc.spec)
		}
	}
	if body, err := chatStream(t, base, "tools=1 tool_noindex"); err != nil || strings.Contains(body, `"tool_calls":[{"index"`) {
		t.Errorf("tool_noindex: %v\n%s", err, body)
	}
}

func TestManyChoices(t *testing.T) {
	base, w := Start(t)
	for spec, chunks := range map[string]int{"tokens=2": 3 * 4, "tokens=2 multi_choice": 4} {
		body := chatBody(spec, true)
		body["n"] = 3
		_, got, err := post(t, base, "/chat/completions", body)
		c := collect(got)
		if err != nil || len(c.chunks) != chunks || c.text != Text("wall", 2) || c.finish != "stop" {
			t.Errorf("%s: %v\n%s", spec, err, got)
		}
		last := c.chunks[len(c.chunks)-1].Choices
		if *last[len(last)-1].Index != 2 {
			t.Errorf("%s: last choice is %d", spec, *last[len(last)-1].Index)
		}
		if q := awaitKey(t, w, spec); q.Output != 6 || q.Tokens != 2*chunks/4 {
			t.Errorf("%s: %d completion tokens, %d deltas", spec, q.Output, q.Tokens)
		}
	}
}

// writes is a ResponseWriter that keeps every write apart.
type writes struct {
	header http.Header
	all    []string
}

func (w *writes) Header() http.Header         { return w.header }
func (w *writes) WriteHeader(int)             {}
func (w *writes) Flush()                      {}
func (w *writes) Write(p []byte) (int, error) { w.all = append(w.all, string(p)); return len(p), nil }

func TestWriteBoundaries(t *testing.T) {
	write := func(spec string) []string {
		raw, _ := json.Marshal(chatBody(spec, true))
		req, err := http.NewRequest(http.MethodPost, "/v1/chat/completions", bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		out := &writes{header: http.Header{}}
		New().ServeHTTP(out, req)
		if c := collect(strings.Join(out.all, "")); c.text != Text("wall", 10) || !c.done {
			t.Errorf("%s: %q", spec, c.text)
		}
		return out.all
	}
	plain := write("tokens=10")
	if len(plain) != 13 {
		t.Errorf("%d writes", len(plain))
	}
	for _, p := range plain {
		if strings.Count(p, "data: ") != 1 || !strings.HasSuffix(p, "\n\n") {
			t.Errorf("a write is not one event: %q", p)
		}
	}
	burst := write("tokens=10 burst=4 usage=trailer")
	for i, events := range []int{1, 4, 4, 5} { // role; tokens; the last two tokens with finish, usage and [DONE]
		if len(burst) != 4 || strings.Count(burst[i], "data: ") != events {
			t.Fatalf("burst: %d writes: %q", len(burst), burst)
		}
	}
	for _, p := range write("tokens=10 split=7") {
		if len(p) > 7 {
			t.Errorf("split: %q", p)
		}
	}
	at := write("tokens=10 splitat=5+3")
	if at[0] != "dat" || at[1] != "a:" {
		t.Errorf("splitat: %q %q", at[0], at[1])
	}
	for _, p := range write("tokens=10 drip=1us") {
		if len(p) != 1 {
			t.Errorf("drip: %q", p)
		}
	}
}

func TestOddFraming(t *testing.T) {
	base, _ := Start(t)
	if body, err := chatStream(t, base, "cr tokens=1"); err != nil || strings.Contains(body, "\n") || !strings.HasSuffix(body, "data: [DONE]\r\r") {
		t.Errorf("cr: %v %q", err, body)
	}
	if body, err := chatStream(t, base, "multiline tokens=1"); err != nil || !strings.HasPrefix(body, "data: {\ndata: \"id\"") {
		t.Errorf("multiline: %v %q", err, body)
	}
	res, _, err := post(t, base, "/chat/completions", chatBody("http10 tokens=1", true))
	if err != nil || res.Proto != "HTTP/1.0" || res.TransferEncoding != nil {
		t.Errorf("http10: %v %s %v", err, res.Proto, res.TransferEncoding)
	}
	res, _, err = post(t, base, "/chat/completions", chatBody("informational=103 gzip header=x-a:b%20c ctype=text/plain", true))
	if err != nil || res.Header.Get("X-A") != "b c" || res.Header.Get("Content-Type") != "text/plain" || !res.Uncompressed {
		t.Errorf("headers: %v %v", err, res)
	}
	for spec, want := range map[string]string{"after_done=junk": "data: {junk\n\n", "after_done=done": "[DONE]\n\ndata: [DONE]\n\n", "after_done=comment": ": after done\n\n"} {
		if body, err := chatStream(t, base, spec); err != nil || !strings.HasSuffix(body, want) {
			t.Errorf("%s: %v %q", spec, err, body)
		}
	}
	for form, want := range map[string]string{"text": ": keep-alive\n\n", "space": " \n", "blank": "\n", "event": "event: ping\n\n", "event_empty": "event: ping\ndata:\n\n", "empty": "data:\n\n", "delta": `data: {"id"`} {
		if body, err := chatStream(t, base, "keepalive=5ms first=8ms tokens=1 ping="+form); err != nil || !strings.HasPrefix(body, want) {
			t.Errorf("ping %s: %v %q", form, err, body)
		}
	}
}
