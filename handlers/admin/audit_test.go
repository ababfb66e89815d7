package admin

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/handlers/auth"
)

// TestEveryChangeIsAudited goes over the table: what is no GET writes to the audit log.
func TestEveryChangeIsAudited(t *testing.T) {
	for _, r := range tableOf(Options{}) {
		if harmless := r.method == http.MethodGet || r.path == "/config/validate" || r.path == "/routes/explain"; !harmless && !r.audit {
			t.Errorf("%s %s changes something and is not audited", r.method, r.path)
		}
	}
}

// changing is an API with one route, whose handler is given.
func changing(opt Options, handle func(*call) error) http.Handler {
	s := New(opt).(*server)
	s.mux.Handle(Prefix+"/things/{id}", s.at(map[string]*route{
		http.MethodPut: {method: http.MethodPut, path: "/things/{id}", role: admin, audit: true, handle: handle},
	}))
	return s
}

func (g *gate) put(api http.Handler, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("PUT", "http://127.0.0.1"+Prefix+"/things/7", strings.NewReader("{}"))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	return w
}

// TestAuditWrapper has a handler do all that one can: the log has what it did, and nothing secret.
func TestAuditWrapper(t *testing.T) {
	type thing struct {
		Name     string            `json:"name"`
		Password string            `json:"password"`
		Nested   map[string]string `json:"nested"`
		Text     []string          `json:"text"`
		Big      string            `json:"big,omitempty"`
	}
	before := thing{"old", "hunter2-hunter2", map[string]string{"Api_Key": "abc"}, []string{"use sk-abcdefghijklmnopqrstuv now", "sk-slc-0123456789ab", "sk-slc-0123456789abSECRETSECRET"}, ""}
	after := thing{"new", "", nil, []string{"Authorization: Bearer abcdefgh.ijkl"}, ""}
	g := newGate(t, Options{}, 10)
	var do func(c *call) error
	api := changing(g.opt, func(c *call) error { return do(c) })
	for _, c := range []struct {
		name   string
		do     func(c *call) error
		token  string
		status int
		logged bool
		code   string
	}{
		{"done", func(c *call) error { c.changed("thing 7", before, after); return c.done() }, adminToken, 204, true, ""},
		{"not there", func(*call) error { return notFound("no") }, adminToken, 404, false, ""},
		{"bad", func(*call) error { return badField("x", "no") }, adminToken, 400, false, ""},
		{"conflict", func(*call) error { return conflict("no") }, adminToken, 409, false, ""},
		{"half done", func(c *call) error { c.changed("thing 7", before, nil); return errors.New("boom") }, adminToken, 500, true, "internal_error"},
		{"away", func(*call) error { return unavailable("no") }, adminToken, 503, true, "unavailable"},
		{"named, and refused", func(c *call) error { c.changed("thing 7", nil, after); return c.reply(422, after) }, adminToken, 422, true, ""},
		{"forbidden", nil, viewerToken, 403, true, "forbidden"},
		{"nobody", nil, "x", 401, false, ""},
	} {
		do = c.do
		had := len(g.entries())
		w := g.put(api, c.token)
		all := g.entries()
		if w.Code != c.status || len(all) > had != c.logged {
			t.Errorf("%s: %d, %d entries more: %s", c.name, w.Code, len(all)-had, w.Body)
			continue
		}
		if c.logged && (all[0].Status != c.status || all[0].Code != c.code || all[0].Action != "PUT /things/{id}" || all[0].Via != "token") {
			t.Errorf("%s: %+v", c.name, all[0])
		}
	}
	text, _ := json.Marshal(g.entries())
	for _, secret := range []string{"hunter2", `"abc"`, "sk-abcdef", "abcdefgh.ijkl", "SECRET"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%s is in the log: %s", secret, text)
		}
	}
	for _, kept := range []string{`"name":"old"`, `"name":"new"`, `"on":"thing 7"`, `use *** now`, `"password":""`, `"sk-slc-0123456789ab"`, `"sk-slc-0123456789ab***"`} {
		if !strings.Contains(string(text), kept) {
			t.Errorf("%s is not in the log: %s", kept, text)
		}
	}
	do = func(c *call) error {
		c.changed("big", nil, thing{Big: strings.Repeat("x", largestValue)})
		return c.done()
	}
	g.put(api, adminToken)
	if e := g.entries()[0]; len(e.After) > 100 || !strings.Contains(string(e.After), "too_large") {
		t.Errorf("%.200s", e.After)
	}
}

// brokenLog cannot be written.
type brokenLog struct{ auth.AuditLog }

func (brokenLog) Append(context.Context, *auth.AuditEntry) error { return errors.New("disk full") }

// TestAuditUnwritable tells who changed something that it was not written down, and lets
// nobody in unseen.
func TestAuditUnwritable(t *testing.T) {
	g := newGate(t, Options{}, 10)
	g.opt.Audit = brokenLog{g.audit}
	w := g.put(changing(g.opt, func(c *call) error { return c.done() }), adminToken)
	if e := got[envelope](t, w, http.StatusInternalServerError).Error; e.Code != "audit_failed" {
		t.Errorf("%+v", e)
	}
}

// TestFailedSignInsAreBounded tries more than is written: the next entry says how many are missing.
func TestFailedSignInsAreBounded(t *testing.T) {
	g := newGate(t, Options{}, manyTries)
	for range budgetAtOnce + 30 {
		g.send("POST", "/session", `{"key":"sk-wrong"}`)
	}
	if n := len(g.entries()); n != budgetAtOnce {
		t.Errorf("%d entries", n)
	}
	g.pass(time.Minute + time.Second)
	g.send("POST", "/session", `{"key":"sk-wrong"}`)
	if all := g.entries(); len(all) != budgetAtOnce+1 || all[0].Suppressed != 30 {
		t.Errorf("%d entries, %d suppressed", len(all), all[0].Suppressed)
	}
	g.signIn(asAdmin)
	if all := g.entries(); len(all) != budgetAtOnce+2 || all[0].Status != 200 {
		t.Errorf("a good one is not written: %+v", all[0])
	}
}

// TestGuestsDoNotFillTheAuditLog: who is no admin cannot have old entries go by signing in and
// out, nor by what fails; what an admin does is written all the while.
func TestGuestsDoNotFillTheAuditLog(t *testing.T) {
	g := newGate(t, Options{}, manyTries)
	for range 2 * budgetAtOnce {
		g.send("DELETE", "/session", "", "Cookie", g.signIn(asKey))
		g.signIn(asViewer)
	}
	if n := len(g.entries()); n != budgetAtOnce {
		t.Errorf("%d entries by guests", n)
	}
	broken := g.opt
	broken.SignIns = busy{}
	g.api = New(broken)
	for range 2 * budgetAtOnce {
		if w := g.send("POST", "/session", asAdmin); w.Code != http.StatusServiceUnavailable {
			t.Fatal(w.Code)
		}
	}
	if n := len(g.entries()); n != 2*budgetAtOnce {
		t.Errorf("%d entries of what failed", n-budgetAtOnce)
	}
	g.api = changing(broken, func(c *call) error { c.changed("thing 7", nil, nil); return c.done() })
	for range 3 {
		g.put(g.api, adminToken)
	}
	if n := len(g.entries()); n != 2*budgetAtOnce+3 {
		t.Errorf("%d entries of an admin", n-2*budgetAtOnce)
	}
}

// busy lets nobody in.
type busy struct{ SignIns }

func (busy) Open(context.Context, *http.Request, string, auth.Credential) (auth.Actor, string, error) {
	return auth.Actor{}, "", auth.ErrBusy
}

func TestAuditRoutes(t *testing.T) {
	g := newGate(t, Options{}, 10)
	for n := range 7 {
		e := &auth.AuditEntry{At: g.clock().UTC(), Who: "=ada", Role: auth.RoleAdmin, Node: "a", Action: "PUT /x", On: strings.Repeat("n", n), Status: 200, After: json.RawMessage(`{"a":"1,2"}`)}
		if err := g.audit.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	as := []string{"Authorization", "Bearer " + viewerToken}
	var on []int
	for next, pages := "", 0; ; pages++ {
		page := got[list[auth.AuditEntry]](t, g.send("GET", "/audit?limit=3&before="+next, "", as...), http.StatusOK)
		for _, e := range page.Data {
			on = append(on, len(e.On))
		}
		if next = page.Next; next == "" {
			if pages != 2 {
				t.Errorf("%d pages", pages+1)
			}
			break
		}
	}
	if len(on) != 7 || on[0] != 6 || on[6] != 0 {
		t.Errorf("%v", on)
	}
	for query, param := range map[string]string{"limit=0": "limit", "limit=501": "limit", "limit=x": "limit", "before=x": "before"} {
		if e := got[envelope](t, g.send("GET", "/audit?"+query, "", as...), http.StatusBadRequest).Error; e.Param == nil || *e.Param != param {
			t.Errorf("%s: %+v", query, e)
		}
	}
	got[envelope](t, g.send("GET", "/audit/export?format=xml", "", as...), http.StatusBadRequest)
	w := g.send("GET", "/audit/export", "", as...)
	lines := 0
	for in := bufio.NewScanner(w.Body); in.Scan(); lines++ {
		var e auth.AuditEntry
		if err := json.Unmarshal(in.Bytes(), &e); err != nil || e.Who != "=ada" {
			t.Errorf("%s: %v", in.Bytes(), err)
		}
	}
	rows, err := csv.NewReader(g.send("GET", "/audit/export?format=csv", "", as...).Body).ReadAll()
	if err != nil || lines != 7 || len(rows) != 8 || rows[0][0] != "id" || rows[1][2] != "'=ada" || rows[1][12] != `{"a":"1,2"}` {
		t.Errorf("%d lines, %d rows, %v: %v", lines, len(rows), err, rows[1])
	}
}
