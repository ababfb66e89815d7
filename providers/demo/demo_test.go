package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

const delay = 10 * time.Millisecond

// got is what an answer brought; at are the times of its batches from the start.
type got struct {
	meta   *streaming.MetaData
	text   map[int]string
	tools  map[int]map[int]*streaming.ToolDelta // choice, call
	tokens int64                                // content events
	stop   map[int]string
	usage  *streaming.UsageData
	whole  []byte
	at     []time.Duration
	err    error
}

func (g *got) take(ev *streaming.Event) {
	switch ev.Kind {
	case streaming.Meta:
		g.meta = ev.Meta
	case streaming.Text:
		g.text[ev.Index] += ev.Text
		g.tokens++
	case streaming.ToolCall:
		g.tokens++
		calls := g.tools[ev.Index]
		if calls == nil {
			calls = map[int]*streaming.ToolDelta{}
			g.tools[ev.Index] = calls
		}
		if c := calls[ev.Tool.Index]; c != nil {
			c.ID, c.Name, c.Args = c.ID+ev.Tool.ID, c.Name+ev.Tool.Name, c.Args+ev.Tool.Args
		} else {
			c := *ev.Tool
			calls[ev.Tool.Index] = &c
		}
	case streaming.Stop:
		g.stop[ev.Index] += ev.Stop
	case streaming.Whole:
		g.whole = ev.Raw
		g.usage = ev.Usage
	case streaming.Usage:
		g.usage = ev.Usage
	}
}

func ask1(t testing.TB, ctx context.Context, op providers.Op, body string) *got {
	t.Helper()
	req, err := providers.Parse(op, "/x", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	return answerOf(ctx, req)
}

func answerOf(ctx context.Context, req *providers.Request) *got {
	start := time.Now()
	g := &got{text: map[int]string{}, tools: map[int]map[int]*streaming.ToolDelta{}, stop: map[int]string{}}
	for batch, err := range New(Options{TokenDelay: delay}).Stream(ctx, req, streaming.NewProgress(start)) {
		if err != nil {
			g.err = err
			continue
		}
		g.at = append(g.at, time.Since(start))
		for i := range batch {
			g.take(&batch[i])
		}
	}
	return g
}

// inBubble answers a chat with the clock of a synctest bubble.
func inBubble(t *testing.T, op providers.Op, body string) (g *got) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { g = ask1(t, t.Context(), op, body) })
	return g
}

func chat(model, said, more string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"system","content":"be kind"},{"role":"user","content":%q}]%s}`, model, said, more)
}

func TestEcho(t *testing.T) {
	for name, c := range map[string]struct {
		op   providers.Op
		body string
		text []string
		stop string
	}{
		"chat": {providers.Chat, chat(Echo, "good  day,\nworld", ""), []string{"Hello from Sluice's built-in demo! You said: good  day,\nworld"}, "stop"},
		"parts": {providers.Chat, `{"model":"demo-echo","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`,
			[]string{"Hello from Sluice's built-in demo! You said: a\nb"}, "stop"},
		"length":       {providers.Chat, chat(Echo, "x", `,"max_tokens":3`), []string{"Hello from Sluice's"}, "length"},
		"newer limit":  {providers.Chat, chat(Echo, "x", `,"max_tokens":3,"max_completion_tokens":2`), []string{"Hello from"}, "length"},
		"exact limit":  {providers.Chat, chat(Echo, "x", `,"max_tokens":8`), []string{"Hello from Sluice's built-in demo! You said: x"}, "stop"},
		"stop":         {providers.Chat, chat(Echo, "x", `,"stop":["zz","demo","built"]`), []string{"Hello from Sluice's "}, "stop"},
		"stop at once": {providers.Chat, chat(Echo, "x", `,"stop":"Hello"`), []string{""}, "stop"},
		"choices": {providers.Chat, chat(Echo, "x", `,"n":2,"seed":4`), []string{"Hello from Sluice's built-in demo! You said: x",
			"Hello once more (answer 2) from Sluice's built-in demo! You said: x"}, "stop"},
		"completion": {providers.Completions, `{"model":"demo-echo","prompt":"x"}`, []string{"Hello from Sluice's built-in demo! You said: x"}, "stop"},
		"prompts": {providers.Completions, `{"model":"demo-echo","prompt":["x","y"]}`, []string{"Hello from Sluice's built-in demo! You said: x",
			"Hello from Sluice's built-in demo! You said: y"}, "stop"},
		"no prompt": {providers.Completions, `{"model":"demo-echo"}`, []string{"Hello from Sluice's built-in demo! Say something and I will repeat it."}, "stop"},
	} {
		g := inBubble(t, c.op, c.body)
		if g.err != nil {
			t.Errorf("%s: %v", name, g.err)
			continue
		}
		for i, want := range c.text {
			if g.text[i] != want || g.stop[i] != c.stop {
				t.Errorf("%s: choice %d: %q, %q; want %q, %q", name, i, g.text[i], g.stop[i], want, c.stop)
			}
		}
		if u := g.usage; len(g.stop) != len(c.text) || u == nil || u.Completion != g.tokens || u.Total != u.Prompt+u.Completion || u.Estimated {
			t.Errorf("%s: %d finishes, usage %+v for %d tokens", name, len(g.stop), g.usage, g.tokens)
		}
	}
}

func TestOrder(t *testing.T) {
	req, err := providers.Parse(providers.Chat, "/x", "application/json", []byte(chat(Echo, "x", `,"n":2`)), 64)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []streaming.Kind
	for batch, err := range New(Options{}).Stream(t.Context(), req, nil) {
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range batch {
			kinds = append(kinds, ev.Kind)
		}
	}
	if kinds[0] != streaming.Meta || kinds[len(kinds)-1] != streaming.Usage || slices.Index(kinds, streaming.Stop) < 2 {
		t.Errorf("events in the order %v", kinds)
	}
}

func TestDeterminism(t *testing.T) {
	body := chat(Echo, "the same", "")
	a, b := inBubble(t, providers.Chat, body), inBubble(t, providers.Chat, body)
	if a.text[0] != b.text[0] || a.meta.ID != b.meta.ID || a.usage.Total != b.usage.Total {
		t.Errorf("%+v\n%+v", a, b)
	}
	req, err := providers.Parse(providers.Chat, "/x", "application/json", []byte(body), 64)
	if err != nil {
		t.Fatal(err)
	}
	req.ID = "another"
	if c := answerOf(t.Context(), req); c.meta.ID == a.meta.ID || !strings.HasPrefix(c.meta.ID, "chatcmpl-") {
		t.Errorf("two requests have the id %s", c.meta.ID)
	}
}

func TestPace(t *testing.T) {
	for body, want := range map[string]struct{ first, between time.Duration }{
		chat(Echo, "one two", ""):              {0, delay},
		chat(Slow, "one two", ""):              {2 * time.Second, 500 * time.Millisecond},
		chat(Slow, "please wait 20s", ""):      {20 * time.Second, 500 * time.Millisecond},
		chat(Slow, "Wait 1.5 Minutes now", ""): {90 * time.Second, 500 * time.Millisecond},
		chat(Slow, "wait 250ms", ""):           {250 * time.Millisecond, 500 * time.Millisecond},
		chat(Slow, "wait 999999999 min", ""):   {10 * time.Minute, 500 * time.Millisecond},
	} {
		g := inBubble(t, providers.Chat, body)
		if g.err != nil || g.at[0] != 0 || g.at[1] != want.first || g.at[2]-g.at[1] != want.between || g.at[len(g.at)-1]-g.at[1] != time.Duration(len(g.at)-2)*want.between {
			t.Errorf("%s: batches at %v, %v", body, g.at, g.err)
		}
	}
}

// Whatever an answer is doing, it ends with the context, at once, with its cause.
func TestContextEnds(t *testing.T) {
	why := errors.New("no longer wanted")
	for body, after := range map[string]time.Duration{
		chat(Slow, "wait 5m", ""):  time.Minute,
		chat(Slow, "x", ""):        2*time.Second + 700*time.Millisecond,
		chat(Faults, "stall", ""):  time.Minute,
		chat(Echo, "x", ""):        0,
		chat(Echo, "x y z", " "):   25 * time.Millisecond,
		chat(Tools, "x y z w", ""): 35 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			start := time.Now()
			if after == 0 {
				cancel(why)
			} else {
				defer time.AfterFunc(after, func() { cancel(why) }).Stop()
			}
			g := ask1(t, ctx, providers.Chat, body)
			if took := time.Since(start); !errors.Is(g.err, why) || took != after {
				t.Errorf("%s: ended after %v with %v", body, took, g.err)
			}
		})
	}
}

// Nothing is yielded once ranging has stopped, and nothing waits any more.
func TestRangingStops(t *testing.T) {
	for _, model := range []string{Echo, Slow, Faults, Tools, Vision} {
		for stopAt := 1; stopAt <= 3; stopAt++ {
			synctest.Test(t, func(t *testing.T) {
				req, err := providers.Parse(providers.Chat, "/x", "application/json", []byte(chat(model, "x", "")), 64)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				var left time.Time
				for range New(Options{TokenDelay: delay}).Stream(t.Context(), req, nil) {
					if n++; n == stopAt {
						left = time.Now()
						break
					}
				}
				if waited := time.Since(left); n != stopAt || waited != 0 {
					t.Errorf("%s: %d batches, then %v", model, n, waited)
				}
			})
		}
	}
}

func TestFaults(t *testing.T) {
	for said, want := range map[string]struct {
		kind   providers.ErrorKind
		status int
		spoken bool
	}{
		"fail with 400":     {providers.Passed, 400, false},
		"401":               {providers.Passed, 401, false},
		"please 404!":       {providers.Passed, 404, false},
		"429":               {providers.RateLimited, 429, false},
		"status 500 please": {providers.UpstreamFailed, 500, false},
		"503":               {providers.Overloaded, 503, false},
		"cut":               {providers.Truncated, 0, true},
		"stall":             {providers.Timeout, 0, true},
		"anything, 40400":   {providers.UpstreamFailed, 500, true},
	} {
		g := inBubble(t, providers.Chat, chat(Faults, said, `,"n":2`))
		e := providers.AsError(g.err)
		if e == nil || e.Kind != want.kind || e.Status != want.status || e.Target != "demo" || e.Message == "" {
			t.Errorf("%q: %+v", said, g.err)
		}
		if spoken := g.text[0] != "" && g.text[1] != ""; spoken != want.spoken || len(g.stop) > 0 || g.usage != nil {
			t.Errorf("%q: said %v, stop %v, usage %v", said, g.text, g.stop, g.usage)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		op   providers.Op
		body string
		kind providers.ErrorKind
		at   string
	}{
		"unknown model":     {providers.Chat, chat("demo-none", "x", ""), providers.ModelNotFound, "model"},
		"text of vectors":   {providers.Chat, chat(Embed, "x", ""), providers.BadRequest, "model"},
		"vectors of text":   {providers.Embeddings, `{"model":"demo-echo","input":"x"}`, providers.BadRequest, "model"},
		"other operation":   {providers.Moderations, `{"model":"demo-echo","input":"x"}`, providers.NotFound, ""},
		"no tokens":         {providers.Chat, chat(Echo, "x", `,"max_tokens":0`), providers.BadRequest, "max_tokens"},
		"no newer tokens":   {providers.Chat, chat(Echo, "x", `,"max_completion_tokens":-1`), providers.BadRequest, "max_completion_tokens"},
		"wrong type":        {providers.Chat, chat(Echo, "x", `,"max_tokens":"many"`), providers.BadRequest, "max_tokens"},
		"stop":              {providers.Chat, chat(Echo, "x", `,"stop":5`), providers.BadRequest, "stop"},
		"empty stop":        {providers.Chat, chat(Echo, "x", `,"stop":[""]`), providers.BadRequest, "stop"},
		"many stops":        {providers.Chat, chat(Echo, "x", `,"stop":["a","b","c","d","e"]`), providers.BadRequest, "stop"},
		"content":           {providers.Chat, `{"model":"demo-echo","messages":[{"role":"user","content":5}]}`, providers.BadRequest, "messages"},
		"role":              {providers.Chat, `{"model":"demo-echo","messages":[{"role":5}]}`, providers.BadRequest, "messages"},
		"image":             {providers.Chat, `{"model":"demo-vision","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, providers.BadRequest, "messages"},
		"prompt":            {providers.Completions, `{"model":"demo-echo","prompt":{"a":1}}`, providers.BadRequest, "prompt"},
		"choices":           {providers.Completions, `{"model":"demo-echo","n":100,"prompt":["a","b"]}`, providers.BadRequest, "n"},
		"tool choice":       {providers.Chat, chat(Tools, "x", `,"tool_choice":7`), providers.BadRequest, "tool_choice"},
		"tool not offered":  {providers.Chat, chat(Tools, "x", `,"tool_choice":{"type":"function","function":{"name":"f"}}`), providers.BadRequest, "tool_choice"},
		"no schema":         {providers.Chat, chat(Tools, "x", `,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":5}}}]`), providers.BadRequest, "tools"},
		"input":             {providers.Embeddings, `{"model":"demo-embed","input":{"a":1}}`, providers.BadRequest, "input"},
		"no input":          {providers.Embeddings, `{"model":"demo-embed","input":[]}`, providers.BadRequest, "input"},
		"empty input":       {providers.Embeddings, `{"model":"demo-embed","input":["a",""]}`, providers.BadRequest, "input"},
		"dimensions":        {providers.Embeddings, `{"model":"demo-embed","input":"a","dimensions":0}`, providers.BadRequest, "dimensions"},
		"encoding":          {providers.Embeddings, `{"model":"demo-embed","input":"a","encoding_format":"hex"}`, providers.BadRequest, "encoding_format"},
		"too many numbers":  {providers.Embeddings, `{"model":"demo-embed","dimensions":4096,"input":[` + strings.Repeat(`"a",`, 300) + `"a"]}`, providers.BadRequest, "input"},
		"too many to count": {providers.Embeddings, `{"model":"demo-embed","input":[` + strings.Repeat(`"a",`, 2048) + `"a"]}`, providers.BadRequest, "input"},
	} {
		g := ask1(t, t.Context(), c.op, c.body)
		e := providers.AsError(g.err)
		if e == nil || e.Kind != c.kind || e.Param != c.at || e.Message == "" || len(g.at) > 0 {
			t.Errorf("%s: %+v after %d batches", name, g.err, len(g.at))
		}
	}
}

func TestModels(t *testing.T) {
	list, err := New(Options{}).Models(t.Context())
	if err != nil || len(list) != 6 {
		t.Fatal(list, err)
	}
	for _, m := range list {
		if m.OwnedBy != "sluice-demo" || m.Created != born || !strings.HasPrefix(m.ID, "demo-") {
			t.Errorf("%+v", m)
		}
	}
}

func TestTarget(t *testing.T) {
	req, err := providers.Parse(providers.Chat, "/x", "application/json", []byte(chat("alias", "x", "")), 64)
	if err != nil {
		t.Fatal(err)
	}
	for batch, err := range New(Options{}).Target(Echo).Stream(t.Context(), req.With("shown"), nil) {
		if err != nil || batch[0].Meta.Model != "shown" {
			t.Fatalf("%+v %v", batch, err)
		}
		break
	}
}

// FuzzTokens: the tokens of a text are the text.
func FuzzTokens(f *testing.F) {
	f.Add(" a  b\n")
	f.Add(strings.Repeat("ä", 40) + "\xff\xff日本語日本語日本語")
	f.Fuzz(func(t *testing.T, text string) {
		s := (&ask{max: maxTokens}).say(text)
		var all strings.Builder
		for _, ev := range s.tokens {
			if ev.Text == "" {
				t.Fatalf("an empty token in %q", text)
			}
			all.WriteString(ev.Text)
		}
		if s.stop == "stop" && (all.String() != text || len(s.tokens) != countTokens(text)) {
			t.Errorf("%q became %q", text, all.String())
		}
	})
}
