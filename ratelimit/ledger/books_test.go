package ledger_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ledger/ledgertest"
	"sluice/ratelimit/ratelimittest/redistest"
)

func TestMemory(t *testing.T) {
	ledgertest.Run(t, func(_ testing.TB, keep ledger.Retention, clock *ledgertest.Clock) ledgertest.Book {
		return ledger.NewMemory(keep, clock.Now)
	})
}

func TestBolt(t *testing.T) {
	t.Parallel()
	ledgertest.Run(t, func(t testing.TB, keep ledger.Retention, clock *ledgertest.Clock) ledgertest.Book {
		return openBolt(t, filepath.Join(t.TempDir(), "ledger.db"), keep, clock.Now)
	})
}

func openBolt(t testing.TB, path string, keep ledger.Retention, clock func() time.Time) *ledger.Bolt {
	t.Helper()
	b, err := ledger.OpenBolt(path, keep, clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestRedis(t *testing.T) {
	t.Parallel()
	client := redistest.Single(t).Client(nil)
	ledgertest.Run(t, redisBooks(client))
}

// redisBooks opens each book under a prefix of its own.
func redisBooks(client redis.UniversalClient) ledgertest.Open {
	var books atomic.Int64
	return func(t testing.TB, keep ledger.Retention, clock *ledgertest.Clock) ledgertest.Book {
		b := ledger.NewRedis(client, "s"+strconv.FormatInt(books.Add(1), 10)+":", keep)
		t.Cleanup(func() { _ = b.Close() })
		return &timed{Redis: b, clock: clock}
	}
}

// timed is a Redis book whose time is that of a test.
type timed struct {
	*ledger.Redis
	clock *ledgertest.Clock
	mu    sync.RWMutex
	at    time.Time
}

func (b *timed) Post(ctx context.Context, r *ledger.Row) error {
	if now := b.clock.Now(); !b.is(now) {
		b.mu.Lock()
		b.SetTime(now)
		b.at = now
		b.mu.Unlock()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.Redis.Post(ctx, r)
}

func (b *timed) is(now time.Time) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.at.Equal(now)
}
