package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"sluice/handlers/auth"
)

// as is an Authority that believes what the test says.
type as auth.Actor

func (a as) Who(context.Context, *http.Request) (auth.Actor, error) { return auth.Actor(a), nil }

var (
	nobody   = as{}
	anAdmin  = as{Name: "ada", Role: auth.RoleAdmin, Via: "token"}
	aViewer  = as{Name: "vic", Role: auth.RoleViewer, Via: "token"}
	aKeyUser = as{Name: "app", Role: auth.RoleKey, Via: "session", Caller: auth.Principal{Key: "app"}}
)

// ask sends one request, body "" for none, to an API with the given parts.
func ask(t *testing.T, opt Options, who as, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	opt.Authority = who
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	r := httptest.NewRequest(method, "http://127.0.0.1:8081"+Prefix+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	api := New(opt)
	api.ServeHTTP(w, r)
	described(t, api.(*server).table, method, path, w)
	return w
}

// got checks the status and reads the answer.
func got[T any](t *testing.T, w *httptest.ResponseRecorder, status int) (v T) {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
	}
	return v
}

func TestSystem(t *testing.T) {
	opt := Options{System: SystemInfo{Version: "1.2.3", Node: "a", Store: "memory"}}
	sys := got[systemAnswer](t, ask(t, opt, aViewer, "GET", "/system", ""), 200)
	if sys.Version != "1.2.3" || sys.Node != "a" || sys.Store != "memory" || sys.Goroutines < 1 {
		t.Errorf("%+v", sys)
	}
	got[envelope](t, ask(t, opt, nobody, "GET", "/system", ""), 401)
	got[envelope](t, ask(t, opt, aKeyUser, "GET", "/system", ""), 403)
	got[envelope](t, ask(t, opt, anAdmin, "POST", "/system", ""), 405)
	got[envelope](t, ask(t, opt, anAdmin, "GET", "/nothing", ""), 404)
}

func TestDecode(t *testing.T) {
	type inner struct {
		N int `json:"n"`
	}
	type shape struct {
		Name string           `json:"name"`
		In   *inner           `json:"in"`
		List []inner          `json:"list"`
		Map  map[string]inner `json:"map"`
		Free json.RawMessage  `json:"free"`
	}
	for text, param := range map[string]string{
		`{"name":"a","in":{"n":1},"list":[{"n":2}],"map":{"x":{"n":3}},"free":{"y":[1]}}`: "ok",
		`{"Name":"a"}`:                 "Name",
		`{"name":"a","name":"b"}`:      "name",
		`{"name":"a","na\u006de":"b"}`: "name",
		`{"in":{"m":1}}`:               "in.m",
		`{"list":[{"n":1},{"z":1}]}`:   "list.z",
		`{"map":{"x":{"q":1}}}`:        "map.x.q",
		`{"free":{"y":1,"y":2}}`:       "free.y",
		`{"name":1}`:                   "name",
		`{"in":{"n":"1"}}`:             "in.n",
		`{"name":"a"} {}`:              "",
		`[]`:                           "",
		``:                             "",
		`{"name":`:                     "",
		`{"free":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`: "",
	} {
		var v shape
		err := decode([]byte(text), &v)
		if param == "ok" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		f, ok := err.(*fault)
		if !ok || f.status != 400 || f.param != param {
			t.Errorf("%s: %#v", text, err)
		}
	}
}

// FuzzDecode holds what is taken against encoding/json: it is valid, and has no member that the
// type has not.
func FuzzDecode(f *testing.F) {
	type shape struct {
		Name string             `json:"name"`
		In   *struct{ N int }   `json:"in"`
		List []map[string]int64 `json:"list"`
		Free json.RawMessage    `json:"free"`
	}
	for _, text := range []string{`{"name":"a","list":[{"x":1}],"free":[1,{"y":null}]}`, `{"na\u006de":1}`, `{"name":"a","name":"b"}`, `{"in":{}}`, `{`, "{\"name\":\"\xff\"}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want shape
		if err := decode(text, &got); err != nil {
			if _, ok := err.(*fault); !ok {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %+v, encoding/json has %+v, %v", text, got, want, err)
		}
	})
}
