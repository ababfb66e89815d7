package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
	"sluice/handlers/auth/store"
	"sluice/ratelimit"
)

// shownKey is a key as it is answered.
type shownKey struct {
	keyJSON
	Secret string `json:"secret"`
}

type keyList struct {
	Data []keyJSON
	Next string
}

var errReport = errors.New("start is no time")

// withKeys is an API over a store of its own, and one key of the configuration.
func withKeys(t *testing.T) (Options, *store.Store) {
	t.Helper()
	p, err := store.NewPepper([]byte(strings.Repeat("p", store.MinPepper)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenBolt(filepath.Join(t.TempDir(), "keys.db"), store.Options{Pepper: p, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	rule := &ratelimit.Rule{ID: "key.requests_per_minute", Scope: ratelimit.Key, Dim: ratelimit.Requests, Per: ratelimit.Minute, Amount: 60}
	return Options{Keys: Keys{
		Store: s, Operations: []string{"chat", "embeddings", "audio/speech"},
		Static: func() []StaticKey {
			return []StaticKey{{Who: auth.Principal{Key: "fixed", Org: "acme", Rules: []*ratelimit.Rule{rule}}, Source: "config.toml:7"}}
		},
		Report: func(_ context.Context, who auth.Principal, q url.Values) (any, error) {
			if q.Get("start") == "x" {
				return nil, errReport
			}
			return json.RawMessage(`{"object":"key","id":"` + who.Key + `","name":"n","issued":true,"groups":[],"metadata":{},"models":[],"routes":[],"transports":[],"expires_at":null,"limits":[],"start":0,"end":1,"group_by":[],"usage":[]}`), nil
		},
		BadQuery: func(err error) (string, string, bool) { return "start", err.Error(), errors.Is(err, errReport) },
	}}, s
}

const aKey = `{"name":"app","models":["gpt-*"],"routes":["chat","audio/*"],"transports":["sse"],"groups":["staff"],"user":"ann","team":"red","org":"acme",
	"metadata":{"ticket":"A-1"},"expires_at":"2099-01-01T00:00:00Z","limits":[{"requests_per_minute":60,"burst":100},{"usd_per_month":12.5,"hard":true,"models":["gpt-*"]}]}`

func TestKeyLife(t *testing.T) {
	opt, s := withKeys(t)
	w := ask(t, opt, anAdmin, "POST", "/keys", aKey)
	k := got[shownKey](t, w, 201)
	token, err := auth.ParseToken(k.Secret)
	if err != nil || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("ETag") != `"1"` || k.ReadOnly || k.State != "active" || k.Prefix != k.Secret[:19] {
		t.Fatalf("%v, %v: %s", err, w.Header(), w.Body)
	}
	if _, _, err := s.Verify(&token); err != nil {
		t.Error(err)
	}
	at := "/keys/" + k.ID
	shown := got[keyJSON](t, ask(t, opt, aViewer, "GET", at, ""), 200)
	if len(shown.Limits) != 2 || shown.Limits[1].Rates["usd_per_month"] != 12_500_000_000 || shown.ExpiresAt.Year() != 2099 || shown.Metadata["ticket"] != "A-1" {
		t.Errorf("%+v", shown)
	}
	got[keyJSON](t, ask(t, opt, aViewer, "GET", "/keys/sk-slc-"+k.ID, ""), 200)
	edited := got[keyJSON](t, ask(t, opt, anAdmin, "PATCH", at, `{"name":"b","expires_at":null,"models":[],"limits":[{"concurrent":2}]}`, "If-Match", `"1"`), 200)
	if edited.Name != "b" || edited.ExpiresAt != nil || len(edited.Models) != 0 || edited.Version != 2 || edited.Team != "red" || len(edited.Limits) != 1 {
		t.Errorf("%+v", edited)
	}
	for _, header := range []string{`"1"`, `"77"`, `"x"`} {
		got[envelope](t, ask(t, opt, anAdmin, "PATCH", at, `{"name":"c"}`, "If-Match", header), 409)
		got[envelope](t, ask(t, opt, anAdmin, "DELETE", at, "", "If-Match", header), 409)
	}
	got[envelope](t, ask(t, opt, anAdmin, "PATCH", at, `{"name":"c"}`, "If-Match", "1"), 400)
	if off := got[keyJSON](t, ask(t, opt, anAdmin, "POST", at+"/disable", ""), 200); off.State != "disabled" {
		t.Errorf("%+v", off)
	}
	if _, _, err := s.Verify(&token); !errors.Is(err, store.ErrDisabled) {
		t.Error(err)
	}
	got[keyJSON](t, ask(t, opt, anAdmin, "POST", at+"/enable", ""), 200)
	next := got[shownKey](t, ask(t, opt, anAdmin, "POST", at+"/rotate", `{"overlap_seconds":3600}`), 200)
	if next.Secret == k.Secret || next.Secrets != 2 {
		t.Errorf("%+v", next)
	}
	gone := got[keyJSON](t, ask(t, opt, anAdmin, "DELETE", at, ""), 200)
	if gone.State != "deleted" || gone.DeletedAt == nil || gone.Secrets != 0 {
		t.Errorf("%+v", gone)
	}
	got[envelope](t, ask(t, opt, anAdmin, "PATCH", at, `{"name":"c"}`), 404)
}

func TestKeyBadInput(t *testing.T) {
	opt, _ := withKeys(t)
	k := got[shownKey](t, ask(t, opt, anAdmin, "POST", "/keys", `{"name":"a"}`), 201)
	for body, param := range map[string]string{
		`{}`: "name", `{"name":""}`: "name", `{"name":7}`: "name", `{"name":"a","nam":"b"}`: "nam", `{"name":"a","id":"x"}`: "id",
		`{"name":"a","models":["["]}`: "models[0]", `{"name":"a","routes":["chats"]}`: "routes[0]", `{"name":"a","transports":["smtp"]}`: "transports[0]",
		`{"name":"a","limits":[{}]}`: "limits[0]", `{"name":"a","limits":[{"requests":1}]}`: "limits[0].requests",
		`{"name":"a","limits":[{"requests_per_day":0}]}`: "limits[0].requests_per_day", `{"name":"a","expires_at":"soon"}`: "expires_at",
		`{"name":"a","expires_at":"2001-01-01T00:00:00Z"}`: "expires_at", `{"name":"a","metadata":{"x":1}}`: "metadata",
		`{"name":"` + strings.Repeat("n", 200) + `"}`: "name",
	} {
		e := got[envelope](t, ask(t, opt, anAdmin, "POST", "/keys", body), 400)
		if e.Error.Param == nil || !strings.HasPrefix(*e.Error.Param, param) {
			t.Errorf("%s: %+v", body, e.Error)
		}
	}
	for _, body := range []string{`{"overlap_seconds":-1}`, `{"overlap_seconds":9999999999}`, `{"overlap":1}`} {
		got[envelope](t, ask(t, opt, anAdmin, "POST", "/keys/"+k.ID+"/rotate", body), 400)
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?after=x", "?deleted=maybe", "?page=2"} {
		got[envelope](t, ask(t, opt, aViewer, "GET", "/keys"+query, ""), 400)
	}
	for _, id := range []string{"0123456789ab", "x", "%2e%2e", "sk-slc-"} {
		got[envelope](t, ask(t, opt, anAdmin, "PATCH", "/keys/"+id, `{"name":"x"}`), 404)
		got[envelope](t, ask(t, opt, aViewer, "GET", "/keys/"+id, ""), 404)
	}
	got[envelope](t, ask(t, opt, anAdmin, "PATCH", "/keys/fixed", `{"name":"x"}`), 409)
	got[envelope](t, ask(t, opt, aViewer, "GET", "/keys/"+k.ID+"/report?start=x", ""), 400)
	off := Options{Keys: Keys{Off: "auth.store = \"off\""}}
	if e := got[envelope](t, ask(t, off, anAdmin, "POST", "/keys", `{"name":"a"}`), 409); !strings.Contains(e.Error.Message, "auth.store") {
		t.Errorf("%+v", e)
	}
	if l := got[keyList](t, ask(t, off, aViewer, "GET", "/keys", ""), 200); len(l.Data) != 0 {
		t.Errorf("%+v", l)
	}
}

// TestKeyRoles: who may only look cannot edit, and secrets are told to nobody twice.
func TestKeyRoles(t *testing.T) {
	opt, _ := withKeys(t)
	k := got[shownKey](t, ask(t, opt, anAdmin, "POST", "/keys", `{"name":"a"}`), 201)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/keys", `{"name":"b"}`}, {"PATCH", "/keys/" + k.ID, `{"name":"b"}`}, {"DELETE", "/keys/" + k.ID, ""}, {"POST", "/keys/" + k.ID + "/rotate", `{}`},
		{"POST", "/keys/" + k.ID + "/disable", ""}, {"POST", "/keys/" + k.ID + "/enable", ""}, {"GET", "/keys/export", ""}, {"POST", "/keys/import", ""},
	} {
		got[envelope](t, ask(t, opt, aViewer, c.method, c.path, c.body), 403)
		got[envelope](t, ask(t, opt, aKeyUser, c.method, c.path, c.body), 403)
		got[envelope](t, ask(t, opt, nobody, c.method, c.path, c.body), 401)
	}
	for _, path := range []string{"/keys", "/keys/" + k.ID, "/keys/" + k.ID + "/report"} {
		w := ask(t, opt, aViewer, "GET", path, "")
		if w.Code != 200 || strings.Contains(w.Body.String(), k.Secret[20:]) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		got[envelope](t, ask(t, opt, aKeyUser, "GET", path, ""), 403)
		got[envelope](t, ask(t, opt, nobody, "GET", path, ""), 401)
	}
}

func TestKeyList(t *testing.T) {
	opt, _ := withKeys(t)
	for i := range 7 {
		got[shownKey](t, ask(t, opt, anAdmin, "POST", "/keys", fmt.Sprintf(`{"name":"key %d","org":"org%d"}`, i, i%2)), 201)
	}
	first := got[keyList](t, ask(t, opt, aViewer, "GET", "/keys?limit=3", ""), 200)
	if len(first.Data) != 4 || !first.Data[0].ReadOnly || first.Data[0].Source != "config.toml:7" || first.Data[0].Limits[0].Rates["requests_per_minute"] != 60 || first.Next == "" {
		t.Fatalf("%+v", first)
	}
	seen := len(first.Data) - 1
	for next := first.Next; next != ""; {
		page := got[keyList](t, ask(t, opt, aViewer, "GET", "/keys?limit=3&after="+url.QueryEscape(next), ""), 200)
		seen, next = seen+len(page.Data), page.Next
	}
	if seen != 7 {
		t.Errorf("%d keys in pages", seen)
	}
	for query, n := range map[string]int{"?org=org1": 3, "?q=key+3": 1, "?q=FIX": 1, "?org=acme": 1, "?user=x": 0} {
		if l := got[keyList](t, ask(t, opt, aViewer, "GET", "/keys"+query, ""), 200); len(l.Data) != n {
			t.Errorf("%s: %d keys", query, len(l.Data))
		}
	}
}

// TestKeyFile exports from one store and imports into another with the same pepper.
func TestKeyFile(t *testing.T) {
	opt, _ := withKeys(t)
	k := got[shownKey](t, ask(t, opt, anAdmin, "POST", "/keys", aKey), 201)
	file := ask(t, opt, anAdmin, "GET", "/keys/export", "")
	if file.Code != 200 || file.Header().Get("Content-Type") != tomlType || strings.Contains(file.Body.String(), k.Secret[20:]) {
		t.Fatalf("%d %v\n%s", file.Code, file.Header(), file.Body)
	}
	other, s := withKeys(t)
	load := func(text string, query string) importJSON {
		t.Helper()
		return got[importJSON](t, ask(t, other, anAdmin, "POST", "/keys/import"+query, text, "Content-Type", tomlType), 200)
	}
	if n := load(file.Body.String(), ""); n != (importJSON{Created: 1}) {
		t.Errorf("%+v", n)
	}
	token, _ := auth.ParseToken(k.Secret)
	if _, _, err := s.Verify(&token); err != nil {
		t.Error(err)
	}
	renamed := strings.Replace(file.Body.String(), "name = 'app'", "name = 'other'", 1)
	if n := load(renamed, ""); n != (importJSON{Kept: 1}) {
		t.Errorf("%+v", n)
	}
	if n := load(renamed, "?replace=true"); n != (importJSON{Replaced: 1}) {
		t.Errorf("%+v", n)
	}
	got[envelope](t, ask(t, other, anAdmin, "POST", "/keys/import", "format = [", "Content-Type", tomlType), 400)
	got[envelope](t, ask(t, other, anAdmin, "POST", "/keys/import", "{}"), 415)
}

// TestKeyVersions has two who edit at once: one of them is told.
func TestKeyVersions(t *testing.T) {
	opt, s := withKeys(t)
	k := got[shownKey](t, ask(t, opt, anAdmin, "POST", "/keys", `{"name":"a"}`), 201)
	id, err := auth.ParseKeyID(k.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), id, 1, func(k *store.Key) error { k.Expires = time.Now().Add(time.Hour); return nil }); err != nil {
		t.Fatal(err)
	}
	got[envelope](t, ask(t, opt, anAdmin, "PATCH", "/keys/"+k.ID, `{"name":"mine"}`, "If-Match", `"1"`), 409)
	if now := got[keyJSON](t, ask(t, opt, aViewer, "GET", "/keys/"+k.ID, ""), 200); now.Name != "a" || now.ExpiresAt == nil || now.Version != 2 {
		t.Errorf("%+v", now)
	}
}
