package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/handlers/tokens"
	"sluice/providers/demo"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// demoModels are the embedded models.
var demoModels = []string{demo.Echo, demo.Slow, demo.Tools, demo.Faults, demo.Embed, demo.Vision}

// principal is the caller that a key stands for.
func principal(k *Key) auth.Principal {
	who := auth.Principal{Key: k.Name, Org: k.Org, Team: k.Team, User: k.User, Rules: keyRules(k), Groups: k.Groups}
	if len(k.Models)+len(k.Routes)+len(k.Transports) > 0 {
		who.May = &auth.Permissions{Models: k.Models, Routes: k.Routes, Transports: k.Transports}
	}
	return who
}

// quota is what limits need while the gateway runs.
type quota struct {
	handlers handlers.Quota
	rules    *ratelimit.Rules
	running  *ledger.Running // nil: nothing is kept of answers that run
	closers  []func()        // in the order in which they were opened
}

// Close ends the limits' own work, after the last answer has been settled.
func (q *quota) Close() {
	for i := len(q.closers) - 1; i >= 0; i-- {
		q.closers[i]()
	}
}

func (q *quota) onClose(what string, log *slog.Logger, end func() error) {
	q.closers = append(q.closers, func() {
		if err := end(); err != nil {
			log.Error("closing "+what, slog.Any("error", err))
		}
	})
}

// newQuota opens what the limits are counted in: Redis where it is configured, else this
// process.
func newQuota(c *Config, o *handlers.Observer, log *slog.Logger) (*quota, error) {
	rules, err := newRules(c)
	if err != nil {
		return nil, err
	}
	q := &quota{rules: rules}
	q.handlers = handlers.Quota{Applies: rules.Match, Prices: newPrices(c), Tokens: newEstimator(c)}
	if c.Redis.configured() {
		err = q.openRedis(c, o, log)
	} else {
		err = q.openMemory(c, log)
	}
	if err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

func newRules(c *Config) (*ratelimit.Rules, error) {
	var declared []ratelimit.Rule
	for _, r := range limitRules(c) {
		declared = append(declared, *r)
	}
	return ratelimit.NewRules(declared)
}

// checkKeyRules checks the limits that a key carries.
func checkKeyRules(k *Key) error {
	var own []ratelimit.Rule
	for _, r := range keyRules(k) {
		own = append(own, *r)
	}
	if err := ratelimit.CheckRules(own); err != nil {
		return fmt.Errorf("limits of key %q: %w", k.Name, err)
	}
	return nil
}

func newPrices(c *Config) (out ratelimit.Prices) {
	for i := range c.Prices {
		p := &c.Prices[i]
		price := ratelimit.Price{Input: int64(*p.Input), Cached: int64(*p.Input), Output: int64(*p.Output)}
		if p.Cached != nil {
			price.Cached = int64(*p.Cached)
		}
		for _, m := range p.Models {
			out = append(out, ratelimit.ModelPrice{Model: m, Price: price})
		}
	}
	return out
}

func newEstimator(c *Config) *tokens.Estimator {
	var models []tokens.Model
	for i := range c.Estimates {
		e := &c.Estimates[i]
		models = append(models, tokens.Model{
			Models: e.Models, Count: tokens.Tokenizer(e.Tokenizer), MaxOutput: int64(e.MaxOutput), ImageTokens: int64(e.ImageTokens),
		})
	}
	return tokens.New(models)
}

// retention bounds the usage records.
func (d *Data) retention() ledger.Retention {
	age := time.Duration(d.UsageDays) * 24 * time.Hour
	return ledger.Retention{Rows: d.UsageRecords, RowAge: age, SumAge: age}
}

// book is what both forms of the embedded ledger are.
type book interface {
	handlers.Ledger
	Post(ctx context.Context, r *ledger.Row) error
}

// poster lets the limiter of one process write rows. A book that cannot take a row in time
// loses it, which is told.
type poster struct {
	book book
	log  *slog.Logger
	wait time.Duration // 0: the book never makes anybody wait
}

// postTime is how long a row may wait for a book whose disk is slow.
const postTime = time.Second

func (p poster) Post(row *ledger.Row) {
	if row.ID == "" {
		return // of an attempt, which is nobody's
	}
	ctx := context.Background()
	if p.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.wait)
		defer cancel()
	}
	if err := p.book.Post(ctx, row); err != nil {
		p.log.Error("a usage record is lost", slog.String("request_id", row.ID), slog.Any("error", err))
	}
}

// ledgerFile is the name of the embedded ledger below data.dir.
const ledgerFile = "usage.db"

func (q *quota) openMemory(c *Config, log *slog.Logger) error {
	var b book = ledger.NewMemory(c.Data.retention(), time.Now)
	var wait time.Duration
	if c.Data.Dir != "" {
		kept, err := ledger.OpenBolt(filepath.Join(c.Data.Dir, ledgerFile), c.Data.retention(), time.Now, log)
		if err != nil {
			return fmt.Errorf("data.dir: %w", err)
		}
		q.onClose("the usage records", log, kept.Close)
		q.recoverRunning(kept, c.Data.Dir, log)
		b, wait = kept, postTime
	}
	o := ratelimit.MemoryOptions{Rules: q.rules, Book: poster{b, log, wait}}
	clock := &budgetClock{start: time.Now(), began: time.Now()}
	past := c.Data.Dir != "" && hasBudgets(c)
	if past {
		o.Now = clock.now
	}
	limiter := ratelimit.NewMemory(o)
	q.handlers.Limiter, q.handlers.Ledger = limiter, b
	if past {
		return respend(context.Background(), c, b, limiter, clock, log)
	}
	return nil
}

// timed tells how long questions to Redis take, and which organisations have records.
type timed struct {
	*ratelimit.Redis
	obs  *handlers.Observer
	book *ledger.Redis
}

func (t timed) Reserve(ctx context.Context, c *ratelimit.Call) (g ratelimit.Grant, err error) {
	defer t.took("reserve", time.Now(), &err)
	return t.Redis.Reserve(ctx, c)
}

func (t timed) Extend(ctx context.Context, c *ratelimit.Call, more ratelimit.Cost) (err error) {
	defer t.took("extend", time.Now(), &err)
	return t.Redis.Extend(ctx, c, more)
}

func (t timed) Settle(ctx context.Context, s *ratelimit.Settlement) (err error) {
	defer t.took("settle", time.Now(), &err)
	t.book.Saw(s.Row.Org)
	return t.Redis.Settle(ctx, s)
}

func (t timed) took(what string, since time.Time, err *error) {
	t.obs.StoreTook(what, time.Since(since), *err)
}

const (
	// journalDir is where settlements wait for Redis, below data.dir.
	journalDir = "settlements"
	// gatewaysFile is where the number of gateways is remembered, below data.dir.
	gatewaysFile = "gateways"
)

func (q *quota) openRedis(c *Config, o *handlers.Observer, log *slog.Logger) error {
	r := &c.Redis
	client := newRedisClient(r)
	q.onClose("the connections to Redis", log, client.Close)
	b := ledger.NewRedis(client, r.Prefix, c.Data.retention())
	q.onClose("the usage records", log, b.Close)
	dir, file := "", ""
	if c.Data.Dir != "" {
		dir, file = filepath.Join(c.Data.Dir, journalDir), filepath.Join(c.Data.Dir, gatewaysFile)
	}
	journal, err := ratelimit.OpenJournal(ratelimit.JournalOptions{Dir: dir, Log: log})
	if err != nil {
		return err
	}
	q.onClose("the journal of settlements", log, journal.Close)
	primary := ratelimit.NewRedis(client, ratelimit.RedisOptions{Rules: q.rules, Prefix: r.Prefix, Timeout: r.Timeout.Std(), Lease: r.Lease.Std(),
		Retention: c.Data.retention(), Log: log})
	q.onClose("the limits in Redis", log, primary.Close)
	replicas := ratelimit.NewReplicas(ratelimit.ReplicasOptions{
		Seen: func() int { return primary.State().Replicas }, Least: r.Gateways, File: file, Log: log,
	})
	q.run(replicas.Run)
	guard := ratelimit.NewGuard(timed{primary, o, b}, ratelimit.GuardOptions{
		Rules: q.rules, Journal: journal, Replicas: replicas.Count, Deadline: r.Timeout.Std(), Log: log,
	})
	q.run(guard.Run)
	q.handlers.Limiter, q.handlers.Ledger = guard, b
	watchRedis(o, primary, guard)
	return nil
}

// run runs until Close.
func (q *quota) run(f func(context.Context)) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	q.closers = append(q.closers, func() { stop(); <-done })
}

func watchRedis(o *handlers.Observer, primary *ratelimit.Redis, guard *ratelimit.Guard) {
	yes := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	o.Watch("gateway_quota_degraded", "1 while Redis is in trouble and limits are counted here.", func() float64 { return yes(guard.State().Trouble) })
	o.Watch("gateway_quota_replicas", "Gateways that share the limits, as last seen.", func() float64 { return float64(guard.State().Replicas) })
	o.Watch("gateway_settlements_waiting", "Settlements kept on this machine until Redis takes them.", func() float64 { return float64(guard.State().Journal.Pending) })
	o.Watch("gateway_settlements_lost", "Settlements that neither Redis nor the journal took.", func() float64 { return float64(guard.State().Lost) })
	o.Watch("gateway_redis_reminded", "Open calls and settlements that Redis had lost and was told again.", func() float64 { return float64(primary.State().Reminded) })
	o.Watch("gateway_redis_evicts", "1 when Redis may evict limits under its maxmemory-policy.", func() float64 { return yes(primary.State().Evicts != "") })
	o.Watch("gateway_redis_swept_calls", "Calls of gateways that died which this one has settled.", func() float64 { return float64(primary.State().Swept) })
}
