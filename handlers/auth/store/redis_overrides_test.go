package store_test

import (
	"testing"
	"time"

	"sluice/handlers/auth/store"
	"sluice/handlers/auth/store/storetest"
	"sluice/ratelimit/ratelimittest/redistest"
)

// TestOverridesOfReplicas sets at one gateway: the other follows, and gives everything back to a
// Redis that has lost it.
func TestOverridesOfReplicas(t *testing.T) {
	server := redistest.Single(t)
	a, b := twoReplicas(t, server, storetest.Options(t))
	told := make(chan struct{}, 100)
	open := func(s *store.Store, changed func()) *store.Overrides {
		o, err := s.Overrides(t.Context(), changed)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(o.Close)
		return o
	}
	at, over := open(a, func() {}), open(b, func() { told <- struct{}{} })
	set := func(path, value string) {
		t.Helper()
		if _, _, err := at.Set(t.Context(), store.Override{Path: path, Value: value, By: "ada"}, 0); err != nil {
			t.Fatal(err)
		}
	}
	has := func(o *store.Overrides, path, value string) func() bool {
		return func() bool { got, ok := o.All().Get(path); return ok && got.Value == value }
	}
	began := time.Now()
	set("x", "1")
	<-told
	if took := time.Since(began); !has(over, "x", "1")() {
		t.Error("told, and it is not there")
	} else {
		t.Logf("followed after %v", took)
	}
	set("x", "2")
	set("y", "1")
	storetest.Await(t, 10*time.Second, "b follows", func() bool { return has(over, "x", "2")() && has(over, "y", "1")() })
	server.Must("FLUSHALL")
	storetest.Await(t, 10*time.Second, "it is given back", func() bool { return server.Must("HGET", "s:{admin}:overrides", "version") == "3" })
	set("z", "1")
	storetest.Await(t, 10*time.Second, "b follows again", has(over, "z", "1"))
	if got := over.All(); got.Version != 4 || len(got.Items) != 3 {
		t.Errorf("b knows %+v", got)
	}
	if _, err := at.Remove(t.Context(), "x", 0); err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, 10*time.Second, "b forgets", func() bool { _, there := over.All().Get("x"); return !there })
}
