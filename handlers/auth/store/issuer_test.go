package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
	"sluice/handlers/auth/store/storetest"
	"sluice/providers"
	"sluice/ratelimit"
	"sluice/ratelimit/ratelimittest/redistest"
)

// TestEachTokenItself: whatever was verified before, a token is taken for the key that it is of
// and no other, and one that differs anywhere for none.
func TestEachTokenItself(t *testing.T) {
	s := file(filepath.Join(t.TempDir(), "keys.db")).Open(t, storetest.Options(t))
	defer s.Close()
	tokens := make([]auth.Token, 20)
	for i := range tokens {
		var err error
		if tokens[i], _, err = s.Create(t.Context(), store.Key{Name: "k"}); err != nil {
			t.Fatal(err)
		}
	}
	callers := auth.NewCallers(auth.NewKeys(nil), s)
	rapid.Check(t, func(t *rapid.T) {
		a, b := tokens[rapid.IntRange(0, len(tokens)-1).Draw(t, "a")], tokens[rapid.IntRange(0, len(tokens)-1).Draw(t, "b")]
		who, err := callers.Find(a.Reveal())
		if err != nil || who.Key != a.ID().String() || who.Serial != 1 {
			t.Fatalf("%v is taken for %+v, %v", a, who, err)
		}
		same := auth.TokenFor(a.ID())
		if _, err := callers.Find(same.Reveal()); err == nil {
			t.Fatal("another secret of the same id is taken")
		}
		cut := rapid.IntRange(0, len(a.Reveal())).Draw(t, "cut")
		mixed := a.Reveal()[:cut] + b.Reveal()[cut:]
		who, err = callers.Find(mixed)
		if mixed == a.Reveal() || mixed == b.Reveal() {
			if err != nil {
				t.Fatal(err)
			}
		} else if err == nil {
			t.Fatalf("a mixture of two keys is taken for %+v", who)
		}
	})
}

// TestSameWork compares the fastest of many runs for an id that nobody has with that for a
// wrong secret of one that somebody has.
func TestSameWork(t *testing.T) {
	if testing.Short() || store.UnderRace {
		t.Skip("measures")
	}
	s := file(filepath.Join(t.TempDir(), "keys.db")).Open(t, storetest.Options(t))
	defer s.Close()
	token, _, err := s.Create(t.Context(), store.Key{Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	wrong, unknown := auth.TokenFor(token.ID()), auth.NewToken()
	took := func(token *auth.Token) time.Duration {
		began := time.Now()
		for range 200 {
			if _, _, err := s.Verify(token); !errors.Is(err, store.ErrUnknown) {
				t.Fatal(err)
			}
		}
		return time.Since(began)
	}
	least := [2]time.Duration{time.Hour, time.Hour}
	for range 300 {
		least[0], least[1] = min(least[0], took(&wrong)), min(least[1], took(&unknown))
	}
	if ratio := float64(least[0]) / float64(least[1]); ratio < 0.7 || ratio > 1.4 {
		t.Errorf("a wrong secret takes %v, an unknown id %v", least[0]/200, least[1]/200)
	}
}

func TestMemory(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s, err := store.OpenMemory(storetest.Options(t))
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("a killed process would leave %v", left)
	}
	token, k, err := s.Create(t.Context(), store.Key{Name: "a"})
	if err != nil || !good(s, token) {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), k.ID, 1); err != nil || good(s, token) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	t.Setenv("TMPDIR", filepath.Join(dir, "nowhere"))
	was := *store.SharedMemory
	t.Cleanup(func() { *store.SharedMemory = was })
	*store.SharedMemory = dir
	if s, err := store.OpenMemory(storetest.Options(t)); err != nil || s.Close() != nil {
		t.Errorf("without temporary files: %v", err)
	}
	*store.SharedMemory = filepath.Join(dir, "nowhere")
	if _, err := store.OpenMemory(storetest.Options(t)); err == nil {
		t.Error("opened nowhere")
	}
}

// TestSpentTickets: a ticket that was used at one replica is used at all, and none is taken
// while nobody can tell.
func TestSpentTickets(t *testing.T) {
	server := redistest.Single(t)
	secret := []byte(strings.Repeat("s", 32))
	replica := func() *auth.Tickets {
		return auth.NewTickets(secret, time.Minute, store.NewSpentTickets(server.Client(ratelimit.TuneRedis), "t:"))
	}
	a, b := replica(), replica()
	who := auth.Principal{Key: "0123456789ab", Serial: 7}
	ticket := a.Issue(who)
	if got, err := b.Redeem(t.Context(), ticket); err != nil || got.Key != who.Key || got.Serial != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, at := range map[string]*auth.Tickets{"there": b, "here": a} {
		if _, err := at.Redeem(t.Context(), ticket); providers.AsError(err) == nil || providers.AsError(err).Code != "ticket_spent" {
			t.Errorf("again %s: %v", name, err)
		}
	}
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := b.Redeem(ctx, a.Issue(who)); providers.AsError(err) == nil || providers.AsError(err).Kind != providers.Overloaded {
		t.Errorf("without Redis: %v", err)
	}
}

// BenchmarkAuthenticate is what a request pays, from its header on.
func BenchmarkAuthenticate(b *testing.B) {
	s := file(filepath.Join(b.TempDir(), "keys.db")).Open(b, storetest.Options(b))
	defer s.Close()
	token, _, err := s.Create(b.Context(), storetest.Full("a"))
	if err != nil {
		b.Fatal(err)
	}
	static := auth.NewKeys(map[[sha256.Size]byte]auth.Principal{sha256.Sum256([]byte("sk-static")): {Key: "static"}})
	callers := auth.NewCallers(static, s)
	for name, key := range map[string]string{"issued": token.Reveal(), "static": "sk-static"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			h := http.Header{"Authorization": {"Bearer " + key}}
			for b.Loop() {
				if _, err := callers.Authenticate(h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAuthenticateAllocates: no more than a key of the configuration does.
func TestAuthenticateAllocates(t *testing.T) {
	if store.UnderRace {
		t.Skip("the race detector allocates")
	}
	s := file(filepath.Join(t.TempDir(), "keys.db")).Open(t, storetest.Options(t))
	defer s.Close()
	token, _, err := s.Create(t.Context(), storetest.Full("a"))
	if err != nil {
		t.Fatal(err)
	}
	callers := auth.NewCallers(auth.NewKeys(nil), s)
	h := http.Header{"Authorization": {"Bearer " + token.Reveal()}}
	if n := testing.AllocsPerRun(200, func() { _, _ = callers.Authenticate(h) }); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
}
