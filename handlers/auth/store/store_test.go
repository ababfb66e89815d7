package store_test

import (
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"sluice/handlers/auth/store"
	"sluice/handlers/auth/store/storetest"
	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

// file is a place for one store at a time.
type file string

func (f file) Open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s, err := store.OpenBolt(string(f), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// prefix is a place for many stores.
type prefix struct {
	client redis.UniversalClient
	name   string
}

func (p prefix) Open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	o.Prefix = p.name
	s, err := store.OpenRedis(t.Context(), p.client, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Place { return file(filepath.Join(t.TempDir(), "data", "keys.db")) })
}

func TestRedis(t *testing.T) {
	storetest.Run(t, prefixes(redistest.Single(t).Client(ratelimit.TuneRedis)))
}

func TestRedisCluster(t *testing.T) {
	storetest.Run(t, prefixes(redistest.Cluster(t).Client(ratelimit.TuneRedis)))
}

func prefixes(client redis.UniversalClient) func(testing.TB) storetest.Place {
	var n atomic.Int64
	return func(testing.TB) storetest.Place { return prefix{client, "s" + strconv.FormatInt(n.Add(1), 10) + ":"} }
}
