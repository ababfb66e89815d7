package load

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"sluice/cmd/bench/mock"
)

// target is a WebSocket server whose answers to each create are written by script.
func target(t *testing.T, script func(c *websocket.Conn, id string, s mock.Shape)) string {
	t.Helper()
	up := websocket.Upgrader{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer k" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			var f struct {
				Type    string
				ID      string `json:"stream_id"`
				Request json.RawMessage
			}
			if c.ReadJSON(&f) != nil {
				return
			}
			s, err := mock.ParseRequest(f.Request)
			if f.Type != "create" || err != nil {
				t.Errorf("got %+v, %v", f, err)
			}
			script(c, f.ID, s)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func say(c *websocket.Conn, frames ...string) (ok bool) {
	for _, f := range frames {
		if c.WriteMessage(websocket.TextMessage, []byte(f)) != nil {
			return false
		}
	}
	return true
}

func accepted(id string) string {
	return fmt.Sprintf(`{"type":"accepted","stream_id":%q,"request_id":"r","position":0}`, id)
}

func chunk(id, delta, finish string) string {
	return fmt.Sprintf(`{"type":"chunk","stream_id":%q,"data":{"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}}`, id, delta, finish)
}

func word(id string, s mock.Shape, i int) string {
	return chunk(id, fmt.Sprintf(`{"content":%q}`, mock.Words(s.Seed)[i%mock.Period]), "null")
}

func done(id string, n int) string {
	return fmt.Sprintf(`{"type":"done","stream_id":%q,"finish_reason":"stop","usage":{"prompt_tokens":1,"completion_tokens":%d},"ttft_ms":1,"total_ms":2}`, id, n)
}

func failure(id string) string {
	return fmt.Sprintf(`{"type":"error","stream_id":%q,"status":502,"error":{"message":"cut","type":"server_error","param":null,"code":null}}`, id)
}

// relay answers as it should.
func relay(c *websocket.Conn, id string, s mock.Shape) {
	say(c, accepted(id), chunk(id, `{"role":"assistant","content":""}`, "null"))
	for i := range s.Tokens {
		time.Sleep(s.Every)
		if !say(c, word(id, s, i)) {
			return // the client has gone
		}
	}
	say(c, chunk(id, "{}", `"stop"`), done(id, s.Tokens), `{"type":"limits","requests":{"limit":1,"remaining":1,"reset_ms":1}}`)
}

func TestSocketVerdicts(t *testing.T) {
	stop := func(id string) string { return chunk(id, "{}", `"stop"`) }
	tests := []struct {
		name   string
		script func(c *websocket.Conn, id string, s mock.Shape)
		want   Verdict
	}{
		{"complete", relay, OK},
		{"cut", func(c *websocket.Conn, id string, s mock.Shape) { say(c, accepted(id), word(id, s, 0)); _ = c.Close() }, Truncated},
		{"closed", func(c *websocket.Conn, id string, s mock.Shape) {
			say(c, word(id, s, 0), word(id, s, 1), stop(id))
			_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1013, "slow"))
		}, Truncated},
		{"error after a token", func(c *websocket.Conn, id string, s mock.Shape) { say(c, word(id, s, 0), failure(id)) }, Truncated},
		{"error at once", func(c *websocket.Conn, id string, s mock.Shape) { say(c, accepted(id), failure(id)) }, Failed},
		{"error of the connection", func(c *websocket.Conn, _ string, _ mock.Shape) { say(c, `{"type":"error","error":{"message":"?"}}`) }, Failed},
		{"cancelled", func(c *websocket.Conn, id string, s mock.Shape) {
			say(c, word(id, s, 0), fmt.Sprintf(`{"type":"cancelled","stream_id":%q,"usage":{}}`, id))
		}, Truncated},
		{"a token lost", func(c *websocket.Conn, id string, s mock.Shape) { say(c, word(id, s, 0), stop(id), done(id, 2)) }, Wrong},
		{"tokens swapped", func(c *websocket.Conn, id string, s mock.Shape) {
			say(c, word(id, s, 1), word(id, s, 0), stop(id), done(id, 2))
		}, Wrong},
		{"no finish", func(c *websocket.Conn, id string, s mock.Shape) { say(c, word(id, s, 0), word(id, s, 1), done(id, 2)) }, Wrong},
		{"usage of another", func(c *websocket.Conn, id string, s mock.Shape) {
			say(c, word(id, s, 0), word(id, s, 1), stop(id), done(id, 3))
		}, Wrong},
		{"another lane", func(c *websocket.Conn, _ string, s mock.Shape) { say(c, word("7", s, 0)) }, Failed},
		{"no JSON", func(c *websocket.Conn, id string, s mock.Shape) { say(c, word(id, s, 0), "data: x") }, Truncated},
		{"binary", func(c *websocket.Conn, id string, s mock.Shape) {
			_ = c.WriteMessage(websocket.BinaryMessage, []byte(word(id, s, 0)))
		}, Failed},
		{"too large", func(c *websocket.Conn, id string, _ mock.Shape) {
			say(c, chunk(id, `{"x":"`+strings.Repeat("x", maxMessage)+`"}`, "null"))
		}, Failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := Job{Pattern: Closed, Addr: target(t, tt.script), Key: "k", Workers: 1, Lanes: 1, Count: 1, Shape: mock.Shape{Tokens: 2, Stream: true}}
			res, err := Run(bounded(t), j)
			if err != nil {
				t.Fatal(err)
			}
			got := map[Verdict]int64{OK: res.Streams - res.Truncated - res.Wrong - res.Failed, Truncated: res.Truncated, Wrong: res.Wrong, Failed: res.Failed}
			if got[tt.want] != 1 {
				t.Errorf("%+v, want verdict %d", res, tt.want)
			}
		})
	}
}

func TestSocketServesControlFrames(t *testing.T) {
	pong := make(chan string, 1)
	addr := target(t, func(c *websocket.Conn, id string, s mock.Shape) {
		c.SetPongHandler(func(text string) error { pong <- text; return nil })
		w, _ := c.NextWriter(websocket.TextMessage)
		// Larger than the write buffer, so that it leaves in two frames, with a ping between them.
		_, _ = w.Write([]byte(strings.Repeat(" ", 9000)))
		_ = c.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(time.Second))
		_, _ = w.Write([]byte(accepted(id)))
		_ = w.Close()
		relay(c, id, s)
	})
	res, err := Run(bounded(t), Job{Pattern: Closed, Addr: addr, Key: "k", Workers: 1, Lanes: 1, Count: 2, Shape: mock.Shape{Tokens: 2, Stream: true}})
	if err != nil || res.Streams != 2 || res.Truncated+res.Wrong+res.Failed != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if text := <-pong; text != "are you there" {
		t.Errorf("pong %q", text)
	}
}

func TestSocketIsRefused(t *testing.T) {
	res, err := Run(bounded(t), Job{Pattern: Closed, Addr: target(t, relay), Key: "other", Workers: 1, Lanes: 1, Count: 1, Shape: mock.Shape{Tokens: 2, Stream: true}})
	if err != nil || res.Failed != 1 || len(res.Samples) != 1 || !strings.Contains(res.Samples[0], "401 Unauthorized who are you") {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestPacedLanes runs side by side what shares a socket. The relay of this test
// answers a socket's lanes one after the other, so their starts must not wait.
func TestPacedLanes(t *testing.T) {
	sockets := make(chan net.Addr, 100)
	addr := target(t, func(c *websocket.Conn, id string, s mock.Shape) {
		sockets <- c.RemoteAddr()
		relay(c, id, s)
	})
	j := Job{Pattern: Paced, Addr: addr, Key: "k", Workers: 6, Lanes: 3, Window: 100 * time.Millisecond,
		Shape: mock.Shape{Tokens: 50, Every: 10 * time.Millisecond, Stream: true}}
	res, err := Run(bounded(t), j)
	if err != nil || res.Streams != 6 || res.Truncated+res.Wrong+res.Failed != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	close(sockets)
	by := map[string]int{}
	for a := range sockets {
		by[a.String()]++
	}
	if len(by) != 2 {
		t.Errorf("6 streams in lanes of 3 came over %v", by)
	}
	for a, n := range by {
		if n != 3 {
			t.Errorf("%d streams came over %s", n, a)
		}
	}
}

func TestHoldCounts(t *testing.T) {
	j := Job{Pattern: Hold, Addr: target(t, relay), Key: "k", PID: os.Getpid(), Workers: 20, Lanes: 1, Rate: 200, Window: 100 * time.Millisecond,
		Shape: mock.Shape{Tokens: 1000, Every: 50 * time.Millisecond, Stream: true}}
	res, err := Run(bounded(t), j)
	// Only the warm-up stream ends, so only it is judged.
	if err != nil || res.Sockets != 20 || res.Opened != 20 || res.Streams != 1 || res.Failed != 0 || res.RSSBefore == 0 || res.RSSSockets == 0 || res.RSSOpen == 0 {
		t.Errorf("%+v, %v", res, err)
	}
	j.Lanes = 4
	if _, err = Run(bounded(t), j); err == nil {
		t.Error("four lanes are held")
	}
}
