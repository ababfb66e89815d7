package ledger

import (
	"context"
	"log/slog"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPost is what the caller pays for a row, with ids and a few names that vary.
func BenchmarkPost(b *testing.B) {
	type poster interface {
		Post(context.Context, *Row) error
	}
	open := map[string]func(b *testing.B) poster{
		"memory": func(*testing.B) poster { return NewMemory(Retention{}, time.Now) },
		"queue":  func(*testing.B) poster { return &inline{queue: idleQueue(), spare: new(batch)} },
	}
	ids := make([]string, 1<<17)
	for i := range ids {
		ids[i] = "req_0123456789abcdef" + strconv.Itoa(i)
	}
	for name, open := range open {
		b.Run(name, func(b *testing.B) {
			book := open(b)
			row := testRow(0)
			models := []string{"gpt-5", "llama-3", "qwen"}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				row.ID = ids[i%len(ids)]
				row.Model = models[i%len(models)]
				if err := book.Post(b.Context(), &row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	row := testRow(0)
	var data []byte
	for b.Loop() {
		data = Encode(data[:0], &row)
	}
}

// inline takes away what was queued after every 500 rows, as the writer does; what the
// writer does with them is not the caller's time.
type inline struct {
	*queue
	spare *batch
}

func idleQueue() *queue {
	return &queue{
		limit: 8192, waiting: new(batch),
		first: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
	}
}

func (q *inline) Post(ctx context.Context, r *Row) error {
	if err := q.put(ctx, time.Now().UnixMicro(), r); err != nil || q.waiting.len() < 500 {
		return err
	}
	full := q.take(q.spare)
	full.reset()
	q.spare = full
	return nil
}

// BenchmarkBoltWrite is what the writer pays for a row, in batches of several sizes, after
// as many rows as are kept. The processor's time is told apart from that of the disk.
func BenchmarkBoltWrite(b *testing.B) {
	for _, size := range []int{1, 10, 50, 100, 500} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			book, err := OpenBolt(filepath.Join(b.TempDir(), "ledger.db"), Retention{}, time.Now, slog.Default())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = book.Close() })
			row, models := testRow(0), []string{"gpt-5", "llama-3", "qwen"}
			var rows batch
			n := 0
			write := func(size int) {
				rows.reset()
				for range size {
					n++
					row.ID = "req_0123456789abcdef" + strconv.Itoa(n)
					row.Model = models[n%len(models)]
					rows.add(time.Now().UnixMicro(), &row)
				}
				if err := book.commit(&rows); err != nil {
					b.Fatal(err)
				}
			}
			for range 10_000 / max(size, 10) {
				write(max(size, 10))
			}
			b.ReportAllocs()
			before := processTime(b)
			for b.Loop() {
				write(size)
			}
			count := float64(b.N * size)
			b.ReportMetric(float64(processTime(b)-before)/count, "cpu-ns/row")
			b.ReportMetric(float64(b.Elapsed())/count, "ns/row")
		})
	}
}

func processTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
