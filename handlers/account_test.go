package handlers

import (
	"testing"
	"time"

	"sluice/handlers/tokens"
	"sluice/providers"
	"sluice/ratelimit"
	"sluice/streaming"
)

// TestExtend: more is taken when the deltas, or what the upstream told, have outgrown what
// is reserved; never for the bytes of an answer, nor within a declared cap.
func TestExtend(t *testing.T) {
	one := streaming.Event{Kind: streaming.Text, Text: "a delta of far more bytes than one token has"}
	for name, c := range map[string]struct {
		body   string
		deltas int
		told   int64
		want   int64 // tokens that are taken
	}{
		"within a declared cap":      {`{"model":"m","max_tokens":40}`, 40, 0, 0},
		"a delta or two beyond it":   {`{"model":"m","max_tokens":40}`, 42, 0, 0},
		"a cap that is not held to":  {`{"model":"m","max_tokens":40}`, 54, 0, extendBy},
		"within what is usual":       {`{"model":"m"}`, 1024, 0, 0},
		"beyond what is usual":       {`{"model":"m"}`, 1025, 0, extendBy},
		"far beyond what is usual":   {`{"model":"m"}`, 1024 + extendBy + 1, 0, 2 * extendBy},
		"told in fewer, larger ones": {`{"model":"m"}`, 100, 1100, extendBy},
	} {
		l := &tally{}
		p := streaming.NewProgress(time.Now())
		a := &account{quota: &Quota{Limiter: l, Tokens: tokens.New(nil)}, p: p, req: &providers.Request{Op: providers.Chat, Body: []byte(c.body), Choices: 1}}
		a.estimate([]ratelimit.Bucket{{Rule: &ratelimit.Rule{Dim: ratelimit.Money, Hard: true}}})
		for range c.deltas {
			p.Count([]streaming.Event{one}, streaming.Uptime())
		}
		if c.told > 0 {
			p.SetUsage(&streaming.UsageData{Completion: c.told})
		}
		if err := a.extend(t.Context(), int64(c.deltas)); err != nil || l.extended != c.want {
			t.Errorf("%s: %d are taken, want %d (%v)", name, l.extended, c.want, err)
		}
	}
}
