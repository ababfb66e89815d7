package main

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// clientTask is one thing for a client to do. The programs read it as JSON.
type clientTask struct {
	Name     string   `json:"name"`
	Op       string   `json:"op"`
	BaseURL  string   `json:"base_url"`
	APIKey   string   `json:"api_key"`
	Model    string   `json:"model"`
	Prompt   string   `json:"prompt"`
	N        int      `json:"n,omitempty"`
	Tools    []string `json:"tools,omitempty"`
	Input    []string `json:"input,omitempty"`
	Encoding string   `json:"encoding,omitempty"` // of embeddings; "" leaves it to the library

	// A client that leaves: by "signal" (abort, cancellation) or by "break" (the loop
	// ends, the stream is closed), after so many pieces of text, or when a URL answers;
	// by signal, after a pause.
	Leave      string `json:"leave,omitempty"`
	LeaveAfter int    `json:"leave_after,omitempty"`
	LeaveWhen  string `json:"leave_when,omitempty"`
	PauseMS    int    `json:"leave_pause_ms,omitempty"`

	needs string // what a library may lack, in words
	check func(*testing.T, *clientStage, clientReport)
}

// clientReport is what a client saw.
type clientReport struct {
	Name   string   `json:"name"`
	Text   []string `json:"text"`   // by choice
	Finish []string `json:"finish"` // by choice
	Usage  *struct {
		Prompt     int `json:"prompt"`
		Completion int `json:"completion"`
		Total      int `json:"total"`
	} `json:"usage"`
	Tools []struct {
		ID        string `json:"id"`
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"tools"`
	Models  []string    `json:"models"`
	Vectors [][]float64 `json:"vectors"`
	LeftAt  int64       `json:"left_at"` // Unix time in ms
	Error   *struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
		Status  int    `json:"status"`
		Code    string `json:"code"`
		Type    string `json:"type"`
		Left    string `json:"left"` // of x-ratelimit-remaining-requests, where the library shows it
		Full    string `json:"full"`
	} `json:"error"`
}

// clientTimes are the limits of a gateway that commits and beats early, for a
// silence of clientSilence that nobody between bears for longer than clientBears.
const (
	clientTimes = `
[timeouts]
commit_after = "300ms"
[heartbeat]
interval = "300ms"
`
	clientSilence = "4s"
	clientBears   = 2 * time.Second
)

// clientKey is the name under which the upstream counts the calls of a task.
func clientKey(task string) string { return strings.NewReplacer(" ", "-", ",", "").Replace(task) }

// clientTasks makes the tasks. The patient gateway has the times of its default
// configuration, the quick one clientTimes. What is below asked answers once the
// upstream has the call of that key.
func clientTasks(t *testing.T, upstream, patient, quick, asked string) []clientTask {
	tasks := slices.Concat(
		catalogTasks(), contentTasks(), completionTasks(), refusalTasks(),
		atQuick(quick, brokenTasks()), atQuick(quick, leavingTasks(asked)), silenceTasks(t, upstream, quick),
	)
	for i := range tasks {
		task := &tasks[i]
		if task.BaseURL == "" {
			task.BaseURL = patient
		}
		if task.APIKey == "" {
			task.APIKey = testKey
		}
		if script, ok := strings.CutPrefix(task.Model, "wall:"); ok {
			task.Model = wallModel(clientKey(task.Name), script)
		}
		if task.LeaveWhen != "" {
			task.LeaveWhen += clientKey(task.Name)
		}
		task.Prompt = words
	}
	return tasks
}

func atQuick(baseURL string, tasks []clientTask) []clientTask {
	for i := range tasks {
		tasks[i].BaseURL = baseURL
	}
	return tasks
}

func catalogTasks() []clientTask {
	input := []string{"a drop", "Wasser fällt, 水"}
	vectors := func(t *testing.T, s *clientStage, r clientReport) { checkClientVectors(t, s, r, input) }
	return []clientTask{
		{Name: "models list", Op: "models", needs: "models", check: func(t *testing.T, _ *clientStage, r clientReport) {
			noError(t, r)
			if !slices.Contains(r.Models, slashModel) || !slices.Contains(r.Models, clientModel) {
				t.Errorf("listed: %q", r.Models)
			}
		}},
		{Name: "models retrieve", Op: "model", needs: "models", Model: slashModel, check: func(t *testing.T, _ *clientStage, r clientReport) {
			noError(t, r)
			if !slices.Equal(r.Models, []string{slashModel}) {
				t.Errorf("retrieved: %q", r.Models)
			}
		}},
		{Name: "models retrieve none", Op: "model", needs: "models", Model: "nobody/none", check: refusedWith(404, "model_not_found", "")},
		{Name: "embeddings default", Op: "embeddings", needs: "encoding", Model: clientModel, Input: input, check: vectors},
		{Name: "embeddings float", Op: "embeddings", Model: clientModel, Input: input, Encoding: "float", check: vectors},
		{Name: "embeddings base64", Op: "embeddings", needs: "encoding", Model: clientModel, Input: input, Encoding: "base64", check: vectors},
	}
}

func contentTasks() []clientTask {
	tools := []string{"look_up", "write_down"}
	return []clientTask{
		{Name: "chat", Op: "chat", Model: "wall:tokens=30", check: whole("", 30)},
		{Name: "chat emoji", Op: "chat", Model: "wall:tokens=30,alphabet=emoji", check: whole(wall.Emoji, 30)},
		{Name: "stream", Op: "stream", Model: "wall:tokens=200", check: whole("", 200)},
		{Name: "stream assembled", Op: "assemble", needs: "assemble", Model: "wall:tokens=50", check: whole("", 50)},
		{Name: "stream two choices", Op: "stream", needs: "choices", N: 2, Model: "wall:tokens=20", check: choices(20)},
		{Name: "assembled two choices", Op: "assemble", needs: "assemble choices", N: 2, Model: "wall:tokens=20", check: choices(20)},
		{Name: "tools stream", Op: "stream", Tools: tools, Model: "wall:tools=2,args=12", check: toolCalls(tools, 12)},
		{Name: "tools interleaved", Op: "stream", Tools: tools, Model: "wall:tools=2,args=12,tool_interleave", check: toolCalls(tools, 12)},
		{Name: "tools repeated ids", Op: "stream", Tools: tools, Model: "wall:tools=2,args=12,tool_repeat_id", check: toolCalls(tools, 12)},
		{Name: "tools assembled", Op: "assemble", needs: "assemble", Tools: tools, Model: "wall:tools=2,args=12", check: toolCalls(tools, 12)},
		{Name: "utf8 split at every byte", Op: "stream", Model: "wall:tokens=40,alphabet=utf8,split=every", check: whole(wall.UTF8, 40)},
		{Name: "emoji split at every byte", Op: "stream", Model: "wall:tokens=40,alphabet=emoji,split=every", check: whole(wall.Emoji, 40)},
		{Name: "escapes split at every byte", Op: "stream", Model: "wall:tokens=40,alphabet=escape,split=every", check: whole(wall.Escape, 40)},
	}
}

func completionTasks() []clientTask {
	return []clientTask{
		{Name: "completion", Op: "completion", Model: "wall:tokens=30", check: legacy("", 30)},
		{Name: "completion stream", Op: "completion_stream", Model: "wall:tokens=30", check: legacy("", 30)},
		{Name: "completion split at every byte", Op: "completion_stream", Model: "wall:tokens=30,alphabet=utf8,split=every", check: legacy(wall.UTF8, 30)},
	}
}

// refusalTasks fail before the first byte: a status, and the upstream's words.
func refusalTasks() (tasks []clientTask) {
	for _, op := range []string{"chat", "stream", "completion", "embeddings"} {
		tasks = append(tasks,
			clientTask{Name: "401 " + op, Op: op, APIKey: "sk-wrong", Model: "wall:", check: refusedWith(401, "invalid_api_key", "")},
			clientTask{Name: "404 " + op, Op: op, Model: "nobody-has-this", check: refusedWith(404, "model_not_found", "")},
			clientTask{Name: "429 " + op, Op: op, Model: "wall:status=429,retry_after=30", check: refusedWith(429, "rate_limit_exceeded", "Rate limit reached for requests")},
			clientTask{Name: "500 " + op, Op: op, Model: "wall:status=500,errmsg=burst%20pipe", check: refusedWith(500, "", "burst pipe")},
		)
	}
	for i := range tasks {
		if tasks[i].Op == "embeddings" {
			tasks[i].Input = []string{words}
		}
	}
	return tasks
}

// brokenTasks fail behind the 200: every client must raise.
func brokenTasks() []clientTask {
	return []clientTask{
		{Name: "error after content", Op: "stream", Model: "wall:error=5,errmsg=burst%20pipe", check: raises(5, "burst pipe")},
		{Name: "error after content, assembled", Op: "assemble", needs: "assemble", Model: "wall:error=5,errmsg=burst%20pipe", check: raises(-1, "")},
		{Name: "error after heartbeat", Op: "stream", Model: "wall:stall=5:900ms,error=5,errmsg=burst%20pipe", check: raises(5, "burst pipe")},
		{Name: "error before content, late", Op: "stream", Model: "wall:headers=1s,status=400,errmsg=burst%20pipe",
			check: func(t *testing.T, s *clientStage, r clientReport) {
				said := "burst pipe"
				if s.client.vague {
					said = ""
				}
				raises(0, said)(t, s, r)
			}},
		{Name: "upstream resets", Op: "stream", Model: "wall:reset=5,delay=20ms", check: raises(5, "")},
		{Name: "upstream ends early", Op: "stream", Model: "wall:cut=5", check: raises(5, "")},
		{Name: "done without finish", Op: "stream", Model: "wall:tokens=5,nofinish", check: raises(5, "")},
		{Name: "completion ends early", Op: "completion_stream", Model: "wall:cut=5", check: raises(5, "")},
	}
}

// leavingTasks leave; the upstream must know soon. A URL tells those that see
// nothing of the answer when the upstream has been asked.
func leavingTasks(asked string) []clientTask {
	const endless = "wall:tokens=100000,delay=5ms"
	return []clientTask{
		{Name: "break in a stream", Op: "stream", needs: "break", Leave: "break", LeaveAfter: 5, Model: endless, check: leaves(5)},
		{Name: "abort in a stream", Op: "stream", needs: "signal", Leave: "signal", LeaveAfter: 5, PauseMS: 50, Model: endless, check: leaves(5)},
		{Name: "abort in silence", Op: "stream", needs: "signal", Leave: "signal", LeaveAfter: 5, PauseMS: 500, Model: "wall:stall=5", check: leaves(5)},
		{Name: "abort before the first token", Op: "stream", needs: "signal", Leave: "signal", LeaveWhen: asked, PauseMS: 700, Model: "wall:headers=1m", check: leaves(0)},
		{Name: "abort of a whole answer", Op: "chat", needs: "signal", Leave: "signal", LeaveWhen: asked, PauseMS: 700, Model: "wall:headers=1m", check: leaves(0)},
	}
}

// silenceTasks go through something that cuts silent connections. Each has one of
// its own, since a connection that one task left idle must not be cut in another.
func silenceTasks(t *testing.T, upstream, quick string) []clientTask {
	tasks := []clientTask{
		{Name: "silence before the first token", Op: "stream", Model: "wall:tokens=20,headers=" + clientSilence, check: whole("", 20)},
		{Name: "silence after the role", Op: "stream", Model: "wall:tokens=20,role=early,first=" + clientSilence, check: whole("", 20)},
		{Name: "silence between tokens", Op: "stream", Model: "wall:tokens=20,stall=7:" + clientSilence, check: whole("", 20)},
		{Name: "silence, assembled", Op: "assemble", needs: "assemble", Model: "wall:tokens=20,stall=7:" + clientSilence, check: whole("", 20)},
		{Name: "silence of two choices", Op: "stream", needs: "choices", N: 2, Model: "wall:tokens=20,stall=7:" + clientSilence, check: choices(20)},
		{Name: "silence among tools", Op: "stream", Tools: []string{"look_up"}, Model: "wall:tools=1,args=12,stall=7:" + clientSilence,
			check: toolCalls([]string{"look_up"}, 12)},
		{Name: "silence of a completion", Op: "completion_stream", Model: "wall:tokens=20,stall=7:" + clientSilence, check: legacy("", 20)},
	}
	for i := range tasks {
		tasks[i].BaseURL = cutWhenSilent(t, quick, clientBears)
	}
	// Without the gateway the same silence is fatal, or the others would show nothing.
	control := clientTask{Name: "silence without heartbeats", Op: "stream", Model: "wall:tokens=20,stall=7:" + clientSilence, check: raises(7, "")}
	control.BaseURL = cutWhenSilent(t, upstream, clientBears)
	return append(tasks, control)
}

func noError(t *testing.T, r clientReport) {
	t.Helper()
	if r.Error != nil {
		t.Errorf("raised %+v", *r.Error)
	}
}

// checkClientText wants the first tokens of each choice's chain, and no others.
func checkClientText(t *testing.T, r clientReport, alphabet wall.Alphabet, choices, tokens int) {
	t.Helper()
	if len(r.Text) != choices {
		t.Fatalf("%d choices, want %d", len(r.Text), choices)
	}
	for i, text := range r.Text {
		chain := wall.Chain{Seed: "wall", Alphabet: alphabet}.Choice(i)
		if n, err := chain.Verify(text); n != tokens || err != nil {
			t.Errorf("choice %d: got %d of %d tokens (%v): %.200q", i, n, tokens, err, text)
		}
	}
}

// checkClientUsage wants the upstream's own numbers.
func checkClientUsage(t *testing.T, s *clientStage, r clientReport) {
	t.Helper()
	q := s.call(t, r, ended)
	if r.Usage == nil {
		t.Errorf("no usage; the upstream counted %d and %d", q.Prompt, q.Output)
	} else if r.Usage.Prompt != q.Prompt || r.Usage.Completion != q.Output || r.Usage.Total != q.Prompt+q.Output {
		t.Errorf("usage %+v; the upstream counted %d and %d", *r.Usage, q.Prompt, q.Output)
	}
}

func checkClientFinish(t *testing.T, r clientReport, want ...string) {
	t.Helper()
	if !slices.Equal(r.Finish, want) {
		t.Errorf("finish %q, want %q", r.Finish, want)
	}
}

// whole wants a complete chat answer with usage.
func whole(alphabet wall.Alphabet, tokens int) func(*testing.T, *clientStage, clientReport) {
	return func(t *testing.T, s *clientStage, r clientReport) {
		noError(t, r)
		checkClientText(t, r, alphabet, 1, tokens)
		checkClientFinish(t, r, "stop")
		checkClientUsage(t, s, r)
	}
}

// choices wants two of them.
func choices(tokens int) func(*testing.T, *clientStage, clientReport) {
	return func(t *testing.T, s *clientStage, r clientReport) {
		noError(t, r)
		checkClientText(t, r, "", 2, tokens)
		checkClientFinish(t, r, "stop", "stop")
		checkClientUsage(t, s, r)
	}
}

// legacy wants a complete answer of /completions. LangChain tells only its text.
func legacy(alphabet wall.Alphabet, tokens int) func(*testing.T, *clientStage, clientReport) {
	return func(t *testing.T, s *clientStage, r clientReport) {
		noError(t, r)
		checkClientText(t, r, alphabet, 1, tokens)
		if s.client.name != "langchain" {
			checkClientFinish(t, r, "stop")
			checkClientUsage(t, s, r)
		}
	}
}

func toolCalls(names []string, args int) func(*testing.T, *clientStage, clientReport) {
	return func(t *testing.T, s *clientStage, r clientReport) {
		noError(t, r)
		if len(r.Tools) != len(names) {
			t.Fatalf("tool calls %+v, want %q", r.Tools, names)
		}
		chain := wall.Chain{Seed: "wall"}
		for i, call := range r.Tools {
			if call.Name != names[i] || call.ID == "" || i > 0 && call.ID == r.Tools[0].ID {
				t.Errorf("tool call %d: %+v", i, call)
			}
			if n, err := chain.VerifyArgs(i, call.Arguments); n != args || err != nil || !json.Valid([]byte(call.Arguments)) {
				t.Errorf("tool call %d: %d of %d tokens (%v): %s", i, n, args, err, call.Arguments)
			}
		}
		checkClientFinish(t, r, "tool_calls")
		checkClientUsage(t, s, r)
	}
}

func checkClientVectors(t *testing.T, s *clientStage, r clientReport, input []string) {
	noError(t, r)
	if len(r.Vectors) != len(input) {
		t.Fatalf("%d vectors for %d texts", len(r.Vectors), len(input))
	}
	for i, text := range input {
		want := wall.Embedding(text, 8)
		if len(r.Vectors[i]) != len(want) {
			t.Fatalf("vector %d has %d numbers, want %d", i, len(r.Vectors[i]), len(want))
		}
		for j, x := range r.Vectors[i] {
			if math.Abs(x-float64(want[j])) > 1e-6 {
				t.Errorf("vector %d, number %d: %g, want %g", i, j, x, want[j])
			}
		}
	}
}

// refusedWith wants the library's own error for a status, with the code and the words.
func refusedWith(status int, code, said string) func(*testing.T, *clientStage, clientReport) {
	return func(t *testing.T, s *clientStage, r clientReport) {
		e := r.Error
		if e == nil {
			t.Fatalf("nothing raised: %+v", r)
		}
		if e.Status != status || e.Kind != s.client.kinds[status] || code != "" && e.Code != code || e.Message == "" || !strings.Contains(e.Message, said) {
			t.Errorf("raised %+v, want %s with status %d, code %q, saying %q", *e, s.client.kinds[status], status, code, said)
		}
	}
}

// raises wants so many tokens (-1: as many as may be) and then an error that says something.
func raises(tokens int, said string) func(*testing.T, *clientStage, clientReport) {
	return func(t *testing.T, _ *clientStage, r clientReport) {
		if r.Error == nil {
			t.Fatalf("the cut was silent: %+v", r)
		}
		if r.Error.Message == "" || !strings.Contains(r.Error.Message, said) {
			t.Errorf("raised %+v, want it to say %q", *r.Error, said)
		}
		if tokens >= 0 {
			text := strings.Join(r.Text, "")
			if n, err := wall.Verify("wall", text); n != tokens || err != nil {
				t.Errorf("got %d of %d tokens (%v): %q", n, tokens, err, text)
			}
		}
	}
}

// leaves wants the upstream to notice within a second, and what came before to be true.
func leaves(atLeast int) func(*testing.T, *clientStage, clientReport) {
	return func(t *testing.T, s *clientStage, r clientReport) {
		if r.LeftAt == 0 {
			t.Fatalf("did not leave: %+v", r)
		}
		q := s.call(t, r, func(q wall.Request) bool { return !q.Gone.IsZero() })
		if took := q.Gone.Sub(time.UnixMilli(r.LeftAt)); took > soon {
			t.Errorf("the upstream noticed after %v", took)
		}
		if n, err := wall.Verify("wall", strings.Join(r.Text, "")); n < atLeast || err != nil {
			t.Errorf("got %d tokens, at least %d were there: %v", n, atLeast, err)
		}
		if n := calls(s.wall, clientKey(r.Name)); n != 1 {
			t.Errorf("%d calls of the upstream", n)
		}
	}
}
