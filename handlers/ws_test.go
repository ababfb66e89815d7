package handlers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
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
	"sluice/streaming"
	"sluice/streaming/streamtest"
)

// oddities is a provider whose models misbehave.
type oddities struct{}

func (oddities) Stream(ctx context.Context, req *providers.Request, p *streaming.Progress) streaming.Stream {
	p.SetTarget("odd/" + req.Model)
	steps := []streamtest.Step{{Batch: streamtest.Text(0, "one ")}, {Batch: streamtest.Text(0, "two")}}
	switch req.Model {
	case "panics":
		steps = append(steps, streamtest.Step{Panic: "the adapter is broken"})
	case "waits":
		steps = append(steps, streamtest.Step{Wait: time.Hour})
	case "no-form":
		steps = append(steps, streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Whole}}})
	}
	return streamtest.Stream(ctx, append(steps, streamtest.Step{Batch: []streaming.Event{{Kind: streaming.Stop, Stop: "stop"}}})...)
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// odd is a server over oddities, and a connection to it.
type odd struct {
	*websocket.Conn
	drain *Drain
	log   *lockedBuffer
}

func connectOdd(t *testing.T) odd {
	t.Helper()
	o := odd{drain: NewDrain(), log: &lockedBuffer{}}
	s := New(Options{
		Provider: oddities{}, Auth: auth.NewKeys(map[[sha256.Size]byte]auth.Principal{sha256.Sum256([]byte("sk")): {Key: "app"}}),
		Total: func(_ context.Context, model string) time.Duration {
			if model == "panics-early" {
				panic("the wiring is broken")
			}
			return time.Hour
		},
		WriteLimit: 10 * time.Second, Body: 1 << 20, Depth: 64, Observer: NewObserver(nil), Drain: o.drain,
		WebSocket: WebSocket{Lanes: 8, Queued: 8, SendQueue: 1 << 20, Control: 64 << 10},
		Log:       slog.New(slog.NewTextHandler(o.log, nil)),
	})
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(web.URL, "http")+"/v1/chat/completions", http.Header{"Authorization": {"Bearer sk"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	o.Conn = conn
	return o
}

func (o odd) ask(t *testing.T, stream, model string) {
	t.Helper()
	if err := o.WriteMessage(websocket.TextMessage, []byte(`{"type":"create","stream_id":"`+stream+`","request":{"model":"`+model+`","messages":[{"role":"user","content":"hi"}]}}`)); err != nil {
		t.Fatal(err)
	}
}

// end reads on to the message that ends an answer, or to the end of the connection.
func (o odd) end(t *testing.T, stream string) (kind, code string, status int) {
	t.Helper()
	for {
		_ = o.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, text, err := o.ReadMessage()
		if err != nil {
			t.Fatalf("%v\n%s", err, o.log)
		}
		var m struct {
			Type   string
			Stream string `json:"stream_id"`
			Status int
			Error  struct{ Code string }
		}
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if m.Stream == stream && m.Type != "chunk" && m.Type != "accepted" {
			return m.Type, m.Error.Code, m.Status
		}
	}
}

// TestPanicsSettleTheirLane lets answers fail inside the gateway. The lane ends with
// an error and is free again, and the connection lives.
func TestPanicsSettleTheirLane(t *testing.T) {
	o := connectOdd(t)
	o.ask(t, "other", "waits")
	for _, model := range []string{"panics", "panics-early", "no-form"} {
		o.ask(t, "a", model)
		if kind, code, status := o.end(t, "a"); kind != "error" || code != "internal_error" || status != 500 {
			t.Errorf("%s ended with %s %q %d", model, kind, code, status)
		}
		o.ask(t, "a", "fine")
		if kind, _, _ := o.end(t, "a"); kind != "done" {
			t.Errorf("after %s the lane ends with %s", model, kind)
		}
	}
	for _, words := range []string{"the adapter is broken", "the wiring is broken"} {
		if strings.Count(o.log.String(), words) != 1 {
			t.Errorf("%q stands not once in the log:\n%s", words, o.log)
		}
	}
	for late := time.After(20 * time.Second); o.drain.Running() != 1; { // an answer leaves after its last message
		select {
		case <-late:
			t.Fatalf("%d answers are counted", o.drain.Running())
		case <-time.After(time.Millisecond):
		}
	}
	o.drain.Refuse()
	o.drain.Cut()
	if kind, code, _ := o.end(t, "other"); kind != "error" || code != "server_draining" {
		t.Errorf("the other lane ended with %s %q", kind, code)
	}
	if _, _, err := o.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseServiceRestart) {
		t.Error(err)
	}
	select {
	case <-o.drain.Gone():
	case <-time.After(20 * time.Second):
		t.Error("the connection is still counted")
	}
}

// TestDrainTellsItsGuests in whichever order they come.
func TestDrainTellsItsGuests(t *testing.T) {
	d := NewDrain()
	first, second, third := &guest{}, &guest{}, &guest{}
	leaveFirst := d.Join(first)
	d.Lame(time.Minute)
	d.Lame(time.Hour)
	leaveSecond := d.Join(second)
	if !d.Enter() {
		t.Error("a lame gate refuses")
	}
	if first.told != time.Minute || second.told > time.Minute || second.told < 50*time.Second || first.refused {
		t.Errorf("%+v, %+v", first, second)
	}
	leaveFirst()
	idle := d.Refuse()
	leaveThird := d.Join(third)
	if first.refused || !second.refused || !third.refused || third.told == 0 {
		t.Errorf("%+v, %+v, %+v", first, second, third)
	}
	leaveSecond()
	leaveThird()
	leaveThird()
	for what, c := range map[string]<-chan struct{}{"gone": d.Gone(), "idle": idle} {
		select {
		case <-c:
			if what == "idle" {
				t.Error("idle while one runs")
			}
		default:
			if what == "gone" {
				t.Error("guests are left")
			}
		}
	}
	d.Leave()
	<-idle
}

type guest struct {
	told    time.Duration
	refused bool
}

func (g *guest) GoingAway(in time.Duration) { g.told = in }
func (g *guest) Refuse()                    { g.refused = true }
