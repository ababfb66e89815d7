package ratelimit

import (
	"bytes"
	"context"
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
	misses  int           // calls that hang, whatever the fault
	lag     time.Duration // of each settlement
	waiting atomic.Int64  // calls that hang now
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
	time.Sleep(s.lag)
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
