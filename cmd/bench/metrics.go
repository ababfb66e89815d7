package main

import (
	"fmt"
	"math"
	"time"

	"sluice/cmd/bench/load"
	"sluice/cmd/bench/stat"
)

// metric is one figure taken from a test's result. Smaller is better unless the
// unit says "per second".
type metric struct {
	key, title, unit string
	test             string
	added            bool // what direct has is subtracted, round by round
	value            func(load.Result) float64
}

// tolerance is what noise may add to a limit.
const tolerance = 1.10

var metrics = []metric{
	{"event", "CPU per relayed event, `paced` (200 streams x 50 tokens/s, spinners)", "us", paced, false, func(r load.Result) float64 { return per(r.CPU, r.Events) }},
	{"burst", "CPU per relayed event, `burst` (16 workers, 256 tokens, no delay)", "us", burst, false, func(r load.Result) float64 { return per(r.CPU, r.Events) }},
	{"burst_rate", "Throughput, `burst`", "tokens per second", burst, false, func(r load.Result) float64 { return rate(r.Events, r.Window) }},
	{"request", "CPU per request, `json` (32 workers, answers of 1.2 KB, spinners)", "us", whole, false, func(r load.Result) float64 { return per(r.CPU, r.Calls) }},
	{"request_rate", "Throughput, `json`", "requests per second", whole, false, func(r load.Result) float64 { return rate(r.Calls, r.Window) }},
	{"ttft_added", "Added time to the first token, p50, `ttft` (100 streams/s, 32 tokens 10 ms apart)", "ms", ttft, true, func(r load.Result) float64 { return r.TTFT50 }},
	{"ttft_p99", "Time to the first token, p99, `ttft`", "ms", ttft, false, func(r load.Result) float64 { return r.TTFT99 }},
	{"short", "CPU per stream, `short` (32 workers, 64 tokens, no delay)", "us", short, false, func(r load.Result) float64 { return per(r.CPU, r.Calls) }},
	{"short_rate", "Throughput, `short`", "streams per second", short, false, func(r load.Result) float64 { return rate(r.Calls, r.Window) }},
	{"quota", "CPU per stream with and without limits, `quota` (128 workers, 64 tokens 5 ms apart, spinners)", "us", quota, false, func(r load.Result) float64 { return per(r.CPU, r.Calls) }},
	{"idle_memory", "Memory per idle stream, `idle` (one token every 5 s, fresh process)", "KB", idle, false, func(r load.Result) float64 {
		return float64(r.RSSOpen-r.RSSBefore) / 1024 / float64(r.Opened)
	}},
	{"ws_event", "CPU per relayed event over WebSocket, `wspaced` (as `paced`, 200 sockets with one stream each)", "us", wsPaced, false, func(r load.Result) float64 { return per(r.CPU, r.Events) }},
	{"ws_event4", "CPU per relayed event over WebSocket, `wspaced4` (as `paced`, 50 sockets with four streams each)", "us", wsPaced4, false, func(r load.Result) float64 { return per(r.CPU, r.Events) }},
	{"ws_burst", "CPU per relayed event over WebSocket, `wsburst` (as `burst`, 16 sockets)", "us", wsBurst, false, func(r load.Result) float64 { return per(r.CPU, r.Events) }},
	{"ws_socket", "Memory per idle socket, `wsidle` (no answer under way, fresh process)", "KB", wsIdle, false, func(r load.Result) float64 {
		return float64(r.RSSSockets-r.RSSBefore) / 1024 / float64(r.Sockets)
	}},
	{"ws_stream", "Memory per idle stream on a socket of its own, socket included, `wsidle` (one token every 5 s)", "KB", wsIdle, false, func(r load.Result) float64 {
		return float64(r.RSSOpen-r.RSSBefore) / 1024 / float64(r.Opened)
	}},
}

// overSSE names, for metrics over WebSocket, what Sluice needs for the same over SSE.
var overSSE = map[string]string{"ws_event": "event", "ws_event4": "event", "ws_burst": "burst", "ws_stream": "idle_memory"}

func per(cpu time.Duration, n int64) float64 {
	return float64(cpu) / float64(time.Microsecond) / float64(n)
}
func rate(n int64, window time.Duration) float64 { return float64(n) / window.Seconds() }

// values gives a metric of one target by round; NaN where it was not measured.
func (b *benchRun) values(m metric, target string) []float64 {
	out := b.raw(m, target)
	if m.added {
		base := b.raw(m, direct)
		for i := range out {
			out[i] -= base[i]
		}
	}
	return out
}

func (b *benchRun) raw(m metric, target string) []float64 {
	out := make([]float64, b.options.rounds)
	for i := range out {
		out[i] = math.NaN()
	}
	for _, c := range b.cells {
		if c.Test == m.test && c.Target == target && c.Err == "" {
			out[c.Round] = m.value(c.Result)
		}
	}
	return out
}

// sseRatios compares a metric over WebSocket with the same over SSE, round by round.
func (b *benchRun) sseRatios(m metric) []float64 {
	for _, base := range metrics {
		if base.key == overSSE[m.key] {
			return stat.Ratios(b.values(m, sluice), b.values(base, sluice))
		}
	}
	return nil
}

// ratios compares a metric of two targets round by round. An added time is the
// small difference of two noisy ones, which a single round does not hold: there
// the medians are compared, as one value.
func (b *benchRun) ratios(m metric, target, other string) []float64 {
	a, o := b.values(m, target), b.values(m, other)
	if m.added {
		a, o = []float64{stat.Summarize(a).Median}, []float64{stat.Summarize(o).Median}
	}
	return stat.Ratios(a, o)
}

// damage is the sum over all tests of what must be zero.
type damage struct {
	Streams, Truncated, Wrong, Failed, LeftBehind int64
	Errors                                        int // tests that gave no result
}

func (b *benchRun) damage(target string) (d damage) {
	for _, c := range b.cells {
		if c.Target != target {
			continue
		}
		d.Streams += c.Result.Streams
		d.Truncated += c.Result.Truncated
		d.Wrong += c.Result.Wrong
		d.Failed += c.Result.Failed
		d.LeftBehind += c.Result.LeftBehind
		if c.Err != "" {
			d.Errors++
		}
	}
	return d
}

// sse stands in a limit for Sluice itself over SSE: see overSSE.
const sse = "sse"

// limit is one gate: a metric of Sluice, as a ratio to another target or to sse
// or, with neither named, as it is. Against sluice it is about the target of.
type limit struct {
	metric, against string
	most            float64
	of              string // "": Sluice without limits
}

var limits = []limit{
	{"event", nginx, 1.7, ""},
	{"event", reverseProxy, 1.15, ""},
	{"burst", nginx, 1.3, ""},
	{"request", nginx, 2, ""},
	{"ttft_added", nginx, 2, ""},
	{"idle_memory", "", 65, ""},
	{"ws_event", sse, 1.1, ""},
	{"ws_event4", sse, 1.1, ""},
	{"quota", sluice, 1.03, limited},
	{"quota", sluice, 1.15, shared},
}

// verdict is a limit with what was measured.
type verdict struct {
	Name     string
	Limit    float64
	Measured *float64 // median; nil if not measured
	Passed   bool
	Text     string
}

// judge compares Sluice with the limits of the tests that were asked for.
func (b *benchRun) judge() []verdict {
	var out []verdict
	for _, l := range limits {
		for _, m := range metrics {
			if m.key == l.metric && b.truncation == 0 && b.asked(m.test) {
				out = append(out, b.judgeLimit(l, m))
			}
		}
	}
	d := b.damage(sluice)
	bad := float64(d.Truncated + d.Wrong + d.Failed + d.LeftBehind)
	v := verdict{Name: "streams truncated, wrong, failed or left behind", Measured: &bad, Passed: bad == 0 && d.Errors == 0 && d.Streams > 0}
	v.Text = fmt.Sprintf("%.0f of %d, %d tests without a result", bad, d.Streams, d.Errors)
	return append(out, v)
}

func (b *benchRun) judgeLimit(l limit, m metric) verdict {
	values, name := b.values(m, sluice), m.key+" "+m.unit
	switch l.against {
	case "":
	case sse:
		values, name = b.sseRatios(m), m.key+" x "+sse
	case sluice:
		values, name = b.ratios(m, l.of, sluice), l.of+" x "+sluice
	default:
		values, name = b.ratios(m, sluice, l.against), m.key+" x "+l.against
	}
	s := stat.Summarize(values)
	v := verdict{Name: name, Limit: l.most}
	if s.N == 0 {
		v.Text = "not measured"
		return v
	}
	v.Measured, v.Text = &s.Median, spread(s)
	v.Passed = s.Median <= l.most*tolerance
	if v.Passed && s.Median > l.most {
		v.Text += ", within tolerance"
	}
	return v
}

func (b *benchRun) asked(test string) bool {
	for _, t := range b.tests {
		if t == test {
			return true
		}
	}
	return false
}

// brief is the progress line of a test.
func brief(test string, r load.Result) string {
	var line string
	for _, m := range metrics {
		if m.test == test {
			line += fmt.Sprintf(" %s %s", number(m.value(r)), m.unit)
		}
	}
	if r.Window > 0 && r.CPU > 0 {
		line += fmt.Sprintf(", core %.0f %%", 100*r.CPU.Seconds()/r.Window.Seconds())
	}
	if r.Foreign > quiet {
		line += fmt.Sprintf(", others %.2f cores", r.Foreign)
	}
	if n := r.Truncated + r.Wrong + r.Failed + r.LeftBehind; n > 0 {
		line += fmt.Sprintf(", %d truncated, %d wrong, %d failed, %d left behind: %q", r.Truncated, r.Wrong, r.Failed, r.LeftBehind, r.Samples)
	}
	return line
}
