package ledger_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/ratelimit/ledger"
	"sluice/ratelimit/ledger/ledgertest"
	"sluice/ratelimit/ratelimittest/redistest"
)

func TestRedisCluster(t *testing.T) {
	t.Parallel()
	ledgertest.Run(t, redisBooks(redistest.Cluster(t).Client(nil)))
}

// TestRedisRegister has a second replica ask about organisations that only the first saw.
func TestRedisRegister(t *testing.T) {
	client := redistest.Single(t).Client(nil)
	first, second := ledger.NewRedis(client, "s:", ledger.Retention{}), ledger.NewRedis(client, "s:", ledger.Retention{})
	for i := range 20 {
		row := ledgertest.Row(fmt.Sprint("r", i))
		row.Org = fmt.Sprint("org", i%4)
		if err := first.Post(t.Context(), &row); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	sums, err := second.Usage(t.Context(), ledger.Query{Match: ledger.Match{AllOrgs: true}, By: []ledger.Group{ledger.ByOrg}})
	if err != nil || len(sums) != 4 || sums[3].Calls != 5 {
		t.Errorf("%+v, %v", sums, err)
	}
}

// TestRedisRegisterAgain loses the register's server when an organisation is first seen.
func TestRedisRegisterAgain(t *testing.T) {
	server := redistest.Single(t)
	client := server.Client(func(o *redis.UniversalOptions) { o.MaxRetries, o.DialTimeout = -1, time.Second })
	b := ledger.NewRedis(client, "s:", ledger.Retention{})
	server.Kill()
	b.Saw("acme")
	_ = b.Close()
	server.Start()
	b.Saw("acme")
	_ = b.Close()
	if n := client.ZCard(t.Context(), "s:{shared}:l:orgs").Val(); n != 1 {
		t.Errorf("%d organisations are registered", n)
	}
}

func TestRedisGone(t *testing.T) {
	t.Parallel()
	server := redistest.Single(t)
	b := ledger.NewRedis(server.Client(func(o *redis.UniversalOptions) { o.MaxRetries = -1 }), "s:", ledger.Retention{})
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	row := ledgertest.Row("r")
	if err := b.Post(ctx, &row); err == nil {
		t.Error("posted to nobody")
	}
	if _, err := b.Usage(ctx, ledger.Query{}); err == nil {
		t.Error("sums from nobody")
	}
	if _, err := b.Rows(ctx, ledger.Filter{}); err == nil {
		t.Error("rows from nobody")
	}
	if _, err := b.Rows(ctx, ledger.Filter{Match: ledger.Match{AllOrgs: true}}); err == nil {
		t.Error("rows of all from nobody")
	}
	_ = b.Close()
}

// TestRedisKeysInOneSlot posts for organisations with awkward names: all keys but the
// register are in the slot of their organisation.
func TestRedisKeysInOneSlot(t *testing.T) {
	server := redistest.Single(t)
	client := server.Client(nil)
	b := ledger.NewRedis(client, "s:", ledger.Retention{})
	for _, org := range []string{"", "}{x}", "{shared}", "a:b"} {
		row := ledgertest.Row("r" + org)
		row.Org = org
		if err := b.Post(t.Context(), &row); err != nil {
			t.Fatal(err)
		}
		slot := client.ClusterKeySlot(t.Context(), ledger.Slot("s:", org)).Val()
		keys := client.Keys(t.Context(), ledger.Slot("s:", org)+":l*").Val()
		if len(keys) != 3 {
			t.Errorf("%q has keys %q", org, keys)
		}
		for _, key := range keys {
			if got := client.ClusterKeySlot(t.Context(), key).Val(); got != slot {
				t.Errorf("%s is in slot %d, not %d", key, got, slot)
			}
			if ttl := client.TTL(t.Context(), key).Val(); ttl <= 0 || ttl > 91*24*time.Hour {
				t.Errorf("%s expires in %v", key, ttl)
			}
		}
	}
	_ = b.Close()
}
