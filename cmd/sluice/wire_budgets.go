package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/handlers"
	"sluice/ratelimit"
	"sluice/ratelimit/ledger"
)

// budgetClock is the clock of an embedded limiter that begins with what was spent before
// the process started. It does not follow steps of the machine's clock.
type budgetClock struct {
	start time.Time                 // as it began, on the wall ...
	began time.Time                 // ... and for how long it runs
	then  atomic.Pointer[time.Time] // while the past is gone through
}

func (c *budgetClock) now() time.Time {
	if t := c.then.Load(); t != nil {
		return *t
	}
	return c.start.Add(time.Since(c.began))
}

// hasBudgets tells whether any limit counts money.
func hasBudgets(c *Config) bool {
	money := func(r *ratelimit.Rule) bool { return r.Dim == ratelimit.Money }
	return slices.ContainsFunc(limitRules(c), money) ||
		slices.ContainsFunc(c.Keys, func(k Key) bool { return slices.ContainsFunc(keyRules(&k), money) })
}

// respend takes from the budgets what this month's records say was spent, day by day, as
// if it were spent now. Budgets of client addresses begin anew: records do not name them.
func respend(ctx context.Context, c *Config, book handlers.Ledger, limiter ratelimit.Limiter, clock *budgetClock, log *slog.Logger) error {
	now := clock.start.UTC()
	sums, err := book.Usage(ctx, ledger.Query{
		Match: ledger.Match{AllOrgs: true, Since: time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)},
		By:    []ledger.Group{ledger.ByOrg, ledger.ByTeam, ledger.ByUser, ledger.ByKey, ledger.ByModel, ledger.ByDay},
	})
	if err != nil {
		return fmt.Errorf("what was spent this month cannot be read: %w", err)
	}
	defer clock.then.Store(nil)
	own := map[string][]*ratelimit.Rule{}
	for i := range c.Keys {
		own[c.Keys[i].Name] = keyRules(&c.Keys[i])
	}
	var total int64
	for i := range sums { // in the order of days
		s := &sums[i]
		clock.then.Store(&s.From)
		call := &ratelimit.Call{
			ID:   "spent-before-" + strconv.Itoa(i),
			Who:  ratelimit.Subject{Org: s.Org, Team: s.Team, User: s.User, Key: s.Key, Model: s.Model, Rules: own[s.Key]},
			Want: ratelimit.Cost{Money: 1},
		}
		if _, err := limiter.Reserve(ctx, call); err != nil {
			continue // that budget has nothing left as it is
		}
		if err := limiter.Settle(ctx, &ratelimit.Settlement{Call: call, Used: ratelimit.Cost{Money: s.Money}}); err != nil {
			return err
		}
		total += s.Money
	}
	log.Info("budgets go on from this month's usage records", slog.String("usd", Dollars(total).String()))
	return nil
}
