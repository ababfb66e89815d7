package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"sluice/streaming"
)

// bySlog is the line as slog's handlers write it.
func bySlog(h slog.Handler, at time.Time, text string, n int64, d time.Duration) {
	rec := slog.NewRecord(at, slog.LevelInfo, "answer", 0)
	rec.AddAttrs(slog.String("model", text), slog.Int64("in", n), slog.Bool("stream", n > 0), slog.Duration("took", d.Round(time.Microsecond)))
	_ = h.Handle(context.Background(), rec)
}

func byHand(asJSON bool, at time.Time, text string, n int64, d time.Duration) string {
	w := lineWriter{json: asJSON}
	w.begin(at, "answer")
	w.str("model", text)
	w.num("in", n)
	w.flag("stream", n > 0)
	w.span("took", d)
	return string(w.finish())
}

// FuzzAccessLine holds the lines against those of slog, whose formats they have.
func FuzzAccessLine(f *testing.F) {
	for _, s := range []string{"", "gpt-4o", "a b", "a=b", "\"", "\\", "a\nb", "\x00\x7f", "größe", "\u2028", "\xff", "\u200b", "日本", "<&>", "�"} {
		f.Add(s, int64(-1), int64(1234567))
	}
	f.Fuzz(func(t *testing.T, text string, n, d int64) {
		at := time.Date(2026, 1, 2, 3, 4, 5, 60_700_000, time.FixedZone("", 3600))
		var want bytes.Buffer
		bySlog(slog.NewTextHandler(&want, nil), at, text, n, time.Duration(d))
		if got := byHand(false, at, text, n, time.Duration(d)); got != want.String() {
			t.Errorf("%q: %q, slog writes %q", text, got, want.String())
		}
		want.Reset()
		bySlog(slog.NewJSONHandler(&want, nil), at, text, n, time.Duration(d))
		var a, b map[string]any
		if err := json.Unmarshal([]byte(byHand(true, at, text, n, time.Duration(d))), &a); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if err := json.Unmarshal(want.Bytes(), &b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%q: %v, slog writes %v", text, a, b)
		}
	})
}

func BenchmarkAccessLine(b *testing.B) {
	a := &AccessLog{out: io.Discard}
	l := &accessLine{id: "req_0123456789abcdef01234567", op: "chat", key: "bench", remote: "127.0.0.1", transport: "http", model: "bench", end: endOK, took: 3 * time.Millisecond,
		report: streaming.Report{Target: "mock/bench", TTFT: time.Millisecond, Stop: "stop", Attempts: 1}}
	b.ReportAllocs()
	for b.Loop() {
		a.write(l)
	}
}
