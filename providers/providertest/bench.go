package providertest

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"sluice/streaming"
)

// Bench measures the reader of an adapter over transcripts of so many text events, as
// one read brings them. It fails when allocations grow with the answer by more than
// perEvent for each event.
func (s Suite) Bench(b *testing.B, transcript func(events int) []byte, perEvent float64) {
	const few, many = 1000, 4000
	req := parse(b, "chat", defaultBody("chat"))
	short, long := s.once(b, transcript(few)), s.once(b, transcript(many))
	grows := float64(long-short) / (many - few)
	if grows > perEvent+0.01 {
		b.Errorf("%.3f allocations for each event, want %.3f", grows, perEvent)
	}
	text := transcript(few)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		p := streaming.NewProgress(time.Now())
		events := 0
		for batch, err := range s.Play(req, p, lineReader(text)) {
			if err != nil {
				b.Fatal(err)
			}
			events += len(batch)
		}
		if events < few {
			b.Fatalf("%d events of %d", events, few)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/few, "ns/event")
	b.ReportMetric(grows, "allocs/event")
}

// once counts the allocations of one play, the least of several.
func (s *Suite) once(b *testing.B, text []byte) uint64 {
	b.Helper()
	req := parse(b, "chat", defaultBody("chat"))
	least := uint64(1 << 62)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, err := range s.Play(req, streaming.NewProgress(time.Now()), bytes.NewReader(text)) {
			if err != nil {
				b.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	return least
}
