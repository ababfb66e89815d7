package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
)

func testList(t *testing.T, p Place) {
	clock := new(Clock)
	o := Options(t)
	o.Now = clock.Now
	s := open(t, p, o)
	var made []auth.KeyID
	for i := range 25 {
		clock.Add(time.Second)
		_, k := mustCreate(t, s, store.Key{Name: fmt.Sprintf("Key %02d", i), Org: fmt.Sprint("org", i%2)})
		made = append(made, k.ID)
	}
	if _, err := s.Delete(t.Context(), made[3], 0); err != nil {
		t.Fatal(err)
	}
	pages := func(f store.Filter) (got []auth.KeyID) {
		t.Helper()
		for n := 0; ; n++ {
			page, err := s.List(t.Context(), f)
			if err != nil || n > 25 || len(page.Keys) > max(f.Limit, 1) && f.Limit > 0 {
				t.Fatalf("%d keys, %v", len(page.Keys), err)
			}
			for _, k := range page.Keys {
				got = append(got, k.ID)
			}
			if f.After = page.Next; f.After == "" {
				return got
			}
		}
	}
	if all := pages(store.Filter{Limit: 7}); len(all) != 24 || all[0] != made[24] || all[23] != made[0] {
		t.Errorf("in pages of 7: %v", all)
	}
	for name, c := range map[string]struct {
		f store.Filter
		n int
	}{
		"all": {store.Filter{}, 24}, "deleted": {store.Filter{Deleted: true, Limit: 10}, 25}, "org": {store.Filter{Org: "org1", Limit: 1}, 11},
		"name": {store.Filter{Text: "kEY 1"}, 10}, "id": {store.Filter{Text: made[5].String()}, 1}, "none": {store.Filter{User: "x"}, 0},
		"wildcards": {store.Filter{Text: "%"}, 0},
	} {
		if got := pages(c.f); len(got) != c.n {
			t.Errorf("%s: %d keys", name, len(got))
		}
	}
	for _, after := range []string{"x", ".", "1.abc", "zzzzzzzzzzzzzzzzzz." + made[0].String()} {
		if _, err := s.List(t.Context(), store.Filter{After: after}); !errors.Is(err, store.ErrCursor) {
			t.Errorf("cursor %q: %v", after, err)
		}
	}
}

func testUsed(t *testing.T, p Place) {
	clock := new(Clock)
	o := Options(t)
	o.Now = clock.Now
	s := p.Open(t, o)
	token, k := mustCreate(t, s, store.Key{Name: "a"})
	if got, err := s.Get(t.Context(), k.ID); err != nil || !got.LastUsed.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	clock.Add(time.Hour)
	wantVerify(t, s, token, nil)
	used := clock.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, p, o)
	got, err := s.Get(t.Context(), k.ID)
	if err != nil || got.LastUsed.After(used) || used.Sub(got.LastUsed) > 2*time.Minute || got.Version != 1 {
		t.Errorf("used at %v: %+v, %v", used, got, err)
	}
}

func testTOML(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	token, k := mustCreate(t, s, Full("a"))
	_, gone := mustCreate(t, s, store.Key{Name: "gone"})
	if _, err := s.Delete(t.Context(), gone.ID, 0); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Contains(text, token.Reveal()[20:40]) {
		t.Error("a secret is exported")
	}
	if got, err := s.Import(t.Context(), strings.NewReader(text), true); err != nil || got.Counts != (store.Counts{Same: 2}) {
		t.Errorf("again: %+v, %v", got, err)
	}
	changed := strings.Replace(text, "'acme'", "'other'", 1)
	changed = strings.Replace(changed, "requests_per_minute = 60\n", "requests_per_minute = 61\nfrom_tomorrow = [1, {a = 2.5}]\n", 1)
	changed = strings.Replace(changed, "team = 'vision'\n", "team = 'vision'\ntomorrow = 'kept'\n", 1)
	if got, err := s.Import(t.Context(), strings.NewReader(changed), false); err != nil || got.Counts != (store.Counts{Same: 1, Kept: 1}) {
		t.Errorf("not replaced: %+v, %v", got, err)
	}
	if got, err := s.Import(t.Context(), strings.NewReader(changed), true); err != nil || got.Counts != (store.Counts{Same: 1, Replaced: 1}) || len(got.Changed) != 1 {
		t.Fatalf("replaced: %+v, %v\n%s", got, err, changed)
	}
	wantVerify(t, s, token, nil)
	if _, err := s.Update(t.Context(), k.ID, 2, func(k *store.Key) error { k.Name = "edited"; return nil }); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := s.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"'edited'", "'other'", "requests_per_minute = 61", "tomorrow = 'kept'", "from_tomorrow", "2.5", "usd_per_month = 12.340000001"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%s is lost:\n%s", part, out.String())
		}
	}
}

func testTOMLErrors(t *testing.T, p Place) {
	s := open(t, p, Options(t))
	mustCreate(t, s, Full("a"))
	var out bytes.Buffer
	if err := s.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	good := out.String()
	at := strings.Index(good, "\n[[keys]]")
	for name, text := range map[string]string{
		"no TOML": "keys = [", "empty": "", "format": strings.Replace(good, "format = 1", "format = 2", 1),
		"pepper": strings.Replace(good, Pepper(t, "p").Fingerprint(), "0123456789abcdef", 1), "twice": good + good[at:],
		"hmac": strings.Replace(good, "hmac = '", "hmac = 'x", 1), "id": strings.Replace(good, "id = '", "id = 'X", 1),
		"rate": strings.Replace(good, "= 60\n", "= -1\n", 1), "newer": strings.Replace(good, "v = 1", "v = 2", 1),
		"name": strings.Replace(good, "name = 'a'", "name = ''", 1), "nan": strings.Replace(good, "12.340000001", "nan", 1),
		"type": strings.Replace(good, "name = 'a'", "name = 7", 1),
	} {
		if text == good {
			t.Fatalf("%s: nothing is wrong with it", name)
		}
		if got, err := s.Import(t.Context(), strings.NewReader(text), true); err == nil || got.Counts != (store.Counts{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if n := s.State().Keys; n != 1 {
		t.Errorf("%d keys", n)
	}
}

func testFull(t *testing.T, p Place) {
	o := Options(t)
	o.MaxKeys = 2
	s := open(t, p, o)
	mustCreate(t, s, store.Key{Name: "a"})
	mustCreate(t, s, store.Key{Name: "b"})
	if _, _, err := s.Create(t.Context(), store.Key{Name: "c"}); !errors.Is(err, store.ErrFull) {
		t.Error(err)
	}
}
