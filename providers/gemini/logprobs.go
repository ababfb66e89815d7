package gemini

import (
	"sluice/providers/kit/deltas"
	"sluice/streaming"
	"sluice/streaming/jsonscan"
)

// tokenWords are the API's names for what it tells of a token.
var tokenWords = deltas.Words{Token: "token", Logprob: "logProbability"}

// score reads the log probabilities of a candidate: the chosen tokens and, in a list as
// long, those that were likely at each place.
//
//go:noinline
func (o *choice) score(v []byte) {
	c := jsonscan.Cursor{B: v, Limit: maxDepth}
	if c.Peek() != '{' {
		return
	}
	var chosen []streaming.TokenLogprob
	var likely [][]streaming.TokenProb
	for c.Object(); c.Key(); {
		switch string(c.Name) {
		case "chosenCandidates":
			chosen = tokenWords.ReadTokens(chosen, &c)
		case "topCandidates":
			likely = readLikely(&c)
		default:
			c.Skip()
		}
	}
	for i := range min(len(chosen), len(likely)) {
		chosen[i].Top = likely[i]
	}
	o.scores.Share(chosen)
}

func readLikely(c *jsonscan.Cursor) (all [][]streaming.TokenProb) {
	if c.Peek() != '[' {
		c.Skip()
		return nil
	}
	for c.Array(); c.Elem(); {
		var top []streaming.TokenProb
		if c.Peek() != '{' {
			c.Skip()
			continue
		}
		for c.Object(); c.Key(); {
			if string(c.Name) != "candidates" {
				c.Skip()
				continue
			}
			for _, t := range tokenWords.ReadTokens(nil, c) {
				top = append(top, t.TokenProb)
			}
		}
		all = append(all, top)
	}
	return all
}
