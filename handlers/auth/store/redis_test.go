package store_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
	"sluice/handlers/auth/store/storetest"
	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

// twoReplicas share one Redis, each with a client of its own.
func twoReplicas(t *testing.T, server *redistest.Server, o store.Options) (a, b *store.Store) {
	t.Helper()
	open := func() *store.Store {
		s := prefix{server.Client(ratelimit.TuneRedis), "s:"}.Open(t, o)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	return open(), open()
}

// patience bounds waits for what must happen, on however slow a machine. It is no part of what
// is measured: an edit is in force elsewhere in milliseconds.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // tests kill servers
	m.Run()
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func good(s *store.Store, token auth.Token) bool {
	_, _, err := s.Verify(&token)
	return err == nil
}

// TestReplicas creates at one replica, uses at the other, and revokes: within a second the
// other one knows, and has told who runs calls.
func TestReplicas(t *testing.T) {
	single, cluster := redistest.Single(t), redistest.Cluster(t)
	t.Run("single", func(t *testing.T) { testReplicas(t, single.Client) })
	t.Run("cluster", func(t *testing.T) { testReplicas(t, cluster.Client) })
}

func testReplicas(t *testing.T, client func(func(*redis.UniversalOptions)) redis.UniversalClient) {
	open := func() *store.Store {
		s := prefix{client(ratelimit.TuneRedis), "s:"}.Open(t, storetest.Options(t))
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	a, b := open(), open()
	told := make(chan store.Revocation, 10)
	b.OnRevoked(func(r store.Revocation) { told <- r })
	token, k, err := a.Create(t.Context(), storetest.Full("x"))
	if err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, patience, "b knows the key", func() bool { return good(b, token) })
	next, _, err := a.Rotate(t.Context(), k.ID, 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, patience, "b knows the new secret", func() bool { return good(b, next) && good(b, token) })
	if _, err := b.Delete(t.Context(), k.ID, 1); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a conflict over replicas: %v", err)
	}
	if _, err := a.Update(t.Context(), k.ID, 0, func(k *store.Key) error { k.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-told:
		if r != (store.Revocation{ID: k.ID}) || good(b, next) {
			t.Errorf("told %+v; still good: %t", r, good(b, next))
		}
	case <-time.After(patience):
		t.Error("b was not told")
	}
}

// TestReplicasWithoutMessages lets b follow by its looks alone.
func TestReplicasWithoutMessages(t *testing.T) {
	server := redistest.Single(t)
	a := prefix{server.Client(ratelimit.TuneRedis), "s:"}.Open(t, storetest.Options(t))
	defer a.Close()
	server.Must("ACL", "SETUSER", "deaf", "on", "nopass", "~*", "+@all", "resetchannels")
	b := prefix{server.Client(func(o *redis.UniversalOptions) { ratelimit.TuneRedis(o); o.Username, o.Password = "deaf", "x" }), "s:"}.Open(t, storetest.Options(t))
	defer b.Close()
	server.Await("have one listener", func() bool { return server.Must("PUBSUB", "NUMSUB", "s:{keys}:changed") == "s:{keys}:changed\n1" })
	token, k, err := a.Create(t.Context(), store.Key{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, patience, "b knows the key", func() bool { return good(b, token) })
	if _, err := a.Delete(t.Context(), k.ID, 0); err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, patience, "b refuses the key", func() bool { return !good(b, token) })
}

// TestEditsOfReplicas edits one key from two replicas: no edit is lost.
func TestEditsOfReplicas(t *testing.T) {
	a, b := twoReplicas(t, redistest.Single(t), storetest.Options(t))
	_, k, err := a.Create(t.Context(), store.Key{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for _, s := range []*store.Store{a, b} {
		wg.Go(func() {
			for range 20 {
				_, err := s.Update(t.Context(), k.ID, 0, func(k *store.Key) error { k.Name += "x"; return nil })
				mu.Lock()
				if err == nil {
					done++
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, s := range []*store.Store{a, b} {
		if got, err := s.Get(t.Context(), k.ID); err != nil || len(got.Name) != 1+done || got.Version != uint64(1+done) || done < 20 {
			t.Errorf("%d edits, the key says %+v, %v", done, got, err)
		}
	}
}

// TestRedisLost kills Redis: keys stay good, edits fail, what is unknown may be new, and the
// age is told. Redis comes back with nothing and is given everything back, to a replica that
// starts then too.
func TestRedisLost(t *testing.T) {
	server := redistest.Single(t)
	a, b := twoReplicas(t, server, storetest.Options(t))
	token, k, err := a.Create(t.Context(), storetest.Full("a"))
	if err != nil {
		t.Fatal(err)
	}
	revoked, dead, err := a.Create(t.Context(), store.Key{Name: "revoked"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Delete(t.Context(), dead.ID, 1); err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, patience, "b follows", func() bool { return good(b, token) && b.State().Keys == 2 && !good(b, revoked) })
	server.Kill()
	unknown := auth.NewToken()
	storetest.Await(t, patience, "the copy is old", func() bool {
		_, _, err := b.Verify(&unknown)
		return errors.Is(err, store.ErrUnavailable)
	})
	if st := b.State(); st.Age < 2*time.Second || st.Err == nil || !st.Loaded || st.Refusing {
		t.Errorf("%+v", st)
	}
	if !good(b, token) || good(b, revoked) {
		t.Error("the copy is not used")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := a.Delete(ctx, k.ID, 1); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("deleted without Redis: %v", err)
	}
	if page, err := b.List(ctx, store.Filter{Deleted: true}); err != nil || len(page.Keys) != 2 {
		t.Errorf("list without Redis: %v, %v", page, err)
	}
	if err := b.Export(ctx, nil); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("export without Redis: %v", err)
	}
	server.Start()
	storetest.Await(t, 10*time.Second, "all is well", func() bool { return a.State().Err == nil && b.State().Err == nil && b.State().Age < time.Second })
	c := prefix{server.Client(ratelimit.TuneRedis), "s:"}.Open(t, storetest.Options(t))
	defer c.Close()
	storetest.Await(t, patience, "c knows what was lost", func() bool { return good(c, token) && c.State().Keys == 2 })
	if good(c, revoked) || !slices.Equal(c.Lookup(k.ID).Models, k.Models) {
		t.Error("the keys came back otherwise")
	}
}

// TestRedisRolledBack has Redis forget a revocation, as when a replica takes over that had not
// heard of it: who knows puts it right, be it the one who made it and was just told so.
func TestRedisRolledBack(t *testing.T) {
	t.Run("known by all", func(t *testing.T) { rolledBack(t, true) })
	t.Run("just made", func(t *testing.T) { rolledBack(t, false) })
}

func rolledBack(t *testing.T, known bool) {
	server := redistest.Single(t)
	a, b := twoReplicas(t, server, storetest.Options(t))
	token, k, err := a.Create(t.Context(), store.Key{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client(nil)
	names := []string{"s:{keys}:records", "s:{keys}:log", "s:{keys}:meta", "s:{keys}:tags"}
	dumps := make([]string, len(names))
	for i, name := range names {
		if dumps[i], err = client.Dump(t.Context(), name).Result(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Update(t.Context(), k.ID, 1, func(k *store.Key) error { k.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if known {
		storetest.Await(t, patience, "b follows", func() bool { k := b.Lookup(k.ID); return k != nil && k.Disabled })
	}
	_, err = client.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		for i, name := range names {
			p.RestoreReplace(t.Context(), name, 0, dumps[i])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, patience, "the revocation is back", func() bool {
		c := prefix{client, "s:"}.Open(t, storetest.Options(t))
		defer c.Close()
		return c.Lookup(k.ID).Version == 2 && !good(c, token)
	})
	if good(a, token) {
		t.Error("the key lives again")
	}
	storetest.Await(t, patience, "b knows the revocation", func() bool { k := b.Lookup(k.ID); return k != nil && k.Disabled })
}

// TestRedisMaxStale refuses everybody when the copy is too old.
func TestRedisMaxStale(t *testing.T) {
	server := redistest.Single(t)
	o := storetest.Options(t)
	o.MaxStale = 3 * time.Second
	a, _ := twoReplicas(t, server, o)
	token, _, err := a.Create(t.Context(), store.Key{Name: "a"})
	if err != nil || !good(a, token) {
		t.Fatal(err)
	}
	server.Kill()
	storetest.Await(t, patience, "the key is refused", func() bool {
		_, _, err := a.Verify(&token)
		return errors.Is(err, store.ErrUnavailable)
	})
	if st := a.State(); !st.Refusing || st.Age < 3*time.Second {
		t.Errorf("%+v", st)
	}
	server.Start()
	storetest.Await(t, patience, "the key is good again", func() bool { return good(a, token) })
}

// TestRedisAbsent starts without Redis: nobody is let in, and nobody is told to be unknown.
func TestRedisAbsent(t *testing.T) {
	server := redistest.Single(t)
	a, _ := twoReplicas(t, server, storetest.Options(t))
	token, _, err := a.Create(t.Context(), store.Key{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	server.Kill()
	b := prefix{server.Client(ratelimit.TuneRedis), "s:"}.Open(t, storetest.Options(t))
	defer b.Close()
	if _, _, err := b.Verify(&token); !errors.Is(err, store.ErrUnavailable) || b.State().Loaded || !b.State().Refusing {
		t.Errorf("%v, %+v", err, b.State())
	}
	server.Start()
	storetest.Await(t, 10*time.Second, "b knows the key", func() bool { return good(b, token) })
}

func TestRedisPepper(t *testing.T) {
	client := redistest.Single(t).Client(ratelimit.TuneRedis)
	o := storetest.Options(t)
	a := prefix{client, "s:"}.Open(t, o)
	defer a.Close()
	if _, _, err := a.Create(t.Context(), store.Key{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	o.Pepper, o.Prefix = storetest.Pepper(t, "q"), "s:"
	if _, err := store.OpenRedis(t.Context(), client, o); !errors.Is(err, store.ErrPepper) {
		t.Errorf("another pepper: %v", err)
	}
}

// TestRedisKilledServer kills Redis in the middle of edits: with its log on disk nothing that
// was acknowledged is lost.
func TestRedisKilledServer(t *testing.T) {
	server := redistest.Single(t, "--appendonly", "yes", "--appendfsync", "always")
	a := prefix{server.Client(ratelimit.TuneRedis), "s:"}.Open(t, storetest.Options(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	acked := make(chan auth.Token, 100_000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				token, _, err := a.Create(ctx, store.Key{Name: "a"})
				if err != nil {
					return
				}
				acked <- token
			}
		})
	}
	storetest.Await(t, 10*time.Second, "keys are made", func() bool { return len(acked) > 100 })
	server.Kill()
	wg.Wait()
	_ = a.Close()
	server.Start()
	b := prefix{server.Client(ratelimit.TuneRedis), "s:"}.Open(t, storetest.Options(t))
	defer b.Close()
	close(acked)
	for token := range acked {
		if !good(b, token) {
			t.Fatalf("%s was acknowledged and is lost", token)
		}
	}
}
