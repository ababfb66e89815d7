package store

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/handlers/auth"
	"sluice/providers"
)

// spentTickets are the tickets that were used at any replica.
type spentTickets struct {
	client redis.UniversalClient
	prefix string
}

// NewSpentTickets remembers used tickets in Redis, for all replicas. prefix is that of Options. While
// Redis cannot be reached no ticket is taken: Spend fails with Overloaded.
func NewSpentTickets(client redis.UniversalClient, prefix string) auth.Spender {
	if prefix == "" {
		prefix = defaultPrefix
	}
	return &spentTickets{client, prefix + "ticket:"}
}

const (
	spendWithin = time.Second
	spentLonger = time.Minute // than a ticket is good, for clocks that differ
)

// Spend notes a ticket.
func (s *spentTickets) Spend(ctx context.Context, id string, until time.Time) (first bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, spendWithin)
	defer cancel()
	keep := max(time.Until(until), 0) + spentLonger
	first, err = s.client.SetNX(ctx, s.prefix+hex.EncodeToString([]byte(id)), 1, keep).Result()
	if err != nil {
		return false, &providers.Error{Kind: providers.Overloaded, Code: "tickets_unavailable", RetryAfter: time.Second,
			Message: "The gateway cannot check tickets now. Try again in a moment, or send the API key.", Err: err}
	}
	return first, nil
}
