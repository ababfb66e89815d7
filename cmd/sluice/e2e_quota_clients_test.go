package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"sluice/providers/providertest/wall"
)

// retryingClient asks three times with the limits of the package openai: its default
// number of retries, and none.
const retryingClient = `
import sys, time, json, openai
url, key, patient, hasty = sys.argv[1:]
def ask(client, model):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": "one two three"}])
begun = time.monotonic()
client = openai.OpenAI(base_url=url, api_key=key)
for _ in range(3):
    ask(client, patient)
report = {"took": time.monotonic() - begun}
raw = client.chat.completions.with_raw_response.create(model=patient, messages=[{"role": "user", "content": "one"}])
report["limit"] = raw.headers.get("x-ratelimit-limit-requests")
once = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
try:
    for _ in range(3):
        ask(once, hasty)
except openai.RateLimitError as e:
    report.update(kind=type(e).__name__, code=e.code, type=e.type, after=e.response.headers.get("retry-after"))
begun = time.monotonic()
try:
    ask(client, hasty)
except openai.RateLimitError as e:
    report["gave_up_after"] = time.monotonic() - begun
print(json.dumps(report))
`

// TestLimitOfficialClient: OpenAI's package waits as long as it is told and goes on, and
// does not wait where waiting is in vain.
func TestLimitOfficialClient(t *testing.T) {
	t.Parallel()
	python := pythonClient("sync")(t)[0]
	base, w := wall.Start(t)
	g := boot(t, limited(base, "[[limits]]\nid = \"quick\"\nscope = \"key\"\nmodels = [\"*patient*\"]\nrequests_per_second = 1\n"+
		"[[limits]]\nid = \"slow\"\nscope = \"key\"\nmodels = [\"*hasty*\"]\nrequests_per_day = 2\n"))
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	var errs bytes.Buffer
	program := exec.CommandContext(ctx, python, "-c", retryingClient, g.URL, g.Key, wallModel("patient", ""), wallModel("hasty", ""))
	program.Env, program.Stderr = clientEnv(), &errs
	out, err := program.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	var r struct {
		Took                           float64
		Limit, Kind, Code, Type, After string
		GaveUpAfter                    *float64 `json:"gave_up_after"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Took < 1.5 || r.Took > 6 || r.Limit != "1" {
		t.Errorf("three calls at one a second took %v s (limit %q)", r.Took, r.Limit)
	}
	if r.Kind != "RateLimitError" || r.Code != "rate_limit_exceeded" || r.Type != "requests" || len(r.After) != 5 {
		t.Errorf("the error is %s", out)
	}
	if r.GaveUpAfter == nil || *r.GaveUpAfter > 0.4 {
		t.Errorf("a wait of hours was tried again: %s", out)
	}
	if n := calls(w, "hasty"); n != 2 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// TestLimitNodeClient: the official package for Node meets a 429, waits for as long as retry-after-ms
// says, asks again and succeeds; what it is told of its limit then is true.
func TestLimitNodeClient(t *testing.T) {
	t.Parallel()
	command := nodeClient("limits.mjs")(t)
	base, w := wall.Start(t)
	g := boot(t, limited(base, "[[limits]]\nid = \"quick\"\nscope = \"key\"\nrequests_per_second = 1\n"))
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	var errs bytes.Buffer
	program := exec.CommandContext(ctx, command[0], append(command[1:], g.URL, g.Key, wallModel("node", ""))...)
	program.Env, program.Stderr = clientEnv(), &errs
	out, err := program.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	var r struct {
		Waits     []struct{ MS, Waited float64 }
		Remaining []string
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(r.Waits) == 0 || calls(w, "node") != 3 || strings.Join(r.Remaining, " ") != "0 0 0" {
		t.Errorf("three calls at one a second: %s", out)
	}
	for _, wait := range r.Waits {
		if wait.MS < 1 || wait.MS > 1000 || wait.Waited < wait.MS {
			t.Errorf("told to wait %v ms, and asked again after %v", wait.MS, wait.Waited)
		}
	}
}
