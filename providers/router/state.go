package router

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sluice/providers"
)

// state is what is known of a target while the gateway runs. Pools that have the same
// target share it, and it is handed on to the catalog of the next configuration.
type state struct {
	running atomic.Int64
	cooled  atomic.Int64  // uptime until which it is left alone, as it asked
	odd     atomic.Bool   // it must be judged before it is asked
	peak    atomic.Uint64 // of the first contents, nanoseconds as a float
	peakAt  atomic.Int64  // uptime

	mu      sync.Mutex
	breaker breaker
	checked checked
	ejected ejection
	streams latencies
	failure string // the last one
	failed  time.Time
}

// lastWord bounds what is kept of an error's text.
const lastWord = 300

// send notes that a call is sent. probe asks for leave to find out whether the target
// is well, which it must have when it may not be asked otherwise.
func (s *state) send(cfg *Breaker, probe bool, now time.Duration) {
	s.running.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaker.window.part(cfg, now).sent++
	if probe {
		s.breaker.probes++
		s.breaker.probed = now
	}
}

// first notes the first content, now, of a call that took so long; streamed says that it did
// not come with the whole answer.
func (s *state) first(cfg *Breaker, probe, streamed bool, took, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaker.succeed(cfg, probe, now)
	if streamed {
		s.streams.note(took, now)
		s.peak.Store(math.Float64bits(s.streams.peak))
		s.peakAt.Store(int64(now))
	}
}

// fail notes a failure that is the target's.
func (s *state) fail(cfg *Breaker, probe bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.breaker.fail(cfg, probe, uptime()) {
		s.odd.Store(true)
	}
	s.say(err)
}

// say notes an error for operators, under s.mu.
func (s *state) say(err error) { s.failure, s.failed = words(err), time.Now() }

// words are what operators may read of an error. An upstream that refuses a credential may
// quote it.
func words(err error) string {
	if e := providers.AsError(err); e != nil && e.Kind == providers.UpstreamCredential {
		return "the upstream refused the gateway's credential"
	}
	text := err.Error()
	return text[:min(len(text), lastWord)]
}

// end notes that a call has ended, however.
func (s *state) end(probe bool) {
	s.running.Add(-1)
	if probe {
		s.mu.Lock()
		s.breaker.probes--
		s.mu.Unlock()
	}
}

func (s *state) coolFor(d time.Duration) { s.cooled.Store(int64(uptime() + d)) }

// cool reports whether the target has asked to be left alone.
func (s *state) cool(now time.Duration) bool { return s.cooled.Load() > int64(now) }

// judge says how far the target may be asked. Most are well, which is one look.
func (s *state) judge(cfg *Breaker, now time.Duration) verdict {
	if !s.odd.Load() {
		return verdict{share: 1}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, well := s.breaker.judge(cfg, now)
	if now < s.ejected.until {
		v, well = verdict{soft: true, wait: s.ejected.until - now}, false
	}
	if s.checked.sick {
		v, well = verdict{wait: s.checked.every}, false
	}
	if well {
		s.odd.Store(false)
	}
	return v
}

// claim takes the leave to find out whether the target is well. Of callers that compete
// one has it. last is set when no other target can be asked: then one a second may.
func (s *state) claim(cfg *Breaker, last bool, now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.breaker
	idle := b.probed == 0 || now-b.probed >= desperate
	switch {
	case s.checked.sick && !idle, b.at == closed && !s.checked.sick:
		return false
	case last && (idle || b.probes == 0 && b.good > 0):
	case !s.checked.sick && b.probes == 0 && (b.at == halfOpen || now >= b.until):
	default:
		return false
	}
	b.probed = now
	return true
}

// well reports whether the last that is known of the target is good.
func (s *state) well(now time.Duration) bool {
	if s.cool(now) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.breaker.inRow == 0 && s.breaker.at == closed && !s.checked.sick && now >= s.ejected.until
}

// expected is the time to the first content that the peaks let expect, in nanoseconds; 0
// when nothing is known.
func (s *state) expected(now time.Duration) float64 {
	peak := math.Float64frombits(s.peak.Load())
	if peak == 0 {
		return 0
	}
	return peak * math.Exp(-float64(now-time.Duration(s.peakAt.Load()))/float64(peakDecay))
}

// blames reports whether an error counts against its target: not what the caller must
// change, and not a limit.
func blames(err error) bool {
	e := providers.AsError(err)
	if e == nil {
		return false
	}
	switch e.Kind {
	case providers.Overloaded, providers.Unreachable, providers.UpstreamFailed, providers.Truncated, providers.Timeout, providers.EventTooLarge:
		return true
	case providers.Protocol:
		return e.Status < 400 || e.Status >= 500
	default:
		return false
	}
}
