package router

import (
	"fmt"
	"math/rand/v2"
)

// Balance is how a pool chooses among targets that are equally good.
type Balance uint8

const (
	// BalanceWeighted gives each its share by weight, spread evenly (smooth weighted round-robin).
	BalanceWeighted Balance = iota
	// BalanceRoundRobin takes one after the other, whatever the weights.
	BalanceRoundRobin
	// BalanceTwoChoices takes the less busy of two drawn by chance.
	BalanceTwoChoices
	// BalanceLeastRunning takes the one with the fewest attempts running for its weight.
	BalanceLeastRunning
	// BalancePeakEWMA takes of two drawn by chance the one that lets expect the earlier first content: the moving
	// average of the peaks, times the attempts that run there.
	BalancePeakEWMA
	// BalanceHash sends what belongs together to one place, as far as that has room.
	BalanceHash
)

var balances = [...]string{"weighted", "round_robin", "two_choices", "least_running", "peak_ewma", "hash"}

// BalanceNames are the names of all ways to balance, the default first.
func BalanceNames() []string { return balances[:] }

func (b Balance) String() string { return balances[b] }

// BalanceOf finds a way to balance by its name.
func BalanceOf(name string) (Balance, error) {
	for i, n := range balances {
		if n == name {
			return Balance(i), nil
		}
	}
	return 0, fmt.Errorf("there is no balance %q", name)
}

// choose takes one of the members, of which there is at least one.
func (p *Pool) choose(of *set, q *query) int {
	n := of.len()
	if n == 1 {
		return of.after(-1)
	}
	switch p.Balance {
	case BalanceRoundRobin:
		return p.inTurn(of)
	case BalanceTwoChoices:
		return p.better(of, n, func(t *Target) float64 { return float64(t.state().running.Load()) + 1 })
	case BalanceLeastRunning:
		return p.leastRunning(of)
	case BalancePeakEWMA:
		return p.better(of, n, func(t *Target) float64 { return t.cost(q) })
	case BalanceHash:
		return p.hashed(of, q)
	default:
		return p.smooth(of)
	}
}

// share is the weight of a target among those that have one, or among those that have none.
func (t *Target) share() int { return max(t.Weight, 1) }

// smooth is nginx's smooth weighted round-robin: each member gains its weight, and the
// one that has most pays for all.
func (p *Pool) smooth(of *set) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		p.current = make([]int, len(p.Targets))
	}
	best, sum := -1, 0
	for i := of.after(-1); i >= 0; i = of.after(i) {
		w := p.Targets[i].share()
		sum += w
		p.current[i] += w
		if best < 0 || p.current[i] > p.current[best] {
			best = i
		}
	}
	p.current[best] -= sum
	return best
}

// inTurn takes the next member behind the one that was taken last.
func (p *Pool) inTurn(of *set) int {
	for {
		last := p.turn.Load() // the place behind it
		next := of.after(int(last) - 1)
		if next < 0 {
			next = of.after(-1)
		}
		if p.turn.CompareAndSwap(last, uint32(next+1)) {
			return next
		}
	}
}

// better draws two members and takes the one that costs less for its weight.
func (p *Pool) better(of *set, n int, cost func(*Target) float64) int {
	a := rand.IntN(n)
	b := rand.IntN(n - 1)
	if b >= a {
		b++
	}
	i, j := of.nth(a), of.nth(b)
	t, u := p.Targets[i], p.Targets[j]
	if cost(u)*float64(t.share()) < cost(t)*float64(u.share()) {
		return j
	}
	return i
}

// unknownCost is of a target that is asked and has not answered yet: more than any that
// has, so that it is not stormed meanwhile.
const unknownCost = 1e15

// cost is how long a call is expected to wait, in nanoseconds.
func (t *Target) cost(q *query) float64 {
	s := t.state()
	running := float64(s.running.Load())
	expected := s.expected(q.now)
	if expected == 0 && running > 0 {
		return unknownCost + running
	}
	return expected * (running + 1)
}

// leastRunning begins at a member drawn by chance, so that equals share.
func (p *Pool) leastRunning(of *set) int {
	start := of.nth(rand.IntN(of.len()))
	best, least := -1, 0.0
	for i, first := start, true; i != start || first; first = false {
		t := p.Targets[i]
		if load := float64(t.state().running.Load()+1) / float64(t.share()); best < 0 || load < least {
			best, least = i, load
		}
		if i = of.after(i); i < 0 {
			i = of.after(-1)
		}
	}
	return best
}
