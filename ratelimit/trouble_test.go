package ratelimit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/ratelimit/ledger"
)

// faultyStore is a primary that several guards share: a Memory, behind a connection that
// fails as it is told to. It charges what is handed over.
type faultyStore struct {
	*Memory
	mu      sync.Mutex
	fault   fault
	misses  int          // calls that hang, whatever the fault
	waiting atomic.Int64 // calls that hang now
	most    atomic.Int64
	calls   atomic.Int64
	charged map[string]bool
	rows    map[string]int
	rowSum  int64
}

type fault uint8

const (
	healthy  fault = iota
	hanging        // answers nothing
	refusing       // fails at once
	losing         // does what it is asked, and its answer is lost
	slow           // answers after 300 ms
	crammed        // writes nothing, and answers questions
)

func newFaultyStore(t *testing.T, rules *Rules) *faultyStore {
	t.Helper()
	s := &faultyStore{charged: map[string]bool{}, rows: map[string]int{}}
	s.Memory = NewMemory(MemoryOptions{Rules: rules, Book: s})
	return s
}

func (s *faultyStore) set(f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Post implements Book.
func (s *faultyStore) Post(r *ledger.Row) {
	if r.ID == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[r.ID]++
	s.rowSum += r.Output
}

func (s *faultyStore) do(ctx context.Context, work func()) error {
	s.calls.Add(1)
	s.mu.Lock()
	f := s.fault
	if s.misses > 0 {
		s.misses--
		f = hanging
	}
	s.mu.Unlock()
	switch f {
	case healthy:
		work()
		return nil
	case crammed:
		return fmt.Errorf("%w: OOM command not allowed", ErrUnavailable)
	case refusing:
		return fmt.Errorf("%w: connection refused", ErrUnavailable)
	case losing:
		work()
	case slow:
		time.Sleep(300 * time.Millisecond)
		if ctx.Err() == nil {
			work()
			return nil
		}
	}
	n := s.waiting.Add(1)
	s.most.Store(max(s.most.Load(), n))
	<-ctx.Done()
	s.waiting.Add(-1)
	return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
}

func (s *faultyStore) Reserve(ctx context.Context, c *Call) (g Grant, err error) {
	if lost := s.do(ctx, func() { g, err = s.Memory.Reserve(ctx, c) }); lost != nil {
		return Grant{}, lost
	}
	return g, err
}

func (s *faultyStore) Extend(ctx context.Context, c *Call, more Cost) (err error) {
	if lost := s.do(ctx, func() { err = s.Memory.Extend(ctx, c, more) }); lost != nil {
		return lost
	}
	return err
}

func (s *faultyStore) Settle(ctx context.Context, x *Settlement) error {
	if strings.HasSuffix(x.Call.ID, "poison") {
		return fmt.Errorf("%w: WRONGTYPE", ErrUnavailable)
	}
	return s.do(ctx, func() {
		s.Memory.mu.Lock()
		_, known := s.Memory.calls[x.Call.ID]
		s.Memory.mu.Unlock()
		_ = s.Memory.Settle(ctx, x)
		if !known && x.Past != nil && x.Past.Granted {
			s.chargeUnknown(x)
		}
	})
}

// chargeUnknown charges a call that was decided on beside the store, once.
func (s *faultyStore) chargeUnknown(x *Settlement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.charged[x.Call.ID] {
		return
	}
	s.charged[x.Call.ID] = true
	for _, b := range s.Memory.rules.Match(nil, &x.Call.Who) {
		if b.Rule.Dim != Streams {
			s.Memory.lower(&b, b.Rule, b.Rule.Full()) // makes the slot
			s.Memory.mu.Lock()
			s.Memory.slots[keyOf(&b)].fill.add(b.Rule, -x.Used.Of(b.Rule.Dim))
			s.Memory.mu.Unlock()
		}
	}
}

func (s *faultyStore) Peek(ctx context.Context, who *Subject) (l []Level, err error) {
	s.mu.Lock()
	reads := s.fault == crammed
	s.mu.Unlock()
	if reads {
		return s.Memory.Peek(ctx, who)
	}
	if lost := s.do(ctx, func() { l, err = s.Memory.Peek(ctx, who) }); lost != nil {
		return nil, lost
	}
	return l, err
}

func (s *faultyStore) Charge(ctx context.Context, id string, debts []Debt) error {
	return s.do(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.charged[id] {
			return
		}
		s.charged[id] = true
		for _, d := range debts {
			s.Memory.lower(&d.Bucket, d.Rule, d.Rule.Full()) // makes the slot
			s.Memory.mu.Lock()
			s.Memory.slots[keyOf(&d.Bucket)].fill.add(d.Rule, -d.Amount)
			s.Memory.mu.Unlock()
		}
	})
}

func (s *faultyStore) left(t *testing.T, who Subject) []int64 {
	t.Helper()
	levels, err := s.Memory.Peek(context.Background(), &who)
	if err != nil {
		t.Fatal(err)
	}
	var left []int64
	for _, l := range levels {
		left = append(left, l.Left)
	}
	return left
}

// guarded is a guard over a faulty store, in a bubble.
type guarded struct {
	*Guard
	store   *faultyStore
	journal *Journal
	log     *bytes.Buffer
	n       int
	cancel  context.CancelFunc
}

// said is what the log has when nobody in the bubble has anything left to do: who sleeps wakes up
// together with those whose timers end at that moment.
func (g *guarded) said() string {
	synctest.Wait()
	return g.log.String()
}

func newGuarded(t *testing.T, replicas int, rules ...Rule) *guarded {
	t.Helper()
	set, err := NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return guardOver(t, newFaultyStore(t, set), set, replicas)
}

func guardOver(t *testing.T, store *faultyStore, set *Rules, replicas int) *guarded {
	t.Helper()
	return guardWith(t, store, GuardOptions{Rules: set, Replicas: func() int { return replicas }})
}

// guardWith makes the guard that the options say, with a journal and a log of its own.
func guardWith(t *testing.T, store *faultyStore, opt GuardOptions) *guarded {
	t.Helper()
	g := &guarded{store: store, log: new(bytes.Buffer)}
	log := slog.New(slog.NewTextHandler(g.log, nil))
	var err error
	if g.journal, err = OpenJournal(JournalOptions{Dir: t.TempDir(), Log: log}); err != nil {
		t.Fatal(err)
	}
	opt.Journal, opt.Log = g.journal, log
	g.Guard = NewGuard(g.store, opt)
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := g.journal.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// ask reserves a call of so many output tokens.
func (g *guarded) ask(output int64) (*Call, error) {
	g.n++
	id := fmt.Sprintf("%p-%d", g, g.n)
	c := &Call{ID: id, Who: Subject{Org: "acme", Key: "k", Model: "m"}, Want: Cost{Requests: 1, Output: output}}
	_, err := g.Reserve(context.Background(), c)
	return c, err
}

func (g *guarded) settle(t *testing.T, c *Call, output int64) {
	t.Helper()
	s := &Settlement{Call: c, Used: Cost{Requests: 1, Output: output}, Row: ledger.Row{ID: c.ID, Output: output}}
	if err := g.Settle(context.Background(), s); err != nil {
		t.Fatal(err)
	}
}

// see lets the guard hear from the store how the caller's buckets stand.
func (g *guarded) see(t *testing.T, who Subject) {
	t.Helper()
	if _, err := g.Peek(context.Background(), &who); err != nil {
		t.Fatal(err)
	}
}

// serve asks and settles at the estimate; it returns how many calls in a row passed.
func (g *guarded) serve(t *testing.T, output int64, most int) (passed int) {
	t.Helper()
	for passed < most {
		c, err := g.ask(output)
		if err != nil {
			return passed
		}
		g.settle(t, c, output)
		passed++
	}
	return passed
}

var tokensPerMinute = Rule{ID: "tpm", Scope: Key, Dim: Output, Amount: 6000, Per: Minute}

func TestGuardWithAHealthyPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 3, tokensPerMinute)
		if n := g.serve(t, 1000, 10); n != 6 {
			t.Errorf("%d calls passed, want the 6 that the primary has", n)
		}
		if s := g.State(); s.Trouble || s.Calls != 0 || s.Journal.Pending != 0 {
			t.Errorf("state: %+v", s)
		}
		if len(g.store.rows) != 6 {
			t.Errorf("%d rows", len(g.store.rows))
		}
		if g.log.Len() > 0 {
			t.Errorf("log: %s", g.log)
		}
	})
}

// TestGuardDecidesAlone: the share of a limit, beginning with the share of what was left;
// one line for each change; steady soon after the store is back; each row posted once.
func TestGuardDecidesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 3, tokensPerMinute)
		g.serve(t, 1000, 3) // 3000 left, of which a third is ours
		g.store.set(hanging)
		start := time.Now()
		if n := g.serve(t, 100, 100); n != 10 {
			t.Errorf("%d calls passed, want the 10 of the share of what was left", n)
		}
		if took := time.Since(start); took > 400*time.Millisecond {
			t.Errorf("the calls waited %v for a store that hangs", took)
		}
		time.Sleep(time.Minute)
		if n := g.serve(t, 100, 100); n != 20 {
			t.Errorf("%d calls passed after a minute, want the 20 of a full share", n)
		}
		if s := g.State(); !s.Trouble || s.Journal.Pending == 0 || s.Replicas != 3 {
			t.Errorf("state: %+v", s)
		}
		g.store.set(healthy)
		back := time.Now()
		for g.State().Trouble || g.State().Journal.Pending > 0 {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(back); took > 5*time.Second {
			t.Errorf("steady again after %v", took)
		}
		synctest.Wait()
		if len(g.store.rows) != 3+10+20 {
			t.Errorf("%d rows", len(g.store.rows))
		}
		for id, n := range g.store.rows {
			if n != 1 {
				t.Errorf("%d rows of %s", n, id)
			}
		}
		if log := g.said(); strings.Count(log, "level=WARN") != 1 || strings.Count(log, "answers again") != 1 {
			t.Errorf("log: %s", log)
		}
	})
}

// TestGuardUnseen: what one gateway has used up is not there again at others, which the store
// has told nothing of it; they fill at their share. So does a gateway that starts in trouble.
func TestGuardUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := []Rule{
			{ID: "rpm", Scope: Key, Dim: Requests, Amount: 30, Per: Minute},
			{ID: "usd", Scope: Org, Dim: Money, Amount: 1e9, Per: CalendarMonth},
			{ID: "day", Scope: Key, Dim: Output, Amount: 1e6, Per: CalendarDay},
		}
		first := newGuarded(t, 3, rules...)
		others := []*guarded{guardOver(t, first.store, first.opt.Rules, 3), guardOver(t, first.store, first.opt.Rules, 3)}
		if n := first.serve(t, 1, 50); n != 30 {
			t.Fatalf("%d calls passed, want all 30", n)
		}
		first.store.set(refusing)
		for _, g := range append(others, first) {
			if n := g.serve(t, 1, 50); n != 0 {
				t.Errorf("%d calls passed beyond the limit", n)
			}
		}
		time.Sleep(time.Minute)
		for _, g := range append(others, first) {
			if n := g.serve(t, 1, 50); n != 10 {
				t.Errorf("%d calls passed after a minute, want the share of 10", n)
			}
		}
		spend := &Call{ID: "spend", Who: Subject{Org: "acme"}, Want: Cost{Money: 3e6}}
		if _, err := others[0].Reserve(context.Background(), spend); err != nil {
			t.Errorf("a budget that was not seen has no grace: %v", err)
		}
	})
}

// TestGuardHandsOver: what was admitted here is missing there when the store is back.
func TestGuardHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		g.serve(t, 1000, 6)
		g.store.set(refusing)
		time.Sleep(30 * time.Second)
		if n := g.serve(t, 1000, 9); n != 3 {
			t.Errorf("%d calls passed after half a minute, want 3", n)
		}
		open, err := g.ask(0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		long, err := g.ask(2000)
		if err != nil {
			t.Fatal(err)
		}
		g.store.set(healthy)
		time.Sleep(5 * time.Second)
		// Half a minute's flow for the three, then 2000 of the call that runs, 500 for the wait.
		if left := g.store.left(t, open.Who)[0]; left < 1490 || left > 1510 {
			t.Errorf("%d are left at the store, want 1500", left)
		}
		g.settle(t, long, 100)
		g.settle(t, open, 0)
		time.Sleep(time.Second)
		if left := g.store.left(t, open.Who)[0]; left < 3490 || left > 3510 {
			t.Errorf("%d are left at the store after the settlement, want 3500", left)
		}
		synctest.Wait()
		g.here.mu.Lock()
		defer g.here.mu.Unlock()
		if len(g.here.marks) != 0 {
			t.Errorf("%d marks are left", len(g.here.marks))
		}
	})
}

// TestGuardLostReply: a reservation whose answer is lost is charged once, whether the call
// runs or not.
func TestGuardLostReply(t *testing.T) {
	for name, rules := range map[string][]Rule{
		"served":  {tokensPerMinute},
		"refused": {tokensPerMinute, {ID: "strict", Scope: Key, Dim: Requests, Amount: 100, Per: Minute, OnTrouble: Closed}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, 1, rules...)
				g.see(t, Subject{Org: "acme", Key: "k", Model: "m"})
				g.store.set(losing)
				c, err := g.ask(1000)
				g.store.set(healthy)
				want, rows := int64(5000), 1
				if name == "refused" {
					want, rows = 6000, 0
					if !errors.Is(err, ErrUnavailable) {
						t.Fatalf("error %v", err)
					}
				} else {
					g.settle(t, c, 1000)
				}
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				if left := g.store.left(t, c.Who)[0]; left < want || left > want+60 {
					t.Errorf("%d are left, want %d", left, want)
				}
				if len(g.store.rows) != rows {
					t.Errorf("rows: %v", g.store.rows)
				}
				if n := len(g.store.Memory.calls); n != 0 {
					t.Errorf("%d reservations are left open in the store", n)
				}
			})
		})
	}
}

func TestGuardPolicies(t *testing.T) {
	budget := Rule{ID: "usd", Scope: Org, Dim: Money, Amount: 1e9, Per: CalendarMonth}
	named := budget
	named.Grace = 50
	for name, c := range map[string]struct {
		rule     Rule
		replicas int
		want     Cost
		passed   int
		err      error
	}{
		"share":                    {Rule{Scope: Key, Dim: Requests, Amount: 9, Per: Minute}, 3, Cost{Requests: 1}, 3, nil},
		"at least one":             {Rule{Scope: Key, Dim: Requests, Amount: 2, Per: Minute}, 3, Cost{Requests: 1}, 1, nil},
		"burst":                    {Rule{Scope: Key, Dim: Requests, Amount: 3, Burst: 12, Per: Minute}, 3, Cost{Requests: 1}, 4, nil},
		"places":                   {Rule{Scope: Key, Dim: Streams, Amount: 2}, 3, Cost{}, 1, nil},
		"a prompt over the share":  {Rule{Scope: Key, Dim: Tokens, Amount: 300, Per: Minute}, 3, Cost{Input: 200}, 1, nil},
		"a prompt over the limit":  {Rule{Scope: Key, Dim: Tokens, Amount: 300, Per: Minute}, 3, Cost{Input: 400}, 0, nil},
		"open":                     {Rule{Scope: Key, Dim: Requests, Amount: 1, Per: Minute, OnTrouble: Open}, 1, Cost{Requests: 1}, 20, nil},
		"closed":                   {Rule{Scope: Key, Dim: Requests, Amount: 9, Per: Minute, OnTrouble: Closed}, 1, Cost{Requests: 1}, 0, ErrUnavailable},
		"money: one in a hundred":  {budget, 1, Cost{Money: 2e6}, 5, ErrUnavailable},
		"money: its grace":         {named, 1, Cost{Money: 10}, 5, ErrUnavailable},
		"money: its grace, shared": {named, 2, Cost{Money: 10}, 2, ErrUnavailable},
		"money: more than grace":   {named, 1, Cost{Money: 51}, 0, ErrUnavailable},
		"money: open":              {func() Rule { r := named; r.OnTrouble = Open; return r }(), 1, Cost{Money: 10}, 20, nil},
		"hard tokens":              {Rule{Scope: Key, Dim: Output, Amount: 1e9, Per: CalendarDay, Hard: true}, 1, Cost{Output: 5000}, 2, ErrUnavailable},
		"another key":              {Rule{Scope: Key, Dim: Requests, Amount: 1, Per: Minute, OnTrouble: Closed, Only: []string{"other"}}, 1, Cost{Requests: 1}, 20, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.rule.ID = "x"
				g := newGuarded(t, c.replicas, c.rule)
				g.see(t, Subject{Org: "acme", Key: "k", Model: "m"})
				g.store.set(refusing)
				var passed int
				var err error
				for passed < 20 {
					call := &Call{ID: fmt.Sprint(passed), Who: Subject{Org: "acme", Key: "k", Model: "m"}, Want: c.want}
					if _, err = g.Reserve(context.Background(), call); err != nil {
						break
					}
					passed++
				}
				if passed != c.passed {
					t.Errorf("%d calls passed, want %d (%v)", passed, c.passed, err)
				}
				var d *Denied
				if passed < 20 && (errors.Is(err, ErrUnavailable) != (c.err != nil) || errors.As(err, &d) == (c.err != nil)) {
					t.Errorf("error %v", err)
				}
				if d != nil && (d.Over[0].Rule.Full() != shareOf(&c.rule, c.replicas, d.TooLarge) || d.TooLarge != (name == "a prompt over the limit")) {
					t.Errorf("denial %+v of rule %+v", d, d.Over[0].Rule)
				}
			})
		})
	}
}

// shareOf is how much of a rule a denial tells of.
func shareOf(r *Rule, replicas int, whole bool) int64 {
	if whole {
		return r.Full()
	}
	return max(r.Full()/int64(replicas), 1)
}

// TestGuardShowsShares: levels that are counted here say how much of the limit is here.
func TestGuardShowsShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 3, tokensPerMinute, Rule{ID: "usd", Scope: Org, Dim: Money, Amount: 3e9, Per: CalendarMonth, Grace: 300})
		who := Subject{Org: "acme", Key: "k", Model: "m"}
		g.see(t, who)
		g.store.set(refusing)
		grant, err := g.Reserve(context.Background(), &Call{ID: "a", Who: who, Want: Cost{Output: 500, Money: 10}})
		if err != nil {
			t.Fatal(err)
		}
		peeked, err := g.Peek(context.Background(), &who)
		if err != nil {
			t.Fatal(err)
		}
		for _, levels := range [][]Level{grant.Levels, peeked} {
			for _, l := range levels {
				full, left, per := int64(2000), int64(1500), Minute
				if l.Rule.ID == "usd" {
					full, left, per = 100, 90, CalendarMonth
				}
				if l.Rule.Full() != full || l.Left != left || l.Rule.Per != per {
					t.Errorf("%s: %d of %d, want %d of %d", l.Rule.ID, l.Left, l.Rule.Full(), left, full)
				}
			}
		}
	})
}

// TestGuardFullStore: a store that answers questions and can write nothing is in trouble
// until it can, not now and then.
func TestGuardFullStore(t *testing.T) {
	for name, rule := range map[string]Rule{
		"amounts": tokensPerMinute,
		"places":  {ID: "par", Scope: Key, Dim: Streams, Amount: 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, 1, rule)
				g.see(t, Subject{Org: "acme", Key: "k", Model: "m"})
				g.store.set(crammed)
				for range 120 {
					c, err := g.ask(1)
					if err != nil {
						t.Fatal(err)
					}
					g.settle(t, c, 1)
					g.see(t, c.Who)
					time.Sleep(250 * time.Millisecond)
				}
				if n := strings.Count(g.said(), "answers again"); n != 0 || !g.State().Trouble {
					t.Errorf("it was back %d times within half a minute; %+v", n, g.State())
				}
				g.store.set(healthy)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if s := g.State(); s.Trouble || s.Journal.Pending > 0 || len(g.store.rows) != 120 {
					t.Errorf("%d rows, %+v", len(g.store.rows), s)
				}
			})
		})
	}
}

// TestGuardBusyMachine: calls that miss their deadlines together, among many that do not, are
// no trouble; a store that fails most calls is, and one that is asked seldom, too.
func TestGuardBusyMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, Rule{ID: "rpm", Scope: Key, Dim: Requests, Amount: 1e6, Per: Minute})
		ask := func(n int) {
			t.Helper()
			var all sync.WaitGroup
			for range n {
				c := &Call{ID: g.chargeID(), Who: Subject{Key: "k"}, Want: Cost{Requests: 1}}
				all.Go(func() {
					if _, err := g.Reserve(context.Background(), c); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		for range 20 {
			ask(20)
			g.store.mu.Lock()
			g.store.misses = 8
			g.store.mu.Unlock()
			ask(8) // in a row
			time.Sleep(100 * time.Millisecond)
		}
		if s := g.State(); s.Trouble || g.log.Len() > 0 {
			t.Errorf("%+v, log: %s", s, g.log)
		}
		time.Sleep(time.Minute)
		g.store.set(refusing)
		ask(1)
		time.Sleep(time.Second)
		if !g.State().Trouble {
			t.Error("a store that fails is asked on")
		}
	})
}

// TestGuardBudgetsFailClosed: a budget that has nothing left at the store has no grace, and one
// has none while settlements cannot be kept.
func TestGuardBudgetsFailClosed(t *testing.T) {
	budget := Rule{ID: "usd", Scope: Org, Dim: Money, Amount: 1000, Per: CalendarMonth, Grace: 500}
	ask := func(g *guarded, id string) error {
		_, err := g.Reserve(context.Background(), &Call{ID: id, Who: Subject{Org: "acme"}, Want: Cost{Money: 10}})
		return err
	}
	t.Run("spent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t, 1, budget)
			who := Subject{Org: "acme"}
			_, _ = g.store.Memory.Reserve(context.Background(), &Call{ID: "all", Who: who, Want: Cost{Money: 985}})
			if err := ask(g, "seen"); err != nil {
				t.Fatal(err)
			}
			g.store.set(refusing)
			if err := ask(g, "a"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("5 are left and a call of 10 got %v", err)
			}
		})
	})
	t.Run("journal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t, 1, budget)
			g.store.set(refusing)
			if err := ask(g, "a"); err != nil {
				t.Fatal(err)
			}
			g.journal.mu.Lock()
			g.journal.fail(errors.New("no space left on device"))
			g.journal.mu.Unlock()
			if err := ask(g, "b"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("a call that cannot be settled got %v", err)
			}
			time.Sleep(3 * time.Second) // writing is tried, and works
			if err := ask(g, "c"); err != nil {
				t.Errorf("when the journal works again: %v", err)
			}
		})
	})
}

// TestGuardSlowPrimary: few wait for a store that answers after half a second, and not long.
func TestGuardSlowPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, Rule{ID: "rpm", Scope: Key, Dim: Requests, Amount: 1e6, Per: Minute})
		g.see(t, Subject{Key: "k"})
		g.store.set(hanging)
		var all sync.WaitGroup
		var longest atomic.Int64
		for i := range 5000 { // 1 000 calls a second
			all.Go(func() {
				start := time.Now()
				c := &Call{ID: fmt.Sprint(i), Who: Subject{Key: "k"}, Want: Cost{Requests: 1}}
				if _, err := g.Reserve(context.Background(), c); err != nil {
					t.Error(err)
				}
				longest.Store(max(longest.Load(), int64(time.Since(start))))
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		if d := time.Duration(longest.Load()); d > 100*time.Millisecond {
			t.Errorf("a call waited %v", d)
		}
		if n := g.store.most.Load(); n > 60 {
			t.Errorf("%d calls waited at the same time", n)
		}
		if n := g.store.calls.Load(); n > 60 {
			t.Errorf("a store in trouble was asked %d times in 5 s", n)
		}
	})
}

// TestGuardSlow: a store as slow as the deadline allows is no trouble; one that is slower than
// it should be is, and the log says so.
func TestGuardSlow(t *testing.T) {
	for name, c := range map[string]struct {
		deadline, slow time.Duration
		trouble        bool
	}{
		"a longer deadline": {time.Second, 0, false},
		"slower than asked": {time.Second, 200 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set, err := NewRules([]Rule{tokensPerMinute})
				if err != nil {
					t.Fatal(err)
				}
				g := guardWith(t, newFaultyStore(t, set), GuardOptions{Rules: set, Deadline: c.deadline, Slow: c.slow})
				g.store.set(slow)
				for range 4 {
					if _, err := g.ask(1); err != nil {
						t.Error(err)
					}
				}
				if s := g.State(); s.Trouble != c.trouble {
					t.Errorf("%+v", s)
				}
				if said := strings.Contains(g.said(), "it answered only after 300ms"); said != c.trouble {
					t.Errorf("log: %s", g.log)
				}
			})
		})
	}
}

// TestGuardBoundsFlights: beyond the bound calls do not wait at all.
func TestGuardBoundsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		g.flights = make(chan struct{}, 8)
		g.store.set(hanging)
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				_, _ = g.Reserve(context.Background(), &Call{ID: fmt.Sprint(i), Who: Subject{Key: "k"}, Want: Cost{Output: 1}})
			})
		}
		synctest.Wait()
		if n := g.store.waiting.Load(); n != 8 {
			t.Errorf("%d calls wait for the store", n)
		}
		all.Wait()
	})
}

// TestGuardExtend: more for a call of the primary comes out of the grace, and goes back
// into it when the primary learns the truth.
func TestGuardExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, Rule{ID: "hard", Scope: Key, Dim: Output, Amount: 1e6, Per: CalendarDay, Hard: true, Grace: 500})
		c, err := g.ask(100)
		if err != nil {
			t.Fatal(err)
		}
		g.store.set(refusing)
		for i, want := range []error{nil, nil, ErrUnavailable} {
			if err := g.Extend(context.Background(), c, Cost{Output: 250}); !errors.Is(err, want) {
				t.Errorf("extension %d: %v, want %v", i, err, want)
			}
		}
		g.settle(t, c, 700)
		g.store.set(healthy)
		time.Sleep(5 * time.Second)
		if left := g.store.left(t, c.Who)[0]; left < 1e6-700 || left > 1e6-700+60 {
			t.Errorf("%d are left, want %d", left, int64(1e6-700))
		}
		if s := g.State(); s.Calls != 0 || s.Journal.Pending != 0 {
			t.Errorf("state: %+v", s)
		}
	})
}

// TestGuardPoison: a settlement that the store never takes does not hold up the others.
func TestGuardPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		for _, id := range []string{"a", "poison", "b", "c"} {
			if err := g.keep(settlement(id)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := strings.Count(g.said(), "request_id=poison"); n < 1 || n > 11 {
			t.Errorf("it was told %d times in ten minutes", n)
		}
		g.store.mu.Lock()
		defer g.store.mu.Unlock()
		if s := g.State(); len(g.store.rows) != 3 || s.Journal.Pending != 1 || s.Trouble {
			t.Errorf("rows %v, %+v", g.store.rows, s)
		}
	})
}

// TestGuardWithoutLimits: a call that nothing is to be decided for says nothing about the
// store.
func TestGuardWithoutLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, 1, tokensPerMinute)
		g.store.set(refusing)
		for range 3 {
			_, _ = g.ask(1)
		}
		asked := g.store.calls.Load()
		time.Sleep(time.Minute)
		free := Subject{Org: "acme"} // the rule is for keys
		if _, err := g.Peek(context.Background(), &free); err != nil || !g.State().Trouble {
			t.Errorf("%v, %+v", err, g.State())
		}
		if err := g.Extend(context.Background(), &Call{ID: "x", Who: free}, Cost{Output: 1}); err != nil {
			t.Error(err)
		}
		if n := g.store.calls.Load() - asked; n > 31 {
			t.Errorf("the store was asked %d times in a minute", n)
		}
	})
}
