package ollama

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/providers"
	"sluice/providers/upstream"
	"sluice/streaming/jsonscan"
)

// maxDescription bounds the answers of /api/tags and /api/show, in bytes.
const maxDescription = 8 << 20

// defaultTag is the tag that a name without one means.
const defaultTag = ":latest"

// Models asks the upstream which models it has. One with the default tag is listed under
// its short name too, by which most callers know it.
func (p *Provider) Models(ctx context.Context) ([]providers.Model, error) {
	var list struct {
		Models []json.RawMessage `json:"models"`
	}
	if err := p.describe(ctx, &upstream.Request{Method: http.MethodGet, Path: "/api/tags", Accept: "application/json"}, &list); err != nil {
		return nil, fmt.Errorf("listing models: %w", err)
	}
	if list.Models == nil {
		return nil, fmt.Errorf("listing models: %w", p.notOllama("/api/tags", "JSON without a list of models"))
	}
	out := make([]providers.Model, 0, len(list.Models))
	for _, raw := range list.Models {
		var m struct {
			Name     string    `json:"name"`
			Modified time.Time `json:"modified_at"`
		}
		if json.Unmarshal(raw, &m) != nil || m.Name == "" {
			continue
		}
		one := providers.Model{ID: m.Name, Created: max(m.Modified.Unix(), 0), OwnedBy: "ollama", Raw: raw}
		out = append(out, one)
		if short, is := strings.CutSuffix(m.Name, defaultTag); is {
			one.ID = short
			out = append(out, one)
		}
	}
	return out, nil
}

// describe asks for a short JSON answer.
func (p *Provider) describe(ctx context.Context, r *upstream.Request, into any) error {
	resp, err := p.up.Do(ctx, r)
	if err != nil {
		return err
	}
	read := false
	defer func() { resp.Close(read) }()
	if resp.Status != http.StatusOK {
		return p.refusal(r.Path, resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDescription))
	if err != nil {
		return upstream.Cause(ctx, err)
	}
	read = true
	if json.Unmarshal(text, into) != nil {
		return p.notOllama(r.Path, "something that is not JSON")
	}
	return nil
}

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
// may have others.
const (
	traitsAge = 5 * time.Minute
	maxTraits = 1024
)

// shown remembers the traits of models.
type shown struct {
	mu     sync.Mutex
	models map[string]seen
}

type seen struct {
	traits *traits
	at     time.Time
}

func (s *shown) get(model string) *traits {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.models[model]; ok && time.Since(e.at) < traitsAge {
		return e.traits
	}
	return nil
}

func (s *shown) put(model string, t *traits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.models == nil || len(s.models) >= maxTraits {
		s.models = map[string]seen{}
	}
	s.models[model] = seen{t, time.Now()}
}

// traits asks what the model can do; nil when the server cannot say, in which case the
// call itself will tell what is wrong.
func (t target) traits(ctx context.Context) *traits {
	if known := t.shown.get(t.model); known != nil {
		return known
	}
	body := append(jsonscan.AppendQuote([]byte(`{"model":`), t.model), '}')
	got := &traits{}
	r := &upstream.Request{Method: http.MethodPost, Path: "/api/show", ContentType: "application/json", Accept: "application/json", Body: body}
	if t.describe(ctx, r, got) != nil {
		return nil
	}
	t.shown.put(t.model, got)
	return got
}

// suits refuses what the model cannot do before it is asked, and says how it shall think.
func (t target) suits(ctx context.Context, r *request) error {
	thinks := r.effort != "" && r.effort != "none"
	if r.effort == "none" {
		r.set("think", []byte("false"))
	}
	if len(r.needs) == 0 && !thinks {
		return nil
	}
	can := t.traits(ctx)
	for _, n := range r.needs {
		if err := r.lacks(can, n); err != nil {
			return err
		}
	}
	if !thinks {
		return nil
	}
	if !can.can("thinking") {
		return r.asked.Cannot("reasoning_effort", `says that this model has no "thinking"`)
	}
	r.set("think", []byte("true"))
	if can.levels() {
		r.members[len(r.members)-1].value = jsonscan.AppendQuote(nil, levels[r.effort])
	}
	return nil
}

// levels are Ollama's words for OpenAI's efforts.
var levels = map[string]string{"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}

// lacks refuses, or drops, what a model is known not to do.
func (r *request) lacks(can *traits, n need) error {
	switch {
	case can.can(n.capability):
		return nil
	case n.capability == "vision":
		return r.asked.CannotRead(n.param, "images")
	}
	r.members = slices.DeleteFunc(r.members, func(m member) bool { return m.name == n.param })
	return r.asked.Cannot(n.param, fmt.Sprintf("says that this model has no %q", n.capability))
}
