package ratelimit

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestPrice(t *testing.T) {
	mini := Price{Input: 150_000_000, Cached: 75_000_000, Output: 600_000_000} // 0.15, 0.075 and 0.60 dollars
	for name, c := range map[string]struct {
		price                 Price
		input, cached, output int64
		want                  int64
	}{
		"input":              {mini, 1, 0, 0, 150},
		"cached":             {mini, 10, 4, 0, 6*150 + 4*75},
		"output":             {mini, 0, 0, 3, 1800},
		"a million of each":  {mini, 1e6, 0, 1e6, 750_000_000},
		"rounded up once":    {Price{Input: 1, Output: 1}, 1, 0, 1, 1},
		"exactly one":        {Price{Input: 1}, 1e6, 0, 0, 1},
		"a little more":      {Price{Input: 1}, 1e6 + 1, 0, 0, 2},
		"free":               {Price{}, 1e9, 0, 1e9, 0},
		"more cached":        {mini, 10, 40, 0, 10 * 75},
		"negative":           {mini, -1, -1, -1, 0},
		"beyond the largest": {Price{Output: MaxBudget}, 0, 0, math.MaxInt64, MaxBudget},
		"all the largest":    {Price{math.MaxInt64, math.MaxInt64, math.MaxInt64}, math.MaxInt64, 1, math.MaxInt64, MaxBudget},
	} {
		if got := c.price.Cost(c.input, c.cached, c.output); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestPriceIsExact compares with arithmetic that has no bounds.
func TestPriceIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		amount := rapid.Int64Range(0, 1e15)
		p := Price{amount.Draw(t, "in"), amount.Draw(t, "cached"), amount.Draw(t, "out")}
		tokens := rapid.Int64Range(0, 1e9)
		input, output := tokens.Draw(t, "input"), tokens.Draw(t, "output")
		cached := rapid.Int64Range(0, input).Draw(t, "from cache")
		sum := new(big.Int)
		for _, part := range [][2]int64{{input - cached, p.Input}, {cached, p.Cached}, {output, p.Output}} {
			sum.Add(sum, new(big.Int).Mul(big.NewInt(part[0]), big.NewInt(part[1])))
		}
		want, rest := new(big.Int).DivMod(sum, big.NewInt(million), new(big.Int))
		if rest.Sign() > 0 {
			want.Add(want, big.NewInt(1))
		}
		if most := big.NewInt(MaxBudget); want.Cmp(most) > 0 {
			want = most
		}
		if got := p.Cost(input, cached, output); got != want.Int64() {
			t.Fatalf("%d, want %s", got, want)
		}
	})
}

func TestPrices(t *testing.T) {
	p := Prices{{"gpt-4o-mini*", Price{Input: 1}}, {"gpt-4o*", Price{Input: 2}}, {"meta-llama/*", Price{Input: 3}}}
	for model, want := range map[string]int64{"gpt-4o-mini": 1, "gpt-4o-mini-2": 1, "gpt-4o": 2, "meta-llama/a/b": 3, "other": 0, "": 0} {
		if got := p.Of(model).Input; got != want {
			t.Errorf("%s: %d, want %d", model, got, want)
		}
	}
}
