package admin

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/ratelimit/ledger"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// UnmarshalJSON reads what MarshalJSON wrote.
func (u *usd) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseFloat(string(b), 64)
	*u = usd(math.Round(n * 1e9))
	return err
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *millis) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseFloat(string(b), 64)
	*m = millis(math.Round(n*1e3)) * millis(time.Microsecond)
	return err
}

// traffic is a gateway whose answers are made up.
type traffic struct {
	running []Stream
	past    []Request // newest first
	refused []Request
	killed  []string
}

func (f *traffic) Streams(keep func(*Stream) bool) (out []Stream) {
	for i := range f.running {
		if x := f.running[i]; keep(&x) {
			out = append(out, x)
		}
	}
	return out
}

func (f *traffic) Stream(id string) (Stream, bool) {
	for _, x := range f.running {
		if x.ID == id {
			return x, true
		}
	}
	return Stream{}, false
}

func (f *traffic) Kill(id string) bool {
	if id == "just-gone" {
		return false
	}
	f.killed = append(f.killed, id)
	return true
}

func (f *traffic) Requests(refused bool, before uint64, visit func(*Request) bool) {
	rows := f.past
	if refused {
		rows = f.refused
	}
	for i := range rows {
		if (before == 0 || rows[i].Number < before) && !visit(&rows[i]) {
			return
		}
	}
}

func (f *traffic) Request(id string) (Request, bool) {
	for _, x := range append(slices.Clone(f.past), f.refused...) {
		if x.ID == id {
			return x, true
		}
	}
	return Request{}, false
}

func someTraffic() (*traffic, Options) {
	f := &traffic{}
	for i := range 250 {
		f.running = append(f.running, Stream{
			ID: fmt.Sprintf("req_%03d", i), Op: "chat", Model: fmt.Sprint("m", i%2), Target: "u/m", Transport: []string{"sse", "ws"}[i%2], State: "streaming", Client: "::1",
			Key: "app", Org: "acme", Start: noon.Add(-time.Duration(i) * time.Second), TTFT: 100 * time.Millisecond, LastToken: 600 * time.Millisecond, Output: 6, Attempts: 1, Money: 1_234_000,
		})
	}
	f.running[0].Input, f.running[0].State = 17, "first_token"
	f.running[0].TTFT, f.running[0].Output, f.running[0].LastToken = 0, 0, 0
	f.running[0].Tries = []Try{{Target: "a/m", Begin: time.Millisecond, End: 31 * time.Millisecond, Outcome: "upstream_overloaded", Status: 503, Message: "busy"}, {Target: "u/m", Begin: 40 * time.Millisecond, End: time.Second}}
	f.running = append(f.running, Stream{ID: "just-gone", Start: noon, State: "connecting", Transport: "sse"})
	for i := range 300 {
		x := Request{Stream: f.running[i%250], Number: uint64(300 - i), Took: time.Second, Outcome: "ok", Status: 200}
		x.ID, x.Start = fmt.Sprint("old_", i), noon.Add(-time.Duration(i)*time.Minute)
		x.Tries = []Try{{Target: "u/m", End: time.Second, Outcome: "ok"}}
		if i%10 == 3 {
			x.Outcome, x.Status, x.Code, x.Message = "upstream_error", 502, "upstream_error", "=cmd|' /C calc'!A0"
			x.Tries = []Try{{Target: "a/m", End: time.Second, Outcome: "upstream_error", Status: 500, Message: "no"}}
		}
		f.past = append(f.past, x)
	}
	f.refused = []Request{{Stream: Stream{ID: "bad", Model: "POST /v1/chat/completions", Start: noon}, Number: 1, Outcome: "unauthorized", Status: 401}}
	return f, Options{Streams: f, Requests: f, System: SystemInfo{Node: "n1"}, Now: func() time.Time { return noon }, KeyName: func(key string) string { return "the " + key }}
}

func TestStreams(t *testing.T) {
	f, opt := someTraffic()
	var ids []string
	for path := "/streams?limit=100"; ; {
		page := got[streamList](t, ask(t, opt, aViewer, "GET", path, ""), 200)
		if page.Running != 251 || page.Matching != 251 || page.Node != "n1" || page.ByState["streaming"] != 249 || page.ByTransport["ws"] != 125 {
			t.Fatalf("%+v", page)
		}
		for _, x := range page.Data {
			ids = append(ids, x.ID)
		}
		if page.Next == "" {
			break
		}
		path = "/streams?limit=100&cursor=" + page.Next
	}
	if len(ids) != 251 || ids[0] != "req_249" || ids[249] != "just-gone" || !slices.IsSortedFunc(ids[:249], func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("%d: %q … %q", len(ids), ids[0], ids[249])
	}
	page := got[streamList](t, ask(t, opt, aViewer, "GET", "/streams?model=m1&transport=ws&state=streaming&org=acme&key=app&limit=2", ""), 200)
	x := page.Data[0]
	if page.Matching != 125 || len(page.Data) != 2 || x.Node != "n1" || x.Cost != 1_234_000 || x.Input != nil || x.PerSecond == nil || *x.PerSecond != 10 || x.TTFT == nil || x.Idle == nil {
		t.Errorf("%+v", page)
	}
	one := got[streamJSON](t, ask(t, opt, aViewer, "GET", "/streams/req_000", ""), 200)
	if one.Input == nil || *one.Input != 17 || one.TTFT != nil || one.PerSecond != nil || len(one.Tries) != 2 || one.Tries[0].Took != millis(30*time.Millisecond) || *one.Tries[0].Status != 503 || one.Tries[1].Outcome != "running" {
		t.Errorf("%+v", one)
	}
	for path, param := range map[string]string{"/streams?limit=1001": "limit", "/streams?cursor=x": "cursor", "/streams?cursor=AA": "cursor", "/streams?kay=app": "kay", "/streams?key=a&key=b": "key"} {
		if e := got[envelope](t, ask(t, opt, aViewer, "GET", path, ""), 400); e.Error.Param == nil || *e.Error.Param != param {
			t.Errorf("%s: %+v", path, e)
		}
	}
	got[envelope](t, ask(t, opt, aViewer, "GET", "/streams/req_999", ""), 404)
	got[envelope](t, ask(t, opt, aViewer, "DELETE", "/streams/req_000", ""), 403)
	got[envelope](t, ask(t, opt, anAdmin, "DELETE", "/streams/req_999", ""), 404)
	got[envelope](t, ask(t, opt, anAdmin, "DELETE", "/streams/just-gone", ""), 404)
	if dying := got[streamJSON](t, ask(t, opt, anAdmin, "DELETE", "/streams/req_007", ""), 202); dying.State != "ending" || !slices.Equal(f.killed, []string{"req_007"}) {
		t.Errorf("%+v, killed %v", dying, f.killed)
	}
}

func TestRequests(t *testing.T) {
	_, opt := someTraffic()
	page := got[list[requestJSON]](t, ask(t, opt, aViewer, "GET", "/requests?limit=200", ""), 200)
	next := got[list[requestJSON]](t, ask(t, opt, aViewer, "GET", "/requests?limit=200&cursor="+page.Next, ""), 200)
	if len(page.Data) != 200 || len(next.Data) != 100 || next.Next != "" || page.Data[0].ID != "old_0" || next.Data[0].ID != "old_200" {
		t.Errorf("%d and %d", len(page.Data), len(next.Data))
	}
	for query, want := range map[string]int{
		"status=5xx": 30, "status=502": 30, "status=2xx": 270, "outcome=upstream_error&model=m1": 30, "start=2026-11-21T11:00:00Z&end=2026-11-21T11:30:00Z": 30,
		"refused=true": 1, "refused=true&status=401": 1, "key=nobody": 0, "id=old_7": 1,
	} {
		if page := got[list[requestJSON]](t, ask(t, opt, aViewer, "GET", "/requests?limit=1000&"+query, ""), 200); len(page.Data) != want {
			t.Errorf("%s: %d", query, len(page.Data))
		}
	}
	for query, param := range map[string]string{"status=6xx": "status", "status=x": "status", "status=5x": "status", "refused=yes": "refused", "cursor=a": "cursor", "cursor=0": "cursor", "start=yesterday": "start", "start=2026-11-22": "start", "format=xml": "format"} {
		if e := got[envelope](t, ask(t, opt, aViewer, "GET", "/requests?"+query, ""), 400); e.Error.Param == nil || *e.Error.Param != param {
			t.Errorf("%s: %+v", query, e)
		}
	}
	one := got[requestJSON](t, ask(t, opt, aViewer, "GET", "/requests/old_3", ""), 200)
	if one.Outcome != "upstream_error" || len(one.Tries) != 1 || one.Tries[0].Outcome != "upstream_error" || one.Took != millis(time.Second) {
		t.Errorf("%+v", one)
	}
	if bad := got[requestJSON](t, ask(t, opt, aViewer, "GET", "/requests/bad", ""), 200); bad.Route != "POST /v1/chat/completions" || bad.Model != "" || bad.Stream {
		t.Errorf("%+v", bad)
	}
	got[envelope](t, ask(t, opt, aViewer, "GET", "/requests/none", ""), 404)
	w := ask(t, opt, aViewer, "GET", "/requests?limit=1000&status=502", "", "Accept", "text/csv")
	rows, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(rows) != 31 || rows[1][len(rows[1])-1] != "'=cmd|' /C calc'!A0" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/csv") || !strings.Contains(w.Header().Get("Content-Disposition"), "requests.csv") {
		t.Errorf("%v, %d rows: %v %v", err, len(rows), rows[1], w.Header())
	}
}

// booked is a ledger of 3 days with 30 keys, of which the first pay most.
func booked(t *testing.T) *ledger.Memory {
	now := noon.Add(-72 * time.Hour)
	m := ledger.NewMemory(ledger.Retention{}, func() time.Time { return now })
	for day := range 3 {
		now = noon.Add(time.Duration(day-3)*24*time.Hour + time.Hour)
		for k := range 30 {
			for i := range 2 {
				row := ledger.Row{
					ID: fmt.Sprint(day, ".", k, ".", i), Start: now, Total: time.Second, TTFT: 10 * time.Millisecond, Org: fmt.Sprint("o", k%2), Team: "t", User: "u", Key: fmt.Sprintf("k%02d", k), Op: "chat", Transport: "sse",
					Model: fmt.Sprint("m", i), Target: fmt.Sprint("up", i, "/m"), Requests: 1, Input: 10, Output: 5, Money: int64(30-k) * 1e9, Reserved: 20, Attempts: 1, End: "ok",
				}
				if k == 29 {
					row.Key, row.End = "@SUM(1)", "killed"
				}
				if err := m.Post(t.Context(), &row); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	now = noon
	return m
}

func TestUsage(t *testing.T) {
	_, opt := someTraffic()
	opt.Ledger = booked(t)
	u := got[usageAnswer](t, ask(t, opt, aViewer, "GET", "/usage?group_by=key&interval=day&top=2", ""), 200)
	if u.Total.Calls != 180 || u.Total.Cost != 3*2*465e9 || u.Groups != 30 || u.Folded != 28 || len(u.Data) != 9 {
		t.Fatalf("%+v", u)
	}
	for i, want := range []string{"k00", "k01", "(other)"} {
		x := u.Data[3+i]
		if *x.Key != want || !x.Start.Equal(time.Date(2026, 11, 19, 0, 0, 0, 0, time.UTC)) || x.KeyName != "the "+want {
			t.Errorf("%d: %+v", i, x)
		}
	}
	if o := u.Data[2]; o.Calls != 56 || o.Input != 560 || o.Cost != 2*(465-30-29)*1e9 || o.Took != millis(56*time.Second) {
		t.Errorf("%+v", o)
	}
	for query, want := range map[string]string{
		"":                                         "/180",
		"group_by=upstream":                        "up0/90 up1/90",
		"group_by=upstream&upstream=up1":           "up1/90",
		"group_by=org,model&org=o1":                "o1+m0/45 o1+m1/45",
		"group_by=model&key=k03&sort=requests":     "m0/3 m1/3",
		"group_by=target&model=m1":                 "up1/m/90",
		"group_by=model&start=2026-11-20":          "m0/30 m1/30",
		"group_by=team,user":                       "t+u/180",
		"start=2026-01-01&end=2026-02-01":          "",
		"interval=hour&key=k03&model=m0&sort=cost": "/1 /1 /1",
	} {
		u := got[usageAnswer](t, ask(t, opt, aViewer, "GET", "/usage?"+query, ""), 200)
		var rows []string
		for _, x := range u.Data {
			var names []string
			for _, p := range []*string{x.Org, x.Team, x.User, x.Key, x.Model, x.Target, x.Upstream} {
				if p != nil {
					names = append(names, *p)
				}
			}
			rows = append(rows, fmt.Sprint(strings.Join(names, "+"), "/", x.Calls))
		}
		if text := strings.Join(rows, " "); text != want {
			t.Errorf("%q: %q, want %q", query, text, want)
		}
	}
	for query, param := range map[string]string{
		"group_by=hour": "group_by", "group_by=key,key": "group_by", "group_by=key,model,org,team": "group_by", "group_by=key,": "group_by", "interval=week": "interval",
		"top=0": "top", "top=1001": "top", "top=9999999999999999999999": "top", "top=-1": "top", "sort=size": "sort", "start=2020-01-01": "start",
		"interval=hour&start=2026-10-01": "start", "start=2026-11-22": "start",
	} {
		if e := got[envelope](t, ask(t, opt, aViewer, "GET", "/usage?"+query, ""), 400); e.Error.Param == nil || *e.Error.Param != param {
			t.Errorf("%s: %+v", query, e)
		}
	}
	w := ask(t, opt, aViewer, "GET", "/usage?group_by=key&format=csv&sort=requests&top=1000", "")
	rows, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(rows) != 31 || !slices.ContainsFunc(rows, func(r []string) bool { return r[1] == "'@SUM(1)" }) || rows[1][8] != "0" || rows[0][10] != "cost_usd" {
		t.Errorf("%v: %v", err, rows)
	}
	opt.Ledger = broken{}
	got[envelope](t, ask(t, opt, aViewer, "GET", "/usage", ""), 503)
	got[envelope](t, ask(t, opt, aViewer, "GET", "/ledger", ""), 503)
}

type broken struct{}

func (broken) Usage(context.Context, ledger.Query) ([]ledger.Sum, error) {
	return nil, errors.New("the disk is gone")
}

func (broken) Rows(context.Context, ledger.Filter) (ledger.Page, error) {
	return ledger.Page{}, errors.New("the disk is gone")
}

func TestLedgerRows(t *testing.T) {
	_, opt := someTraffic()
	opt.Ledger = booked(t)
	seen := map[string]bool{}
	for path := "/ledger?limit=50"; ; {
		page := got[list[ledgerJSON]](t, ask(t, opt, aViewer, "GET", path, ""), 200)
		for _, r := range page.Data {
			seen[r.ID] = true
		}
		if page.Next == "" {
			break
		}
		path = "/ledger?limit=50&cursor=" + page.Next
	}
	if len(seen) != 180 {
		t.Errorf("%d rows", len(seen))
	}
	for query, want := range map[string]int{"outcome=killed": 6, "key=k03": 6, "org=o1&model=m0": 45, "id=1.3.0": 1, "target=up0/m&key=k00": 3, "start=2026-11-20": 60} {
		page := got[list[ledgerJSON]](t, ask(t, opt, aViewer, "GET", "/ledger?limit=1000&"+query, ""), 200)
		if len(page.Data) != want {
			t.Errorf("%s: %d rows", query, len(page.Data))
		}
	}
	got[envelope](t, ask(t, opt, aViewer, "GET", "/ledger?cursor=%21", ""), 400)
	for query, want := range map[string]int{"": 180, "limit=70&": 70} {
		w := ask(t, opt, aViewer, "GET", "/ledger?"+query+"format=csv", "")
		if rows, err := csv.NewReader(w.Body).ReadAll(); err != nil || len(rows) != want+1 {
			t.Errorf("%q: %v, %d rows", query, err, len(rows))
		}
	}
}

// TestNothingToTell: a part that is not there is no fault.
func TestNothingToTell(t *testing.T) {
	for _, path := range []string{"/streams", "/streams/x", "/requests", "/requests/x", "/usage", "/ledger", "/limits", "/limits/levels", "/limits/fullest", "/targets"} {
		got[envelope](t, ask(t, Options{}, anAdmin, "GET", path, ""), 404)
		got[envelope](t, ask(t, Options{}, nobody, "GET", path, ""), 401)
		got[envelope](t, ask(t, Options{}, aKeyUser, "GET", path, ""), 403)
	}
}

func TestAmounts(t *testing.T) {
	for n, want := range map[int64]string{0: "0.00", 1: "0.000000001", 1_500_000_000: "1.50", -2_000_000: "-0.002", 1e9: "1.00", -1 << 62: "-4611686018.427387904"} {
		if got := usd(n).String(); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0", time.Millisecond: "1", 1500 * time.Microsecond: "1.5", 1499 * time.Nanosecond: "0.001", -time.Millisecond: "-1", 1 << 62: "4611686018427.387"} {
		if got := millis(d).String(); got != want {
			t.Errorf("%d is %s, want %s", d, got, want)
		}
	}
}
