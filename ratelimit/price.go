package ratelimit

import (
	"math"
	"math/bits"
)

// Price is what the tokens of a model cost, in nano-dollars (1e-9 US dollars) for a
// million of them.
type Price struct {
	Input  int64
	Cached int64 // of input tokens that the upstream had in its cache
	Output int64
}

// million is how many tokens a price is for.
const million = 1_000_000

// Cost is what a call costs in nano-dollars, rounded up once over all its parts. cached
// is a part of input. Beyond MaxBudget the cost is MaxBudget.
func (p Price) Cost(input, cached, output int64) int64 {
	cached = min(max(cached, 0), max(input, 0))
	var hi, lo uint64
	for _, part := range [...]struct{ tokens, price int64 }{{input - cached, p.Input}, {cached, p.Cached}, {output, p.Output}} {
		h, l := bits.Mul64(uint64(max(part.tokens, 0)), uint64(max(part.price, 0)))
		var carry uint64
		lo, carry = bits.Add64(lo, l, 0)
		hi, _ = bits.Add64(hi, h, carry)
	}
	if hi >= million {
		return MaxBudget
	}
	cost, rest := bits.Div64(hi, lo, million)
	if rest > 0 && cost < math.MaxUint64 {
		cost++
	}
	return int64(min(cost, MaxBudget))
}

// Prices finds the price of a model. It is read only once in use.
type Prices []ModelPrice

// ModelPrice is the price of the models that fit a pattern.
type ModelPrice struct {
	Model string // a glob, as those of a Rule
	Price
}

// Of is the price of a model: of the first pattern that fits. A model without one costs
// nothing.
func (p Prices) Of(model string) Price {
	for i := range p {
		if globMatch(p[i].Model, model) {
			return p[i].Price
		}
	}
	return Price{}
}

// Fits reports whether a name fits a pattern as rules and prices have them: the syntax
// of path.Match, but * also takes slashes.
func Fits(pattern, name string) bool { return globMatch(pattern, name) }
