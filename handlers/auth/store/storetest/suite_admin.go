package storetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

func sessionOf(name string, at time.Time) *auth.Session {
	return &auth.Session{Name: name, Role: auth.RoleAdmin, Way: "password", Proof: "p", Opened: at, Seen: at, From: "192.0.2.1"}
}

func idNumber(n int) (id auth.SessionID) {
	copy(id[:], fmt.Sprintf("session %d", n))
	return id
}

func wantSession(t *testing.T, s *store.Store, id auth.SessionID, want error) *auth.Session {
	t.Helper()
	got, err := s.FindSession(t.Context(), id)
	if !errors.Is(err, want) {
		t.Fatalf("find: %v, want %v", err, want)
	}
	return got
}

func testSessions(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	now := time.Now().UTC().Truncate(time.Millisecond)
	until := now.Add(time.Hour)
	wantSession(t, s, idNumber(1), auth.ErrNoSession)
	if err := s.EndSession(t.Context(), idNumber(1)); err != nil {
		t.Errorf("end of nothing: %v", err)
	}
	if err := s.TouchSession(t.Context(), idNumber(1), sessionOf("ada", now), until); !errors.Is(err, auth.ErrNoSession) {
		t.Errorf("touch of nothing: %v", err)
	}
	if err := s.OpenSession(t.Context(), idNumber(1), sessionOf("ada", now), until); err != nil {
		t.Fatal(err)
	}
	if got := wantSession(t, s, idNumber(1), nil); *got != *sessionOf("ada", now) {
		t.Errorf("found %+v", got)
	}
	later := sessionOf("ada", now)
	later.Seen = now.Add(time.Minute)
	if err := s.TouchSession(t.Context(), idNumber(1), later, until); err != nil {
		t.Fatal(err)
	}
	if got := wantSession(t, s, idNumber(1), nil); !got.Seen.Equal(later.Seen) {
		t.Errorf("touched: %+v", got)
	}
	if err := s.EndSession(t.Context(), idNumber(1)); err != nil {
		t.Fatal(err)
	}
	wantSession(t, s, idNumber(1), auth.ErrNoSession)
	if err := s.TouchSession(t.Context(), idNumber(1), later, until); !errors.Is(err, auth.ErrNoSession) {
		t.Errorf("an ended session comes back: %v", err)
	}
	wantSession(t, s, idNumber(1), auth.ErrNoSession)
}

// testSessionsEnd lets one end by itself.
func testSessionsEnd(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	if err := s.OpenSession(t.Context(), idNumber(1), sessionOf("ada", time.Now()), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	Await(t, 10*time.Second, "the session ends", func() bool {
		_, err := s.FindSession(t.Context(), idNumber(1))
		return errors.Is(err, auth.ErrNoSession)
	})
}

// testSessionsMany opens more than one name may have: the oldest end, and nobody else's.
func testSessionsMany(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	began := time.Now()
	until := began.Add(time.Hour)
	other := idNumber(-1)
	if err := s.OpenSession(t.Context(), other, sessionOf("vic", began.Add(-time.Hour)), until); err != nil {
		t.Fatal(err)
	}
	const over = 3
	for n := range auth.MaxSessions + over {
		opened := began.Add(time.Duration(n) * time.Second)
		if err := s.OpenSession(t.Context(), idNumber(n), sessionOf("ada", opened), until); err != nil {
			t.Fatal(err)
		}
		Await(t, 20*time.Second, "the clock moves on", func() bool { return time.Now().UnixMilli() > began.UnixMilli()+int64(n) })
	}
	for n := range auth.MaxSessions + over {
		want := error(nil)
		if n < over {
			want = auth.ErrNoSession
		}
		wantSession(t, s, idNumber(n), want)
	}
	wantSession(t, s, other, nil)
}

func audit(t *testing.T, s *store.Store, entries int, keep time.Duration) *store.AuditLog {
	t.Helper()
	log, err := s.Audit(entries, keep)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func entryOf(n int, at time.Time) *auth.AuditEntry {
	return &auth.AuditEntry{
		At: at.UTC().Truncate(time.Millisecond), Who: "ada", Role: auth.RoleAdmin, Via: "session", From: "192.0.2.1", Node: "a", Action: "POST /keys",
		On: fmt.Sprint(n), After: json.RawMessage(`{"n":` + fmt.Sprint(n) + `}`), Status: 201,
	}
}

func readAll(t *testing.T, log *store.AuditLog, page int) (all []auth.AuditEntry) {
	t.Helper()
	for before := ""; ; {
		entries, err := log.Read(t.Context(), before, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return all
		}
		all = append(all, entries...)
		before = entries[len(entries)-1].ID
	}
}

func testAudit(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	log := audit(t, s, 1000, time.Hour)
	if all := readAll(t, log, 10); len(all) != 0 {
		t.Errorf("an empty log has %v", all)
	}
	var want []auth.AuditEntry
	for n := range 25 {
		e := entryOf(n, time.Now())
		if err := log.Append(t.Context(), e); err != nil || e.ID == "" {
			t.Fatal(e.ID, err)
		}
		want = append(want, *e)
	}
	for _, page := range []int{1, 7, 25, 100} {
		all := readAll(t, log, page)
		if len(all) != len(want) {
			t.Fatalf("pages of %d: %d of %d entries", page, len(all), len(want))
		}
		for i := range all {
			w := want[len(want)-1-i]
			if !all[i].At.Equal(w.At) || !bytes.Equal(all[i].After, w.After) || all[i].ID != w.ID || all[i].On != w.On || all[i].Status != 201 || all[i].From != w.From {
				t.Fatalf("pages of %d: entry %d is %+v, want %+v", page, i, all[i], w)
			}
		}
	}
	for _, bad := range []string{"x", "-1", "1-", "1 ", "1-1-1", "0x1", "(1-1", "99999999999999999999999999"} {
		if _, err := log.Read(t.Context(), bad, 1); !errors.Is(err, auth.ErrCursor) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
}

// testAuditBounds fills the log, and lets entries grow old.
func testAuditBounds(t *testing.T, p Place) {
	clock := new(Clock)
	o := Options(t)
	o.Now = clock.Now
	s := open(t, p, o)
	log := audit(t, s, 10, time.Hour)
	for n := range 35 {
		if err := log.Append(t.Context(), entryOf(n, clock.Now())); err != nil {
			t.Fatal(err)
		}
	}
	if all := readAll(t, log, 100); len(all) != 10 || all[0].On != "34" || all[9].On != "25" {
		t.Errorf("%d entries: %+v", len(all), all)
	}
	clock.Add(2 * time.Hour)
	if all := readAll(t, log, 100); len(all) != 0 {
		t.Errorf("old entries are told: %+v", all)
	}
	if err := log.Append(t.Context(), entryOf(99, clock.Now())); err != nil {
		t.Fatal(err)
	}
	if all := readAll(t, log, 100); len(all) != 1 || all[0].On != "99" {
		t.Errorf("%+v", all)
	}
}

// testAuditTogether appends from many goroutines: every entry is there once.
func testAuditTogether(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	log := audit(t, s, 1000, time.Hour)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 10 {
				if err := log.Append(t.Context(), entryOf(100*w+n, time.Now())); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, e := range readAll(t, log, 9) {
		if seen[e.On] || seen["id "+e.ID] {
			t.Errorf("%s twice", e.On)
		}
		seen[e.On], seen["id "+e.ID] = true, true
	}
	if len(seen) != 2*80 {
		t.Errorf("%d entries", len(seen)/2)
	}
}

// testAdminReopened closes the store: sessions and the log are there when it is opened again.
func testAdminReopened(t *testing.T, p Place) {
	s := p.Open(t, Options(t))
	if err := s.OpenSession(t.Context(), idNumber(1), sessionOf("ada", time.Now()), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := audit(t, s, 10, time.Hour).Append(t.Context(), entryOf(1, time.Now())); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, p, Options(t))
	wantSession(t, s, idNumber(1), nil)
	if all := readAll(t, audit(t, s, 10, time.Hour), 10); len(all) != 1 || all[0].On != "1" {
		t.Errorf("%+v", all)
	}
}
