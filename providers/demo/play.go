package demo

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/streaming"
)

// plan is what will be said and when. It is complete before the first token.
type plan struct {
	first   time.Duration // before the first token
	between time.Duration // between two
	prompt  int           // tokens
	choices []script
	// after, when set, ends the answer once the choices have been said, instead of
	// their finish reasons and usage.
	after func(context.Context) error
}

// script is one choice: content events, one token each, and why it ends.
type script struct {
	tokens []streaming.Event
	stop   string
}

// player says a plan. It lives for one answer.
type player struct {
	ctx   context.Context
	yield func([]streaming.Event, error) bool
}

func (p *player) send(batch ...streaming.Event) error {
	if !p.yield(batch, nil) {
		return errLeft
	}
	return nil
}

// wait sleeps for d unless the context ends first.
func wait(ctx context.Context, d time.Duration) error {
	if d > 0 && ctx.Err() == nil {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// play yields the choices side by side: one token of each in a batch.
func (p *player) play(meta *streaming.MetaData, pl *plan) error {
	if err := p.send(streaming.Event{Kind: streaming.Meta, Meta: meta}); err != nil {
		return err
	}
	if err := wait(p.ctx, pl.first); err != nil {
		return err
	}
	rounds, spoken := 1, 0
	for _, s := range pl.choices {
		rounds = max(rounds, len(s.tokens))
		spoken += len(s.tokens)
	}
	for i := range rounds {
		if i > 0 {
			if err := wait(p.ctx, pl.between); err != nil {
				return err
			}
		}
		batch := pl.round(i)
		if i == rounds-1 && pl.after == nil {
			u := &streaming.UsageData{Prompt: int64(pl.prompt), Completion: int64(spoken), Total: int64(pl.prompt + spoken)}
			batch = append(batch, streaming.Event{Kind: streaming.Usage, Usage: u})
		}
		if err := p.send(batch...); err != nil {
			return err
		}
	}
	if pl.after != nil {
		return pl.after(p.ctx)
	}
	return nil
}

// round is the i-th token of every choice that has one, with the finish of those
// for which it is the last.
func (pl *plan) round(i int) []streaming.Event {
	var batch []streaming.Event
	for index, s := range pl.choices {
		if i < len(s.tokens) {
			ev := s.tokens[i]
			ev.Index = index
			batch = append(batch, ev)
		}
		if pl.after == nil && i == max(len(s.tokens)-1, 0) {
			batch = append(batch, streaming.Event{Kind: streaming.Stop, Index: index, Stop: s.stop})
		}
	}
	return batch
}

// limit cuts a choice to the tokens that were allowed.
func (s *script) limit(allowed int) {
	if len(s.tokens) > allowed {
		s.tokens, s.stop = s.tokens[:allowed], "length"
	}
}

// say makes a choice of text: ended before a stop sequence, bounded in tokens.
func (a *ask) say(text string) script {
	for _, stop := range a.stops {
		if at := strings.Index(text, stop); at >= 0 {
			text = text[:at]
		}
	}
	s := script{stop: "stop"}
	for text != "" && len(s.tokens) <= a.max {
		var token string
		token, text = cutToken(text)
		s.tokens = append(s.tokens, streaming.Event{Kind: streaming.Text, Text: token})
	}
	s.limit(a.max)
	return s
}

// tokenBytes is how much of a long word makes one token.
const tokenBytes = 12

// cutToken takes the first token: a word with the white space before it.
func cutToken(text string) (token, rest string) {
	word := false
	from := 0
	for i, r := range text {
		switch space := unicode.IsSpace(r); {
		case space && word, word && i+utf8.RuneLen(r) > from+tokenBytes:
			return text[:i], text[i:]
		case !space && !word:
			word, from = true, i
		}
	}
	return text, ""
}

func countTokens(text string) int {
	n := 0
	for text != "" {
		_, text = cutToken(text)
		n++
	}
	return n
}

// What a message costs beside its text, and what an image costs.
const (
	messageTokens = 3
	imageTokens   = 85
)

func (a *ask) promptTokens() int {
	n := a.size
	for _, m := range a.messages {
		n += messageTokens + countTokens(m.Content.text) + imageTokens*len(m.Content.images)
	}
	return n
}
