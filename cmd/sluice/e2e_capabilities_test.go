package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// countingServer answers every chat, and knows how often it was asked.
func countingServer(t *testing.T) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"seen"},"finish_reason":"stop"}]}`)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, asked
}

const (
	pictureMember = `"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD"}}]}]`
	toolMember    = `"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f"}}]`
)

// TestCapabilitiesEndToEnd: what no target can serve is refused with its reason before
// anything is sent; what one can serve goes there.
func TestCapabilitiesEndToEnd(t *testing.T) {
	blind, blindAsked := countingServer(t)
	seer, seerAsked := countingServer(t)
	var toml strings.Builder
	for _, u := range []struct{ name, kind, base, more string }{
		{"blind", "openai", blind, "capabilities = { vision = false, tools = true }"}, {"seer", "openai", seer, ""},
		{"tgi", "tgi", blind, ""}, {"mii", "mii", blind, "[upstreams.mii]\ntransport = \"rest\"\ndeployment = \"d\""},
		{"claude", "anthropic", blind, ""}, {"gemini", "gemini", blind, ""}, {"kserve", "kserve", blind, ""}, {"ollama", "ollama", blind, ""},
	} {
		fmt.Fprintf(&toml, "[[upstreams]]\nname = %q\nkind = %q\nbase_url = %q\nmodels = [\"%s-model\"]\nlist_models = false\n%s\n", u.name, u.kind, u.base, u.name, u.more)
	}
	toml.WriteString(`
[[models]]
name = "mixed"
targets = [{ upstream = "blind", model = "x", weight = 1000 }, { upstream = "seer", model = "x" }]
[[models]]
name = "careful"
capabilities = { tools = false }
targets = [{ upstream = "blind", model = "x" }]
`)
	g := boot(t, toml.String())
	for _, c := range []struct{ model, path, members, param, says string }{
		{"blind-model", chatPath, pictureMember, "messages[1].content[1]", `the model "blind-model" cannot be given images: it is configured to have no "vision"`},
		{"careful", chatPath, toolMember, "tools", `it is configured to have no "tools"`},
		{"demo-echo", chatPath, pictureMember, "messages[1].content[1]", `this model has no "vision"`},
		{"demo-echo", "/embeddings", `"input":"a"`, "model", "cannot be asked at /embeddings"},
		{"tgi-model", chatPath, toolMember, "tools", "kind tgi"},
		{"mii-model", chatPath, pictureMember, "messages[1].content[1]", "kind mii"},
		{"mii-model", chatPath, message + `,"response_format":{"type":"json_schema","json_schema":{"schema":{}}}`, "response_format", "kind mii"},
		{"claude-model", chatPath, message + `,"n":2`, "n", "one answer"},
		{"claude-model", "/embeddings", `"input":"a"`, "model", "kind anthropic"},
		{"claude-model", chatPath, message + `,"top_logprobs":2`, "top_logprobs", "kind anthropic"},
		{"mii-model", chatPath, message + `,"logprobs":true`, "logprobs", "kind mii"},
		{"gemini-model", "/completions", `"prompt":"a","suffix":"b"`, "suffix", "kind gemini"},
		{"ollama-model", chatPath, message + `,"n":2`, "n", "kind ollama"},
		{"kserve-model", "/moderations", `"input":"a"`, "model", "kind kserve"},
		{"blind-model", "/models/blind-model/infer", `"inputs":[]`, "model", "takes no tensors"},
	} {
		a := g.do(t, http.MethodPost, c.path, fmt.Sprintf(`{"model":%q,%s}`, c.model, c.members))
		var e struct {
			Error struct{ Message, Type, Param string }
		}
		if a.status != http.StatusBadRequest || json.Unmarshal([]byte(a.body), &e) != nil || e.Error.Type != "invalid_request_error" ||
			e.Error.Param != c.param || !strings.Contains(e.Error.Message, c.says) {
			t.Errorf("%s %s: %d %s, want %s refused: %s", c.model, c.path, a.status, a.body, c.param, c.says)
		}
	}
	if n := blindAsked.Load(); n != 0 {
		t.Errorf("%d requests reached an upstream", n)
	}
	for range 10 {
		a := g.do(t, http.MethodPost, chatPath, `{"model":"mixed",`+pictureMember+`}`)
		if a.status != http.StatusOK || a.header.Get("X-Sluice-Target") != "seer/x" {
			t.Fatalf("%d %s %s", a.status, a.header.Get("X-Sluice-Target"), a.body)
		}
	}
	if blindAsked.Load() != 0 || seerAsked.Load() != 10 {
		t.Errorf("%d and %d requests", blindAsked.Load(), seerAsked.Load())
	}
}

// TestCapabilitiesInTheList: /v1/models tells what is known, and leaves out what is not.
func TestCapabilitiesInTheList(t *testing.T) {
	base, _ := countingServer(t)
	g := boot(t, fmt.Sprintf("[[upstreams]]\nname = \"up\"\nbase_url = %q\nmodels = [\"known\", \"glob-*\"]\nlist_models = false\ncapabilities = { vision = false, tools = true }\n", base))
	for id, want := range map[string]string{
		"known":      `{"tensors":false,"vision":false,"tools":true}`,
		"glob-x":     `{"tensors":false,"vision":false,"tools":true}`,
		"demo-embed": `{"chat":false,"completions":false,"embeddings":true,"moderations":false,"responses":false,"other_routes":false,"tensors":false}`,
	} {
		var one struct {
			Capabilities json.RawMessage
		}
		a := g.do(t, http.MethodGet, "/models/"+id, "")
		if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &one) != nil || string(one.Capabilities) != want {
			t.Errorf("%s: %d %s, want %s", id, a.status, a.body, want)
		}
		if list := g.do(t, http.MethodGet, "/models", ""); id != "glob-x" && !strings.Contains(list.body, `"id":"`+id+`"`) || !strings.Contains(list.body, `"capabilities":`+want) {
			t.Errorf("%s is not so in the list: %s", id, list.body)
		}
	}
}
