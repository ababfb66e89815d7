package handlers

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/handlers/auth"
	"sluice/providers"
	"sluice/ratelimit"
	"sluice/streaming"
)

// doors names the caller by what it sends as its key.
type doors struct{}

func (doors) Authenticate(h http.Header) (auth.Principal, error) {
	return auth.Principal{Key: strings.TrimPrefix(h.Get("Authorization"), "Bearer "), Name: "a name", Serial: 1, Org: "acme"}, nil
}

// watched is a server over oddities; left gets the id of each answer that a provider has left.
func watched(l ratelimit.Limiter, standing func(*auth.Principal) error) (s *Server, left chan string) {
	left = make(chan string, 100)
	rules, err := ratelimit.NewRules([]ratelimit.Rule{{ID: "l", Scope: ratelimit.Key, Dim: ratelimit.Tokens, Amount: 1000, Per: ratelimit.Minute}})
	if err != nil {
		panic(err)
	}
	o := tallied(&tally{}).opt
	o.Auth, o.Standing, o.Provider = doors{}, standing, leaving{left}
	o.WebSocket = WebSocket{Lanes: 8, Queued: 8, SendQueue: 1 << 20, Control: 64 << 10}
	o.Quota.Limiter, o.Quota.Applies = l, rules.Match
	o.Log = slog.New(slog.DiscardHandler)
	return New(o), left
}

type leaving struct{ left chan string }

func (l leaving) Stream(ctx context.Context, req *providers.Request, p *streaming.Progress) streaming.Stream {
	return func(yield func([]streaming.Event, error) bool) {
		defer func() { l.left <- req.ID }()
		for batch, err := range (oddities{}).Stream(ctx, req, p) {
			if !yield(batch, err) {
				return
			}
		}
	}
}

// post asks over a real connection and gives the answer once it is over.
func post(t *testing.T, url, key, model string, stream bool) chan string {
	t.Helper()
	out := make(chan string, 1)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":50,"messages":[{"role":"user","content":"hi"}]}`, model, stream)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			out <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := readAll(resp.Body, -1)
		out <- fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-Should-Retry"), " ", string(body), " ", err)
	}()
	return out
}

// until waits for something that others do.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func receive[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not come", what)
	}
	return v
}

// TestKill ends answers of each kind from outside: the client is told, the upstream is left,
// what was delivered is paid, and both lists know it.
func TestKill(t *testing.T) {
	for name, c := range map[string]struct {
		stream   bool
		says     []string
		requests int64
	}{
		"a stream": {true, []string{"200 ", "one ", "two", `data: {"error":{"message":"The answer was ended by an operator of the gateway.","type":"service_unavailable_error","param":null,"code":"ended_by_operator"}}`}, 1},
		"a body":   {false, []string{"503 false ", `"code":"ended_by_operator"`}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := &tally{}
			s, left := watched(l, nil)
			web := httptest.NewServer(s)
			defer web.Close()
			live := s.opt.Live
			answer := post(t, web.URL, "app", "waits", c.stream)
			var runs []LiveAnswer
			until(t, "content", func() bool {
				runs = live.Snapshot(nil)
				return len(runs) == 1 && runs[0].Usage.Completion == 2
			})
			got := runs[0]
			if got.State != LiveStreaming || got.Model != "waits" || got.Target != "odd/waits" || got.Key != "app" || got.KeyName != "a name" || got.Org != "acme" ||
				got.Reserved == 0 || got.Usage.Prompt == 0 || got.Remote != "127.0.0.1" || got.Stream != c.stream || got.TTFT == 0 || got.Money == 0 {
				t.Errorf("listed as %+v", got)
			}
			if found, tries, ok := live.Find(got.ID); !ok || found.ID != got.ID || len(tries) != 1 || tries[0].Target != "odd/waits" || tries[0].Outcome != "" {
				t.Errorf("found %+v, %+v", found, tries)
			}
			if live.Kill("req_other", ErrKilled) || !live.Kill(got.ID, ErrKilled) {
				t.Error("not the one that was meant")
			}
			if id := receive(t, "the end at the upstream", left); id != got.ID {
				t.Error("another one has ended")
			}
			text := receive(t, "the end", answer)
			for _, want := range c.says {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in %s", want, text)
				}
			}
			if strings.Contains(text, "[DONE]") {
				t.Errorf("a killed answer looks finished: %s", text)
			}
			until(t, "its end in the list", func() bool { return live.Running() == 0 })
			if row := l.settled[0].Row; len(l.settled) != 1 || row.End != "killed" || row.Output != 2 || row.Requests != c.requests {
				t.Errorf("settled %+v", l.settled)
			}
			var past Finished
			until(t, "the row", func() (ok bool) { past, ok = s.opt.Observer.Recent().Find(got.ID); return ok })
			if past.End != "killed" || past.Usage.Completion != 2 || past.Code != "ended_by_operator" || past.Key != "app" || len(past.Tries) != 1 ||
				past.Tries[0].Target != "odd/waits" || past.Tries[0].Outcome != "killed" || past.Tries[0].End < past.TTFT {
				t.Errorf("remembered as %+v", past)
			}
		})
	}
}

// gated lets a reservation wait.
type gated struct {
	tally
	asked, go_ chan struct{}
}

func (g *gated) Reserve(ctx context.Context, c *ratelimit.Call) (ratelimit.Grant, error) {
	g.asked <- struct{}{}
	<-g.go_
	return g.tally.Reserve(ctx, c)
}

// TestKillBeforeTheStart asks no upstream, and costs nothing.
func TestKillBeforeTheStart(t *testing.T) {
	l := &gated{asked: make(chan struct{}), go_: make(chan struct{})}
	s, left := watched(l, nil)
	web := httptest.NewServer(s)
	defer web.Close()
	answer := post(t, web.URL, "app", "waits", true)
	receive(t, "the reservation", l.asked)
	runs := s.opt.Live.Snapshot(nil)
	if len(runs) != 1 || runs[0].State != LiveStarting {
		t.Fatalf("%+v", runs)
	}
	s.opt.Live.Kill(runs[0].ID, ErrKilled)
	if runs = s.opt.Live.Snapshot(nil); len(runs) != 1 || runs[0].State != LiveEnding {
		t.Errorf("%+v", runs)
	}
	close(l.go_)
	if text := receive(t, "the end", answer); !strings.HasPrefix(text, "503 false ") || !strings.Contains(text, "ended_by_operator") {
		t.Error(text)
	}
	until(t, "its end", func() bool { return s.opt.Live.Running() == 0 })
	if len(left) > 0 || len(l.settled) != 1 || l.settled[0].Used != (ratelimit.Cost{}) {
		t.Errorf("%d asked, settled %+v", len(left), l.settled)
	}
}

// TestEndKeys ends the answers and connections of one key, and no others.
func TestEndKeys(t *testing.T) {
	s, left := watched(&tally{}, nil)
	web := httptest.NewServer(s)
	defer web.Close()
	mine, other := post(t, web.URL, "leaked", "waits", true), post(t, web.URL, "app", "waits", true)
	connect := func(key string) odd {
		conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(web.URL, "http")+"/v1/chat/completions", http.Header{"Authorization": {"Bearer " + key}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return odd{Conn: conn, log: &lockedBuffer{}}
	}
	busy, idle, others := connect("leaked"), connect("leaked"), connect("app")
	busy.ask(t, "a", "waits")
	others.ask(t, "a", "waits")
	live := s.opt.Live
	until(t, "four answers", func() bool {
		return len(live.Snapshot(func(a *LiveAnswer) bool { return a.TTFT > 0 })) == 4 && len(live.connected()) == 3
	})
	if n := live.EndKeys(func(who *auth.Principal) bool { return who.Key == "leaked" }, ErrKeyRevoked); n != 2 {
		t.Errorf("%d answers", n)
	}
	if text := receive(t, "the end", mine); !strings.Contains(text, `"code":"key_revoked"`) || strings.Contains(text, "[DONE]") {
		t.Error(text)
	}
	if kind, code, status := busy.end(t, "a"); kind != "error" || code != "key_revoked" || status != 401 {
		t.Error(kind, code, status)
	}
	if kind, code, status := idle.end(t, ""); kind != "error" || code != "key_revoked" || status != 401 {
		t.Error(kind, code, status)
	}
	for _, c := range []odd{busy, idle} {
		for err := error(nil); ; {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, _, err = c.ReadMessage(); err != nil {
				if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
					t.Error(err)
				}
				break
			}
		}
	}
	until(t, "two answers and one connection", func() bool { return live.Running() == 2 && len(live.connected()) == 1 })
	if len(left) != 2 || len(other) != 0 {
		t.Errorf("%d were left", len(left))
	}
	live.EndKeys(func(*auth.Principal) bool { return true }, ErrKilled)
	receive(t, "the other's end", other)
}

// TestStanding: a key that was revoked while its answer began is refused, over each way.
func TestStanding(t *testing.T) {
	s, left := watched(&tally{}, func(who *auth.Principal) error { return ErrKeyRevoked })
	web := httptest.NewServer(s)
	defer web.Close()
	if text := receive(t, "the end", post(t, web.URL, "app", "fine", true)); !strings.HasPrefix(text, "401 false ") || !strings.Contains(text, "key_revoked") {
		t.Error(text)
	}
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(web.URL, "http")+"/v1/chat/completions", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if kind, code, _ := (odd{Conn: conn, log: &lockedBuffer{}}).end(t, ""); kind != "error" || code != "key_revoked" {
		t.Error(kind, code)
	}
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
		t.Error(err)
	}
	if len(left) != 0 {
		t.Error("an upstream was asked")
	}
}

func liveOf(id string) *live {
	req := &providers.Request{ID: id, Model: "m", Stream: true}
	c := &call{req: req, who: auth.Principal{Key: "app"}, transport: "sse"}
	return &live{call: c, account: &account{req: req, p: streaming.NewProgress(time.Now())}}
}

// TestLiveCounts lists answers that begin and end while others look and kill.
func TestLiveCounts(t *testing.T) {
	l := NewLive()
	var all, looks sync.WaitGroup
	stop := make(chan struct{})
	looks.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, a := range l.Snapshot(func(a *LiveAnswer) bool { return a.Key == "app" }) {
				l.Kill(a.ID, ErrKilled)
			}
		}
	})
	for g := range 4 {
		all.Go(func() {
			var mine []*live
			for i := range 500 {
				e := liveOf(fmt.Sprint(g, "-", i))
				l.add(e)
				if mine = append(mine, e); len(mine) > 20 {
					mine[i%20].unlist()
					mine[i%20] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				}
			}
			for _, e := range mine {
				e.unlist()
			}
		})
	}
	all.Wait()
	close(stop)
	looks.Wait()
	if n := l.Running(); n != 0 || len(l.all()) != 0 {
		t.Errorf("%d run, %d are listed", n, len(l.all()))
	}
}

// BenchmarkLive is what an answer costs more for being listed while it runs.
func BenchmarkLive(b *testing.B) {
	l := NewLive()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		e := liveOf("req")
		for pb.Next() {
			l.add(e)
			e.unlist()
		}
	})
}

// BenchmarkSnapshot looks at 2,000 answers.
func BenchmarkSnapshot(b *testing.B) {
	l := NewLive()
	for i := range 2000 {
		l.add(liveOf(fmt.Sprint(i)))
	}
	b.ReportAllocs()
	for b.Loop() {
		l.Snapshot(func(a *LiveAnswer) bool { return a.Model == "none" })
	}
}
