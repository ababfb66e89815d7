package openai

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming"
)

func playResponses(presentAs, text string) (raws []string, finished bool, r streaming.Report, end error) {
	p := New(Options{Upstream: upstream.Options{Name: "up"}, MaxEvent: 1 << 20})
	req := &providers.Request{ID: "req_1", Op: providers.Responses, Model: "m", Stream: true, Choices: 1, PresentAs: presentAs}
	prog := streaming.NewProgress(time.Now())
	finished = p.relayResponses(req, strings.NewReader(text), prog, func(batch []streaming.Event, err error) bool {
		if err != nil {
			end = err
		}
		for i := range batch {
			raws = append(raws, string(batch[i].Raw))
		}
		return true
	})
	return raws, finished, prog.Report(), end
}

func frames(data ...string) string {
	return "data: " + strings.Join(data, "\n\ndata: ") + "\n\n"
}

const (
	respCreated   = `{"type":"response.created","response":{"id":"r", "model":%s ,"output":[]}}`
	respDelta     = `{"type":"response.output_text.delta","delta":"model"}`
	respCompleted = `{"type":"response.completed","response":{"id":"r","metadata":{"model":"mine"},"usage":{"input_tokens":1,"output_tokens":2},"model":%s}}`
)

func TestResponsesPresentAs(t *testing.T) {
	made := func(model string) []string {
		return []string{fmt.Sprintf(respCreated, model), respDelta, fmt.Sprintf(respCompleted, model)}
	}
	for presentAs, want := range map[string]string{"": `"up-1"`, `pub"lic`: `"pub\"lic"`} {
		raws, finished, report, end := playResponses(presentAs, frames(made(`"up-1"`)...))
		if got := strings.Join(raws, "\n"); end != nil || !finished || got != strings.Join(made(want), "\n") || report.Repaired != 0 {
			t.Errorf("present as %q: %v\n%s", presentAs, end, got)
		}
	}
	if raws, _, _, _ := playResponses("public", frames(made("null")...)); strings.Contains(strings.Join(raws, ""), "public") {
		t.Errorf("a model that is null was replaced: %s", raws)
	}
}

func TestResponsesMalformed(t *testing.T) {
	done := fmt.Sprintf(respCompleted, `"m"`)
	for _, c := range []struct {
		data      []string
		events    int
		malformed int64
		kind      providers.ErrorKind // Internal: none
		finished  bool
	}{
		{[]string{respDelta, `{"type":`, done}, 2, 1, providers.Internal, true},
		{[]string{respDelta, `{`, `nonsense`, respDelta, `[]`, `"x"`, done}, 3, 4, providers.Internal, true},
		{[]string{respDelta, ` `, `{`, `{`, ` `, done}, 2, 2, providers.Internal, true},
		{[]string{respDelta, `{`, `{`, `{`, respDelta, done}, 1, 3, providers.Protocol, false},
		{[]string{respDelta, `{"type":"response.completed"`}, 1, 1, providers.Truncated, false},
	} {
		raws, finished, r, end := playResponses("", frames(c.data...))
		kind := providers.Internal
		if e := providers.AsError(end); e != nil {
			kind = e.Kind
		}
		if len(raws) != c.events || r.Malformed != c.malformed || kind != c.kind || finished != c.finished {
			t.Errorf("%q: %d events, %d malformed, finished %v, %v", c.data, len(raws), r.Malformed, finished, end)
		}
	}
}
