package mii

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/providers/kit"
	"sluice/streaming"
)

// answer is one job under way.
type answer struct {
	*Provider
	*job
	ctx      context.Context
	progress *streaming.Progress

	begun bool // the server may have got the call
	over  bool // the server has said why the answer ends: it generates no more
	known bool // the server has told its counts
	usage streaming.UsageData
	batch [2]streaming.Event

	finish string // why it ends
}

// filter takes off what the server leaves on, and ends choices at stop sequences.
func (a *answer) filter(src streaming.Stream) streaming.Stream {
	if a.stream { // only streams show the mark of the end
		src = kit.TrimEnd(src, a.opt.EOS)
	}
	if a.opt.Think != nil && a.chat {
		src = a.opt.Think.Filter(src)
	}
	return kit.Stops{Sequences: a.stops, Choices: len(a.prompts), Usage: a.used}.Filter(src)
}

// used is the usage so far, nil when it is not known.
func (a *answer) used() *streaming.UsageData {
	if !a.known {
		return nil
	}
	return &a.usage
}

// events is the stream before it is filtered. Meta comes before the server has said
// anything, for it says nothing before its first token.
func (a *answer) events(yield func([]streaming.Event, error) bool) {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	left := !yield([]streaming.Event{{Kind: streaming.Meta, Meta: &a.meta}}, nil)
	if left {
		return
	}
	defer func() { a.settle(left || a.ctx.Err() != nil) }()
	if !a.stream {
		left = a.collect(ctx, yield)
		return
	}
	receive, err := a.via.stream(ctx, a.job)
	a.begun = err == nil
	for err == nil && !left {
		var r reply
		if r, err = receive(); err == nil && !a.over {
			left = !yield(a.token(r), nil)
		}
	}
	switch {
	case left:
	case errors.Is(err, io.EOF) && a.over:
		yield(a.end(), nil)
	case errors.Is(err, io.EOF):
		yield(nil, a.opt.unfinished())
	default:
		yield(nil, err)
	}
}

// token makes the events of one message. That the answer has ended is told when the call
// has ended well too: until then it may still fail.
func (a *answer) token(r reply) []streaming.Event {
	a.count(r)
	a.over, a.finish = r.finish != "", r.finish
	if r.text == "" {
		return nil
	}
	return append(a.batch[:0], streaming.Event{Kind: streaming.Text, Text: r.text})
}

func (a *answer) end() []streaming.Event {
	batch := append(a.batch[:0], streaming.Event{Kind: streaming.Stop, Stop: a.finish})
	if a.known {
		batch = append(batch, streaming.Event{Kind: streaming.Usage, Usage: &a.usage})
	}
	return batch
}

func (a *answer) count(r reply) {
	if r.counted {
		a.known = true
		a.usage = streaming.UsageData{Prompt: r.prompt, Completion: r.generated, Total: r.prompt + r.generated}
	}
}

// collect gives an answer that comes at once, and reports whether its reader has left.
func (a *answer) collect(ctx context.Context, yield yielder) (left bool) {
	a.begun = true
	replies, err := a.via.whole(ctx, a.job)
	if err == nil && len(replies) != len(a.prompts) {
		err = a.opt.strange(fmt.Sprintf("%d answers to %d prompts", len(replies), len(a.prompts)))
	}
	if err != nil {
		yield(nil, err)
		return false
	}
	var batch []streaming.Event
	for i, r := range replies {
		if r.finish == "" {
			yield(nil, a.opt.strange("an answer that has not ended"))
			return false
		}
		if a.known = r.counted; r.counted {
			a.usage.Completion += r.generated
			if i%a.again == 0 { // one prompt, however many answers to it
				a.usage.Prompt += r.prompt
			}
		}
		if r.text != "" {
			batch = append(batch, streaming.Event{Kind: streaming.Text, Index: i, Text: r.text})
		}
		batch = append(batch, streaming.Event{Kind: streaming.Stop, Index: i, Stop: r.finish})
	}
	a.over = true
	if a.usage.Total = a.usage.Prompt + a.usage.Completion; a.known {
		batch = append(batch, streaming.Event{Kind: streaming.Usage, Usage: &a.usage})
	}
	return !yield(batch, nil)
}

// settle tells what an answer that was left has cost, and may go on to cost.
func (a *answer) settle(left bool) {
	if !left || !a.begun || a.over {
		return
	}
	if a.known {
		a.progress.SetUsage(&a.usage)
	}
	a.Provider.left.answers.Add(1)
	unmade := max(0, a.maxNewTokens*int64(len(a.prompts))-a.usage.Completion)
	a.Provider.left.tokens.Add(unmade)
	a.progress.AddUnstopped(unmade)
}
