package ratelimit_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ratelimittest/redistest"
)

// guardedBy is a process: a limiter, its journal and its guard, until the function ends it.
func guardedBy(t *testing.T, s *redistest.Server, dir string, log io.Writer, set *ratelimit.Rules) (g *ratelimit.Guard, end func()) {
	t.Helper()
	lines := slog.New(slog.NewTextHandler(log, nil))
	primary := ratelimit.NewRedis(s.Client(ratelimit.TuneRedis), ratelimit.RedisOptions{Rules: set, Log: lines, Timeout: patient})
	journal, err := ratelimit.OpenJournal(ratelimit.JournalOptions{Dir: dir, Log: lines})
	if err != nil {
		t.Fatal(err)
	}
	g = ratelimit.NewGuard(primary, ratelimit.GuardOptions{Rules: set, Journal: journal, Log: lines, Deadline: patient})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	return g, func() { cancel(); <-done; _ = journal.Close(); _ = primary.Close() }
}

// What waits in the journal when Redis loses all, and the process too, is charged by the next
// process, once.
func TestJournalOfAnotherProcessIsChargedAfterAFlush(t *testing.T) {
	s, dir, set := redistest.Single(t), t.TempDir(), rules(t, fiveRules...)
	g, end := guardedBy(t, s, dir, io.Discard, set)
	c := redisCall("a", 10, 100)
	redisReserve(t, g, c)
	s.Kill()
	redisSettle(t, g, c, ratelimit.Cost{Requests: 1, Input: 10, Output: 70})
	if n := g.State().Journal.Pending; n != 1 {
		t.Fatalf("%d settlements wait", n)
	}
	end()
	s.Start() // empty
	g, end = guardedBy(t, s, dir, io.Discard, set)
	defer end()
	eventually(t, "it is replayed", func() bool { return g.State().Journal.Pending == 0 })
	equal(t, "left", left(t, g, c.Who), 99, 920, 430, 2, 49)
	if rows := rowsOf(t, s, "acme"); len(rows) != 1 || rows[0].Output != 70 {
		t.Errorf("rows %+v", rows)
	}
}

// A settlement that may have been made longer ago than Redis remembers changes only what is
// still open, so that none counts twice; one that never was sent counts, however old it is.
func TestRedisSettlesLateOnesOnce(t *testing.T) {
	s := redistest.Single(t)
	l := newRedis(t, s, ratelimit.RedisOptions{Rules: rules(t, fiveRules...)})
	settle := func(id string, sent bool, age time.Duration) error {
		c := redisCall(id, 10, 100)
		row := ledger.Row{ID: id, Org: "acme", Key: "k1", Output: 50, End: "ok"}
		return l.Settle(t.Context(), &ratelimit.Settlement{Call: c, Used: ratelimit.Cost{Requests: 1, Input: 10, Output: 50}, Row: row,
			Past: &ratelimit.Past{Granted: true, Sent: sent, At: time.Now().Add(-age)}})
	}
	redisReserve(t, l, redisCall("open", 10, 100))
	for _, c := range []struct {
		id   string
		sent bool
		age  time.Duration
		err  error
		tok  int64 // left
	}{
		{"open", true, 2 * time.Hour, nil, 940},
		{"forgotten", true, 2 * time.Hour, ratelimit.ErrForgotten, 940},
		{"lately", true, time.Minute, nil, 880},
		{"never sent", false, 20 * time.Hour, nil, 820},
		{"never sent", false, 20 * time.Hour, nil, 820},
	} {
		if err := settle(c.id, c.sent, c.age); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.id, err, c.err)
		}
		if got := left(t, l, redisCall("", 0, 0).Who)[1]; got != c.tok {
			t.Errorf("%s: %d left, want %d", c.id, got, c.tok)
		}
	}
	if n := len(rowsOf(t, s, "acme")); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
	for key, most := range map[string]int{"{o:acme}:r:open": 86400, "{o:acme}:r:never%20sent": 86400} {
		if ttl := s.Must("TTL", "sluice:"+key); ttl < "80000" || len(ttl) != 5 {
			t.Errorf("%s is remembered for %s s, want up to %d: it is replayed until then", key, ttl, most)
		}
	}
}

// Row 47, with a real Redis whose memory is full: writes fail and reads do not. The guard stays
// in trouble until there is room, and nothing is lost.
func TestGuardFullRedis(t *testing.T) {
	t.Parallel()
	s, set := redistest.Single(t, "--maxmemory-policy", "noeviction"), rules(t, fiveRules...)
	said := &lockedBuffer{}
	g, end := guardedBy(t, s, t.TempDir(), said, set)
	defer end()
	a := redisCall("a", 10, 100)
	redisReserve(t, g, a)
	s.Must("CONFIG", "SET", "maxmemory", "1")
	for _, id := range []string{"b", "c", "d", "e"} {
		_, err := g.Reserve(t.Context(), redisCall(id, 1, 1))
		var d *ratelimit.Denied
		if err != nil && !errors.Is(err, ratelimit.ErrUnavailable) && !errors.As(err, &d) {
			t.Fatal(err)
		}
	}
	eventually(t, "it is in trouble", func() bool { return g.State().Trouble })
	redisSettle(t, g, a, ratelimit.Cost{Requests: 1, Input: 10, Output: 70})
	if g.State().Journal.Pending == 0 {
		t.Error("nothing waits, though Redis can keep nothing")
	}
	pause(t.Context(), 5*time.Second) // two probes: they must write, or trouble would end for a moment
	if !g.State().Trouble || strings.Contains(said.String(), "answers again") {
		t.Errorf("trouble ended while Redis was full:\n%s", said)
	}
	s.Must("CONFIG", "SET", "maxmemory", "0")
	eventually(t, "all is told", func() bool { st := g.State(); return !st.Trouble && st.Journal.Pending == 0 })
	if rows := rowsOf(t, s, "acme"); len(rows) != 1 || rows[0].Output != 70 {
		t.Errorf("rows %+v", rows)
	}
}
