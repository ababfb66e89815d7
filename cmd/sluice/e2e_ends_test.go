package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// endCase is an upstream's behaviour and what a client must get of it: a complete
// answer, one that breaks in the stream, or a status.
type endCase struct {
	script string
	tokens int    // whole tokens that reach the client
	status int    // of an answer that is refused; 0: a stream began
	end    string // as the access line names it; "" is ok
	code   string // of the error
	words  string // in its message
}

// ends are two gateways that try once, so that an end shows as it is. One has
// limits scaled down, for upstreams that stall.
type ends struct{ patient, quick *gatewayUnderTest }

func bootEnds(t *testing.T, base string) ends {
	t.Helper()
	const once = "[retry]\ntries = 1\n[sizes]\nanswer = \"10MiB\"\n"
	return ends{
		boot(t, overWall(base, once)),
		boot(t, overWall(base, once+"[timeouts]\nheaders = \"500ms\"\nfirst_token = \"500ms\"\nbetween_tokens = \"500ms\"\n")),
	}
}

func (e ends) of(script string) *gatewayUnderTest {
	if strings.Contains(script, "stall") {
		return e.quick
	}
	return e.patient
}

// good are the scripts whose answer is complete, however odd its form.
var good = []string{
	"", "nodone", "unterminated", "nodone,usage=none", "finish=length", "finish=content_filter",
	"after_done=chunk", "after_done=junk", "after_done=done", "after_done=comment",
	"gzip", "gzip,split=7", "http10", "http10,nodone", "crlf", "cr", "bom", "bom,crlf,split=1", "nospace", "multiline", "spaced",
	"event", "idlines", "retryline", "split=every", "split=7,crlf", "burst=16", "burst=5",
	"role=early", "role=none", "role=each", "role=first", "noid", "emptyid", "noindex", "nomodel", "nocreated", "noobject",
	"nochoices,usage=trailer", "finish_empty", "finish_in_last", "error_null", "content_null", "choices_first", "extra", "obfuscation",
	"logprobs", "filter", "alien", "alphabet=emoji,split=every", "alphabet=escape,split=every", "alphabet=utf8,split=every,crlf",
	"giant=3:8MiB", "reasoning=3", "informational=103", "header=x-odd:1",
}

// pings are what servers send while they think; none of it may reach a client or end the answer.
var pings = []string{"bare", "text", "single", "space", "blank", "event", "event_empty", "event_data", "empty", "delta"}

// broken are the streams that end before their end.
var broken = []endCase{
	{script: "cut=5", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "cut=5,partial", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "cut=16", tokens: 16, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "abort=5", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "abort=5,partial", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "abort=5,gzip", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "reset=5", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "cut=5,http10", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "nofinish", tokens: 16, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "nofinish,nodone", tokens: 16, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "nofinish,usage=trailer", tokens: 16, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "stall=5", tokens: 5, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "stall=5,partial", tokens: 5, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "stall=5,comments=50ms", tokens: 5, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "stall=5,comments=50ms,ping=delta", tokens: 5, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "malformed=5:3", tokens: 5, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "error=16:openai", tokens: 16, end: "upstream_error", words: "boom"},
	{script: "error=end:vllm", tokens: 16, end: "upstream_error", code: "500", words: "boom"},
	{script: "error=5:openai", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:string", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:vllm", tokens: 5, end: "upstream_error", code: "500", words: "boom"},
	{script: "error=5:llamacpp", tokens: 5, end: "upstream_error", code: "500", words: "boom"},
	{script: "error=5:llamacpp_old", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "error=5:tgi", tokens: 5, end: "upstream_refused", code: "422", words: "boom"},
	{script: "error=5:tgi_native", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:sglang", tokens: 5, end: "upstream_error", code: "500", words: "boom"},
	{script: "error=5:sglang_continue", tokens: 5, end: "upstream_error", code: "500", words: "boom"},
	{script: "error=5:localai", tokens: 5, end: "upstream_error", code: "server_error", words: "boom"},
	{script: "error=5:ollama", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "error=5:choices", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:event", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:event_flat", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:flat", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:padded", tokens: 5, end: "upstream_error", words: "boom"},
	{script: "error=5:raw", tokens: 5, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "error=5:finish", tokens: 5, end: "upstream_error", code: "upstream_error"},
}

// refused are the answers that fail before their first content, so that the status can tell.
var refused = []endCase{
	{script: "cut=headers", status: 502, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "cut=0", status: 502, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "reset=pre", status: 502, end: "upstream_unreachable", code: "upstream_unreachable"},
	{script: "abort=pre", status: 502, end: "upstream_unreachable", code: "upstream_unreachable"},
	{script: "reset=headers", status: 502, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "reset=0", status: 502, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "stall=pre", status: 504, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "stall=headers", status: 504, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "stall=0", status: 504, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "stall=0,comments=50ms", status: 504, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "status=200,err=empty", status: 502, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "html200", status: 502, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "malformed=0:3", status: 502, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "json200", status: 502, end: "upstream_error", words: "The server had an error"},
	{script: "error=0:openai", status: 502, end: "upstream_error", words: "boom"},
	{script: "error=0:vllm", status: 500, end: "upstream_error", code: "500", words: "boom"},
	{script: "error=0:tgi", status: 422, end: "upstream_refused", code: "422", words: "boom"},
	{script: "status=503,err=html", status: 503, end: "upstream_overloaded", code: "server_is_overloaded"},
	{script: "status=500,err=vllm", status: 500, end: "upstream_error", code: "500", words: "The server had an error"},
}

// giants are events over the limit of 16 MiB.
var giants = []endCase{
	{script: "giant=3:20MiB", tokens: 3, end: "upstream_event_too_large", code: "upstream_event_too_large"},
	{script: "giant=3:33MiB", tokens: 3, end: "upstream_event_too_large", code: "upstream_event_too_large"},
	{script: "giant=0:20MiB", status: 502, end: "upstream_event_too_large", code: "upstream_event_too_large"},
}

// refusedWhole are answers that are not streamed.
var refusedWhole = []endCase{
	{script: "html200", status: 502, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "json200", status: 502, end: "upstream_error", words: "The server had an error"},
	{script: "status=200,err=empty", status: 502, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "cut=3", status: 502, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "cut=3,http10", status: 502, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "malformed=3", status: 502, end: "upstream_protocol", code: "upstream_protocol_error"},
	{script: "abort=3", status: 502, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "reset=3", status: 502, end: "upstream_truncated", code: "upstream_truncated"},
	{script: "reset=pre", status: 502, end: "upstream_unreachable", code: "upstream_unreachable"},
	{script: "stall=3", status: 504, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "stall=pre", status: 504, end: "upstream_timeout", code: "upstream_timeout"},
	{script: "giant=3:12MiB", status: 502, end: "upstream_event_too_large", code: "upstream_event_too_large"},
	{script: "error=3:vllm", status: 500, end: "upstream_error"},
}

// check compares an answer, and what the log says of it, with what is meant.
func (tc *endCase) check(t *testing.T, g *gatewayUnderTest, a answer, model string) {
	t.Helper()
	var e wireError
	if tc.status != 0 {
		e = a.refused(t, tc.status)
	} else {
		e = a.broken(t, tc.tokens)
	}
	if tc.code != "" && e.Code != tc.code || !strings.Contains(e.Message, tc.words) {
		t.Errorf("error %+v, want code %q and the words %q", e, tc.code, tc.words)
	}
	line := g.accessLine(t, model)
	if line["end"] != tc.end || line["error"] == "" {
		t.Errorf("access line: %v", line)
	}
	// Without the upstream's count the tokens are estimated, not far off.
	told := strings.Contains(tc.script, "nofinish") && tc.status == 0
	out, _ := strconv.Atoi(line["out"])
	if tc.status == 0 && (line["estimated"] == "true") == told || tc.status == 0 && (out < tc.tokens || out > 3*tc.tokens) {
		t.Errorf("%d tokens flowed, settled as %v", tc.tokens, line)
	}
	if tc.status != 0 && (line["in"] != "0" || line["out"] != "0") {
		t.Errorf("nothing flowed, settled as %v", line)
	}
}

func TestCompleteStreams(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for i, script := range good {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			model := wallModel(fmt.Sprint("good", i), script)
			start := time.Now()
			a := g.chat(t, model, askUsage)
			took := time.Since(start)
			alphabet := wall.Chain{Seed: "wall"}
			if _, name, ok := strings.Cut(script, "alphabet="); ok {
				name, _, _ = strings.Cut(name, ",")
				alphabet.Alphabet = wall.Alphabet(name)
			}
			if n, err := alphabet.Verify(a.text[0]); n != 16 || err != nil {
				t.Errorf("%d tokens: %v", n, err)
			}
			if a.status != 200 || a.failure != nil || !a.done || a.finish[0] == "" || a.roles[0] != 1 || len(a.errors) != 0 || len(a.usage) != 1 {
				t.Errorf("not complete: %+v\n%.2000s", a.sse, a.body)
			}
			if line := g.accessLine(t, model); line["end"] != "ok" || line["out"] == "0" || line["malformed"] != "" {
				t.Errorf("access line: %v", line)
			}
			if took > patience/4 {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("ends at once", func(t *testing.T) {
		t.Parallel()
		start := time.Now()
		a := g.chat(t, "wall:hold=1m", "")
		if a.complete(t, 16); time.Since(start) > 5*soon {
			t.Errorf("the body ended %v after the request; [DONE] is its end", time.Since(start))
		}
	})
}

func TestUpstreamPings(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, ping := range pings {
		t.Run(ping, func(t *testing.T) {
			t.Parallel()
			a := g.chat(t, wallModel("ping-"+ping, "role=early,first=60ms,comments=5ms,tokens=4,delay=30ms,ping="+ping), "")
			a.complete(t, 4)
			if a.comments != 0 {
				t.Errorf("%d comments passed on", a.comments)
			}
		})
	}
}

func TestMalformedIsSkipped(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, n := range []string{"1", "2"} {
		model := wallModel("malformed"+n, "malformed=5:"+n)
		a := g.chat(t, model, "")
		a.complete(t, 16)
		if line := g.accessLine(t, model); line["malformed"] != n || line["end"] != "ok" {
			t.Errorf("access line: %v", line)
		}
	}
	if n := g.metric(t, "gateway_upstream_malformed_events_total"); n != 3 {
		t.Errorf("%v malformed events counted, want 3", n)
	}
}

func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	gateways := bootEnds(t, base)
	for i, tc := range append(broken, refused...) {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			g := gateways.of(tc.script)
			model := wallModel(fmt.Sprint("broken", i), tc.script)
			tc.check(t, g, g.chat(t, model, askUsage), model)
		})
	}
}

func TestGiantEvents(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, "[retry]\ntries = 1\n"))
	for i, tc := range giants {
		model := wallModel(fmt.Sprint("giant", i), tc.script)
		tc.check(t, g, g.chat(t, model, ""), model)
	}
}

func TestWholeAnswers(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	gateways := bootEnds(t, base)
	for i, script := range []string{"", "gzip", "http10", "split=every", "spaced", "extra,error_null", "giant=3:8MiB", "usage=none", "stall=3:50ms"} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			g := gateways.patient
			model := wallModel(fmt.Sprint("whole", i), script)
			a := g.whole(t, model, "")
			var got struct {
				Object  string
				Choices []struct{ Message struct{ Content string } }
			}
			if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 || a.failure != nil || len(got.Choices) != 1 {
				t.Fatalf("%d, %v, %v: %.500s", a.status, a.failure, err, a.body)
			}
			if text := got.Choices[0].Message.Content; text != wall.Text("wall", 16) || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %q", a.header.Get("Content-Type"), text)
			}
			line := g.accessLine(t, model)
			if line["end"] != "ok" || (line["in"]+" "+line["out"]+" "+line["estimated"] != wordTokens+" 16 false") != (script == "usage=none") {
				t.Errorf("access line: %v", line)
			}
		})
	}
	for i, tc := range refusedWhole {
		t.Run(tc.script, func(t *testing.T) {
			t.Parallel()
			g := gateways.of(tc.script)
			model := wallModel(fmt.Sprint("refused", i), tc.script)
			tc.check(t, g, g.whole(t, model, ""), model)
		})
	}
}

// TestUsage lets the upstream tell its usage everywhere and nowhere, to clients
// that ask for it and clients that do not.
func TestUsage(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, ""))
	for _, position := range []string{"", "trailer", "finish", "mid", "every", "every_null", "zero_then_real", "none", "twice", "after_done", "null_after"} {
		for _, asked := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,asked=%t", position, asked), func(t *testing.T) {
				t.Parallel()
				checkUsage(t, g, position, asked)
			})
		}
	}
}

func checkUsage(t *testing.T, g *gatewayUnderTest, position string, asked bool) {
	t.Helper()
	script, more := "usage="+position, ""
	if position == "" {
		script = ""
	}
	if asked {
		more = askUsage
	}
	model := wallModel(fmt.Sprintf("usage-%s-%t", position, asked), script)
	a := g.chat(t, model, more)
	a.complete(t, 16)
	line := g.accessLine(t, model)
	told := position != "none" && position != "after_done" && position != "mid"
	if told && line["in"]+" "+line["out"]+" "+line["estimated"] != wordTokens+" 16 false" {
		t.Errorf("settled as %v", line)
	}
	if !told && position != "mid" && line["estimated"] != "true" {
		t.Errorf("an estimate is not marked: %v", line)
	}
	if !asked {
		if strings.Contains(a.body, `"usage"`) || strings.Contains(a.body, `"choices":[]`) {
			t.Errorf("usage that was not asked for: ...%s", a.body[max(0, len(a.body)-600):])
		}
		return
	}
	if last := a.payloads[len(a.payloads)-1]; len(a.usage) != 1 || !strings.Contains(last, `"choices":[]`) {
		t.Fatalf("usage %v, last chunk %s", a.usage, last)
	}
	if u := a.usage[0]; told && (u.Completion != 16 || u.Prompt != 3) || u.Completion == 0 {
		t.Errorf("usage %+v", u)
	}
}

// TestTotalTime ends an answer in its middle when its whole time is up.
func TestTotalTime(t *testing.T) {
	t.Parallel()
	base, w := wall.Start(t)
	g := boot(t, overWall(base, "[timeouts]\ntotal = \"500ms\"\n"))
	model := wallModel("total", "tokens=100000,delay=10ms")
	a := g.chat(t, model, "")
	if n, err := wall.Verify("wall", a.text[0]); err != nil || n == 0 || a.done || len(a.errors) != 1 || a.errors[0].Code != "timeout" {
		t.Errorf("%d tokens, %v, done %t, errors %+v", n, err, a.done, a.errors)
	}
	if q := awaitCall(t, w, "total", func(q wall.Request) bool { return q.End != wall.Running }); q.End != wall.ClientGone {
		t.Errorf("the upstream ended with %q", q.End)
	}
	held := g.do(t, http.MethodPost, "/chat/completions", chatBody(wallModel("held", "first=1m"), true, ""))
	if e := held.refused(t, http.StatusGatewayTimeout); e.Code != "timeout" {
		t.Errorf("%+v", e)
	}
}
