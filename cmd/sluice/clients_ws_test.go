package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// This file runs WebSocket libraries of other people against a gateway in a process
// of its own. Their programs in testdata/clients know nothing of the protocol but
// which frames end an answer: they send what a task says and tell what came.

// strangerTask is what a program is to do on a connection of its own.
type strangerTask struct {
	Name        string            `json:"name"`
	Op          string            `json:"op"`
	URL         string            `json:"url"`
	Headers     map[string]string `json:"headers,omitempty"`
	Protocols   []string          `json:"protocols,omitempty"`
	Send        []string          `json:"send"`
	Binary      int               `json:"binary,omitempty"` // messages
	Ping        bool              `json:"ping,omitempty"`
	CancelAfter int               `json:"cancel_after,omitempty"` // chunks
	Until       int               `json:"until"`                  // so many answers are over; then the client closes

	tokens int // of the answers that it asks for, else
	check  func(*testing.T, *strangerStage, strangerReport)
}

// strangerReport is what it saw.
type strangerReport struct {
	Name        string   `json:"name"`
	Frames      []string `json:"frames"`
	Protocol    string   `json:"protocol"`
	Extensions  string   `json:"extensions"`
	Pong        string   `json:"pong"`
	LeftAt      int64    `json:"left_at"` // Unix time in ms
	CloseCode   int      `json:"close_code"`
	CloseReason string   `json:"close_reason"`
	Error       *struct {
		Kind    string `json:"kind"`
		Status  int    `json:"status"`
		Message string `json:"message"`
	} `json:"error"`
}

// strangerFrame is a frame of the gateway.
type strangerFrame struct {
	Type      string          `json:"type"`
	Stream    string          `json:"stream_id"`
	RequestID string          `json:"request_id"`
	Position  *int            `json:"position"`
	Data      *chunk          `json:"data"`
	Finish    string          `json:"finish_reason"`
	Usage     *usage          `json:"usage"`
	TTFT      *int            `json:"ttft_ms"`
	Total     *int            `json:"total_ms"`
	Status    int             `json:"status"`
	Error     json.RawMessage `json:"error"`
}

// TestClientsWS runs each library through all tasks.
func TestClientsWS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		install func(*testing.T) []string
	}{
		{"ws", nodeClient("ws.mjs")},
		{"websockets", func(t *testing.T) []string {
			python := pythonClient("sync")(t)[0]
			return []string{python, "-B", "testdata/clients/python/ws.py"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			command := c.install(t)
			t.Parallel()
			s := newStrangerStage(t)
			reports := s.perform(t, command)
			for _, task := range s.tasks {
				t.Run(strings.ReplaceAll(task.Name, " ", "_"), func(t *testing.T) {
					r, ok := reports[task.Name]
					if !ok {
						t.Fatal("the program did not report on this task")
					}
					if task.check != nil {
						task.check(t, s, r)
						return
					}
					s.whole(t, r, task)
				})
			}
			if logs := s.g.Logs(); strings.Contains(logs, s.g.Key) || strings.Contains(logs, "sluice-ticket.") {
				t.Errorf("a credential stands in the log:\n%s", logs)
			}
		})
	}
}

// strangerStage is what one library plays on.
type strangerStage struct {
	g     *gatewayUnderTest
	w     *wall.Wall
	tasks []strangerTask
}

// oftenPinged are pings that come often, so that a client that does not answer them is cut off.
const oftenPinged = "[websocket]\nping_interval = \"500ms\"\npong_timeout = \"3s\"\n"

func newStrangerStage(t *testing.T) *strangerStage {
	base, w := wall.Start(t)
	s := &strangerStage{g: bootProcess(t, overWall(base, oftenPinged)), w: w}
	s.tasks = append(s.credentialTasks(t), s.answerTasks()...)
	s.tasks = append(s.tasks, s.faultTasks()...)
	for i := range s.tasks {
		task := &s.tasks[i]
		task.Op = "frames"
		task.URL = strings.Replace(s.g.URL, "http", "ws", 1) + "/chat/completions"
		if task.Headers == nil && task.Protocols == nil {
			task.Headers = map[string]string{"Authorization": "Bearer " + s.g.Key}
		}
	}
	return s
}

// strangerCreate is a frame that asks for an answer.
func strangerCreate(stream, model string) string {
	return fmt.Sprintf(`{"type":"create","stream_id":%q,"request":{"model":%q,"messages":[{"role":"user","content":%q}],"stream_options":{"include_usage":true}}}`, stream, model, words)
}

func (s *strangerStage) credentialTasks(t *testing.T) []strangerTask {
	refused := func(status int) func(*testing.T, *strangerStage, strangerReport) {
		return func(t *testing.T, _ *strangerStage, r strangerReport) {
			if r.Error == nil || r.Error.Status != status {
				t.Errorf("%+v, want status %d; %q", r.Error, status, r.Frames)
			}
		}
	}
	ask := []string{strangerCreate("a", "wall:tokens=5")}
	key := "openai-insecure-api-key."
	return []strangerTask{
		{Name: "bearer", Send: ask, Until: 1, tokens: 5},
		{Name: "api-key", Headers: map[string]string{"api-key": s.g.Key}, Send: ask, Until: 1, tokens: 5},
		{Name: "subprotocol", Protocols: []string{"sluice.v1", key + s.g.Key}, Send: ask, Until: 1, tokens: 5},
		{Name: "subprotocol, key first", Protocols: []string{key + s.g.Key, "sluice.v1"}, Send: ask, Until: 1, tokens: 5},
		{Name: "ticket", Protocols: []string{"sluice.v1", "sluice-ticket." + s.g.ticket(t)}, Send: ask, Until: 1, tokens: 5},
		{Name: "ticket that is none", Protocols: []string{"sluice.v1", "sluice-ticket.AAAA"}, check: refused(403)},
		{Name: "wrong key", Protocols: []string{"sluice.v1", key + "sk-wrong"}, check: refused(401)},
		{Name: "wrong key in a header", Headers: map[string]string{"Authorization": "Bearer sk-wrong"}, check: refused(401)},
		{Name: "no key", Headers: map[string]string{"X-Nothing": "x"}, check: refused(401)},
		{Name: "page of another origin", Headers: map[string]string{"Authorization": "Bearer " + s.g.Key, "Origin": "https://evil.example"}, check: refused(403)},
	}
}

func (s *strangerStage) answerTasks() []strangerTask {
	return []strangerTask{
		{Name: "chat", Send: []string{strangerCreate("a", "wall:tokens=200")}, Until: 1, tokens: 200},
		{Name: "side by side", Send: []string{strangerCreate("a", "wall:tokens=30,delay=5ms"), strangerCreate("b", "wall:tokens=30,delay=5ms"), strangerCreate("c.-_", "wall:tokens=30,burst=30")}, Until: 3, tokens: 30},
		{Name: "large", Send: []string{strangerCreate("a", "wall:giant=3:4MiB")}, Until: 1, check: checkStrangerLarge},
		{Name: "one after the other", Send: []string{strangerCreate("a", wallModel("first-in-line", "tokens=10,first=50ms")), strangerCreate("a", wallModel("second-in-line", "tokens=10"))}, Until: 2, check: checkStrangerLine},
		{Name: "no name", Send: []string{strings.Replace(strangerCreate("a", "wall:tokens=5"), `"stream_id":"a",`, "", 1)}, Until: 1, tokens: 5},
		{Name: "silence longer than a ping", Send: []string{strangerCreate("a", "wall:first=4s,tokens=5")}, Until: 1, tokens: 5},
		{Name: "ping", Ping: true, Send: []string{strangerCreate("a", "wall:tokens=5")}, Until: 1, tokens: 5},
		{Name: "cancel", Send: []string{strangerCreate("a", wallModel("cancel", "tokens=100000,delay=5ms"))}, CancelAfter: 5, Until: 1, check: checkStrangerCancel},
		{Name: "cancel of nothing", Send: []string{`{"type":"cancel","stream_id":"x"}`}, Until: 1, check: func(t *testing.T, _ *strangerStage, r strangerReport) {
			if m := r.messages(t); len(m) != 1 || m[0].Type != "cancelled" || m[0].Stream != "x" || r.CloseCode != 1000 {
				t.Errorf("%q, closed with %d", r.Frames, r.CloseCode)
			}
		}},
	}
}

func (s *strangerStage) faultTasks() []strangerTask {
	return []strangerTask{
		{Name: "cut", Send: []string{strangerCreate("a", "wall:cut=5")}, Until: 1, check: strangerFailed(5, 502, "upstream_truncated")},
		{Name: "refused by the upstream", Send: []string{strangerCreate("a", "wall:context")}, Until: 1, check: strangerFailed(0, 400, "context_length_exceeded")},
		{Name: "no messages", Send: []string{`{"type":"create","stream_id":"a","request":{"model":"wall"}}`}, Until: 1, check: strangerFailed(0, 400, "")},
		{Name: "no JSON", Send: []string{"{", "{", "{", strangerCreate("a", "wall")}, Until: 4, check: strangerClosed(1007, "malformed_frame")},
		{Name: "no such type", Send: []string{`{"type":"x"}`, `{"type":"x"}`, `{"type":"x"}`}, Until: 4, check: strangerClosed(1008, "invalid_frame")},
		{Name: "binary", Binary: 3, Send: []string{}, Until: 4, check: strangerClosed(1003, "binary_frame")},
	}
}

// perform runs the program and returns its reports by name.
func (s *strangerStage) perform(t *testing.T, command []string) map[string]strangerReport {
	t.Helper()
	reports := map[string]strangerReport{}
	for _, r := range runTasks[strangerReport](t, command, s.tasks) {
		reports[r.Name] = r
	}
	return reports
}

// runTasks gives a program its tasks and returns its reports. It must end by itself.
func runTasks[R any](t *testing.T, command []string, tasks any) (reports []R) {
	t.Helper()
	input, err := json.Marshal(tasks)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	var out, errs bytes.Buffer
	program := exec.CommandContext(ctx, command[0], command[1:]...)
	program.Env = clientEnv()
	program.Stdin, program.Stdout, program.Stderr = bytes.NewReader(input), &out, &errs
	program.WaitDelay = time.Second
	if err := program.Run(); err != nil || ctx.Err() != nil {
		t.Errorf("%s: %v, %v", command, err, ctx.Err())
	}
	if errs.Len() > 0 {
		t.Logf("the program wrote:\n%.4000s", errs.String())
	}
	lines := bufio.NewScanner(&out)
	lines.Buffer(nil, 32<<20)
	for lines.Scan() {
		var r R
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Errorf("not a report (%v): %.200s", err, lines.Text())
			continue
		}
		reports = append(reports, r)
	}
	return reports
}

// messages reads the frames strictly: one object each, of a known type.
func (r *strangerReport) messages(t *testing.T) (all []strangerFrame) {
	t.Helper()
	for _, text := range r.Frames {
		var m strangerFrame
		if err := json.Unmarshal([]byte(text), &m); err != nil || !slices.Contains([]string{"accepted", "chunk", "done", "cancelled", "error"}, m.Type) {
			t.Errorf("not a frame (%v): %.300s", err, text)
		}
		all = append(all, m)
	}
	return all
}

// whole fails the test unless every stream brought one whole answer, the client was
// told so in the right order, and the connection closed cleanly.
func (s *strangerStage) whole(t *testing.T, r strangerReport, task strangerTask) {
	t.Helper()
	if r.Error != nil {
		t.Fatalf("%+v", *r.Error)
	}
	if want := strings.Join(slices.DeleteFunc(slices.Clone(task.Protocols), func(p string) bool { return p != "sluice.v1" }), ""); r.Protocol != want || r.Extensions != "" {
		t.Errorf("subprotocol %q, want %q; extensions %q", r.Protocol, want, r.Extensions)
	}
	if r.CloseCode != 1000 {
		t.Errorf("closed with %d %q", r.CloseCode, r.CloseReason)
	}
	if task.Ping && r.Pong != "are you there?" {
		t.Errorf("pong %q", r.Pong)
	}
	streams := map[string][]strangerFrame{}
	for _, m := range r.messages(t) {
		streams[m.Stream] = append(streams[m.Stream], m)
	}
	if len(streams) != len(task.Send) {
		t.Errorf("%d streams for %d requests", len(streams), len(task.Send))
	}
	for name, messages := range streams {
		checkStrangerAnswer(t, name, messages, task.tokens)
	}
}

// checkStrangerAnswer reads one answer: accepted, chunks as SSE would have them with usage
// last, done.
func checkStrangerAnswer(t *testing.T, name string, messages []strangerFrame, tokens int) {
	t.Helper()
	var text string
	var finish string
	last := len(messages) - 1
	for i, m := range messages {
		if want := map[int]string{0: "accepted", last: "done"}[i]; want != "" && m.Type != want || want == "" && (m.Type != "chunk" || m.Data == nil) {
			t.Fatalf("stream %s: frame %d of %d is %+v", name, i, last+1, m)
		}
		if m.Data == nil {
			continue
		}
		for _, c := range m.Data.Choices {
			text += c.Delta.Content
			finish += c.Stop
		}
		if (m.Data.Usage != nil) != (i == last-1) {
			t.Errorf("stream %s: usage %+v in frame %d of %d", name, m.Data.Usage, i, last+1)
		}
	}
	if n, err := wall.Verify("wall", text); n != tokens || err != nil || finish != "stop" {
		t.Errorf("stream %s: %d of %d tokens, %v, finish %q", name, n, tokens, err, finish)
	}
	if m := messages[0]; m.RequestID == "" || m.Position == nil || *m.Position != 0 {
		t.Errorf("stream %s: %+v", name, m)
	}
	if m := messages[last]; m.Finish != "stop" || m.Usage == nil || m.Usage.Completion != tokens || m.Usage.Prompt != 3 || m.TTFT == nil || m.Total == nil || *m.Total < *m.TTFT {
		t.Errorf("stream %s: %+v", name, m)
	}
}

func checkStrangerLarge(t *testing.T, _ *strangerStage, r strangerReport) {
	size := 0
	for _, f := range r.Frames {
		size = max(size, len(f))
	}
	if m := r.messages(t); size < 4<<20 || m[len(m)-1].Type != "done" || r.CloseCode != 1000 {
		t.Errorf("the largest frame has %d bytes, the last is %+v", size, m[len(m)-1])
	}
}

// checkStrangerLine reads two answers of one lane.
func checkStrangerLine(t *testing.T, s *strangerStage, r strangerReport) {
	var accepted []string
	ids, dones := map[string]int{}, 0
	for _, m := range r.messages(t) {
		if m.Type == "accepted" {
			if ids[m.RequestID] == 0 {
				ids[m.RequestID] = len(ids) + 1
			}
			accepted = append(accepted, fmt.Sprintf("%d at %d", ids[m.RequestID], *m.Position))
		}
		if m.Type == "done" {
			dones++
		}
	}
	if want := []string{"1 at 0", "2 at 1", "2 at 0"}; !slices.Equal(accepted, want) || dones != 2 {
		t.Errorf("accepted %q, want %q; %d done", accepted, want, dones)
	}
	first, second := awaitCall(t, s.w, "first-in-line", ended), awaitCall(t, s.w, "second-in-line", ended)
	if second.Started.Before(first.Ended.Add(-5 * time.Millisecond)) {
		t.Errorf("the second began %v before the first had ended", first.Ended.Sub(second.Started))
	}
}

func checkStrangerCancel(t *testing.T, s *strangerStage, r strangerReport) {
	m := r.messages(t)
	if len(m) == 0 || r.CloseCode != 1000 {
		t.Fatalf("%q, closed with %d, %+v", r.Frames, r.CloseCode, r.Error)
	}
	if last := m[len(m)-1]; last.Type != "cancelled" || last.Stream != "a" || last.Usage == nil || last.Usage.Completion < 5 || last.Usage.Completion > 1000 {
		t.Errorf("%+v", last)
	}
	q := awaitCall(t, s.w, "cancel", ended)
	if after := upTo(q, r.LeftAt); q.End != wall.ClientGone || after > soon {
		t.Errorf("the upstream ended with %q, %v after the cancel", q.End, after)
	}
}

// strangerFailed wants an answer that failed after so many tokens.
func strangerFailed(tokens, status int, code string) func(*testing.T, *strangerStage, strangerReport) {
	return func(t *testing.T, _ *strangerStage, r strangerReport) {
		m := r.messages(t)
		if len(m) == 0 || r.CloseCode != 1000 {
			t.Fatalf("%q, closed with %d, %+v", r.Frames, r.CloseCode, r.Error)
		}
		text := ""
		for _, m := range m {
			if m.Data != nil && len(m.Data.Choices) > 0 {
				text += m.Data.Choices[0].Delta.Content
			}
		}
		if n, err := wall.Verify("wall", text); n != tokens || err != nil {
			t.Errorf("%d of %d tokens: %v", n, tokens, err)
		}
		last := m[len(m)-1]
		if e := readError(t, `{"error":`+string(last.Error)+`}`); last.Type != "error" || last.Stream != "a" || last.Status != status || e.Code != code || e.Message == "" {
			t.Errorf("%+v %+v", last, e)
		}
	}
}

// strangerClosed wants errors of the connection, and then its close by the gateway.
func strangerClosed(closeCode int, code string) func(*testing.T, *strangerStage, strangerReport) {
	return func(t *testing.T, _ *strangerStage, r strangerReport) {
		m := r.messages(t)
		if len(m) == 0 || r.CloseCode != closeCode {
			t.Fatalf("%q, closed with %d %q, %+v", r.Frames, r.CloseCode, r.CloseReason, r.Error)
		}
		for _, m := range m {
			if e := readError(t, `{"error":`+string(m.Error)+`}`); m.Type != "error" || m.Stream != "" || e.Code != code {
				t.Errorf("%+v %+v", m, e)
			}
		}
	}
}

// besideModules copies the browser's modules beside a program that imports them.
func besideModules(t *testing.T, program string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(filepath.Dir(program), "static"), os.DirFS(filepath.Join(repoRoot, "web", "static"))); err != nil {
		t.Fatal(err)
	}
}

// TestModuleInNode runs the browser's client in Node, which ends when the client is
// closed.
func TestModuleInNode(t *testing.T) {
	t.Parallel()
	command := nodeClient("module.mjs")(t)
	besideModules(t, command[1])
	base, w := wall.Start(t)
	g := bootProcess(t, overWall(base, ""))
	type task struct {
		Name       string `json:"name"`
		Op         string `json:"op"`
		Transport  string `json:"transport"`
		BaseURL    string `json:"base_url"`
		APIKey     string `json:"api_key"`
		Model      string `json:"model"`
		Prompt     string `json:"prompt"`
		LeaveAfter int    `json:"leave_after,omitempty"`
	}
	var tasks []task
	for _, transport := range transports {
		tasks = append(tasks,
			task{transport + " whole", "chat", transport, g.URL, g.Key, "wall:tokens=30", words, 0},
			task{transport + " stopped", "chat", transport, g.URL, g.Key, wallModel("node-"+transport, "tokens=100000,delay=5ms"), words, 3},
			task{transport + " wrong key", "chat", transport, g.URL, "sk-wrong", "wall", words, 0})
	}
	type report struct {
		pageReport
		Name  string
		Error *struct {
			Kind   string
			Status int
		}
	}
	seen := 0
	for _, r := range runTasks[report](t, command, tasks) {
		seen++
		transport, what, _ := strings.Cut(r.Name, " ")
		switch {
		case what == "whole" && r.Error == nil:
			r.complete(t, 30)
		case what == "stopped" && r.Error != nil && r.Error.Kind == "AbortError" && len(r.Deltas) == 3:
			if q := awaitCall(t, w, "node-"+transport, ended); q.End != wall.ClientGone || upTo(q, r.LeftAt) > soon {
				t.Errorf("the upstream ended with %q, %v after the client had left", q.End, upTo(q, r.LeftAt))
			}
		case what == "wrong key" && r.Error != nil && r.Error.Kind == "SluiceError" && r.Error.Status == 401:
		default:
			t.Errorf("%s: %+v, %+v", r.Name, r.Answer, r.Error)
		}
	}
	if seen != len(tasks) {
		t.Errorf("%d reports of %d tasks", seen, len(tasks))
	}
}

// TestModuleTypes lets TypeScript read the browser's modules, whose types stand in
// comments, and a program that relies on them.
func TestModuleTypes(t *testing.T) {
	t.Parallel()
	program := nodeClient("types.ts")(t)[1]
	besideModules(t, program)
	here := filepath.Dir(program)
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	compiler := exec.CommandContext(ctx, "node", filepath.Join(here, "..", "node_modules", "typescript", "bin", "tsc"), "--noEmit", "--strict", "--allowJs", "--checkJs",
		"--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable", program)
	compiler.WaitDelay = time.Second
	if out, err := compiler.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
