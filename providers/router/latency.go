package router

import (
	"math"
	"math/bits"
	"time"
)

// peakDecay is how fast a slow answer is forgotten, unlike a quick one at once: a peak
// counts in full when it comes, and a third of it is left after this time.
const peakDecay = 10 * time.Second

// latencies are the times to the first content of a target. Its state's mutex guards them.
type latencies struct {
	peak  float64 // nanoseconds
	at    time.Duration
	since time.Duration // the newer of the two histograms
	times [2]*histogram // older, newer
}

// note adds a time that was measured at the uptime now.
func (l *latencies) note(took, now time.Duration) {
	x := float64(took)
	if x >= l.peak {
		l.peak = x
	} else {
		keep := math.Exp(-float64(now-l.at) / float64(peakDecay))
		l.peak = l.peak*keep + x*(1-keep)
	}
	l.at = now
	if l.times[1] == nil || now-l.since > histogramAge || l.times[1].n >= math.MaxUint16 {
		l.times[0], l.times[1], l.since = l.times[1], new(histogram), now
	}
	l.times[1].add(took)
}

// quantile is the time within which a share of the first contents came, and of how many.
func (l *latencies) quantile(q float64) (time.Duration, int) {
	var counts [histogramCells]uint32
	n := 0
	for _, h := range l.times {
		if h == nil {
			continue
		}
		n += h.n
		for i, c := range h.cells {
			counts[i] += uint32(c)
		}
	}
	left := q * float64(n)
	for i, c := range counts {
		if left -= float64(c); c > 0 && left <= 0 {
			return upTo(i), n
		}
	}
	return 0, n
}

// histogramAge is the age at which a histogram is replaced; answers are told from two.
const histogramAge = 5 * time.Minute

// The cells of a histogram are an eighth of an octave wide each, from microseconds up.
const (
	histogramSteps = 8
	histogramCells = 32 * histogramSteps
)

type histogram struct {
	n     int
	cells [histogramCells]uint16
}

func (h *histogram) add(d time.Duration) {
	h.n++
	h.cells[cellOf(d)]++
}

func cellOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), histogramSteps))
	octave := bits.Len64(us) - 4 // 8 µs are octave 0
	return min(octave*histogramSteps+int(us>>octave)-histogramSteps, histogramCells-1)
}

// upTo is the upper end of a cell.
func upTo(cell int) time.Duration {
	octave, step := cell/histogramSteps, cell%histogramSteps
	return time.Duration(histogramSteps+step+1) << octave * time.Microsecond
}
