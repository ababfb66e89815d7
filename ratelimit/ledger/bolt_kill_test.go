package ledger

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TestBoltKilled kills a process that posts, again and again, and looks at what is left.
func TestBoltKilled(t *testing.T) {
	if path := os.Getenv("LEDGER_TEST_VICTIM"); path != "" {
		victim(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	told, known := 0, 0
	for round := range 4 {
		posted, kept := killAfter(t, path, told, 400+200*round)
		b := mustOpen(t, path, Retention{Rows: 1 << 20}, slog.New(slog.NewTextHandler(failing{t}, nil)))
		calls := checkKilled(t, b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if calls < kept || calls > posted+100_000 {
			t.Errorf("round %d: %d rows of %d that were written before the kill", round, calls, kept)
		}
		known += kept - told
		told = calls
	}
	if known == 0 {
		t.Error("no victim came to write anything")
	}
}

// failing takes every log line for a failure.
type failing struct{ t *testing.T }

func (f failing) Write(p []byte) (int, error) {
	f.t.Errorf("logged: %s", p)
	return len(p), nil
}

// checkKilled counts rows: they are the first ones, without a gap, and sums agree.
func checkKilled(t *testing.T, b *Bolt) int {
	t.Helper()
	n := 0
	err := b.view(t.Context(), func(tx *bolt.Tx) error {
		return tx.Bucket(bucketRows).ForEach(func(_, v []byte) error {
			rows, err := readRows(nil, v)
			for _, row := range rows {
				if want := "req-" + strconv.Itoa(n); row.ID != want {
					t.Fatalf("row %d is %s", n, row.ID)
				}
				n++
			}
			return err
		})
	})
	_, calls := totals(t, b)
	if err != nil || calls != int64(n) {
		t.Errorf("%d rows, sums of %d calls, %v", n, calls, err)
	}
	return n
}

// killAfter runs a victim until it has told of count posts, and kills it. It returns how many
// were posted, and how many of them the victim knew to be written: all but those of the last tenth
// of a second, or of the write that was under way.
func killAfter(t *testing.T, path string, from, count int) (posted, kept int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBoltKilled$")
	cmd.Env = append(os.Environ(), "LEDGER_TEST_VICTIM="+path, "LEDGER_TEST_FROM="+strconv.Itoa(from))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told := 0
	for lines := bufio.NewScanner(out); lines.Scan(); { // also what it told before it died
		if _, err := fmt.Sscan(lines.Text(), &posted, &kept); err == nil {
			told++
		}
		if told == count {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if told < count {
		t.Fatalf("the victim told of %d posts", told)
	}
	return posted, kept
}

func victim(t *testing.T, path string) {
	b := mustOpen(t, path, Retention{Rows: 1 << 20}, quiet)
	from, _ := strconv.Atoi(os.Getenv("LEDGER_TEST_FROM"))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := from; i < from+1_000_000; i++ {
		row := testRow(i)
		if err := b.Post(t.Context(), &row); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			b.queue.mu.Lock()
			kept := from + int(b.queue.written)
			b.queue.mu.Unlock()
			fmt.Println(i+1, kept)
			<-tick.C
		}
	}
}
