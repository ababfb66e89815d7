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

	more bool // other replies have come together with this one
	out  []streaming.Event
}

// send hands on what the filter passes, in one batch what has come in one. The filter sees
// one reply at a time, so that the usage at a stop sequence does not depend on how many
// have come together.
func (a *answer) send(yield yielder) error {
	for batch, err := range a.filter(a.events) {
		if err != nil { // it comes by itself, when nothing waits
			return err
		}
		if a.more || len(a.out) > 0 {
			if a.out = append(a.out, batch...); a.more {
				continue
			}
			batch = a.out
		}
		if !yield(batch, nil) {
			return nil
		}
		a.out = a.out[:0]
	}
	if len(a.out) > 0 { // a stop sequence has ended the answer in the middle
		yield(a.out, nil)
	}
	return nil
}

// filter takes off what the server leaves on, and ends choices at stop sequences.
func (a *answer) filter(src streaming.Stream) streaming.Stream {
	if a.stream { // only streams show the mark of the end
		src = kit.TrimEnd(src, a.opt.EOS)
	}
	ends := kit.Ends{Marks: a.marks, Stops: a.stops, Choices: len(a.prompts), Usage: a.used}
	if a.chat {
		ends.Think = a.opt.Think
	}
	return ends.Filter(src)
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
	from, err := a.via.stream(ctx, a.job)
	if a.begun = err == nil; a.begun {
		defer from.close()
	}
	for err == nil && !left {
		var replies []reply
		if replies, err = from.next(); err == nil {
			left = a.pass(replies, yield)
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

// pass yields replies one by one up to the last of the answer, and reports whether their
// reader has left.
func (a *answer) pass(replies []reply, yield yielder) (left bool) {
	for i, r := range replies {
		if a.over {
			break
		}
		batch := a.token(r)
		a.more = !a.over && i+1 < len(replies)
		if !yield(batch, nil) {
			return true
		}
	}
	return false
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
