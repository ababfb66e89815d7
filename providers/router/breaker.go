package router

import (
	"math/rand/v2"
	"time"
)

// Breaker says when a target that fails is left alone. The zero value never does. One
// that gave an answer its first content has served it, however long the rest takes;
// callers who leave and requests that are refused count for nothing.
type Breaker struct {
	InRow   int           // failures in a row that open it; 0 turns the breaker off
	Window  time.Duration // over which the rates are taken, at least windowParts ns
	AtLeast int           // calls in it before they mean anything
	// Above Partial, a share of calls, a target is given less and less of them, and above
	// Least only a tenth. Above Open it is left alone.
	Partial, Least, Open float64
	Pause, PauseMax      time.Duration // the first time it is left alone, doubled each further time; ± 20 %
	Successes            int           // of probes that close it
	Ramp                 time.Duration // from a tenth to its full share afterwards
}

// least is the share of calls that a sick or recovering target is given, so that it shows how it is.
const least = 0.1

// desperate is the pause between two probes of a target when no other can be asked.
const desperate = time.Second

type position uint8

const (
	closed position = iota
	open
	halfOpen
)

// breaker is the breaker of one target. Its state's mutex guards it.
type breaker struct {
	at     position
	soft   bool          // opened by a rate: some calls still succeed
	until  time.Duration // open, uptime
	times  int           // opened without having been well for a ramp
	inRow  int
	good   int           // probes in a row
	probes int           // that run now
	probed time.Duration // uptime of the last one's begin
	healed time.Duration // uptime when it closed; 0: no ramp
	window window
}

// verdict is how far a target may be asked now.
type verdict struct {
	share float64       // of calls; 0 is none
	soft  bool          // it is none, but half the pool may not be missing for it
	due   bool          // one call may find out whether it is well
	wait  time.Duration // until one may
}

// judge says how far the target may be asked. well means that nothing needs judging
// until the next failure.
func (b *breaker) judge(cfg *Breaker, now time.Duration) (v verdict, well bool) {
	switch {
	case b.at == open && now < b.until:
		return verdict{soft: b.soft, wait: min(b.until-now, max(0, desperate-(now-b.probed)))}, false
	case b.at != closed:
		return verdict{soft: b.soft, due: b.probes == 0, wait: max(0, desperate-(now-b.probed))}, false
	}
	v.share = 1
	if b.healed > 0 {
		if gone := now - b.healed; gone < cfg.Ramp {
			v.share = least + (1-least)*float64(gone)/float64(cfg.Ramp)
		} else {
			b.healed, b.times = 0, 0
		}
	}
	if cfg.InRow > 0 {
		v.share = min(v.share, cfg.partial(b.window.rate(cfg, now)))
	}
	return v, v.share == 1
}

// partial is the share of calls for a rate of failures.
func (cfg *Breaker) partial(rate float64) float64 {
	switch {
	case rate <= cfg.Partial || cfg.Least <= cfg.Partial:
		return 1
	case rate >= cfg.Least:
		return least
	default:
		return 1 - (1-least)*(rate-cfg.Partial)/(cfg.Least-cfg.Partial)
	}
}

// fail notes a failure, and reports whether the target needs judging from now on.
func (b *breaker) fail(cfg *Breaker, probe bool, now time.Duration) (odd bool) {
	b.inRow++
	b.window.part(cfg, now).bad++
	rate := b.window.rate(cfg, now)
	switch {
	case cfg.InRow <= 0:
		return false
	case b.at == closed && b.inRow >= cfg.InRow:
		b.open(cfg, false, now)
	case b.at == closed && cfg.Open > 0 && rate >= cfg.Open:
		b.open(cfg, true, now)
	case b.at != closed && probe:
		b.open(cfg, b.soft, now)
	}
	return b.at != closed || b.healed > 0 || rate > cfg.Partial
}

func (b *breaker) open(cfg *Breaker, soft bool, now time.Duration) {
	pause := cfg.Pause << min(b.times, 20)
	if pause <= 0 || pause > cfg.PauseMax {
		pause = cfg.PauseMax
	}
	pause += time.Duration((rand.Float64()*0.4 - 0.2) * float64(pause))
	b.at, b.soft, b.until, b.good, b.healed = open, soft, now+pause, 0, 0
	b.times++
}

// succeed notes a success.
func (b *breaker) succeed(cfg *Breaker, probe bool, now time.Duration) {
	b.inRow = 0
	b.window.part(cfg, now).good++
	if b.at == closed || !probe {
		return
	}
	b.at = halfOpen
	if b.good++; b.good >= cfg.Successes {
		b.close(now)
	}
}

// close lets calls through again, few at first.
func (b *breaker) close(now time.Duration) {
	b.at, b.good, b.soft, b.healed = closed, 0, false, now
	b.window = window{}
}

// windowParts is how finely the window moves.
const windowParts = 10

// window counts the calls of the last while, in parts.
type window struct{ parts [windowParts]part }

type part struct {
	number          int64 // since the process began
	sent, good, bad uint32
}

// part is the one that counts now.
func (w *window) part(cfg *Breaker, now time.Duration) *part {
	n := int64(now / cfg.span())
	p := &w.parts[n%windowParts]
	if p.number != n {
		*p = part{number: n}
	}
	return p
}

func (cfg *Breaker) span() time.Duration { return max(cfg.Window/windowParts, time.Millisecond) }

// totals are the calls in the window and those that failed. A call counts when it is sent:
// answers that take long must not look like failures, nor late failures like few.
func (w *window) totals(cfg *Breaker, now time.Duration) (calls, bad uint32) {
	oldest := int64(now/cfg.span()) - windowParts + 1
	var sent, good uint32
	for i := range w.parts {
		if p := &w.parts[i]; p.number >= oldest {
			sent, good, bad = sent+p.sent, good+p.good, bad+p.bad
		}
	}
	return max(sent, good+bad), bad
}

// rate is the share of calls that failed; 0 while they are too few to tell.
func (w *window) rate(cfg *Breaker, now time.Duration) float64 {
	calls, bad := w.totals(cfg, now)
	if calls == 0 || int(calls) < cfg.AtLeast {
		return 0
	}
	return float64(bad) / float64(calls)
}
