// Package demo knows a family of models that need no server: they are computed here,
// answer the same question in the same way each time, and show what a gateway does
// with streams, silence, tool calls, failures, embeddings and images.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// The models of the family.
const (
	Echo   = "demo-echo"   // repeats what it is told
	Slow   = "demo-slow"   // the same after a long silence, with long pauses
	Tools  = "demo-tools"  // calls the tools that are offered
	Faults = "demo-error"  // fails in the way it is told
	Embed  = "demo-embed"  // turns input into vectors
	Vision = "demo-vision" // describes the images it is shown
)

var family = [...]string{Echo, Slow, Tools, Faults, Embed, Vision}

// born is when every model of the family claims to be made, in unix seconds.
const born = 1767225600

// name is the target of every answer.
const name = "demo"

// Options set how the models behave.
type Options struct {
	// TokenDelay is the pause between two tokens; demo-slow has its own.
	TokenDelay time.Duration
}

// Provider answers as the models of the family. It is safe for concurrent use and
// starts no goroutine.
type Provider struct{ opt Options }

// New returns the family.
func New(opt Options) *Provider { return &Provider{opt: opt} }

// Models implements providers.Lister.
func (p *Provider) Models(context.Context) ([]providers.Model, error) {
	list := make([]providers.Model, len(family))
	for i, id := range family {
		list[i] = providers.Model{ID: id, Created: born, OwnedBy: "sluice-demo"}
	}
	return list, nil
}

// Target returns a Provider that asks for one model, whatever name the caller used.
func (p *Provider) Target(model string) providers.Provider { return target{p, model} }

type target struct {
	*Provider
	model string
}

func (t target) Stream(ctx context.Context, req *providers.Request, _ *streaming.Progress) streaming.Stream {
	return t.stream(ctx, req, t.model)
}

// Stream implements providers.Provider: Meta first, then content, Stop and Usage;
// embeddings are one Whole. A request that cannot be answered gives an
// *providers.Error, a context that has ended its cause.
func (p *Provider) Stream(ctx context.Context, req *providers.Request, _ *streaming.Progress) streaming.Stream {
	return p.stream(ctx, req, req.Model)
}

// errLeft says that the caller stopped ranging: nothing may be yielded any more.
var errLeft = errors.New("the caller stopped ranging")

func (p *Provider) stream(ctx context.Context, req *providers.Request, model string) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		if err := p.answer(ctx, req, model, yield); err != nil && !errors.Is(err, errLeft) {
			if e := providers.AsError(err); e != nil && e.Target == "" {
				e.Target = name
			}
			yield(nil, err)
		}
	}
}

func (p *Provider) answer(ctx context.Context, req *providers.Request, model string, yield func([]streaming.Event, error) bool) error {
	if err := check(req.Op, model); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	meta := describe(req, model)
	if req.Op == providers.Embeddings {
		ev, err := embed(req.Body, meta.Model)
		if err != nil {
			return err
		}
		return (&player{ctx: ctx, yield: yield}).send(streaming.Event{Kind: streaming.Meta, Meta: meta}, ev)
	}
	a, err := parse(req, model)
	if err != nil {
		return err
	}
	pl, err := p.plan(ctx, a, meta.ID)
	if err != nil {
		return err
	}
	return (&player{ctx: ctx, yield: yield}).play(meta, pl)
}

// check refuses what the family has no model for.
func check(op providers.Op, model string) error {
	known := false
	for _, id := range family {
		known = known || id == model
	}
	switch {
	case op > providers.Embeddings:
		return &providers.Error{Kind: providers.NotFound,
			Message: fmt.Sprintf("The demo models answer chat completions, completions and embeddings only, not %s. Configure an upstream for it.", op)}
	case !known:
		return &providers.Error{Kind: providers.ModelNotFound, Param: "model", Code: "model_not_found",
			Message: fmt.Sprintf("There is no demo model %q. There are %s.", model, strings.Join(family[:], ", "))}
	case op == providers.Embeddings && model != Embed:
		return providers.Invalid("model", fmt.Sprintf("%s gives no embeddings; %s does.", model, Embed))
	case op != providers.Embeddings && model == Embed:
		return providers.Invalid("model", fmt.Sprintf("%s gives embeddings only; for text ask %s.", Embed, Echo))
	default:
		return nil
	}
}

// describe names the answer. The id follows from the request, so that it differs
// between two requests and is the same when one is played again.
func describe(req *providers.Request, model string) *streaming.MetaData {
	h := sha256.New()
	h.Write([]byte(req.ID))
	h.Write(req.Body)
	prefix := "chatcmpl-"
	if req.Op == providers.Completions {
		prefix = "cmpl-"
	}
	m := &streaming.MetaData{ID: prefix + hex.EncodeToString(h.Sum(nil)[:12]), Created: time.Now().Unix(), Model: model}
	if req.PresentAs != "" {
		m.Model = req.PresentAs
	}
	return m
}

// plan asks the model what it will say.
func (p *Provider) plan(ctx context.Context, a *ask, id string) (*plan, error) {
	pl := &plan{between: p.opt.TokenDelay, prompt: a.promptTokens()}
	var err error
	switch a.model {
	case Slow:
		pl.first, pl.between = a.patience(), slowBetween
		a.fill(pl, slowText)
	case Faults:
		err = a.fault(pl)
	case Tools:
		err = a.useTools(pl, id)
	case Vision:
		err = a.look(ctx, pl)
	default:
		a.fill(pl, echoText)
	}
	if err != nil {
		return nil, err
	}
	return pl, nil
}
