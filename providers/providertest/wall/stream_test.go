package wall

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestStreamShapes(t *testing.T) {
	base, _ := Start(t)
	for _, tc := range []struct {
		spec string
		want func(body string, c collected) bool
	}{
		{"", func(b string, c collected) bool {
			return strings.HasSuffix(b, "data: [DONE]\n\n") && c.chunks[0].Choices[0].Delta.Role == "assistant"
		}},
		{"nospace", func(b string, _ collected) bool {
			return strings.HasPrefix(b, `data:{"id"`) && strings.Contains(b, "data:[DONE]")
		}},
		{"crlf", func(b string, _ collected) bool {
			return strings.HasSuffix(b, "data: [DONE]\r\n\r\n") && strings.Count(b, "\n") == strings.Count(b, "\r\n")
		}},
		{"bom", func(b string, _ collected) bool { return strings.HasPrefix(b, "\uFEFFdata") }},
		{"event", func(b string, _ collected) bool { return strings.HasPrefix(b, "event: chat.completion.chunk\ndata: {") }},
		{"idlines,retryline", func(b string, _ collected) bool {
			return strings.HasPrefix(b, "retry: 3000\nid: 0\ndata: {") && strings.Contains(b, "\nid: 18\ndata: [DONE]")
		}},
		{"spaced", func(b string, _ collected) bool { return strings.Contains(b, `"choices": [{"index": 0, "delta": {`) }},
		{"unterminated", func(b string, _ collected) bool { return strings.HasSuffix(b, "}\n\ndata: [DONE]\n") }},
		{"comments=10ms first=60ms", func(b string, _ collected) bool { return strings.HasPrefix(b, ":\n\n:\n\n") }},
		{"keepalive=20ms first=50ms ping=single", func(b string, _ collected) bool { return strings.HasPrefix(b, ": keep-alive\n: keep-alive\ndata") }},
		{"first=30ms keepalive=20ms ping=event_data", func(b string, _ collected) bool {
			return strings.HasPrefix(b, "event: ping\ndata: {\"type\":\"ping\"}\n\ndata")
		}},
		{"norole", func(b string, c collected) bool { return !strings.Contains(b, `"role"`) }},
		{"role_each", func(b string, c collected) bool { return strings.Count(b, `"role":"assistant"`) == 16 }},
		{"role=first", func(b string, c collected) bool {
			return strings.Count(b, `"role":"assistant","content":"`) == 1 && len(c.chunks) == 17
		}},
		{"noid", func(b string, c collected) bool {
			return !strings.Contains(b, `"id"`) && strings.HasPrefix(b, `data: {"object"`)
		}},
		{"emptyid", func(b string, c collected) bool { return *c.chunks[3].ID == "" }},
		{"noindex", func(b string, c collected) bool { return !strings.Contains(b, `"index"`) }},
		{"nomodel nocreated noobject", func(b string, c collected) bool {
			return !strings.Contains(b, `"model"`) && !strings.Contains(b, `"created"`) && !strings.Contains(b, `"object"`)
		}},
		{"nochoices usage=trailer", func(b string, c collected) bool {
			return c.chunks[len(c.chunks)-1].Choices == nil && !strings.Contains(b, `"choices":[]`)
		}},
		{"nochoices choices_first usage=trailer", func(b string, c collected) bool { return !strings.Contains(b, `"choices":[]`) && c.bad == 0 }},
		{"choices_first", func(b string, c collected) bool { return strings.HasPrefix(b, `data: {"choices":[{`) }},
		{"finish_empty", func(b string, c collected) bool { return strings.Count(b, `"finish_reason":""`) == 17 }},
		{"finish_in_last", func(b string, c collected) bool { return len(c.chunks) == 17 }},
		{"error_null extra obfuscation logprobs filter", func(b string, c collected) bool {
			return strings.Contains(b, `"error":null`) && strings.Contains(b, `"x_extra":true`) && strings.Contains(b, `"obfuscation":"`) &&
				strings.Contains(b, `"logprob":-0.25`) && len(c.chunks[0].Choices) == 0 && len(c.chunks) == 19
		}},
		{"content_null", func(b string, c collected) bool { return strings.Count(b, `"content":null`) == 2 }},
		{"alien", func(b string, c collected) bool { return strings.Contains(b, `"mcp_tool_result"`) }},
		{"usage=trailer", func(b string, c collected) bool {
			return fmt.Sprint(c.usages) == "[16]" && len(c.chunks[len(c.chunks)-1].Choices) == 0
		}},
		{"usage=finish", func(b string, c collected) bool {
			return fmt.Sprint(c.usages) == "[16]" && *c.chunks[len(c.chunks)-1].Choices[0].FinishReason == "stop"
		}},
		{"usage=mid", func(b string, c collected) bool { return fmt.Sprint(c.usages) == "[16]" && c.chunks[9].Usage != nil }},
		{"usage=every tokens=3", func(b string, c collected) bool { return fmt.Sprint(c.usages) == "[0 1 2 3 3 3]" }},
		{"usage=every_null", func(b string, c collected) bool { return strings.Count(b, `"usage":null`) == 18 && len(c.usages) == 1 }},
		{"usage=zero_then_real tokens=1", func(b string, c collected) bool { return fmt.Sprint(c.usages) == "[0 0 0 1]" }},
		{"usage=twice", func(b string, c collected) bool { return fmt.Sprint(c.usages) == "[16 16]" }},
		{"usage=null_after", func(b string, c collected) bool {
			return strings.HasSuffix(b, "\"choices\":[],\"usage\":null}\n\ndata: [DONE]\n\n")
		}},
		{"usage=after_done", func(b string, c collected) bool { return strings.Index(b, "[DONE]") < strings.Index(b, `"usage":{`) }},
		{"after_done=chunk", func(b string, c collected) bool { return strings.Index(b, "[DONE]") < strings.Index(b, "after done") }},
		{"split=1 tokens=2", func(b string, c collected) bool { return c.finish == "stop" }},
		{"splitat=3+9+400", func(b string, c collected) bool { return c.finish == "stop" }},
		{"gzip", func(b string, c collected) bool { return c.finish == "stop" }},
		{"http10", func(b string, c collected) bool { return c.finish == "stop" }},
		{"burst=5", func(b string, c collected) bool { return c.finish == "stop" }},
		{"stall=3:20ms partial", func(b string, c collected) bool { return c.finish == "stop" && c.bad == 0 }},
		{"stall=3:30ms comments=10ms", func(b string, c collected) bool { return strings.Count(b, "\n:\n") == 2 }},
		{"giant=4:200KiB", func(b string, c collected) bool { return len(b) > 200<<10 }},
		{"giant=4:200KiB burst=3", func(b string, c collected) bool { return len(b) > 200<<10 }},
		{"malformed=4", func(b string, c collected) bool { return c.bad == 1 }},
		{"malformed=4:3", func(b string, c collected) bool { return c.bad == 3 }},
		{"hold=1ms", func(b string, c collected) bool { return c.done }},
		{"header=x-a:b%20c ctype=text/event-stream", func(b string, c collected) bool { return c.done }},
		{"error=4:sglang_continue", func(b string, c collected) bool {
			return strings.Contains(b, `{"error":{"object":"error"`) && c.finish == "stop"
		}},
		{"delay=1ms comments=5ms ping=delta", func(b string, c collected) bool { return c.done }},
		{"alphabet=emoji seed=wall", nil}, {"alphabet=utf8", nil}, {"alphabet=escape spaced", nil},
	} {
		t.Run(tc.spec, func(t *testing.T) {
			body, err := chatStream(t, base, tc.spec)
			if err != nil {
				t.Fatal(err)
			}
			c := collect(strings.ReplaceAll(body, "\r\n", "\n"))
			if tc.want != nil && !tc.want(body, c) {
				t.Errorf("body:\n%s", head(body))
			}
			plan, _ := Parse(tc.spec)
			s := plan.Script(0)
			_, text, _ := s.content()
			if strings.HasPrefix(tc.spec, "after_done") || strings.HasPrefix(tc.spec, "bom") {
				return // the extra chunk is not of the chain; the mark hides the first line from the reader
			}
			if n, err := s.chain().Verify(c.text); n != text || err != nil || !c.done {
				t.Errorf("%d of %d tokens, done %v, %v\n%s", n, text, c.done, err, head(body))
			}
		})
	}
}

func head(s string) string { return s[:min(len(s), 3000)] }

// TestWritesArriveApart reads a paced stream and finds each token on its own, when it was sent.
func TestWritesArriveApart(t *testing.T) {
	base, w := Start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	raw, _ := json.Marshal(chatBody("tokens=4 stall=2", true))
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, base+"/chat/completions", bytes.NewReader(raw))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	for range 3 {
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: {") {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = lines.ReadString('\n')
	}
	if lines.Buffered() != 0 || w.Active() != 1 {
		t.Errorf("%d bytes too many, %d active", lines.Buffered(), w.Active())
	}
	_ = res.Body.Close()
}
