package providertest

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"runtime"
	"testing"
	"time"

	"sluice/providers"
	"sluice/streaming"
)

// Lengths of answers, in text events, that are held against each other.
const few, many, lots = 1000, 4000, 8000

// Allocations holds an adapter with a Play to the law that no allocation grows with the
// answer: each event costs as much as the one before it, at most perEvent allocations when
// every event comes alone, and at the end of an answer nothing of it is held. transcript
// makes answers of so many text events.
func (s Suite) Allocations(t *testing.T, transcript func(events int) []byte, perEvent float64) {
	t.Helper()
	for how, feed := range map[string]func([]byte) io.Reader{"at once": atOnce, "one by one": oneByOne} {
		t.Run(how, func(t *testing.T) {
			g := s.growth(t, transcript, feed)
			t.Logf("an event costs %.3f allocations and %.1f bytes; at the end %d bytes more are held for %d events more", g.mallocs, g.bytes, g.held, lots-few)
			for _, fault := range g.faults(perEvent) {
				t.Error(fault)
			}
		})
	}
}

// growth is what answers cost, by what longer ones cost more.
type growth struct {
	mallocs, bytes float64 // of one event more
	later          float64 // bytes of one event more, in longer answers
	held           int64   // bytes more at the end of a longer answer
}

// Tolerances: a buffer that is made once moves some bytes per event, and the runtime has
// some kilobytes of its own.
const (
	someMallocs   = 0.01
	someBytes     = 4.0
	someHeldBytes = lots - few
)

func (g *growth) faults(perEvent float64) (all []string) {
	if g.mallocs > perEvent+someMallocs*heapSlack {
		all = append(all, fmt.Sprintf("%.3f allocations for each event, want at most %.3f", g.mallocs, perEvent))
	}
	if g.later > 1.1*g.bytes+someBytes*heapSlack {
		all = append(all, fmt.Sprintf("an event costs %.1f bytes, and %.1f in longer answers", g.bytes, g.later))
	}
	if g.held > someHeldBytes {
		all = append(all, fmt.Sprintf("at the end of an answer %d bytes are held for %d events more", g.held, lots-few))
	}
	return all
}

func (s *Suite) growth(t testing.TB, transcript func(int) []byte, feed func([]byte) io.Reader) (g growth) {
	t.Helper()
	short, long, longest := s.once(t, transcript(few), feed), s.once(t, transcript(many), feed), s.once(t, transcript(lots), feed)
	g.mallocs = long.less(short).mallocs / (many - few)
	g.bytes = long.less(short).bytes / (many - few)
	g.later = longest.less(long).bytes / (lots - many)
	g.held = s.held(t, transcript(lots), feed) - s.held(t, transcript(few), feed)
	return g
}

// cost is what one play took from the heap.
type cost struct{ mallocs, bytes float64 }

func (c cost) less(other cost) cost { return cost{c.mallocs - other.mallocs, c.bytes - other.bytes} }

// once is the cost of one play, the least of several.
func (s *Suite) once(t testing.TB, text []byte, feed func([]byte) io.Reader) cost {
	t.Helper()
	req := parse(t, "chat", defaultBody("chat"))
	least := cost{math.Inf(1), math.Inf(1)}
	for range 3 {
		src := feed(text)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.consume(t, req, src, nil)
		runtime.ReadMemStats(&after)
		least.mallocs = min(least.mallocs, float64(after.Mallocs-before.Mallocs))
		least.bytes = min(least.bytes, float64(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}

// held is what is in use more at the Stop of an answer than before its begin, in bytes.
func (s *Suite) held(t testing.TB, text []byte, feed func([]byte) io.Reader) int64 {
	t.Helper()
	req := parse(t, "chat", defaultBody("chat"))
	least := int64(math.MaxInt64)
	for range 2 {
		src := feed(text)
		before := inUse()
		stops := 0
		s.consume(t, req, src, func(ev *streaming.Event) {
			if ev.Stop != "" {
				stops++
				least = min(least, inUse()-before)
			}
		})
		if stops != 1 {
			t.Fatalf("%d stops", stops)
		}
	}
	runtime.KeepAlive(text)
	return least
}

// inUse is the size of what can be reached, buffers in pools left out.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// consume plays an answer to its end and returns how many events it had.
func (s *Suite) consume(t testing.TB, req *providers.Request, src io.Reader, look func(*streaming.Event)) (events int) {
	t.Helper()
	for batch, err := range s.Play(req, streaming.NewProgress(time.Now()), src) {
		if err != nil {
			t.Fatal(err)
		}
		events += len(batch)
		for i := range batch {
			if look != nil {
				look(&batch[i])
			}
		}
	}
	return events
}

func atOnce(text []byte) io.Reader { return bytes.NewReader(text) }

// oneByOne gives an event per read, which ends in a blank line where there are any, or
// with its line.
func oneByOne(text []byte) io.Reader {
	for _, end := range []string{"\r\n\r\n", "\n\n"} {
		if bytes.Contains(text, []byte(end)) {
			return &lines{bytes.SplitAfter(text, []byte(end))}
		}
	}
	return lineReader(text)
}

// Bench measures the reader of an adapter over transcripts of so many text events, as one
// read brings one. It fails like Allocations, for events that come at once.
func (s Suite) Bench(b *testing.B, transcript func(events int) []byte, perEvent float64) {
	g := s.growth(b, transcript, atOnce)
	for _, fault := range g.faults(perEvent) {
		b.Error(fault)
	}
	req, text := parse(b, "chat", defaultBody("chat")), transcript(few)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if events := s.consume(b, req, oneByOne(text), nil); events < few {
			b.Fatalf("%d events of %d", events, few)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/few, "ns/event")
	b.ReportMetric(g.mallocs, "allocs/event")
}
