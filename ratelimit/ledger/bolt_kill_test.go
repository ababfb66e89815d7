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
	told := 0
	for round := range 6 {
		posted, old := killAfter(t, path, told, 200+300*round)
		b := mustOpen(t, path, Retention{Rows: 1 << 20}, slog.New(slog.NewTextHandler(failing{t}, nil)))
		calls := checkKilled(t, b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if calls < old || calls > posted+100_000 {
			t.Errorf("round %d: %d rows of %d that were posted 100 ms before the kill", round, calls, old)
		}
		told = calls
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
// were posted, and how many of them 100 ms earlier.
func killAfter(t *testing.T, path string, from, count int) (posted, old int) {
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
	type told struct {
		at time.Time
		n  int
	}
	var tellings []told
	lines := bufio.NewScanner(out)
	for len(tellings) < count && lines.Scan() {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			tellings = append(tellings, told{time.Now(), n})
		}
	}
	killed := time.Now()
	_ = cmd.Process.Kill()
	for lines.Scan() { // what it told before it died
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			posted = n
		}
	}
	_ = cmd.Wait()
	if len(tellings) == 0 {
		t.Fatal("the victim told nothing")
	}
	for _, s := range tellings {
		posted = max(posted, s.n)
		if killed.Sub(s.at) > killLoss {
			old = s.n
		}
	}
	return posted, old
}

// killLoss is what a row waits (100 ms), and as much again for a machine that is busy with other tests.
const killLoss = 200 * time.Millisecond

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
			fmt.Println(i + 1)
			<-tick.C
		}
	}
}
