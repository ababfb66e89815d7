package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// lanesEach and turns are how many answers a socket of the scale test carries side by
// side, and one after the other in each lane.
const lanesEach, turns, tokensEach = 4, 2, 40

// TestManySockets is a tenth of what the long proofs do.
func TestManySockets(t *testing.T) {
	t.Parallel()
	peak := checkManySockets(t, 100, time.Second, 20*time.Millisecond)
	t.Logf("%d answers side by side", peak)
}

// checkManySockets carries whole answers over n sockets at once, in a gateway of its
// own process, and wants its goroutines and descriptors back to what they were. The
// first token of each answer comes after a while, so that others can start meanwhile,
// and the next ones at a pace. It returns how many ran side by side.
func checkManySockets(t *testing.T, n int, first, pace time.Duration) (peak int) {
	t.Helper()
	base, w := wall.Start(t)
	g := bootProcess(t, overWall(base, "[log]\naccess = \"off\"\n")+"idle_timeout = \"100ms\"\n")
	manySockets(t, g, 3, "")
	before := g.census(t, w, nil)
	ctx, stop := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		_, _ = w.AwaitStats(ctx, func(s wall.Stats) bool { peak = max(peak, s.Active); return false })
	})
	manySockets(t, g, n, fmt.Sprintf(",first=%s,delay=%s", first, pace))
	stop()
	watch.Wait()
	g.census(t, w, &before)
	s := w.Stats()
	if want := (n + 3) * lanesEach * turns; s.ByEnd[wall.Complete] != want || int(s.Total) != want || int(s.Tokens) != want*tokensEach {
		t.Errorf("the upstream gave %v with %d tokens, want %d complete ones of %d tokens", s.ByEnd, s.Tokens, want, tokensEach)
	}
	if code := g.Stop(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, g.Logs())
	}
	return peak
}

// manySockets opens n sockets, starts the answers of all when all are open, and reads
// them to their ends.
func manySockets(t *testing.T, g *gatewayUnderTest, n int, script string) {
	t.Helper()
	sockets := make([]*wire, n)
	for i := range sockets {
		sockets[i] = g.openWire(t)
	}
	var all sync.WaitGroup
	for i, s := range sockets {
		all.Go(func() { fillSocket(t, s, i, script) })
	}
	all.Wait()
}

// fillSocket runs the answers of one socket. Each has a content of its own, so that one
// which is given to another lane or in another order shows.
func fillSocket(t *testing.T, s *wire, number int, script string) {
	t.Helper()
	s.wait = 2 * time.Minute
	due := map[string]int{} // answers that may end now; the value is their turn
	seed := func(lane, turn int) string { return fmt.Sprintf("s%dl%dt%d", number, lane, turn) }
	for turn := range turns {
		for lane := range lanesEach {
			model := fmt.Sprintf("wall:tokens=%d%s,seed=%s", tokensEach, script, seed(lane, turn))
			s.send(0, textFrame(fmt.Sprintf(`{"type":"create","stream_id":"%d","request":{"model":%q,"messages":[{"role":"user","content":"go"}]}}`, lane, model)))
		}
	}
	for lane := range lanesEach {
		due["answer "+wall.Text(seed(lane, 0), tokensEach)] = 0
	}
	for range lanesEach * turns {
		got := s.next()
		turn, ok := due[got]
		if !ok {
			t.Errorf("socket %d: %.300q is no answer that is due", number, got)
			return
		}
		delete(due, got)
		for lane := range lanesEach {
			if turn+1 < turns && got == "answer "+wall.Text(seed(lane, turn), tokensEach) {
				due["answer "+wall.Text(seed(lane, turn+1), tokensEach)] = turn + 1
			}
		}
	}
	s.send(0, closeFrame(1000, ""))
	if got := strings.Join([]string{s.next(), s.next()}, ", "); got != "close 1000, end" {
		t.Errorf("socket %d ends with %s", number, got)
	}
	_ = s.Close()
}
