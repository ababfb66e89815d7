package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// beatTimes are the limits of the status and of silence, scaled down.
const beatTimes = `
[timeouts]
commit_after = "100ms"
[heartbeat]
interval = "150ms"
`

// TestHeartbeatForms compares what stands on the wire while an upstream thinks.
// Each pattern is of a whole body; HEAD stands for id, created and model.
func TestHeartbeatForms(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, beatTimes))
	const (
		comments = `(: keep-alive\n)+`
		beat     = `data: {HEAD,"choices":\[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}\]}\n\n`
		beatNull = `data: {HEAD,"choices":\[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}\],"usage":null}\n\n`
		beatText = `data: {HEAD,"choices":\[{"index":0,"text":"","logprobs":null,"finish_reason":null}\]}\n\n`
		beatResp = `event: keepalive\ndata: {"type":"keepalive","sequence_number":\d+}\n\n`
		event    = `(data: .*\n\n)+`
		named    = `(event: response\..*\ndata: .*\n\n)+`
		done     = `data: \[DONE\]\n\n`
		inband   = `data: {"error":{"message":".*","type":".*","param":.*,"code":.*}}\n\n`
	)
	for i, tc := range []struct{ name, path, script, more, want string }{
		{"nothing yet", "/chat/completions", "headers=700ms,tokens=1", "", comments + event + done},
		{"headers, no role", "/chat/completions", "first=700ms,tokens=1", "", comments + event + done},
		{"role held back", "/chat/completions", "role=early,first=700ms,tokens=1", "", comments + event + done},
		{"upstream pings", "/chat/completions", "role=early,first=700ms,comments=20ms,tokens=1", "", comments + event + done},
		{"between tokens", "/chat/completions", "tokens=2,delay=700ms", "", event + "(" + beat + ")+" + event + done},
		{"usage asked for", "/chat/completions", "tokens=2,delay=700ms", askUsage, event + "(" + beatNull + ")+" + event + done},
		{"two choices", "/chat/completions", "tokens=2,delay=700ms", `,"n":2`, event + "(" + beat + ")+" + event + done},
		{"after the finish", "/chat/completions", "tokens=2,stall=end:700ms", "", event + done},
		{"completions", "/completions", "tokens=2,delay=700ms", "", event + "(" + beatText + ")+" + event + done},
		{"completions, nothing yet", "/completions", "first=700ms,tokens=1", "", comments + event + done},
		{"responses", "/responses", "tokens=2,delay=700ms", "", named + "(" + beatResp + ")+" + named},
		{"responses, nothing yet", "/responses", "headers=700ms,tokens=1", "", comments + named},
		{"fails late", "/chat/completions", "first=700ms,error=0:tgi", "", comments + inband},
		{"fails late without headers", "/chat/completions", "headers=700ms,status=400", "", comments + inband},
		{"fails between tokens", "/chat/completions", "stall=2:700ms,error=3", "", event + "(" + beat + ")+" + event + inband},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			model := wallModel(fmt.Sprint("beat", i), tc.script)
			a := g.do(t, http.MethodPost, tc.path, beatBody(tc.path, model, tc.more), "Accept: application/json")
			head := `"id":"(chatcmpl|cmpl)-wall\d+","object":"(chat.completion.chunk|text_completion)","created":\d+,"model":` + regexp.QuoteMeta(fmt.Sprintf("%q", model))
			want := "^" + strings.ReplaceAll(tc.want, "HEAD", head) + "$"
			if a.status != 200 || a.failure != nil || !regexp.MustCompile(want).MatchString(a.body) {
				t.Fatalf("status %d, %v, not the form %s\n%.3000s", a.status, a.failure, want, a.body)
			}
			if n := orNone(len(anyBeat.FindAllString(a.body, -1))); g.accessLine(t, model)["heartbeats"] != n {
				t.Errorf("%q heartbeats on the wire, %q in the log", n, g.accessLine(t, model)["heartbeats"])
			}
			sameIdentity(t, a.body)
		})
	}
}

// anyBeat finds every form of a heartbeat.
var anyBeat = regexp.MustCompile(`: keep-alive\n|event: keepalive\n|"(delta":{}|text":""),"logprobs":null,"finish_reason":null`)

func orNone(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func beatBody(path, model, more string) string {
	switch path {
	case "/completions":
		return fmt.Sprintf(`{"model":%q,"stream":true,"prompt":%q%s}`, model, words, more)
	case "/responses":
		return fmt.Sprintf(`{"model":%q,"stream":true,"input":%q%s}`, model, words, more)
	default:
		return chatBody(model, true, more)
	}
}

// sameIdentity proves that all chunks of an answer bear one id.
func sameIdentity(t *testing.T, body string) {
	t.Helper()
	ids := map[string]bool{}
	for _, id := range regexp.MustCompile(`(?m)^data: {"id":"[^"]*"`).FindAllString(body, -1) {
		ids[id] = true
	}
	if len(ids) > 1 {
		t.Errorf("several identities: %v", ids)
	}
}

// TestHeldStatus proves that a failure before commit_after has its own status, and
// that commit_after, not the first token, sends the status.
func TestHeldStatus(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, "[retry]\ntries = 1\n[timeouts]\ncommit_after = \"400ms\"\n"))
	a := g.chat(t, "wall:headers=100ms,status=418,errmsg=short", "")
	if e := a.refused(t, 418); e.Message != "short" {
		t.Errorf("%+v", e)
	}
	start := time.Now()
	res := g.openStream(t.Context(), t, chatBody("wall:headers=1m", true, ""))
	if took := time.Since(start); took < 400*time.Millisecond || took > patience/2 {
		t.Errorf("the status came after %v, want 400ms", took)
	}
	got := joined(readUntil(t, res.Body, start, func(s string) bool { return strings.HasSuffix(s, "\n") }))
	if got != ": keep-alive\n" {
		t.Errorf("with the status came %q", got)
	}
	for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"} {
		if res.Header.Get(name) != want {
			t.Errorf("%s: %q", name, res.Header.Get(name))
		}
	}
}

// TestNoHeartbeatInBodies proves that an answer that is not streamed stays one
// JSON text with its true status, however long it takes.
func TestNoHeartbeatInBodies(t *testing.T) {
	t.Parallel()
	base, _ := wall.Start(t)
	g := boot(t, overWall(base, beatTimes))
	model := wallModel("whole", "headers=500ms,tokens=2")
	a := g.whole(t, model, "")
	if a.status != 200 || !strings.HasPrefix(a.body, `{"id"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if line := g.accessLine(t, model); line["heartbeats"] != "" {
		t.Errorf("heartbeats in the log of an answer that has none: %v", line)
	}
	late := g.whole(t, "wall:headers=500ms,status=422", "")
	late.refused(t, 422)
}
