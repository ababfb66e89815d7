package router

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// teller tells a text in words, and goes on behind a prefill. It breaks after some words.
type teller struct {
	words  []string
	breaks int    // after so many words; -1: never
	mode   string // how it takes a prefill: "continue", "again" from the start, "echo" and go on, "refuse", "stall"
	can    providers.Capabilities
	bodies []string
}

func (t *teller) Capabilities(context.Context, providers.Feature) providers.Capabilities {
	return t.can
}

func (t *teller) Stream(ctx context.Context, req *providers.Request, _ *streaming.Progress) streaming.Stream {
	body := string(req.Rewrite("there", true))
	t.bodies = append(t.bodies, body)
	return func(yield func([]streaming.Event, error) bool) {
		from := 0
		for at := range t.words {
			if text := strings.Join(t.words[:at+1], ""); strings.Contains(body, `"content":"`+text+`"}]`) || strings.Contains(body, `go`+text+`"`) {
				from = at + 1
			}
		}
		if from > 0 {
			switch t.mode {
			case "refuse":
				yield(nil, &providers.Error{Kind: providers.Passed, Status: 400, Message: "no prefill"})
				return
			case "stall":
				<-ctx.Done()
				yield(nil, context.Cause(ctx))
				return
			case "again", "echo":
				from = 0
			}
		}
		steps := script(meta, streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Lifecycle, Dialect: streaming.Chat, Raw: []byte(`{"choices":[{"index":0,"delta":{"role":"assistant"}}]}`)}}})
		for i, w := range t.words[from:] {
			if from+i == t.breaks {
				steps = append(steps, streamtest.Step{Err: upstream(providers.Truncated)})
				break
			}
			raw := fmt.Sprintf(`{"choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`, w)
			steps = append(steps, streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Text, Dialect: streaming.Chat, Raw: []byte(raw), Size: len(w)}}})
		}
		steps = append(steps, streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Stop, Stop: "stop"}}},
			streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Usage, Usage: &streaming.UsageData{Prompt: 10, Completion: int64(len(t.words) - from), Total: 10}}}})
		for b, err := range streamtest.Stream(ctx, steps...) {
			if !yield(b, err) {
				return
			}
		}
	}
}

var counting = strings.SplitAfter("one two three four five six seven eight nine ten ", " ")[:10]

// heard is what a client got.
type heard struct {
	text      string
	stops     int
	continued bool
	usage     streaming.UsageData
	err       error
	progress  streaming.Report
}

func hear(t *testing.T, p *Pool, op providers.Op, body string) heard {
	t.Helper()
	req, err := providers.Parse(op, "/chat/completions", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	var h heard
	prog := streaming.NewProgress(time.Now())
	for batch, err := range New(onePool{p}, options()).Stream(t.Context(), req, prog) {
		prog.Count(batch, streaming.Uptime())
		h.err = err
		for i := range batch {
			ev := &batch[i]
			if ev.Kind == streaming.Text {
				text, ok := textOf(ev)
				if !ok {
					t.Errorf("no text: %s", ev.Raw)
				}
				h.text += text
			}
			if ev.Kind == streaming.Stop {
				h.stops++
				h.continued = h.continued || ev.Meta != nil && ev.Meta.Continued
			}
			if ev.Usage != nil {
				h.usage = *ev.Usage
			}
		}
	}
	h.progress = prog.Report()
	return h
}

func tellers(all ...*teller) *Pool {
	p := &Pool{Model: "m", Continue: true}
	for i, one := range all {
		p.Targets = append(p.Targets, &Target{Name: fmt.Sprintf("t%d", i), Provider: one, Phases: phasesForTest, Weight: 1, Priority: i})
	}
	return p
}

const askPlain = `{"model":"m","stream":true,"messages":[{"role":"user","content":"go"}]}`

var prefills = providers.Capabilities{Yes: providers.Prefill}

func TestContinue(t *testing.T) {
	whole := strings.Join(counting, "")
	some := func(n int) string { return strings.Join(counting[:n], "") }
	for name, c := range map[string]struct {
		body   string
		op     providers.Op
		second teller
		off    bool
		want   string
		calls  int // of the second
		good   bool
	}{
		"goes on":                   {askPlain, providers.Chat, teller{mode: "continue", breaks: -1, can: prefills}, false, whole, 1, true},
		"begins anew":               {askPlain, providers.Chat, teller{mode: "again", breaks: -1, can: prefills}, false, whole, 1, true},
		"stands in a prompt":        {`{"model":"m","stream":true,"prompt":"go"}`, providers.Completions, teller{mode: "continue", breaks: -1}, false, whole, 1, true},
		"repeats it in a prompt":    {`{"model":"m","stream":true,"prompt":"go"}`, providers.Completions, teller{mode: "echo", breaks: -1}, false, whole, 1, true},
		"answers a prompt":          {`{"model":"m","stream":true,"prompt":"go"}`, providers.Completions, teller{mode: "continue", breaks: -1, can: providers.Capabilities{Kind: "anthropic"}}, false, some(5), 0, false},
		"breaks again":              {askPlain, providers.Chat, teller{mode: "continue", breaks: 8, can: prefills}, false, some(8), 1, false},
		"breaks at once":            {askPlain, providers.Chat, teller{mode: "continue", breaks: 5, can: prefills}, false, some(5), 1, false},
		"is refused":                {askPlain, providers.Chat, teller{mode: "refuse", breaks: -1, can: prefills}, false, some(5), 1, false},
		"stalls":                    {askPlain, providers.Chat, teller{mode: "stall", breaks: -1, can: prefills}, false, some(5), 1, false},
		"is not wanted":             {askPlain, providers.Chat, teller{mode: "continue", breaks: -1, can: prefills}, true, some(5), 0, false},
		"nobody declares it":        {askPlain, providers.Chat, teller{mode: "continue", breaks: -1}, false, some(5), 0, false},
		"with tools":                {`{"tools":[{}],` + askPlain[1:], providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
		"with a schema":             {`{"response_format":{"type":"json_schema"},` + askPlain[1:], providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
		"with logprobs":             {`{"logprobs":true,` + askPlain[1:], providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
		"with reasoning":            {`{"reasoning_effort":"low",` + askPlain[1:], providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
		"with a stop word":          {`{"stop":["x"],` + askPlain[1:], providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
		"at its cap":                {`{"max_tokens":8,` + askPlain[1:], providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
		"with room under the cap":   {`{"max_tokens":100,"stop":null,` + askPlain[1:], providers.Chat, teller{mode: "continue", breaks: -1, can: prefills}, false, whole, 1, true},
		"of several choices":        {`{"n":2,` + askPlain[1:], providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
		"of the caller's beginning": {`{"model":"m","stream":true,"messages":[{"role":"assistant","content":"go"}]}`, providers.Chat, teller{breaks: -1, can: prefills}, false, some(5), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second := &teller{words: counting, breaks: 5}, c.second
				second.words = counting
				p := tellers(first, &second)
				p.Continue = !c.off
				h := hear(t, p, c.op, c.body)
				if h.text != c.want || len(second.bodies) != c.calls {
					t.Errorf("told %q by %d calls of the second, want %q by %d", h.text, len(second.bodies), c.want, c.calls)
				}
				if c.good != (h.err == nil) || c.good != h.continued || h.stops > 1 || c.good != (h.stops == 1) {
					t.Errorf("%v, %d ends, continued %t", h.err, h.stops, h.continued)
				}
				if e := providers.AsError(h.err); !c.good && (e == nil || e.Kind != providers.Truncated) {
					t.Errorf("%v, not the break itself", h.err)
				}
				if len(first.bodies) != 1 && c.second.can.Kind == "" {
					t.Errorf("the first was asked %d times", len(first.bodies))
				}
				for _, s := range p.Targets {
					if n := s.state().running.Load(); n != 0 {
						t.Errorf("%d attempts of %s still run", n, s.Name)
					}
				}
			})
		})
	}
}

// What two calls cost is told once: the second has read the prompt again, and the beginning.
func TestContinueUsage(t *testing.T) {
	first, second := &teller{words: counting, breaks: 5}, &teller{words: counting, breaks: -1, mode: "continue", can: prefills}
	h := hear(t, tellers(first, second), providers.Chat, `{"max_tokens":50,`+askPlain[1:])
	asked, _ := providers.Parse(providers.Chat, "/chat/completions", "application/json", []byte(askPlain), 64)
	prompt := asked.PromptEstimate() + 10
	if u := h.usage; u.Prompt != prompt || u.Completion < 10 || u.Completion > 13 || !u.Estimated || u.Total != u.Prompt+u.Completion {
		t.Errorf("usage %+v, want a prompt of %d and an answer of ten words", u, prompt)
	}
	if r := h.progress; r.Usage.Completion != h.usage.Completion || r.Attempts != 2 || r.Target != "t1" {
		t.Errorf("%+v", r)
	}
	if body := second.bodies[0]; !strings.Contains(body, `"max_tokens":42`) || strings.Count(body, `"role":"assistant"`) != 1 {
		t.Errorf("the second was asked %s", body)
	}
}

// An answer may be longer than what is kept of it; then a break is a break.
func TestContinueBound(t *testing.T) {
	long := []string{strings.Repeat("x", maxTold), "y", "z"}
	first, second := &teller{words: long, breaks: 2}, &teller{words: long, breaks: -1, mode: "continue", can: prefills}
	if h := hear(t, tellers(first, second), providers.Chat, askPlain); h.err == nil || len(second.bodies) != 0 {
		t.Errorf("%v, %d calls", h.err, len(second.bodies))
	}
}

// A break at every byte, and every way of going on: no text is told twice, and there is one end.
func TestContinueEverywhere(t *testing.T) {
	text := strings.Repeat("ab", 20) + "abc" + strings.Repeat("é\"\\\n", 10)
	letters := strings.Split(text, "")
	for _, mode := range []string{"continue", "again"} {
		for at := 1; at < len(letters); at++ {
			first, second := &teller{words: letters, breaks: at}, &teller{words: letters, breaks: -1, mode: mode, can: prefills}
			h := hear(t, tellers(first, second), providers.Chat, askPlain)
			if h.text != text || h.err != nil || h.stops != 1 {
				// What goes on with the very text that was told cannot be told apart from its repetition.
				if again := strings.HasPrefix(text[len(strings.Join(letters[:at], "")):], strings.Join(letters[:at], "")); mode == "continue" && again {
					continue
				}
				t.Fatalf("%s at %d: %q, %v, %d ends", mode, at, h.text, h.err, h.stops)
			}
		}
	}
}
