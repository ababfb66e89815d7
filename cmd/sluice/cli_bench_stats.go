package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"
)

// histogram counts times in buckets that are 2 % wide, from a microsecond up,
// so its size does not depend on how much is counted.
type histogram struct {
	buckets map[int]int64
	count   int64
}

const bucketWidth = 1.02

func (h *histogram) add(d time.Duration) {
	us := max(float64(d)/float64(time.Microsecond), 1)
	h.buckets[int(math.Log(us)/math.Log(bucketWidth))]++
	h.count++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

// quantile gives the time that a share q of all counted do not exceed; 0
// when nothing was counted.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int64(math.Ceil(q * float64(h.count)))
	for _, i := range slices.Sorted(maps.Keys(h.buckets)) {
		if rank -= h.buckets[i]; rank <= 0 {
			return time.Duration(math.Pow(bucketWidth, float64(i)+0.5) * float64(time.Microsecond))
		}
	}
	return 0
}

// benchStats are the counts of one worker, or the sum of all. One goroutine
// at a time may use them.
type benchStats struct {
	first, between histogram
	ends           map[string]int64
	tokens, deltas int64
	elapsed        time.Duration
}

func newBenchStats() *benchStats {
	return &benchStats{
		first:   histogram{buckets: map[int]int64{}},
		between: histogram{buckets: map[int]int64{}},
		ends:    map[string]int64{},
	}
}

func (s *benchStats) add(other *benchStats) {
	s.first.merge(&other.first)
	s.between.merge(&other.between)
	for end, n := range other.ends {
		s.ends[end] += n
	}
	s.tokens += other.tokens
	s.deltas += other.deltas
}

// benchReport is what is told in the end; times are in milliseconds.
type benchReport struct {
	Model           string           `json:"model"`
	URL             string           `json:"url"`
	Seconds         float64          `json:"seconds"`
	Complete        int64            `json:"complete"`
	Truncated       int64            `json:"truncated"`
	Unfinished      int64            `json:"unfinished"`
	ErrorCount      int64            `json:"error_count"`
	Errors          map[string]int64 `json:"errors"`
	TTFT50          float64          `json:"ttft_p50_ms"`
	TTFT95          float64          `json:"ttft_p95_ms"`
	TTFT99          float64          `json:"ttft_p99_ms"`
	Between50       float64          `json:"between_tokens_p50_ms"`
	Between95       float64          `json:"between_tokens_p95_ms"`
	Tokens          int64            `json:"tokens"`
	Events          int64            `json:"events"`
	TokensPerSecond float64          `json:"tokens_per_second"`
}

func (s *benchStats) report(model, url string) benchReport {
	r := benchReport{
		Model: model, URL: url, Seconds: round(s.elapsed.Seconds()),
		Complete: s.ends[endComplete], Truncated: s.ends[endTruncated], Unfinished: s.ends[endUnfinished],
		Errors: map[string]int64{}, Tokens: s.tokens, Events: s.deltas,
		TTFT50: millis(s.first.quantile(0.5)), TTFT95: millis(s.first.quantile(0.95)), TTFT99: millis(s.first.quantile(0.99)),
		Between50: millis(s.between.quantile(0.5)), Between95: millis(s.between.quantile(0.95)),
		TokensPerSecond: round(float64(s.tokens) / max(s.elapsed.Seconds(), 1e-9)),
	}
	for end, n := range s.ends {
		if end != endComplete && end != endTruncated && end != endUnfinished {
			r.Errors[end] = n
			r.ErrorCount += n
		}
	}
	return r
}

func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

func round(x float64) float64 { return math.Round(x*100) / 100 }

func (r benchReport) write(w io.Writer) {
	fmt.Fprintf(w, "%s at %s, %.1f s\n\n", r.Model, r.URL, r.Seconds)
	fmt.Fprintf(w, "answers         %d complete, %d truncated, %d failed, %d unfinished at the end\n",
		r.Complete, r.Truncated, r.ErrorCount, r.Unfinished)
	fmt.Fprintf(w, "first token     p50 %.2f ms, p95 %.2f ms, p99 %.2f ms\n", r.TTFT50, r.TTFT95, r.TTFT99)
	fmt.Fprintf(w, "between tokens  p50 %.2f ms, p95 %.2f ms\n", r.Between50, r.Between95)
	fmt.Fprintf(w, "tokens          %.1f/s (%d in %d events)\n", r.TokensPerSecond, r.Tokens, r.Events)
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(w, "error           %d × %s\n", r.Errors[kind], kind)
	}
}
