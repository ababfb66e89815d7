package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// shelfOfSessions is a SessionStore in memory. It is for one test.
type shelfOfSessions struct {
	mu  sync.Mutex
	all map[SessionID]Session
	err error
}

func (s *shelfOfSessions) OpenSession(_ context.Context, id SessionID, n *Session, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.all[id] = *n
	}
	return s.err
}

func (s *shelfOfSessions) FindSession(_ context.Context, id SessionID) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, ok := s.all[id]; ok || s.err != nil {
		return &found, s.err
	}
	return nil, ErrNoSession
}

func (s *shelfOfSessions) TouchSession(_ context.Context, id SessionID, n *Session, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[id]; !ok {
		return ErrNoSession
	}
	s.all[id] = *n
	return s.err
}

func (s *shelfOfSessions) EndSession(_ context.Context, id SessionID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
	return s.err
}

// desk is Operators with what they need, and a clock.
type desk struct {
	*Operators
	t         *testing.T
	passwords *PasswordSignIn
	callers   *Callers
	store     *shelfOfSessions
	now       time.Time
}

const goodPassword = "correct horse battery"

func digestOf(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, store: &shelfOfSessions{all: map[SessionID]Session{}}, now: time.Unix(1e9, 0)}
	d.passwords = NewPasswordSignIn([]User{{"admin", RoleAdmin, cheap(t, goodPassword)}, {"vic", RoleViewer, cheap(t, "another good password")}})
	d.callers = NewCallers(NewKeys(map[[sha256.Size]byte]Principal{digestOf("sk-app"): {Key: "app", Org: "acme"}, digestOf("sk-bot"): {Key: "bot"}}), nil)
	d.Operators = NewOperators(OperatorOptions{
		Sessions: d.store, Ways: map[string]SignIn{"password": d.passwords, "key": KeySignIn{d.callers}},
		Idle: 30 * time.Minute, Total: 12 * time.Hour, Tries: 10, Now: func() time.Time { return d.now },
	})
	d.SetTokens([]AdminToken{{"deploy", RoleAdmin, digestOf("token-token-token-token-token-token")}})
	return d
}

// request carries headers, given in pairs.
func request(header ...string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func cookie(text string) *http.Request { return request("Cookie", SessionCookie+"="+text) }

func (d *desk) open(r *http.Request, way string, c Credential) string {
	d.t.Helper()
	_, text, err := d.Open(d.t.Context(), r, way, c)
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

func (d *desk) want(r *http.Request, name string, want error) {
	d.t.Helper()
	who, err := d.Who(d.t.Context(), r)
	if !errors.Is(err, want) || who.Name != name {
		d.t.Errorf("%+v, %v; want %q, %v", who, err, name, want)
	}
}

var admin = Credential{User: "admin", Password: goodPassword}

func TestSessionLife(t *testing.T) {
	d := newDesk(t)
	d.want(request(), "", nil)
	text := d.open(request(), "password", admin)
	for id := range d.store.all {
		if held, err := sessionText.DecodeString(text); err != nil || string(held) == string(id[:]) || len(held) != 32 {
			t.Errorf("the store has what the browser holds: %x, %v", held, err)
		}
	}
	who, err := d.Who(t.Context(), cookie(text))
	if err != nil || who.Name != "admin" || who.Role != RoleAdmin || who.Via != "session" || !who.Until.Equal(d.now.Add(30*time.Minute)) {
		t.Errorf("%+v, %v", who, err)
	}
	if err := d.Close(t.Context(), cookie(text)); err != nil {
		t.Fatal(err)
	}
	d.want(cookie(text), "", ErrSignedOut)
	if len(d.store.all) != 0 {
		t.Error("the session is still there")
	}
}

// TestSessionEnds lets one rest too long, and another grow too old though it is used.
func TestSessionEnds(t *testing.T) {
	d := newDesk(t)
	idle := d.open(request(), "password", admin)
	d.now = d.now.Add(29 * time.Minute)
	d.want(cookie(idle), "admin", nil)
	d.now = d.now.Add(29 * time.Minute)
	d.want(cookie(idle), "admin", nil)
	d.now = d.now.Add(30*time.Minute + time.Second)
	d.want(cookie(idle), "", ErrSignedOut)
	d.now = d.now.Add(-time.Hour)
	d.want(cookie(idle), "", ErrSignedOut) // it does not come back
	used := d.open(request(), "password", admin)
	for range 12 * 2 {
		d.now = d.now.Add(30*time.Minute - time.Second)
		d.want(cookie(used), "admin", nil)
	}
	d.now = d.now.Add(25 * time.Minute)
	d.want(cookie(used), "", ErrSignedOut)
}

// TestSignInRotates signs in over a session: the old name is worth nothing, so that nobody
// can have set it (session fixation).
func TestSignInRotates(t *testing.T) {
	d := newDesk(t)
	first := d.open(request(), "password", admin)
	second := d.open(cookie(first), "password", admin)
	if first == second {
		t.Error("the name is the same")
	}
	d.want(cookie(first), "", ErrSignedOut)
	d.want(cookie(second), "admin", nil)
	planted := strings.Repeat("A", len(first))
	if third := d.open(cookie(planted), "password", admin); third == planted {
		t.Error("a planted name is taken")
	}
	d.want(cookie(planted), "", ErrSignedOut)
}

// TestSessionsEndWith changes what a session stands on: LiteLLM's CVE-2026-12772 kept sessions
// after such changes.
func TestSessionsEndWith(t *testing.T) {
	withUsers := func(users ...User) func(*desk) { return func(d *desk) { d.passwords.SetUsers(users) } }
	withKeys := func(keys map[[sha256.Size]byte]Principal) func(*desk) {
		return func(d *desk) { d.callers.Replace(NewKeys(keys)) }
	}
	key := Credential{Key: "sk-app"}
	for name, c := range map[string]struct {
		way    string
		in     Credential
		change func(*desk)
		ends   bool
	}{
		"the same users":      {"password", admin, withUsers(User{"admin", RoleAdmin, cheap(t, goodPassword)}), false},
		"another password":    {"password", admin, withUsers(User{"admin", RoleAdmin, cheap(t, "an even better one")}), true},
		"another role":        {"password", admin, withUsers(User{"admin", RoleViewer, cheap(t, goodPassword)}), true},
		"the user is gone":    {"password", admin, withUsers(), true},
		"the same keys":       {"key", key, withKeys(map[[sha256.Size]byte]Principal{digestOf("sk-app"): {Key: "app"}}), false},
		"another key":         {"key", key, withKeys(map[[sha256.Size]byte]Principal{digestOf("sk-new"): {Key: "app"}}), true},
		"the key is gone":     {"key", key, withKeys(nil), true},
		"the key has changed": {"key", key, withKeys(map[[sha256.Size]byte]Principal{digestOf("sk-app"): {Key: "other"}}), true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			text := d.open(request(), c.way, c.in)
			c.change(d)
			if _, err := d.Who(t.Context(), cookie(text)); errors.Is(err, ErrSignedOut) != c.ends {
				t.Errorf("%v", err)
			}
			if (len(d.store.all) == 0) != c.ends {
				t.Errorf("%d sessions are left", len(d.store.all))
			}
		})
	}
}

func TestKeySession(t *testing.T) {
	d := newDesk(t)
	text := d.open(request(), "key", Credential{Key: "sk-app"})
	who, err := d.Who(t.Context(), cookie(text))
	if err != nil || who.Role != RoleKey || who.Name != "app" || who.Caller.Key != "app" || who.Caller.Org != "acme" {
		t.Errorf("%+v, %v", who, err)
	}
	for _, wrong := range []string{"", "sk-ap", "sk-appp", "app"} {
		if _, _, err := d.Open(t.Context(), request(), "key", Credential{Key: wrong}); !errors.Is(err, ErrWrong) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestWrongCredentials(t *testing.T) {
	d := newDesk(t)
	good := d.open(request(), "password", admin)
	for name, c := range map[string]struct {
		way string
		in  Credential
	}{
		"password": {"password", Credential{User: "admin", Password: "wrong horse battery"}}, "no password": {"password", Credential{User: "admin"}},
		"user": {"password", Credential{User: "root", Password: goodPassword}}, "other's": {"password", Credential{User: "vic", Password: goodPassword}},
		"case": {"password", Credential{User: "Admin", Password: goodPassword}}, "way": {"oidc", admin}, "hash": {"password", Credential{User: "admin", Password: cheapHash(goodPassword)}},
	} {
		who, text, err := d.Open(t.Context(), cookie(good), c.way, c.in)
		if !errors.Is(err, ErrWrong) || text != "" || who.Role != "" {
			t.Errorf("%s: %+v, %q, %v", name, who, text, err)
		}
		d.now = d.now.Add(6 * time.Second)
	}
	d.want(cookie(good), "admin", nil) // which a wrong try does not end
	for name, r := range map[string]*http.Request{
		"empty cookie": cookie(""), "short": cookie(good[:20]), "long": cookie(good + "A"), "other": cookie(strings.Repeat("A", len(good))),
		"bits": cookie(good[:len(good)-1] + "_"), "not base64": cookie(strings.Repeat("!", len(good))), "id": cookie(string(digestOf2(good))),
		"token": request("Authorization", "Bearer wrong-wrong-wrong-wrong-wrong-wrong"), "basic": request("Authorization", "Basic YWRtaW46eA=="), "no token": request("Authorization", "Bearer "),
		"session as token": request("Authorization", "Bearer "+good), "API key as token": request("Authorization", "Bearer sk-app"),
	} {
		if who, err := d.Who(t.Context(), r); !errors.Is(err, ErrSignedOut) || who.Role != "" {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
		d.now = d.now.Add(6 * time.Second)
	}
	const token = "Bearer token-token-token-token-token-token"
	d.want(request("Authorization", token), "deploy", nil)
	d.want(request("Authorization", strings.Replace(token, "Bearer", "bearer", 1)), "deploy", nil)
	for name, r := range map[string]*http.Request{
		"cookie and token": request("Authorization", token, "Cookie", SessionCookie+"="+good), "two tokens": request("Authorization", token, "Authorization", token),
		"two cookies": request("Cookie", SessionCookie+"="+good+"; "+SessionCookie+"="+good),
	} {
		if who, err := d.Who(t.Context(), r); !errors.Is(err, ErrTwo) || who.Role != "" {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
	d.SetTokens(nil)
	d.want(request("Authorization", token), "", ErrSignedOut)
}

func digestOf2(text string) []byte {
	sum := digestOf(text)
	return []byte(sessionText.EncodeToString(sum[:]))
}

// TestTries spends those of one address: others go on, right credentials cost nothing, and
// time gives them back.
func TestTries(t *testing.T) {
	d := newDesk(t)
	from := func(addr string) *http.Request { r := request(); r.RemoteAddr = addr + ":1234"; return r }
	wrong := Credential{User: "admin", Password: "wrong horse battery"}
	try := func(addr string, c Credential) error {
		_, _, err := d.Open(t.Context(), from(addr), "password", c)
		return err
	}
	for range 30 {
		if err := try("192.0.2.1", admin); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if err := try("192.0.2.1", wrong); !errors.Is(err, ErrWrong) {
			t.Fatal(err)
		}
	}
	var many *TooManyTries
	if err := try("192.0.2.1", admin); !errors.As(err, &many) || many.RetryAfter <= 0 || many.RetryAfter > 6*time.Second {
		t.Errorf("one too many: %v, %+v", err, many)
	}
	r := from("192.0.2.1")
	r.Header.Set("Authorization", "Bearer token-token-token-token-token-token")
	if _, err := d.Who(t.Context(), r); err != nil {
		t.Errorf("a right token from that address: %v", err)
	}
	r.Header.Set("Authorization", "Bearer wrong-wrong-wrong-wrong-wrong-wrong-wrong")
	if _, err := d.Who(t.Context(), r); !errors.As(err, &many) {
		t.Errorf("a wrong token from that address: %v", err)
	}
	if err := try("192.0.2.2", admin); err != nil {
		t.Errorf("another address: %v", err)
	}
	d.now = d.now.Add(6*time.Second + time.Millisecond)
	if err := try("192.0.2.1", wrong); !errors.Is(err, ErrWrong) {
		t.Errorf("one is back: %v", err)
	}
	if err := try("192.0.2.1", wrong); !errors.As(err, &many) {
		t.Errorf("a second one: %v", err)
	}
	for _, addr := range []string{"[2001:db8::1]", "[2001:db8::2]", "[2001:db8:0:0:ffff::1]"} {
		for range 4 {
			_ = try(addr, wrong)
		}
	}
	if err := try("[2001:db8::3]", admin); !errors.As(err, &many) {
		t.Errorf("the same /64: %v", err)
	}
	if err := try("[2001:db8:0:1::3]", admin); err != nil {
		t.Errorf("another /64: %v", err)
	}
}

// TestTriesRoom fills the memory with addresses: what comes then shares one count.
func TestTriesRoom(t *testing.T) {
	now := time.Unix(1e9, 0)
	tr := newTries(2, func() time.Time { return now })
	addr := func(n int) string { return "10." + itoa(n>>16) + "." + itoa(n>>8&255) + "." + itoa(n&255) }
	for n := range addressesKept {
		tr.take(mustAddr(addr(n)))
	}
	if tr.take(mustAddr("192.0.2.1")) != 0 || tr.take(mustAddr("192.0.2.2")) != 0 || tr.take(mustAddr("192.0.2.3")) == 0 {
		t.Error("those who have no place share no count")
	}
	if len(tr.spent) > addressesKept+1 {
		t.Errorf("%d are kept", len(tr.spent))
	}
	if swept := tr.swept; swept != now {
		t.Errorf("swept at %v", swept)
	}
	now = now.Add(time.Hour)
	if tr.take(mustAddr("192.0.2.3")) != 0 || len(tr.spent) > 2 {
		t.Errorf("%d are kept after an hour", len(tr.spent))
	}
}

// TestWrongKeys counts wrong keys of a network, and nothing else.
func TestWrongKeys(t *testing.T) {
	now := time.Unix(1e9, 0)
	w := NewWrongKeys(3)
	w.tries.now = func() time.Time { return now }
	var many *TooManyTries
	told := func(addr string, err error) bool { return errors.As(w.Count(mustAddr(addr), err), &many) }
	for _, err := range []error{nil, refusal(ErrExpired), refusal(ErrDisabled), refusal(ErrUnavailable), errTwoKeys()} {
		for range 10 {
			if told("192.0.2.1", err) {
				t.Fatalf("%v is counted", err)
			}
		}
	}
	if told("192.0.2.1", wrongKey()) || told("192.0.2.2", wrongKey()) || told("::ffff:192.0.2.3", wrongKey()) {
		t.Error("too many too early")
	}
	if !told("192.0.2.200", wrongKey()) || many.RetryAfter <= 0 || many.RetryAfter > 20*time.Second {
		t.Errorf("the /24 has a fourth: %v", many)
	}
	if told("192.0.3.1", wrongKey()) || told("2001:db8::1", wrongKey()) {
		t.Error("another network pays for it")
	}
	if err := w.Count(mustAddr("192.0.2.1"), errTwoKeys()); errors.As(err, &many) {
		t.Error("another error of that network is hidden")
	}
	now = now.Add(21 * time.Second)
	if told("192.0.2.1", wrongKey()) || !told("192.0.2.1", wrongKey()) {
		t.Error("they do not come back one by one")
	}
	if NewWrongKeys(0).Count(mustAddr("192.0.2.1"), wrongKey()) == nil || told("192.0.4.1", nil) {
		t.Error("no bound is not no error")
	}
	for range 3 {
		_ = w.Count(netip.Addr{}, wrongKey())
	}
	if !errors.As(w.Count(netip.Addr{}, wrongKey()), &many) {
		t.Error("who has no address is not counted")
	}
}

// TestStoreAway answers that nobody can tell, and ends no session for it.
func TestStoreAway(t *testing.T) {
	d := newDesk(t)
	text := d.open(request(), "password", admin)
	before := maps.Clone(d.store.all)
	d.store.err = errors.New("connection refused")
	d.want(cookie(text), "", ErrStore)
	if _, _, err := d.Open(t.Context(), request(), "password", admin); !errors.Is(err, ErrStore) {
		t.Errorf("sign-in: %v", err)
	}
	if err := d.Close(t.Context(), cookie(text)); !errors.Is(err, ErrStore) {
		t.Errorf("sign-out: %v", err)
	}
	d.store.err, d.store.all = nil, before
	d.want(cookie(text), "admin", nil)
}

// TestUnknownUserTakesAsLong looks at a password for whoever does not exist too: with no slot
// to look at it in, both are told the same.
func TestUnknownUserTakesAsLong(t *testing.T) {
	d := newDesk(t)
	for range cap(d.passwords.passwords.waiting) {
		d.passwords.passwords.waiting <- struct{}{}
	}
	for _, users := range []bool{true, false} {
		if !users {
			d.passwords.SetUsers(nil)
		}
		for _, user := range []string{"admin", "nobody"} {
			if _, _, err := d.Open(t.Context(), request(), "password", Credential{User: user, Password: goodPassword}); !errors.Is(err, ErrBusy) {
				t.Errorf("%s: %v", user, err)
			}
		}
	}
	if _, err := ParsePasswordHash(nobodysHash); err != nil {
		t.Error(err)
	}
}

func TestCookie(t *testing.T) {
	c := CookieFor("x", 12*time.Hour).String()
	if c != "__Host-sluice=x; Path=/; Max-Age=43200; HttpOnly; Secure; SameSite=Strict" {
		t.Error(c)
	}
	if c := CookieFor("", 0).String(); c != "__Host-sluice=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict" {
		t.Error(c)
	}
}
