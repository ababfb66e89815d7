// Package storetest is what every store of keys must do, wherever it keeps them.
package storetest

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

// Place is where keys are kept, empty at first.
type Place interface {
	// Open opens a store there, which is closed by the caller.
	Open(t testing.TB, o store.Options) *store.Store
}

// Clock is a time that tests move. It may be read concurrently.
type Clock struct {
	mu  sync.Mutex
	off time.Duration
}

// Now is the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

// Add moves the time.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// Pepper is one that all tests have.
func Pepper(t testing.TB, of string) *store.Pepper {
	t.Helper()
	p, err := store.NewPepper([]byte(strings.Repeat(of, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Options are those of the tests.
func Options(t testing.TB) store.Options {
	return store.Options{Pepper: Pepper(t, "p"), Log: slog.New(slog.DiscardHandler)}
}

// Await waits until a condition holds, and fails after so long.
func Await(t testing.TB, within time.Duration, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// Run tests a store; place makes an empty place each time.
func Run(t *testing.T, place func(t testing.TB) Place) {
	for name, test := range map[string]func(*testing.T, Place){
		"life": testLife, "rotation": testRotation, "expiry": testExpiry, "edits": testEdits, "conflicts": testConflicts,
		"reopened": testReopened, "list": testList, "used": testUsed, "toml": testTOML, "toml errors": testTOMLErrors, "full": testFull,
		"overrides": testOverrides, "edits of overrides": testOverrideEdits,
		"sessions": testSessions, "sessions end": testSessionsEnd, "many sessions": testSessionsMany, "admin reopened": testAdminReopened,
		"audit": testAudit, "audit bounds": testAuditBounds, "audit together": testAuditTogether,
	} {
		t.Run(name, func(t *testing.T) { test(t, place(t)) })
	}
}

func open(t testing.TB, p Place, o store.Options) *store.Store {
	t.Helper()
	s := p.Open(t, o)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Full is a key with everything that can be set.
func Full(name string) store.Key {
	return store.Key{
		Name: name, Models: []string{"gpt-*"}, Routes: []string{"chat"}, Transports: []string{"sse", "ws"},
		Limits: []store.Limit{
			{Scope: "key_model", Models: []string{"a", "b*"}, Rates: map[string]int64{"requests_per_minute": 60}, Burst: 100, OnTrouble: "closed"},
			{Rates: map[string]int64{"usd_per_month": 12_340_000_001, "concurrent": 3, "frame_bytes_per_day": 1e9}},
		},
		Groups: []string{"staff"}, User: "ann", Team: "vision", Org: "acme", Metadata: map[string]string{"ticket": "A-1", "ü": "\"x\""},
		Expires: time.Now().Add(24 * time.Hour).UTC().Truncate(time.Millisecond),
	}
}

func mustCreate(t testing.TB, s *store.Store, k store.Key) (auth.Token, *store.Key) {
	t.Helper()
	token, made, err := s.Create(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return token, made
}

func wantVerify(t testing.TB, s *store.Store, token auth.Token, want error) {
	t.Helper()
	k, serial, err := s.Verify(&token)
	switch {
	case !errors.Is(err, want):
		t.Errorf("verify: %v, want %v", err, want)
	case err == nil && (k.ID != token.ID() || serial == 0 || s.Good(k.ID, serial) != nil):
		t.Errorf("verified %s with secret %d: %v", k.ID, serial, s.Good(k.ID, serial))
	}
}

// hears collects what a store tells.
type hears struct {
	mu  sync.Mutex
	all []store.Revocation
}

func (h *hears) add(r store.Revocation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, r)
}

func (h *hears) list() []store.Revocation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]store.Revocation(nil), h.all...)
}

func testLife(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	h := new(hears)
	s.OnRevoked(h.add)
	token, k := mustCreate(t, s, Full("app"))
	if k.Version != 1 || k.ID != token.ID() || k.Secrets(time.Now()) != 1 || len(k.Rules()) != 4 {
		t.Errorf("made %+v", k)
	}
	wantVerify(t, s, token, nil)
	wantVerify(t, s, auth.TokenFor(token.ID()), store.ErrUnknown)
	wantVerify(t, s, auth.NewToken(), store.ErrUnknown)
	disable := func(on bool) {
		t.Helper()
		if _, err := s.Update(t.Context(), k.ID, 0, func(k *store.Key) error { k.Disabled = on; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	disable(true)
	wantVerify(t, s, token, store.ErrDisabled)
	wantVerify(t, s, auth.TokenFor(token.ID()), store.ErrUnknown)
	disable(false)
	wantVerify(t, s, token, nil)
	gone, err := s.Delete(t.Context(), k.ID, 3)
	if err != nil || gone.Deleted.IsZero() || gone.Name != "app" || gone.Secrets(time.Now()) != 0 || gone.Metadata != nil {
		t.Errorf("deleted %+v, %v", gone, err)
	}
	wantVerify(t, s, token, store.ErrUnknown)
	for name, err := range map[string]error{"update": second(s.Update(t.Context(), k.ID, 0, func(*store.Key) error { return nil })), "delete": second(s.Delete(t.Context(), k.ID, 0))} {
		if !errors.Is(err, store.ErrUnknown) {
			t.Errorf("%s of a deleted key: %v", name, err)
		}
	}
	if got, err := s.Get(t.Context(), k.ID); err != nil || got.Name != "app" {
		t.Errorf("a deleted key is not named: %v, %v", got, err)
	}
	want := []store.Revocation{{ID: k.ID}, {ID: k.ID}}
	if got := h.list(); !reflect.DeepEqual(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

func idOf(t auth.Token) auth.KeyID { return t.ID() }

func second[T any](_ T, err error) error { return err }

func testRotation(t *testing.T, p Place) {
	clock, h := new(Clock), new(hears)
	o := Options(t)
	o.Now = clock.Now
	s := open(t, p, o)
	s.OnRevoked(h.add)
	first, k := mustCreate(t, s, store.Key{Name: "a"})
	next, _, err := s.Rotate(t.Context(), k.ID, 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	wantVerify(t, s, first, nil)
	wantVerify(t, s, next, nil)
	clock.Add(time.Hour + time.Second)
	wantVerify(t, s, first, store.ErrUnknown)
	wantVerify(t, s, next, nil)
	Await(t, 20*time.Second, "tell of the secret that time ended", func() bool { return len(h.list()) == 1 })
	if r := h.list()[0]; r != (store.Revocation{ID: k.ID, Before: 2}) || !r.Ends(1) || r.Ends(2) {
		t.Errorf("told %+v", r)
	}
	third, _, err := s.Rotate(t.Context(), k.ID, 0, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	fourth, got, err := s.Rotate(t.Context(), k.ID, 0, 0)
	if err != nil || got.Secrets(clock.Now()) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	wantVerify(t, s, next, store.ErrUnknown)
	wantVerify(t, s, third, store.ErrUnknown)
	wantVerify(t, s, fourth, nil)
	if all := h.list(); len(all) != 2 || all[1].Before != 4 {
		t.Errorf("told %v", all)
	}
	for _, overlap := range []time.Duration{-1, store.MaxOverlap + 1} {
		var bad store.Problems
		if _, _, err := s.Rotate(t.Context(), k.ID, 0, overlap); !errors.As(err, &bad) || bad[0].Field != "overlap" {
			t.Errorf("overlap %v: %v", overlap, err)
		}
	}
	if _, _, err := s.Rotate(t.Context(), idOf(auth.NewToken()), 0, 0); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("rotate nothing: %v", err)
	}
}

func testExpiry(t *testing.T, p Place) {
	clock, h := new(Clock), new(hears)
	o := Options(t)
	o.Now = clock.Now
	s := open(t, p, o)
	s.OnRevoked(h.add)
	token, k := mustCreate(t, s, store.Key{Name: "a", Expires: clock.Now().Add(time.Hour)})
	wantVerify(t, s, token, nil)
	if _, err := s.Update(t.Context(), k.ID, 1, func(k *store.Key) error { k.Expires = k.Expires.Add(time.Hour); return nil }); err != nil {
		t.Fatal(err)
	}
	clock.Add(time.Hour + time.Minute)
	wantVerify(t, s, token, nil)
	clock.Add(time.Hour)
	wantVerify(t, s, token, store.ErrExpired)
	wantVerify(t, s, auth.TokenFor(k.ID), store.ErrUnknown)
	Await(t, 20*time.Second, "tell of the expired key", func() bool { return len(h.list()) == 1 })
	if all := h.list(); all[0] != (store.Revocation{ID: k.ID}) {
		t.Errorf("told %v", all)
	}
	if s.Good(k.ID, 1) == nil {
		t.Error("an expired key is good")
	}
}

func testEdits(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	token, k := mustCreate(t, s, Full("a"))
	edited, err := s.Update(t.Context(), k.ID, 1, func(k *store.Key) error {
		k.Name, k.ID, k.Version, k.Created = "b", auth.KeyID{}, 77, time.Time{}
		k.Limits[0].Rates["requests_per_minute"] = 5
		k.Metadata["ticket"] = "A-2"
		return nil
	})
	if err != nil || edited.ID != k.ID || edited.Version != 2 || !edited.Created.Equal(k.Created) || edited.Name != "b" || edited.Rules()[0].Amount != 5 {
		t.Errorf("%+v, %v", edited, err)
	}
	if k.Metadata["ticket"] != "A-1" || k.Limits[0].Rates["requests_per_minute"] != 60 || k.Name != "a" {
		t.Errorf("what was returned before has changed: %+v", k)
	}
	wantVerify(t, s, token, nil)
	var bad store.Problems
	_, err = s.Update(t.Context(), k.ID, 2, func(k *store.Key) error { k.Name = ""; k.Limits[1].Rates["x"] = 1; return nil })
	if !errors.As(err, &bad) || len(bad) != 2 || bad[0].Field != "name" || bad[1].Field != "limits[1].x" {
		t.Errorf("problems: %v", err)
	}
	stop := errors.New("stop")
	if _, err := s.Update(t.Context(), k.ID, 2, func(*store.Key) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	if got, err := s.Get(t.Context(), k.ID); err != nil || got.Version != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func testConflicts(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	_, k := mustCreate(t, s, store.Key{Name: "a", Metadata: map[string]string{}})
	const writers, each = 8, 5
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, conflicts := 0, 0
	for w := range writers {
		wg.Go(func() {
			for range each {
				have := s.Lookup(k.ID)
				_, err := s.Update(t.Context(), k.ID, have.Version, func(k *store.Key) error {
					k.Metadata = map[string]string{"n": k.Metadata["n"] + "x", "by": fmt.Sprint(w)}
					return nil
				})
				mu.Lock()
				switch {
				case err == nil:
					done++
				case errors.Is(err, store.ErrConflict):
					conflicts++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got, err := s.Get(t.Context(), k.ID)
	if err != nil || len(got.Metadata["n"]) != done || got.Version != uint64(done+1) || done == 0 || done+conflicts != writers*each {
		t.Errorf("%d edits, %d conflicts, the key says %+v, %v", done, conflicts, got, err)
	}
	for _, version := range []uint64{1, uint64(done) + 9} {
		if _, err := s.Delete(t.Context(), k.ID, version); !errors.Is(err, store.ErrConflict) {
			t.Errorf("delete of version %d: %v", version, err)
		}
	}
}

func testReopened(t *testing.T, p Place) {
	s := p.Open(t, Options(t))
	token, k := mustCreate(t, s, Full("a"))
	dead, _ := mustCreate(t, s, store.Key{Name: "b"})
	if _, err := s.Delete(t.Context(), dead.ID(), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, p, Options(t))
	wantVerify(t, s, token, nil)
	wantVerify(t, s, dead, store.ErrUnknown)
	if got := s.Lookup(k.ID); !reflect.DeepEqual(got, k) {
		t.Errorf("was %+v\nis  %+v", k, got)
	}
	if st := s.State(); st.Keys != 2 || !st.Loaded || st.Err != nil || st.Refusing {
		t.Errorf("%+v", st)
	}
}
