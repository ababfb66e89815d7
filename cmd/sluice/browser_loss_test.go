package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"sluice/providers/providertest/wall"
)

// tireless are options of a client that outlasts a restart, however the dice of its
// backoff fall.
var tireless = map[string]any{"retries": 200, "backoffMin": 20, "backoffMax": 200}

// doorPage is a page whose client asks at a door with nobody behind it yet. The
// client's module comes from elsewhere, so that the door sees its connections alone.
func doorPage(t *testing.T, transport string, options map[string]any) (d *door, p *tab, a asker, origins string) {
	t.Helper()
	pages := servePages(t, nil)
	module := bootProcess(t, "")
	d = newDoor(t)
	p = openTab(t, pages.URL, pages.URL, module.URL)
	return d, p, asker{d.URL(), testKey, transport, options}, fmt.Sprintf("\n[websocket]\norigins = [%q]\n", pages.URL)
}

// TestBrowserRestart kills the gateway under a page and starts it again.
func TestBrowserRestart(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			d, p, a, origins := doorPage(t, transport, tireless)
			base, w := wall.Start(t)
			w.Script("waits", wall.Script{First: time.Minute}, wall.Script{})
			g := bootProcess(t, overWall(base, origins))
			d.lead(g.URL)
			running := p.start(t, a.chat(wallModel("running", "tokens=100000,delay=5ms")))
			p.begun(t, running)
			waiting := p.start(t, a.chat("waits"))
			if _, err := w.Await(t.Context(), func(q wall.Request) bool { return q.Model == "waits" && q.Status == 200 }); err != nil {
				t.Fatal(err)
			}
			g.Signal(t, syscall.SIGKILL)
			g.Wait()
			d.lead("")
			r := p.finished(t, running)
			if r.Error == nil || r.Error.Name != "ConnectionError" || r.Error.Partial == nil || *r.Error.Partial != r.text() || r.text() == "" {
				t.Errorf("the running answer: %+v, %+v", r.Answer, r.Error)
			}
			late := p.start(t, a.chat(wallModel("late", "tokens=10")))
			d.lead(bootProcess(t, overWall(base, origins)).URL)
			again := p.finished(t, waiting)
			again.complete(t, 16)
			lateReport := p.finished(t, late)
			lateReport.complete(t, 10)
			if n := calls(w, "running"); n != 1 {
				t.Errorf("the running answer was asked for %d times", n)
			}
		})
	}
}

// TestBrowserGoingAway drains the gateway under a page, with another one behind the
// same address: the running answer ends well, the next one is the other's.
func TestBrowserGoingAway(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			d, p, a, origins := doorPage(t, transport, nil)
			held, open := gated(t)
			base, _ := wall.Start(t)
			old := bootProcess(t, overWall(held, origins+"[drain]\ndelay = \"0s\"\ntimeout = \"10m\"\n"))
			next := bootProcess(t, overWall(base, origins))
			d.lead(old.URL)
			running := p.start(t, a.chat("held"))
			p.begun(t, running)
			d.lead(next.URL)
			draining(t, old)
			fresh := p.ask(t, a.chat("wall:tokens=10"))
			fresh.complete(t, 10)
			next.accessLine(t, "wall:tokens=10")
			open()
			r := p.finished(t, running)
			if r.Error != nil || r.Answer == nil || r.Answer.Content != "held back" {
				t.Errorf("the running answer: %+v, %+v", r.Answer, r.Error)
			}
			if code := old.Wait(); code != exitOK {
				t.Errorf("exit code %d\n%s", code, old.Logs())
			}
		})
	}
}

// beating is a gateway whose signs of life come quickly, and limits of a client to match.
const beating = "[timeouts]\ncommit_after = \"50ms\"\n[heartbeat]\ninterval = \"100ms\"\n"

var doubting = map[string]any{"silenceTimeout": 1500, "probeTimeout": 3000}

// TestBrowserHalfOpen lets connections fall silent: with a gateway behind them that is
// only waiting, and with nobody.
func TestBrowserHalfOpen(t *testing.T) {
	t.Parallel()
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			d, p, a, origins := doorPage(t, transport, doubting)
			base, _ := wall.Start(t)
			d.lead(bootProcess(t, overWall(base, origins+beating)).URL)
			r := p.ask(t, a.chat("wall:first=5s,tokens=10"))
			r.complete(t, 10)
			if len(r.Accepted) != 1 {
				t.Errorf("accepted %d times", len(r.Accepted))
			}
			running := p.start(t, a.chat("wall:tokens=100000,delay=5ms"))
			p.begun(t, running)
			d.freeze()
			frozen := time.Now()
			r = p.finished(t, running)
			if r.Error == nil || r.Error.Name != "ConnectionError" || r.Error.Partial == nil || time.Since(frozen) > patience/2 {
				t.Errorf("%+v, %+v after %v", r.Answer, r.Error, time.Since(frozen))
			}
			d.cut() // and the gateway learns of it too
		})
	}
}

// TestBrowserOneSocket counts the connections of many answers at once.
func TestBrowserOneSocket(t *testing.T) {
	t.Parallel()
	const many = 20
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			d, p, a, origins := doorPage(t, transport, nil)
			base, w := wall.Start(t)
			d.lead(bootProcess(t, overWall(base, origins)).URL)
			names := make([]string, many)
			for i := range names {
				names[i] = p.start(t, a.chat(wallModel(fmt.Sprint("one", i), "first=2s,tokens=10")))
			}
			for _, name := range names {
				r := p.finished(t, name)
				r.complete(t, 10)
			}
			most := 0 // at once, at the upstream
			for _, q := range w.Requests() {
				n := 0
				for _, other := range w.Requests() {
					if !other.Started.After(q.Started) && other.Ended.After(q.Started) {
						n++
					}
				}
				most = max(most, n)
			}
			if transport == "websocket" && (d.count() != 1 || most != many) {
				t.Errorf("%d connections, %d answers at once", d.count(), most)
			}
			if transport == "sse" && most > 6 { // what browsers allow one host over HTTP/1.1; the page tells of it
				t.Errorf("%d answers at once over SSE: docs/websocket.md says six", most)
			}
		})
	}
}
