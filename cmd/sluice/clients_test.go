package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// This file runs the client libraries of other people against a gateway in a
// process of its own, with the scripted upstream behind it. Each library has a
// small program in testdata/clients that performs the tasks of
// clients_tasks_test.go and tells what it saw; here that is compared with what the
// upstream sent.

// clientLimit bounds one program with all its tasks.
const clientLimit = 90 * time.Second

// realClient is one library.
type realClient struct {
	name string
	// install makes its program ready and returns its command line.
	install func(*testing.T) []string
	// lacks says what the library has no way to do.
	lacks []string
	// vague clients lose the words of an error that comes after a heartbeat in
	// the form of a comment; they still raise it.
	vague bool
	kinds map[int]string // names of the errors, by status
}

var realClients = []realClient{
	{name: "openai-node", install: nodeClient("openai.mjs"), kinds: map[int]string{
		401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}},
	{name: "ai-sdk", install: nodeClient("ai.mjs"), // has one choice, no list of models, and leaves by signal alone
		lacks: []string{"models", "choices", "assemble", "encoding", "break"},
		kinds: map[int]string{401: "APICallError", 404: "APICallError", 429: "APICallError", 500: "APICallError"}},
	{name: "langchain", install: nodeClient("langchain.mjs"), // has no list of models, and assembles one choice
		lacks: []string{"models", "choices", "assemble"},
		kinds: map[int]string{401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}},
	{name: "openai-python", install: pythonClient("sync"), lacks: []string{"signal"}, kinds: pythonKinds},
	{name: "openai-python-async", install: pythonClient("async"), kinds: pythonKinds},
	{name: "go-openai", install: goClient("./goopenai", "go.mod"), lacks: []string{"assemble"}, vague: true, kinds: map[int]string{
		401: "*openai.APIError", 404: "*openai.APIError", 429: "*openai.APIError", 500: "*openai.APIError"}},
	{name: "openai-go", install: goClient("./openaigo", "go.mod"), kinds: openaiGoKinds},
	{name: "openai-go-old", install: goClient("./openaigo", "old.mod"), kinds: openaiGoKinds},
}

var pythonKinds = map[int]string{
	401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError",
}

var openaiGoKinds = map[int]string{
	401: "*apierror.Error", 404: "*apierror.Error", 429: "*apierror.Error", 500: "*apierror.Error",
}

// TestClients runs every library through every task that it can do.
func TestClients(t *testing.T) {
	t.Parallel()
	for _, c := range realClients {
		t.Run(c.name, func(t *testing.T) {
			command := c.install(t) // one after the other, and before any clock matters
			t.Parallel()
			s := newClientStage(t, c)
			reports := s.perform(t, command)
			for _, task := range s.tasks {
				t.Run(strings.ReplaceAll(task.Name, " ", "_"), func(t *testing.T) {
					report, ok := reports[task.Name]
					if !ok {
						t.Fatal("the program did not report on this task")
					}
					task.check(t, s, report)
				})
			}
		})
	}
}

// clientStage is what one library plays on: an upstream and two gateways.
type clientStage struct {
	client realClient
	wall   *wall.Wall
	tasks  []clientTask
}

// What the upstream has on offer, beside its scripts.
const (
	slashModel  = "org/model:latest"
	clientModel = "wall-embed"
)

// newClientStage starts all servers and makes the tasks.
func newClientStage(t *testing.T, c realClient) *clientStage {
	base, w := wall.Start(t, wall.Models(slashModel, clientModel))
	upstream := "\n[demo]\nenabled = false\n[[upstreams]]\nname = \"wall\"\nbase_url = \"" + base + "\"\nmodels = [\"wall*\", \"org/*\"]\n"
	const raced = "GORACE=atexit_sleep_ms=50" // with the race detector a process idles for a second before it ends
	upstream += fmt.Sprintf("[data]\ndir = %q\n", t.TempDir())
	keys := issuedTasks(t, upstream)
	patient := bootProcess(t, upstream, raced)
	spendIssued(t, patient, keys)
	quick := bootProcess(t, clientTimes+strings.Replace(upstream, "[data]\ndir", "[data]\n# dir", 1), raced)
	s := &clientStage{client: c, wall: w}
	s.tasks = slices.DeleteFunc(slices.Concat(atQuick(patient.URL, keys), clientTasks(t, base, patient.URL, quick.URL, whenAsked(t, w))), func(task clientTask) bool {
		return slices.ContainsFunc(strings.Fields(task.needs), func(need string) bool { return slices.Contains(c.lacks, need) })
	})
	return s
}

// whenAsked serves URLs that answer once the upstream has the call whose key stands
// at their end.
func whenAsked(t *testing.T, w *wall.Wall) (baseURL string) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// Without a call the client stays, and the check of its task fails.
		_, _ = w.Await(r.Context(), func(q wall.Request) bool { return q.Key == "key:"+r.URL.Path[1:] && !q.Read.IsZero() })
	}))
	t.Cleanup(server.Close)
	return server.URL + "/"
}

// perform runs the program and returns its reports by name.
func (s *clientStage) perform(t *testing.T, command []string) map[string]clientReport {
	t.Helper()
	input, err := json.Marshal(s.tasks)
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
	err = program.Run()
	if err != nil || ctx.Err() != nil {
		t.Errorf("%s: %v, %v", command, err, ctx.Err())
	}
	if errs.Len() > 0 {
		t.Logf("the program wrote:\n%.4000s", errs.String())
	}
	reports := map[string]clientReport{}
	lines := bufio.NewScanner(&out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r clientReport
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Errorf("not a report (%v): %.200s", err, lines.Text())
			continue
		}
		reports[r.Name] = r
	}
	return reports
}

// call returns the upstream's record of a task.
func (s *clientStage) call(t *testing.T, r clientReport, match func(wall.Request) bool) wall.Request {
	t.Helper()
	return awaitCall(t, s.wall, clientKey(r.Name), match)
}

// ended matches calls that are over.
func ended(q wall.Request) bool { return q.End != wall.Running }
