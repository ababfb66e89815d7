package store

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"sluice/handlers/auth"
	"sluice/ratelimit"
)

func testOptions(t testing.TB) Options {
	t.Helper()
	p, err := NewPepper([]byte(strings.Repeat("p", 64)))
	if err != nil {
		t.Fatal(err)
	}
	return Options{Pepper: p, Log: slog.New(slog.DiscardHandler)}
}

func openTest(t testing.TB) *Store {
	t.Helper()
	s, err := OpenBolt(filepath.Join(t.TempDir(), "keys.db"), testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestPepper(t *testing.T) {
	for _, n := range []int{0, 1, MinPepper - 1} {
		if _, err := NewPepper(make([]byte, n)); err == nil {
			t.Errorf("a pepper of %d bytes is taken", n)
		}
	}
	secret := []byte(strings.Repeat("pepper! ", 5))
	p, err := NewPepper(secret)
	if err != nil {
		t.Fatal(err)
	}
	token := auth.NewToken()
	m := hmac.New(sha256.New, secret)
	_, _ = m.Write([]byte(token.Reveal()))
	if got := p.sum(&token); !bytes.Equal(got[:], m.Sum(nil)) || p.sum(&token) != got {
		t.Error("the sum is no HMAC-SHA256 of the key")
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", p, p, p, p); strings.Contains(shown, "pepper!") || !strings.Contains(shown, p.Fingerprint()) {
		t.Errorf("shown as %s", shown)
	}
}

func TestKeepPepper(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := KeepPepper(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := KeepPepper(dir)
	if err != nil || again.Fingerprint() != first.Fingerprint() {
		t.Fatalf("%v, then %v, %v", first, again, err)
	}
	name := filepath.Join(dir, pepperFile)
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if all, _ := os.ReadDir(dir); len(all) != 1 {
		t.Errorf("left behind: %v", all)
	}
	for text, mode := range map[string]os.FileMode{"": 0o600, "abcd\n": 0o600, strings.Repeat("x", 64): 0o600, strings.Repeat("a", 64): 0o640} {
		if err := errors.Join(os.WriteFile(name, []byte(text), mode), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := KeepPepper(dir); err == nil {
			t.Errorf("taken: %q with mode %v", text, mode)
		}
		if left, _ := os.ReadFile(name); string(left) != text {
			t.Errorf("%q was overwritten", text)
		}
	}
}

// TestCodecNewer keeps what it does not know, and refuses what it must not use.
func TestCodecNewer(t *testing.T) {
	s := openTest(t)
	token, k, err := s.Create(t.Context(), Key{Name: "a", Limits: []Limit{{Rates: map[string]int64{"usd_per_day": 1}}}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := k.encode()
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(string(text), `{"v":1,`, `{"v":1,"later":{"a":[1,2]},`, 1)
	more = strings.Replace(more, `{"usd_per_day"`, `{"later":null,"usd_per_day"`, 1)
	back, err := decode([]byte(more))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := back.clone().encode()
	if err != nil || !sameJSON(t, kept, []byte(more)) {
		t.Errorf("%s\nbecame\n%s, %v", more, kept, err)
	}
	newer := []byte(strings.Replace(string(text), `{"v":1,`, `{"v":2,`, 1))
	newer = bytes.Replace(newer, []byte(`"version":1`), []byte(`"version":2`), 1)
	refused, err := decode(newer)
	if err != nil || refused.ID != k.ID || refused.Name != "a" || refused.Version != 2 {
		t.Fatalf("%+v, %v", refused, err)
	}
	s.apply(refused, sumOf(newer), false)
	if _, _, err := s.Verify(&token); err == nil {
		t.Error("a key of a newer version is used")
	}
	if same, err := refused.encode(); err != nil || !bytes.Equal(same, newer) {
		t.Errorf("became %s, %v", same, err)
	}
	if _, err := s.Update(t.Context(), k.ID, 0, func(*Key) error { return nil }); !errors.Is(err, ErrNewer) {
		t.Errorf("edited: %v", err)
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestCheck(t *testing.T) {
	long := strings.Repeat("x", 1000)
	rates := func(name string, n int64) []Limit { return []Limit{{Rates: map[string]int64{name: n}}} }
	many := map[string]string{}
	for i := range maxMetadata + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for field, k := range map[string]Key{
		"name": {Name: long}, "user": {Name: "a", User: "a\x00"}, "team": {Name: "a", Team: "\xff"}, "org": {Name: "a", Org: long},
		"models[0]": {Name: "a", Models: []string{"["}}, "routes[1]": {Name: "a", Routes: []string{"chat", ""}},
		"models": {Name: "a", Models: make([]string, maxGlobs+1)}, "transports[1]": {Name: "a", Transports: []string{"ws", "ws"}},
		"transports[0]": {Name: "a", Transports: []string{"smtp"}}, "groups": {Name: "a", Groups: make([]string, maxGroups+1)},
		"groups[0]": {Name: "a", Groups: []string{""}}, "metadata": {Name: "a", Metadata: many},
		"metadata.x": {Name: "a", Metadata: map[string]string{"x": long}}, "limits": {Name: "a", Limits: make([]Limit, maxLimits+1)},
		"limits[0]": {Name: "a", Limits: make([]Limit, 1)}, "limits[0].requests_per_day": {Name: "a", Limits: rates("requests_per_day", 0)},
		"limits[0].dollars_per_day": {Name: "a", Limits: rates("dollars_per_day", 1)},
		"limits[0].scope":           {Name: "a", Limits: []Limit{{Scope: "org", Rates: map[string]int64{"concurrent": 1}}}},
		"limits[0].on_trouble":      {Name: "a", Limits: []Limit{{OnTrouble: "x", Rates: map[string]int64{"concurrent": 1}}}},
		"limits[0].burst":           {Name: "a", Limits: []Limit{{Burst: 2, Rates: map[string]int64{"concurrent": 1}}}},
		"limits[0].hard":            {Name: "a", Limits: []Limit{{Hard: true, Rates: map[string]int64{"requests_per_day": 1}}}},
		"limits[0].models":          {Name: "a", Limits: []Limit{{Models: []string{"["}, Rates: map[string]int64{"concurrent": 1}}}},
	} {
		var bad Problems
		if err := k.Check(); !errors.As(err, &bad) || bad[0].Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestLimits reads limits as they are written in JSON and compares the rules.
func TestLimits(t *testing.T) {
	var limits []Limit
	text := `[{"requests_per_minute":60,"burst":100,"models":["a*"]},{"scope":"key_model","usd_per_month":"12.5","hard":true,"on_trouble":"open"},{"usd_per_day":0.000000001}]`
	if err := json.Unmarshal([]byte(text), &limits); err != nil {
		t.Fatal(err)
	}
	k := Key{Limits: limits}
	if err := k.prepare(); err != nil {
		t.Fatal(err)
	}
	want := []*ratelimit.Rule{
		{ID: "key.requests_per_minute", Scope: ratelimit.Key, Dim: ratelimit.Requests, Per: ratelimit.Minute, Amount: 60, Burst: 100, Models: []string{"a*"}},
		{ID: "key.usd_per_month.2", Scope: ratelimit.KeyModel, Dim: ratelimit.Money, Per: ratelimit.CalendarMonth, Amount: 12_500_000_000, Hard: true, OnTrouble: ratelimit.Open},
		{ID: "key.usd_per_day.3", Scope: ratelimit.Key, Dim: ratelimit.Money, Per: ratelimit.CalendarDay, Amount: 1},
	}
	if got := k.Rules(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{`{"usd_per_day":1e3}`, `{"usd_per_day":-1}`, `{"usd_per_day":1.0000000001}`, `{"usd_per_day":"1."}`, `{"usd_per_day":""}`,
		`{"requests_per_day":1.5}`, `{"requests_per_day":null}`, `{"requests_per_day":[1]}`} {
		if err := json.Unmarshal([]byte(bad), new(Limit)); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}

// TestVerifyAllocates also shows that unknown ids take the same path.
func TestVerifyAllocates(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	s := openTest(t)
	token, _, err := s.Create(t.Context(), Key{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]auth.Token{"good": token, "wrong": auth.TokenFor(token.ID()), "unknown": auth.NewToken()} {
		if n := testing.AllocsPerRun(200, func() { _, _, _ = s.Verify(&token); s.Lookup(token.ID()) }); n > 0.1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestForgets drops deleted keys when their time has come.
func TestForgets(t *testing.T) {
	o := testOptions(t)
	off := time.Duration(0)
	o.Now = func() time.Time { return time.Now().Add(off) }
	s, err := newStore(o)
	if err != nil {
		t.Fatal(err)
	}
	s.o.KeepDeleted = time.Hour
	path := filepath.Join(t.TempDir(), "keys.db")
	b := &boltShelf{path: path, print: s.o.Pepper.Fingerprint(), now: o.Now, log: s.log, all: s.stored}
	if b.db, err = b.open(); err != nil {
		t.Fatal(err)
	}
	s.shelf, s.attic, s.stop = &boltReader{b}, b, func() {}
	defer s.Close()
	_, k, err := s.Create(t.Context(), Key{Name: "a"})
	if err == nil {
		_, err = s.Delete(t.Context(), k.ID, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.forget(t.Context())
	if s.Lookup(k.ID) == nil {
		t.Fatal("forgotten too early")
	}
	off = 2 * time.Hour
	s.forget(t.Context())
	if s.Lookup(k.ID) != nil || s.State().Keys != 0 {
		t.Error("not forgotten")
	}
	if _, err := b.open(); err == nil {
		t.Error("the file is not locked")
	}
}

// TestBoltDamagedLater damages the file under a running store: it goes on with its copy.
func TestBoltDamagedLater(t *testing.T) {
	s := openTest(t)
	token, k, err := s.Create(t.Context(), Key{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	b := s.attic.(*boltShelf)
	failed := false
	err = b.use(func(*bolt.DB) error {
		if !failed {
			failed = true
			return errDamaged
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), k.ID, 1, func(k *Key) error { k.Name = "b"; return nil }); err != nil {
		t.Fatal(err)
	}
	path := b.path
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenBolt(path, testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	s.stop, s.shelf, s.attic = func() {}, again.shelf, again.attic
	if got, _, err := again.Verify(&token); err != nil || got.Name != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	again.stop()
	again.closed.Wait()
}

func FuzzDecode(f *testing.F) {
	s := openTest(f)
	_, k, err := s.Create(f.Context(), Key{Name: "a", Models: []string{"a*"}, Limits: []Limit{{Rates: map[string]int64{"usd_per_day": 1_500_000_000}}}})
	if err != nil {
		f.Fatal(err)
	}
	text, _ := k.encode()
	f.Add(text)
	f.Add([]byte(`{"v":9,"id":"0123456789ab","version":3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := decode(text)
		if err != nil {
			return
		}
		once, err := k.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, err := again.encode(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\n%s\n%v", once, twice, err)
		}
	})
}

func FuzzImport(f *testing.F) {
	s := openTest(f)
	if _, _, err := s.Create(f.Context(), Key{Name: "a", Metadata: map[string]string{"x": "y"}}); err != nil {
		f.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Export(f.Context(), &out); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := s.readExport(bytes.NewReader(text))
		for _, k := range keys {
			if err == nil && k.Deleted.IsZero() && k.Check() != nil {
				t.Fatal("a bad key is taken")
			}
		}
	})
}

// full is an ordinary key.
func full(i int) Key {
	return Key{
		Name: fmt.Sprint("app ", i), Models: []string{"gpt-*"}, Org: fmt.Sprint("org", i%100), Team: fmt.Sprint("team", i%1000), User: fmt.Sprint("user", i),
		Limits:   []Limit{{Rates: map[string]int64{"requests_per_minute": 60}}, {Rates: map[string]int64{"usd_per_month": 10 * nano}}},
		Metadata: map[string]string{"ticket": fmt.Sprint(i)},
	}
}

// manyKeys fills a store with so many keys through its TOML.
func manyKeys(t testing.TB, s *Store, n int) (tokens []auth.Token) {
	t.Helper()
	var edits []edit
	for i := range n {
		token := auth.NewToken()
		k := full(i)
		k.ID, k.Version, k.Created, k.Updated = token.ID(), 1, s.stamp(), s.stamp()
		k.secrets = []secret{{serial: 1, sum: s.o.Pepper.sum(&token)}}
		text, _, err := s.seal(&k)
		if err != nil {
			t.Fatal(err)
		}
		edits = append(edits, edit{k.ID, 0, 1, text})
		tokens = append(tokens, token)
	}
	if err := s.writeAll(t.Context(), edits); err != nil {
		t.Fatal(err)
	}
	return tokens
}

// TestManyKeys bounds what 100,000 keys take. The race detector, which would take minutes for
// them, sees fewer: what a key takes does not depend on how many there are.
func TestManyKeys(t *testing.T) {
	n := 100_000
	if raced || testing.Short() {
		n = 5_000
	}
	s := openTest(t)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	tokens := manyKeys(t, s, n)
	per := (heap() - before - int64(len(tokens))*64) / int64(n)
	t.Logf("%d bytes for each key", per)
	if per > 3584 {
		t.Errorf("a key takes %d bytes", per)
	}
	began := time.Now()
	page, err := s.List(t.Context(), Filter{})
	if err != nil || len(page.Keys) != pageOf {
		t.Error(len(page.Keys), err)
	}
	t.Logf("the first page took %v", time.Since(began))
	if err := s.Export(t.Context(), io.Discard); err != nil {
		t.Error(err)
	}
	for i := 0; i < n; i += 997 {
		if _, _, err := s.Verify(&tokens[i]); err != nil {
			t.Fatal(err)
		}
	}
	runtime.KeepAlive(tokens)
}

func BenchmarkLookup(b *testing.B) {
	s := openTest(b)
	tokens := manyKeys(b, s, 10_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if s.Lookup(tokens[i%len(tokens)].ID()) == nil {
			b.Fatal("lost")
		}
		i++
	}
}

// BenchmarkVerify is all of it: from the text of a credential to the key.
func BenchmarkVerify(b *testing.B) {
	s := openTest(b)
	tokens := manyKeys(b, s, 10_000)
	texts := make([]string, len(tokens))
	for i := range tokens {
		texts[i] = tokens[i].Reveal()
	}
	unknown := auth.NewToken()
	stranger := unknown.Reveal()
	for name, text := range map[string]func(i int) string{
		"good":    func(i int) string { return texts[i%len(texts)] },
		"unknown": func(int) string { return stranger },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				token, err := auth.ParseToken(text(i))
				if err != nil {
					b.Fatal(err)
				}
				_, _, _ = s.Verify(&token)
				i++
			}
		})
	}
}
