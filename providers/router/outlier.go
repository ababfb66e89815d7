package router

import (
	"math"
	"time"
)

// Eject says when a target is left alone because it fails so much more often than the
// others of its pool. The zero value never does.
type Eject struct {
	Every   time.Duration // between two searches; 0 turns it off
	AtLeast int           // calls in the breaker's window before a target is compared
	Pause   time.Duration // the first time it is left alone, and so much more each further time in a row
	// Cap is the share of the pool that may be left alone for whatever reason when one more
	// is ejected, above 0 to 1.
	Cap float64
}

// The rate of failures of an outlier is so many standard deviations above the pool's mean,
// and never below outlierRate: in a pool that is well nobody is one.
const (
	outlierDeviations = 1.0
	outlierRate       = 0.2
	outlierPauses     = 10
)

// ejection is what a state knows of it. Its mutex guards it.
type ejection struct {
	until time.Duration // uptime
	times int
}

// sweep looks for outliers when it is time. Of many callers one does.
func (p *Pool) sweep(cfg *Breaker, now time.Duration) {
	last := p.swept.Load()
	if p.Eject.Every <= 0 || now-time.Duration(last) < p.Eject.Every || !p.swept.CompareAndSwap(last, int64(now)) {
		return
	}
	rates, down := make([]float64, len(p.Targets)), 0
	n, sum, squares := 0.0, 0.0, 0.0
	for i, t := range p.Targets {
		rates[i] = -1
		s := t.state()
		s.mu.Lock()
		calls, bad := s.breaker.window.totals(cfg, now)
		s.mu.Unlock()
		switch {
		case t.Drained || s.judge(cfg, now).share == 0:
			down++
		case int(calls) >= max(p.Eject.AtLeast, 1):
			r := float64(bad) / float64(calls)
			rates[i] = r
			n, sum, squares = n+1, sum+r, squares+r*r
		}
	}
	if n < 3 { // of two nobody can tell which one is odd
		return
	}
	mean := sum / n
	bound := max(mean+outlierDeviations*math.Sqrt(max(squares/n-mean*mean, 0)), outlierRate)
	for i, r := range rates {
		if r <= bound {
			if r >= 0 {
				p.Targets[i].state().keep()
			}
			continue
		}
		if down++; float64(down) > p.Eject.Cap*float64(len(p.Targets)) {
			return
		}
		p.Targets[i].state().eject(p.Eject.Pause, now)
	}
}

// keep notes that the target is no outlier.
func (s *state) keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ejected.times = 0
}

func (s *state) eject(pause, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ejected.times = min(s.ejected.times+1, outlierPauses)
	s.ejected.until = now + pause*time.Duration(s.ejected.times)
	s.breaker.window = window{}
	s.breaker.healed = s.ejected.until // it begins anew with a small share
	s.odd.Store(true)
}
