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
// the process started: the wall's, with its steps.
type budgetClock struct {
	start time.Time                 // as it began ...
	began time.Time                 // ... and when that was, on the wall
	wall  func() time.Time          // nil: the machine's
	then  atomic.Pointer[time.Time] // while the past is gone through
}

func (c *budgetClock) now() time.Time {
	if t := c.then.Load(); t != nil {
		return *t
	}
	wall := time.Now
	if c.wall != nil {
		wall = c.wall
	}
	return c.start.Add(wall().Round(0).Sub(c.began.Round(0))) // without the monotonic readings
}

// hasBudgets tells whether any limit counts money.
func hasBudgets(c *Config) bool {
	money := func(r *ratelimit.Rule) bool { return r.Dim == ratelimit.Money }
	return slices.ContainsFunc(limitRules(c), money) ||
		slices.ContainsFunc(c.Keys, func(k Key) bool { return slices.ContainsFunc(keyRules(&k), money) })
}

// respend takes from the budgets what this month's records say was spent, day by day, as
// if it were spent now, also of those that have nothing left. Budgets of client addresses
// begin anew: records do not name them.
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
			ID:  "spent-before-" + strconv.Itoa(i),
			Who: ratelimit.Subject{Org: s.Org, Team: s.Team, User: s.User, Key: s.Key, Model: s.Model, Rules: own[s.Key]},
		}
		if _, err := limiter.Reserve(ctx, call); err != nil { // not for want of money: it asks for none
			return err
		}
		if err := limiter.Settle(ctx, &ratelimit.Settlement{Call: call, Used: ratelimit.Cost{Money: s.Money}}); err != nil {
			return err
		}
		total += s.Money
	}
	log.Info("budgets go on from this month's usage records", slog.String("usd", Dollars(total).String()))
	return nil
}
