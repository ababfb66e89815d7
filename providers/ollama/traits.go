package ollama

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming/jsonscan"
)

// traits are what Ollama says of a model. A server before version 0.6 says nothing.
type traits struct {
	Capabilities []string `json:"capabilities"`
	Details      struct {
		Family string `json:"family"`
	} `json:"details"`
}

func (t *traits) known() bool { return t != nil && len(t.Capabilities) > 0 }

func (t *traits) can(capability string) bool {
	return !t.known() || slices.Contains(t.Capabilities, capability)
}

// levels reports whether the model's thinking has levels; others can only be told to
// think or not to.
func (t *traits) levels() bool {
	return t.known() && slices.Contains([]string{"gptoss", "gpt-oss"}, t.Details.Family)
}

// How long and for how many models traits are remembered: a model that is pulled anew
// may have others. A server that does not tell is asked again after unknownAge.
const (
	traitsAge  = 5 * time.Minute
	unknownAge = 10 * time.Second
	maxTraits  = 1024
)

// How long a question may take, and how long a request waits for its answer.
const (
	showTime     = 10 * time.Second
	showPatience = time.Second
)

// shown remembers the traits of models.
type shown struct {
	mu     sync.Mutex
	models map[string]*seen
}

// seen is one model; asking, not nil while somebody asks, is closed when there is an answer.
type seen struct {
	traits *traits // nil when the server does not tell
	at     time.Time
	asking chan struct{}
}

func (e *seen) old() bool {
	age := traitsAge
	if e.traits == nil {
		age = unknownAge
	}
	return time.Since(e.at) >= age
}

// peek returns what is remembered of a model.
func (s *shown) peek(model string) *traits {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.models[model]; e != nil {
		return e.traits
	}
	return nil
}

// get has ask called, once at a time for each model, when nothing is remembered or it is
// old. asking, when it is not nil, is worth waiting for.
func (s *shown) get(model string, ask func() *traits) (known *traits, asking chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.models[model]
	if e == nil {
		e = s.add(model)
	}
	if e.asking == nil && e.old() {
		done := make(chan struct{})
		e.asking = done
		go func() {
			t := ask()
			s.put(model, t)
			close(done)
		}()
	}
	if e.traits != nil || !e.at.IsZero() {
		return e.traits, nil
	}
	return nil, e.asking
}

func (s *shown) add(model string) *seen {
	if s.models == nil || len(s.models) >= maxTraits {
		s.models = map[string]*seen{}
	}
	e := &seen{}
	s.models[model] = e
	return e
}

func (s *shown) put(model string, t *traits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.models[model]
	if e == nil {
		e = s.add(model)
	}
	if t != nil || !e.traits.known() {
		e.traits = t
	}
	e.at, e.asking = time.Now(), nil
}

// traits asks what the model can do, and waits a little; nil when the server cannot say
// or takes too long, in which case the call itself will tell what is wrong.
func (t target) traits(ctx context.Context) *traits {
	known, asking := t.shown.get(t.model, func() *traits {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), showTime)
		defer cancel()
		return t.show(own)
	})
	if asking == nil {
		return known
	}
	patience := time.NewTimer(showPatience)
	defer patience.Stop()
	select {
	case <-asking:
	case <-patience.C:
	case <-ctx.Done():
	}
	return t.shown.peek(t.model)
}

func (t target) show(ctx context.Context) *traits {
	body := append(jsonscan.AppendQuote([]byte(`{"model":`), t.model), '}')
	got := &traits{}
	r := &upstream.Request{Method: http.MethodPost, Path: "/api/show", ContentType: "application/json", Accept: "application/json", Body: body}
	if t.describe(ctx, r, got) != nil {
		return nil
	}
	return got
}

// How many models a list asks about, and how many at once.
const (
	maxLearned = 256
	learners   = 4
)

// learn takes the traits that a list tells, as newer servers do, and asks about the
// other models of it, for as long as a request would wait.
func (p *Provider) learn(ctx context.Context, list []json.RawMessage) {
	ctx, cancel := context.WithTimeout(ctx, showPatience)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, learners)
	for _, raw := range list[:min(len(list), maxLearned)] {
		var m struct {
			Name string `json:"name"`
			traits
		}
		if json.Unmarshal(raw, &m) != nil || m.Name == "" {
			continue
		}
		if m.traits.known() {
			p.remember(m.Name, &m.traits)
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-room }()
			if got := (target{p, m.Name}).traits(ctx); got != nil {
				p.remember(m.Name, got)
			}
		})
	}
}

// remember keeps the traits of a model under both its names.
func (p *Provider) remember(name string, t *traits) {
	p.shown.put(name, t)
	if short, is := strings.CutSuffix(name, defaultTag); is {
		p.shown.put(short, t)
	}
}

// What the API has for every model or for none, what can be left out, and what the
// server says of each model.
const (
	does    = providers.ToolMessages | providers.JSONObject | providers.JSONSchema | providers.Prefill
	doesNot = providers.ModerationsRoute | providers.ResponsesRoute | providers.OtherRoutes | providers.Tensors |
		providers.Audio | providers.Files | providers.Choices
	leavesOut = providers.Choices | providers.Tools | providers.Reasoning | providers.Suffix
	ofModel   = providers.Vision | providers.Tools | providers.Reasoning | providers.Suffix
)

// Capabilities implements router.Capable. The server is asked only about what it decides
// for each model.
func (t target) Capabilities(ctx context.Context, of providers.Feature) providers.Capabilities {
	can := providers.Capabilities{Kind: kind, Yes: does, No: doesNot}
	if t.opt.Drop {
		can.Dropped = leavesOut
	}
	told := t.shown.peek(t.model)
	if of&ofModel != 0 {
		told = t.traits(ctx)
	}
	if !told.known() {
		return can
	}
	for f, word := range words {
		if told.can(word) {
			can.Yes |= f
		} else {
			can.No |= f
			can.Model |= f
		}
	}
	if told.can("embedding") {
		can.Yes |= providers.EmbeddingsRoute // models of text give vectors too
	}
	return can
}

// words are Ollama's names of features.
var words = map[providers.Feature]string{
	providers.ChatRoute | providers.CompletionsRoute: "completion",
	providers.Vision: "vision", providers.Tools: "tools", providers.Reasoning: "thinking", providers.Suffix: "insert",
}

// suits says how the model shall think. Where the configuration says so, it leaves out
// what the model cannot do; otherwise such a request has been refused before it came here.
func (t target) suits(ctx context.Context, r *request) error {
	thinks := r.effort != "" && r.effort != "none"
	if r.effort == "none" {
		r.set("think", []byte("false"))
	}
	drops := t.opt.Drop && len(r.needs) > 0
	if !drops && !thinks {
		return nil
	}
	can := t.traits(ctx)
	for _, n := range r.needs {
		if drops && !can.can(n.capability) {
			r.members = slices.DeleteFunc(r.members, func(m member) bool { return m.name == n.param })
			if err := r.lacks(n.param, n.capability); err != nil {
				return err
			}
		}
	}
	switch {
	case !thinks:
		return nil
	case t.opt.Drop && !can.can("thinking"):
		return r.lacks("reasoning_effort", "thinking")
	}
	r.set("think", []byte("true"))
	if can.levels() {
		r.members[len(r.members)-1].value = jsonscan.AppendQuote(nil, levels[r.effort])
	}
	return nil
}

// lacks notes that a parameter is left out.
func (r *request) lacks(param, capability string) error {
	return r.asked.Cannot(param, fmt.Sprintf("says that this model has no %q", capability))
}

// levels are Ollama's words for OpenAI's efforts.
var levels = map[string]string{"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
