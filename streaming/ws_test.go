package streaming_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"sluice/streaming"
)

// socketOptions are those of the default configuration.
var socketOptions = streaming.SocketOptions{
	Ping: 20 * time.Second, Pong: 20 * time.Second, Write: 10 * time.Second, Message: 50 * time.Second, MaxMessage: 1 << 20, Queue: 1 << 20,
}

// peer is a socket with a client at the other end of a pipe. A pipe holds nothing:
// a write to it waits for its reader, as one to a full TCP window does.
type peer struct {
	*streaming.Socket
	client *websocket.Conn
	raw    net.Conn // the client's end
	writes atomic.Int64
	ended  chan struct{} // closed when Read has failed
	got    chan error    // what Read returned before
}

// hijackable is a response whose connection can be taken over.
type hijackable struct {
	http.ResponseWriter
	conn net.Conn
	rw   *bufio.ReadWriter
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, h.rw, nil }

// counting counts the writes to a connection.
type counting struct {
	net.Conn
	writes *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// connect shakes hands and starts to read at the gateway's end.
func connect(t testing.TB, o streaming.SocketOptions) *peer {
	t.Helper()
	here, there := net.Pipe()
	p := &peer{raw: there, ended: make(chan struct{}), got: make(chan error, 16)}
	shaken := make(chan error, 1)
	go func() {
		rw := bufio.NewReadWriter(bufio.NewReader(here), bufio.NewWriter(here))
		r, err := http.ReadRequest(rw.Reader)
		if err == nil {
			p.Socket, err = streaming.Upgrade(context.Background(), hijackable{conn: counting{here, &p.writes}, rw: rw}, r, nil, o)
		}
		shaken <- err
	}()
	dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return there, nil }}
	client, _, err := dialer.Dial("ws://gateway/", nil)
	if err := errors.Join(err, <-shaken); err != nil {
		t.Fatal(err)
	}
	p.client = client
	p.writes.Store(0)
	go func() {
		defer close(p.ended)
		for {
			_, err := p.Read()
			switch {
			case err == nil:
			case errors.Is(err, streaming.ErrBinary), errors.Is(err, streaming.ErrNotUTF8), errors.Is(err, streaming.ErrMessageSize), errors.Is(err, streaming.ErrMessageTime):
				p.got <- err
				<-p.Context().Done() // it is for the caller to close
			default:
				return
			}
		}
	}()
	t.Cleanup(func() { _ = there.Close() })
	return p
}

// plain is an encoder that frames Raw as it is.
type plain struct{ f streaming.Framing }

func (e plain) Append(dst []byte, ev *streaming.Event) ([]byte, error) {
	if ev.Kind == streaming.Whole {
		return dst, errors.New("no form")
	}
	return e.f.AppendFrame(dst, ev.Raw), nil
}
func (e plain) AppendHeartbeat(dst []byte) []byte { return dst }
func (e plain) AppendEnd(dst []byte, err error) []byte {
	return streaming.EndMessage(fmt.Appendf(dst, `{"end":"%v"}`, err))
}

func (p *peer) sink() *streaming.LaneSink {
	return p.Lane().Sink(plain{streaming.LaneFraming(`{"data":`, "}")})
}

func raw(payloads ...string) (batch []streaming.Event) {
	for _, s := range payloads {
		batch = append(batch, streaming.Event{Raw: []byte(s)})
	}
	return batch
}

// next is the client's next message, or how the connection ended.
func (p *peer) next() string {
	kind, msg, err := p.client.ReadMessage()
	if err != nil {
		return err.Error()
	}
	if kind != websocket.TextMessage {
		return "not text"
	}
	return string(msg)
}

func (p *peer) want(t *testing.T, messages ...string) {
	t.Helper()
	for _, want := range messages {
		if got := p.next(); got != want {
			t.Fatalf("got %.200q, want %.200q", got, want)
		}
	}
}

func TestLaneBatchIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		long, longer := strings.Repeat("1", 200), strings.Repeat("2", 70_000)
		sent := make(chan error, 1)
		go func() {
			s := p.sink()
			err := s.Send(raw("1", long, "3"))
			if n := p.writes.Load(); n != 1 {
				t.Errorf("three messages took %d writes", n)
			}
			sent <- errors.Join(err, s.Send(nil), s.Send(raw(longer)), s.End(errors.New("cut")))
		}()
		p.want(t, `{"data":1}`, `{"data":`+long+`}`, `{"data":3}`)
		p.want(t, `{"data":`+longer+`}`, `{"end":"cut"}`)
		if err := <-sent; err == nil || err.Error() != "cut" {
			t.Error(err)
		}
		s := p.sink()
		if err := s.Send([]streaming.Event{{Kind: streaming.Whole}}); err == nil || err.Error() != "no form" {
			t.Errorf("the encoder's error is lost: %v", err)
		}
		if sent, err := s.Heartbeat(); sent || err != nil {
			t.Error("a lane has no heartbeat")
		}
		p.leave(t)
	})
}

// leave closes as a client does.
func (p *peer) leave(t *testing.T) {
	t.Helper()
	if err := p.client.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4001, ""), time.Now().Add(time.Second)); err != nil {
		t.Error(err)
	}
	p.want(t, "websocket: close 4001")
	<-p.ended
	if !errors.Is(context.Cause(p.Context()), streaming.ErrClientGone) {
		t.Errorf("the context ended with %v", context.Cause(p.Context()))
	}
	if err := p.sink().Send(raw("1")); !errors.Is(err, streaming.ErrClientGone) {
		t.Errorf("a send after the end: %v", err)
	}
}

// A peer that is gone without a word is found within 40 s, and one that lives is kept.
func TestPings(t *testing.T) {
	for name, c := range map[string]struct {
		dies time.Duration // the peer reads, and answers nothing from here on
		lost time.Duration // when that is found; 0: never
	}{
		"at once":            {0, 40 * time.Second},
		"after its 1st pong": {21 * time.Second, 60 * time.Second},
		"before its 2nd":     {39 * time.Second, 60 * time.Second},
		"after its 9th":      {199 * time.Second, 220 * time.Second},
		"never":              {time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, socketOptions)
				start, pings := time.Now(), atomic.Int64{}
				p.client.SetPingHandler(func(data string) error {
					if pings.Add(1); time.Since(start) >= c.dies {
						return nil
					}
					return p.client.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
				})
				go func() { _ = p.next() }()
				select {
				case <-p.Context().Done():
				case <-time.After(10*time.Minute + time.Second):
				}
				found := time.Since(start).Round(time.Second)
				switch {
				case c.lost == 0:
					if p.Context().Err() != nil || pings.Load() != 30 {
						t.Errorf("a peer that answered %d pings is gone: %v", pings.Load(), context.Cause(p.Context()))
					}
					_ = p.raw.Close()
				case found != c.lost || found-c.dies > 40*time.Second || !errors.Is(context.Cause(p.Context()), streaming.ErrClientGone):
					t.Errorf("found after %v with %v, want %v", found, context.Cause(p.Context()), c.lost)
				}
				<-p.ended
			})
		})
	}
}

// Pings go on at their pace while one is not answered yet: a proxy between may have
// less patience than the gateway.
func TestPingsKeepTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := socketOptions
		o.Ping, o.Pong = 3*time.Second, 20*time.Second
		p := connect(t, o)
		start := time.Now()
		var at []int
		p.client.SetPingHandler(func(string) error {
			at = append(at, int(time.Since(start).Seconds()))
			return nil
		})
		_ = p.next()
		if want := []int{3, 6, 9, 12, 15, 18, 21}; !slices.Equal(at, want) || time.Since(start).Round(time.Second) != 23*time.Second {
			t.Errorf("pings at %v, given up after %v", at, time.Since(start))
		}
		<-p.ended
	})
}

// A pong has to wait behind the message that the client is sending: its bytes are a
// sign of life as well.
func TestPingDuringLongMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := socketOptions
		o.Message = time.Hour
		p := connect(t, o)
		p.client.SetPingHandler(func(string) error { return nil })
		go func() { _ = p.next() }()
		w, err := p.client.NextWriter(websocket.TextMessage)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			time.Sleep(10 * time.Second)
			if _, err := w.Write(bytes.Repeat([]byte(" "), 9000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Context().Err(); err != nil {
			t.Errorf("cut while it sent: %v", context.Cause(p.Context()))
		}
		_ = p.raw.Close()
		<-p.ended
	})
}

// A client that stops to read is cut after the write limit: whoever writes, whoever
// waits and whoever has nothing to write learn it at once.
func TestSlowSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		start := time.Now()
		ends := make(chan error, 3)
		for range 3 { // one writes, one fills its part of the queue, one waits for room
			go func() {
				s := p.sink()
				for {
					if err := s.Send(raw(strings.Repeat("7", 40<<10))); err != nil {
						ends <- err
						return
					}
				}
			}()
		}
		for range 3 {
			if err := <-ends; !errors.Is(err, streaming.ErrSlow) {
				t.Errorf("an answer ended with %v", err)
			}
		}
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second+time.Millisecond {
			t.Errorf("cut after %v", took)
		}
		if err := context.Cause(p.Context()); !errors.Is(err, streaming.ErrSlow) {
			t.Errorf("the context ended with %v", err)
		}
		p.want(t, "websocket: close 1013: the client reads too slowly")
		<-p.ended
	})
}

// A client that has a part of a message gets the rest, and then learns why it was cut.
func TestSlowInsideMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		sent := make(chan error, 1)
		go func() { sent <- p.sink().Send(raw("1", strings.Repeat("2", 300), "3")) }()
		begin := make([]byte, 2+len(`{"data":1}`)+4+100)
		if _, err := io.ReadFull(p.raw, begin); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; !errors.Is(err, streaming.ErrSlow) {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(p.raw)
		want := strings.Repeat("2", 300+len(`{"data":`)-100) + "}\x88\x1d\x03\xf5the client reads too slowly"
		if string(rest) != want || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		<-p.ended
	})
}

// A client that never reads again is let go.
func TestStuckSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		start := time.Now()
		if err := p.sink().Send(raw("1")); !errors.Is(err, streaming.ErrSlow) {
			t.Errorf("%v", err)
		}
		<-p.ended
		if took := time.Since(start); took > 16*time.Second {
			t.Errorf("the connection was held for %v", took)
		}
		p.want(t, "websocket: close 1006 (abnormal closure): unexpected EOF")
	})
}

// Lanes take turns: one that floods does not hold up another.
func TestLanesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		var floods sync.WaitGroup
		for i := range 3 {
			s := p.sink()
			floods.Go(func() {
				for s.Send(raw(fmt.Sprintf(`"flood %d %s"`, i, strings.Repeat(".", 30<<10)))) == nil {
				}
			})
		}
		synctest.Wait() // all three are stuck: their parts of the queue are full
		quiet := p.sink()
		if err := quiet.Send(raw(`"quiet 1"`)); err != nil {
			t.Fatal(err)
		}
		got, last := map[string]int{}, 0
		for n := 1; n <= 40; n++ {
			msg := p.next()
			who, _, _ := strings.Cut(strings.TrimPrefix(msg, `{"data":"`), ".")
			got[who]++
			if strings.HasPrefix(who, "quiet") {
				if n-last > 12 {
					t.Errorf("the quiet lane waited for %d messages of others", n-last)
				}
				last = n
				synctest.Wait()
				if err := quiet.Send(raw(`"quiet 1"`)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range 3 {
			if n := got[fmt.Sprintf("flood %d ", i)]; n < 8 {
				t.Errorf("lane %d had %d of 40 turns: %v", i, n, got)
			}
		}
		_ = p.raw.Close()
		floods.Wait()
		<-p.ended
	})
}

// What waits for a client is bounded, and room that others fill is waited for.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := socketOptions
		o.Queue = 64 << 10
		p := connect(t, o)
		const size = 1000
		var taken atomic.Int64
		var lanes sync.WaitGroup
		for range 100 {
			s := p.sink()
			lanes.Go(func() {
				for s.Send(raw(strings.Repeat("5", size))) == nil {
					taken.Add(size)
				}
			})
		}
		synctest.Wait()
		if n := taken.Load(); n > int64(o.Queue) || n < int64(o.Queue)*3/4 {
			t.Errorf("%d bytes are taken for a queue of %d", n, o.Queue)
		}
		for range 500 {
			if msg := p.next(); len(msg) != size+9 {
				t.Fatalf("%.100q", msg)
			}
		}
		synctest.Wait()
		if n := taken.Load(); n < 400*size {
			t.Errorf("only %d bytes more were taken when there was room", n)
		}
		_ = p.raw.Close()
		lanes.Wait()
		<-p.ended
	})
}

// One batch that is larger than the whole queue is sent, and not held twice.
func TestBatchBeyondTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		small, big := p.sink(), strings.Repeat("8", 3<<20)
		var sends sync.WaitGroup
		sends.Go(func() { _ = small.Send(raw(`"first"`)) })
		synctest.Wait()
		sends.Go(func() {
			if err := p.sink().Send(raw(big)); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if err := small.Send(raw(`"third"`)); err != nil {
			t.Fatal(err)
		}
		p.want(t, `{"data":"first"}`, `{"data":`+big+`}`, `{"data":"third"}`)
		sends.Wait()
		p.leave(t)
	})
}

// Replies never wait. A client that makes more of them than it reads is cut.
func TestPostNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		start, l, n := time.Now(), p.Lane(), 0
		for ; p.Context().Err() == nil && n < 100_000; n++ {
			l.Post(bytes.Repeat([]byte("9"), 100))
		}
		if took := time.Since(start); took > 0 || n < 10_000 || !errors.Is(context.Cause(p.Context()), streaming.ErrSlow) {
			t.Errorf("%d replies were taken in %v, and then %v", n, took, context.Cause(p.Context()))
		}
		<-p.ended
	})
}

// What was queued before Close still comes, and nothing after it.
func TestCloseInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		l := p.Lane()
		for i := range 20 {
			l.Post(fmt.Appendf(nil, "%d", i))
		}
		why := errors.New("why")
		p.Close(streaming.CloseRestart, "so long", why)
		p.Close(streaming.CloseInternal, "a second close", nil)
		l.Post([]byte("late"))
		if err := p.sink().Send(raw("late")); err != why || context.Cause(p.Context()) != why {
			t.Errorf("after Close: %v, %v", err, context.Cause(p.Context()))
		}
		for i := range 20 {
			p.want(t, fmt.Sprint(i))
		}
		p.want(t, "websocket: close 1012: so long") // and is answered
		<-p.ended
	})
}

// A client that does not answer a close is not waited for.
func TestCloseUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t, socketOptions)
		start := time.Now()
		p.Close(streaming.CloseNormal, "", nil)
		p.client.SetCloseHandler(func(int, string) error { return nil })
		_ = p.next()
		<-p.ended
		if took := time.Since(start); took < time.Second || took > 5*time.Second {
			t.Errorf("waited for %v", took)
		}
	})
}

func TestMessagesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		send func(*websocket.Conn) error
		want error
	}{
		"binary":    {func(c *websocket.Conn) error { return c.WriteMessage(websocket.BinaryMessage, []byte("{}")) }, streaming.ErrBinary},
		"not UTF-8": {func(c *websocket.Conn) error { return c.WriteMessage(websocket.TextMessage, []byte("\"\xff\"")) }, streaming.ErrNotUTF8},
		"too large": {func(c *websocket.Conn) error {
			return c.WriteMessage(websocket.TextMessage, bytes.Repeat([]byte(" "), 1<<20+1))
		}, streaming.ErrMessageSize},
		"never whole": {func(c *websocket.Conn) error {
			w, err := c.NextWriter(websocket.TextMessage)
			if err == nil {
				_, err = io.WriteString(w, strings.Repeat(" ", 9000))
			}
			return err
		}, streaming.ErrMessageTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := connect(t, socketOptions)
				start := time.Now()
				closed := make(chan string, 1)
				go func() { closed <- p.next() }()
				if err := c.send(p.client); err != nil {
					t.Fatal(err)
				}
				if err := <-p.got; err != c.want {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if took := time.Since(start); c.want == streaming.ErrMessageTime && took != 50*time.Second {
					t.Errorf("refused after %v", took)
				}
				p.Close(streaming.ClosePolicy, "", nil)
				if got := <-closed; got != "websocket: close 1008 (policy violation)" {
					t.Errorf("the client saw %q", got)
				}
				_ = p.raw.Close()
				<-p.ended
			})
		})
	}
}

// BenchmarkLaneSend is what one token costs on its way through a lane, with a
// connection that takes it at once.
func BenchmarkLaneSend(b *testing.B) {
	for _, lanes := range []int{1, 64} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			here, there := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, there) }()
			defer there.Close()
			r, _ := http.NewRequest(http.MethodGet, "http://gateway/", nil)
			r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
			rw := bufio.NewReadWriter(bufio.NewReader(here), bufio.NewWriter(here))
			sock, err := streaming.Upgrade(b.Context(), hijackable{conn: sunk{here}, rw: rw}, r, nil, streaming.SocketOptions{Queue: 1 << 20, Write: 10 * time.Second, MaxMessage: 1 << 20})
			if err != nil {
				b.Fatal(err)
			}
			token := raw(`{"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}`)
			b.ReportAllocs()
			b.SetBytes(int64(len(token[0].Raw)))
			var all sync.WaitGroup
			for i := range lanes {
				s := sock.Lane().Sink(plain{streaming.LaneFraming(`{"type":"chunk","stream_id":"a","data":`, "}")})
				all.Go(func() {
					for range (b.N + i) / lanes {
						if err := s.Send(token); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}

// sunk is a connection that takes everything.
type sunk struct{ net.Conn }

func (sunk) Write(p []byte) (int, error)      { return len(p), nil }
func (sunk) SetWriteDeadline(time.Time) error { return nil }
