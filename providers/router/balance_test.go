package router

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/providers"
)

func plainPool(weights ...int) *Pool {
	p := &Pool{Model: "m"}
	for i, w := range weights {
		p.Targets = append(p.Targets, &Target{Name: fmt.Sprintf("up%d/m", i), Weight: w})
	}
	return p
}

func takeFor(p *Pool, req *providers.Request) picked {
	return p.pick(&query{tried: new(set), shut: new(set), now: uptime(), cfg: &Breaker{}, req: req})
}

func TestBalanceShares(t *testing.T) {
	const rounds = 6000
	for _, c := range []struct {
		balance Balance
		weights []int
		want    []int
		off     int
	}{
		{BalanceWeighted, []int{1, 2, 3}, []int{1000, 2000, 3000}, 0},
		{BalanceWeighted, []int{1, 0, 3}, []int{1500, 0, 4500}, 0},
		{BalanceWeighted, []int{0, 0}, []int{3000, 3000}, 0},
		{BalanceRoundRobin, []int{1, 5, 1}, []int{2000, 2000, 2000}, 0},
		{BalanceTwoChoices, []int{1, 1, 1}, []int{2000, 2000, 2000}, 250},
		{BalanceLeastRunning, []int{1, 1, 1}, []int{2000, 2000, 2000}, 250},
		{BalancePeakEWMA, []int{1, 1, 1}, []int{2000, 2000, 2000}, 250},
	} {
		p := plainPool(c.weights...)
		p.Balance = c.balance
		n := make([]int, len(c.weights))
		for range rounds {
			n[takeFor(p, nil).at]++
		}
		for i := range n {
			if n[i] < c.want[i]-c.off || n[i] > c.want[i]+c.off {
				t.Errorf("%v of %v: %v, want %v", c.balance, c.weights, n, c.want)
				break
			}
		}
	}
}

// Smooth: no target gets two calls in a row that others could have had between.
func TestWeightedIsSmooth(t *testing.T) {
	p := plainPool(5, 1, 1)
	var got string
	for range 7 {
		got += fmt.Sprint(takeFor(p, nil).at)
	}
	if got != "0010200" {
		t.Errorf("%s, want 0010200", got)
	}
}

func TestLeastRunning(t *testing.T) {
	p := plainPool(1, 4)
	p.Balance = BalanceLeastRunning
	n := []int{0, 0}
	for range 100 {
		i := takeFor(p, nil).at
		p.Targets[i].state().running.Add(1)
		n[i]++
	}
	if n[0] != 20 {
		t.Errorf("%v run, weights 1 and 4", n)
	}
}

func TestPriority(t *testing.T) {
	cfg := defaultBreaker()
	p := plainPool(1, 1, 1, 0)
	p.Targets[0].Priority, p.Targets[1].Priority = 2, 1
	p.Targets[2].Priority, p.Targets[3].Priority = 1, 1
	look := func(tried, shut *set) picked {
		return p.pick(&query{tried: tried, shut: shut, now: uptime(), cfg: &cfg})
	}
	var tried set
	for _, want := range []string{"12", "12", "3", "0"} {
		got := look(&tried, new(set))
		if !containsDigit(want, got.at) {
			t.Fatalf("target %d, want one of %s", got.at, want)
		}
		tried.add(got.at)
	}
	for range 5 {
		tell(p.Targets[1].state(), &cfg, false)
		tell(p.Targets[2].state(), &cfg, false)
	}
	if got := look(new(set), new(set)); got.at != 3 {
		t.Errorf("target %d, want the one without weight of the same tier", got.at)
	}
	p.Targets[3].Drained = true
	if got := look(new(set), new(set)); got.at != 0 || got.others != 0 {
		t.Errorf("%+v, want the next tier", got)
	}
}

func containsDigit(digits string, n int) bool {
	for _, d := range digits {
		if int(d-'0') == n {
			return true
		}
	}
	return false
}

func TestDrainedAndFull(t *testing.T) {
	p := plainPool(1, 1)
	p.Targets[0].Drained = true
	for range 10 {
		if got := takeFor(p, nil); got.at != 1 || got.others != 0 {
			t.Fatalf("%+v", got)
		}
	}
	p.Targets[1].MaxRunning = 2
	p.Targets[1].state().running.Store(2)
	got := takeFor(p, nil)
	if e := providers.AsError(p.away(got)); got.target != nil || e == nil || e.Kind != providers.RateLimited {
		t.Errorf("%+v, %v", got, e)
	}
	p.Targets[1].Drained = true
	if e := providers.AsError(p.away(takeFor(p, nil))); e == nil || e.Code != "model_drained" || e.Kind != providers.Overloaded || e.RetryAfter != drainedRetry {
		t.Errorf("%+v", e)
	}
}

func asking(session string) *providers.Request {
	return &providers.Request{Model: "m", Hints: providers.Hints{Session: session}}
}

// What belongs together meets the same target; one that goes moves its own alone; and no
// target gets more than its bound.
func TestHash(t *testing.T) {
	p := plainPool(1, 1, 2, 1)
	p.Balance = BalanceHash
	const sessions = 5000
	place := map[string]int{}
	n := make([]int, 4)
	for i := range sessions {
		s := fmt.Sprint("session ", i)
		place[s] = takeFor(p, asking(s)).at
		n[place[s]]++
	}
	for i, want := range []int{1000, 1000, 2000, 1000} {
		if n[i] < want*85/100 || n[i] > want*115/100 {
			t.Errorf("target %d has %d of %d sessions, want about %d", i, n[i], sessions, want)
		}
	}
	p.Targets[1].Drained = true
	for s, was := range place {
		if is := takeFor(p, asking(s)).at; is != was && was != 1 {
			t.Fatalf("%s moved from %d to %d, which both stay", s, was, is)
		}
	}
	p.Targets[1].Drained = false
	for range 500 { // everybody asks for one session
		i := takeFor(p, asking("hot")).at
		p.Targets[i].state().running.Add(1)
	}
	for i, target := range p.Targets {
		share := float64(target.Weight) / 5
		if r := float64(target.state().running.Load()); r > math.Ceil(crowded*500*share)+1 {
			t.Errorf("target %d runs %g of 500", i, r)
		}
	}
}

func TestAffinity(t *testing.T) {
	body := func(first, last string) *providers.Request {
		return &providers.Request{Body: []byte(`{"temperature":1,"messages":[{"role":"system","content":"` + first + `"},{"role":"user","content":"` + last + `"}]}`)}
	}
	long := make([]byte, 2*prefixBytes)
	for i := range long {
		long[i] = 'x'
	}
	if AffinityPrompt.key(body(string(long), "a")) != AffinityPrompt.key(body(string(long), "b")) {
		t.Error("prompts that begin alike are kept apart")
	}
	if AffinityPrompt.key(body("one", "a")) == AffinityPrompt.key(body("two", "a")) {
		t.Error("prompts that begin otherwise are kept together")
	}
	a, b := asking("s"), asking("s")
	a.Hints.User, b.Hints.User = "x", "y"
	if AffinitySession.key(a) != AffinitySession.key(b) || AffinityUser.key(a) == AffinityUser.key(b) {
		t.Error("session or user")
	}
	a.Hints.Session, b.Hints.Session = "", ""
	if AffinitySession.key(a) == AffinitySession.key(b) {
		t.Error("without a session the user stands for it")
	}
}

// Queueing: how long calls wait at ten servers of which each does one at a time, at a load
// of 0.9. The policies must come out as the books say: chance far behind, two choices near
// the best that knows all.
func TestQueueing(t *testing.T) {
	p99 := map[string]float64{}
	for _, policy := range []string{"random", "round_robin", "two_choices", "least_running"} {
		synctest.Test(t, func(t *testing.T) { p99[policy] = waits(policy, 10, 0.9, 60_000) })
	}
	t.Logf("99 of 100 wait less than, in service times: %v", p99)
	// M/M/1 at 0.9: ln(100*0.9)/(1-0.9) = 45; M/M/10: about 4.
	if r := p99["random"]; r < 25 || r > 70 {
		t.Errorf("random: %.1f, the theory of M/M/1 says 45", r)
	}
	if p99["two_choices"] > p99["random"]/3 || p99["least_running"] > p99["two_choices"] || p99["round_robin"] > p99["random"] {
		t.Errorf("%v", p99)
	}
}

// waits simulates one-at-a-time servers with a service time of a second on average, and
// returns the 99th percentile of the waiting time in seconds.
func waits(policy string, servers int, load float64, calls int) float64 {
	p := plainPool(make([]int, servers)...)
	p.Balance, _ = BalanceOf(policy)
	for _, target := range p.Targets {
		target.Weight = 1
	}
	random := rand.New(rand.NewPCG(1, 2))
	free := make([]time.Duration, servers) // when each is done with all it has
	var h []float64
	now := time.Duration(0)
	type job struct {
		at   int
		ends time.Duration
	}
	var running []job
	for range calls {
		now += time.Duration(random.ExpFloat64() / load / float64(servers) * float64(time.Second))
		kept := running[:0]
		for _, j := range running {
			if j.ends <= now {
				p.Targets[j.at].state().running.Add(-1)
			} else {
				kept = append(kept, j)
			}
		}
		running = kept
		i := random.IntN(servers)
		if policy != "random" {
			i = takeFor(p, nil).at
		}
		starts := max(now, free[i])
		free[i] = starts + time.Duration(random.ExpFloat64()*float64(time.Second))
		running = append(running, job{i, free[i]})
		p.Targets[i].state().running.Add(1)
		h = append(h, (starts - now).Seconds())
	}
	return percentile(h, 0.99)
}

func percentile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1))]
}

// A target that is slow gets less by peak EWMA than by the number that run alone.
func TestPeakEWMA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := defaultBreaker()
		p := plainPool(1, 1, 1)
		p.Balance = BalancePeakEWMA
		n := []int{0, 0, 0}
		for range 3000 {
			i := takeFor(p, nil).at
			took := 100 * time.Millisecond
			if i == 0 {
				took = 2 * time.Second
			}
			p.Targets[i].state().send(&cfg, false, uptime())
			p.Targets[i].state().first(&cfg, false, true, took, uptime())
			p.Targets[i].state().end(false)
			n[i]++
			time.Sleep(10 * time.Millisecond)
		}
		if n[0] > 100 || n[0] == 0 {
			t.Errorf("the slow one was asked %d of 3000 times", n[0])
		}
	})
}

func TestHistogram(t *testing.T) {
	var l latencies
	for i := range 1000 {
		l.note(time.Duration(i+1)*time.Millisecond, uptime())
	}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 500 * time.Millisecond}, {0.95, 950 * time.Millisecond}, {1, time.Second}} {
		got, n := l.quantile(c.q)
		if n != 1000 || got < c.want || got > c.want*9/8+time.Millisecond {
			t.Errorf("%g: %v of %d, want %v", c.q, got, n, c.want)
		}
	}
	for _, d := range []time.Duration{0, time.Microsecond, 9 * time.Microsecond, time.Second, time.Hour, 1000 * time.Hour} {
		if c := cellOf(d); c < 0 || c >= histogramCells || upTo(c) < min(d, 4*time.Hour) && d < 4*time.Hour {
			t.Errorf("%v is in cell %d, which ends at %v", d, c, upTo(c))
		}
	}
}

func TestSet(t *testing.T) {
	var s set
	in := map[int]bool{}
	for _, i := range []int{0, 5, 63, 64, 127, 128, 200, 511} {
		s.add(i)
		in[i] = true
	}
	var got []int
	for i := s.after(-1); i >= 0; i = s.after(i) {
		got = append(got, i)
	}
	if len(got) != len(in) || s.len() != len(in) || s.nth(5) != 128 || s.nth(8) != -1 {
		t.Errorf("%v, %d", got, s.len())
	}
	c := s.clone()
	c.add(300)
	for i := range 600 {
		if s.has(i) != in[i] {
			t.Errorf("%d", i)
		}
	}
	if s.clear(); s.len() != 0 || c.len() != len(in)+1 {
		t.Error("a copy shares its memory")
	}
}
