package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/cmd/bench/mock"
)

func TestChecker(t *testing.T) {
	w := mock.Words(3)
	token := func(i int) string { return fmt.Sprintf(`data: {"choices":[{"delta":{"content":%q}}]}`, w[i]) }
	const (
		role   = `data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}`
		beat   = `data: {"choices":[{"delta":{},"finish_reason":null}],"usage":null}`
		finish = `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}`
		usage  = `data: {"choices":[],"usage":{"prompt_tokens":21,"completion_tokens":2,"total_tokens":23}}`
		done   = `data: [DONE]`
		failed = `data: {"error":{"message":"upstream cut"}}`
	)
	asked := mock.Shape{Tokens: 2, Seed: 3, Stream: true, Usage: true}
	plain := mock.Shape{Tokens: 2, Seed: 3, Stream: true}
	cut := io.ErrUnexpectedEOF
	tests := []struct {
		name  string
		shape mock.Shape
		lines []string
		end   error
		want  Verdict
	}{
		{"complete", asked, []string{role, "", token(0), "", token(1), finish, usage, done}, nil, OK},
		{"no usage asked", plain, []string{token(0), token(1), finish, done}, nil, OK},
		{"comments and heartbeats", plain, []string{": keep-alive", role, beat, token(0), beat, token(1), finish, done}, nil, OK},
		{"no space after data:", plain, []string{"data:" + token(0)[6:], token(1), finish, "data:[DONE]"}, nil, OK},
		{"cut", asked, []string{role, token(0)}, cut, Truncated},
		{"cut after everything", plain, []string{token(0), token(1), finish, done}, cut, Truncated},
		{"clean end without done", plain, []string{token(0), token(1), finish}, nil, Truncated},
		{"empty", plain, nil, nil, Truncated},
		{"error event", plain, []string{token(0), failed}, nil, Truncated},
		{"token lost, told as whole", plain, []string{token(0), finish, done}, nil, Wrong},
		{"token doubled", plain, []string{token(0), token(0), token(1), finish, done}, nil, Wrong},
		{"tokens swapped", plain, []string{token(1), token(0), finish, done}, nil, Wrong},
		{"token of another stream", plain, []string{token(0), strings.Replace(token(1), w[1], mock.Words(4)[1], 1), finish, done}, nil, Wrong},
		{"one token too many", plain, []string{token(0), token(1), token(2), finish, done}, nil, Wrong},
		{"token after finish", plain, []string{token(0), finish, token(1), done}, nil, Wrong},
		{"event after done", plain, []string{token(0), token(1), finish, done, finish}, nil, Wrong},
		{"no finish", plain, []string{token(0), token(1), done}, nil, Wrong},
		{"other finish", plain, []string{token(0), token(1), strings.Replace(finish, "stop", "length", 1), done}, nil, Wrong},
		{"usage missing", asked, []string{token(0), token(1), finish, done}, nil, Wrong},
		{"usage unasked", plain, []string{token(0), token(1), finish, usage, done}, nil, Wrong},
		{"usage twice", asked, []string{token(0), token(1), finish, usage, usage, done}, nil, Wrong},
		{"usage wrong", asked, []string{token(0), token(1), finish, strings.Replace(usage, `:2,"total`, `:20,"total`, 1), done}, nil, Wrong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newChecker(tt.shape)
			for _, l := range tt.lines {
				c.line([]byte(l))
			}
			if got, why := c.end(tt.end); got != tt.want {
				t.Errorf("verdict %d (%s), want %d", got, why, tt.want)
			}
		})
	}
}

func TestCheckWhole(t *testing.T) {
	text := mock.Text(1, 5)
	for body, want := range map[string]Verdict{
		`{"choices":[{"message":{"content":"` + text + `"}}]}` + "\n": OK,
		`{"choices":[{"message":{"content":"` + text[:30]:             Truncated,
		`{"choices":[{"message":{"content":"` + text[:20] + `"}}]}`:   Truncated,
		`{"choices":[{"message":{"content":"x` + text + `"}}]}`:       Wrong,
		`{}`: Truncated,
	} {
		if got, why := checkWhole([]byte(body), text); got != want {
			t.Errorf("checkWhole(%s) = %d (%s), want %d", body, got, why, want)
		}
	}
}

// upstream starts a mock and returns its address.
func upstream(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { _ = new(mock.Server).Serve(l) }()
	return l.Addr().String()
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestClosedCountsAndReuses(t *testing.T) {
	addr := upstream(t)
	for _, s := range []mock.Shape{{Tokens: 64, Stream: true, Usage: true}, {Tokens: 50}} {
		res, err := Run(bounded(t), Job{Pattern: Closed, Addr: addr, Workers: 4, Count: 200, Shape: s})
		if err != nil || res.Streams != 200 || res.Truncated+res.Wrong+res.Failed != 0 {
			t.Errorf("%+v: %+v, %v", s, res, err)
		}
	}
}

func TestPacedWindow(t *testing.T) {
	j := Job{Pattern: Paced, Addr: upstream(t), PID: os.Getpid(), Workers: 10, Window: 500 * time.Millisecond,
		Shape: mock.Shape{Tokens: 200, Every: 10 * time.Millisecond, Stream: true}}
	res, err := Run(bounded(t), j)
	if err != nil || res.Streams != 10 || res.OutsideWindow != 0 || res.Wrong+res.Truncated+res.Failed != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	if res.Events < 250 || res.Events > 750 {
		t.Errorf("%d events in half a second of 1,000 a second", res.Events)
	}
	j.Shape.Tokens = 110 // ends 0.1 s into the window
	if res, err = Run(bounded(t), j); err != nil || res.OutsideWindow <= 0 {
		t.Errorf("streams that end inside the window go unnoticed: %+v, %v", res, err)
	}
}

func TestOpenMeasuresFirstToken(t *testing.T) {
	res, err := Run(bounded(t), Job{Pattern: Open, Addr: upstream(t), Rate: 100, Window: 300 * time.Millisecond,
		Shape: mock.Shape{Tokens: 3, Every: time.Millisecond, Stream: true}})
	if err != nil || res.Streams != 30 || res.TTFT50 <= 0 || res.TTFT99 < res.TTFT50 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestIdleHolds(t *testing.T) {
	res, err := Run(bounded(t), Job{Pattern: Idle, Addr: upstream(t), PID: os.Getpid(), Workers: 20, Rate: 200, Window: 100 * time.Millisecond,
		Shape: mock.Shape{Tokens: 1000, Every: time.Second, Stream: true}})
	// Only the warm-up stream ends, so only it is judged.
	if err != nil || res.Opened != 20 || res.Streams != 1 || res.Failed != 0 || res.RSSBefore == 0 || res.RSSOpen == 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// TestHangUp hangs up on the mock itself, which notices, and on a relay that
// goes on reading after its client has gone, which must show.
func TestHangUp(t *testing.T) {
	addr := upstream(t)
	deaf := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, _ := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, "http://"+addr+r.URL.Path, r.Body)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		buf := make([]byte, 4096)
		for {
			n, err := resp.Body.Read(buf)
			if err != nil {
				return
			}
			_, _ = w.Write(buf[:n]) // its error is what this relay ignores
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer deaf.Close()
	j := Job{Pattern: HangUp, Mock: addr, Workers: 5, Shape: mock.Shape{Tokens: 500, Every: 10 * time.Millisecond, Stream: true}}
	for _, tt := range []struct {
		addr string
		want int64
	}{{addr, 0}, {deaf.Listener.Addr().String(), 5}} {
		j.Addr = tt.addr
		res, err := Run(bounded(t), j)
		if err != nil || res.Opened != 5 || res.LeftBehind != tt.want {
			t.Errorf("%+v, %v; want %d left behind", res, err, tt.want)
		}
	}
}

// TestDamagedAnswers puts servers before the client that break answers in the
// ways a relay can.
func TestDamagedAnswers(t *testing.T) {
	shape := mock.Shape{Tokens: 2, Stream: true}
	w := mock.Words(0)
	event := func(i int) string { return fmt.Sprintf("data: {\"choices\":[{\"delta\":{\"content\":%q}}]}\n\n", w[i]) }
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	const end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	chunked := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	tests := []struct {
		name, answer string
		want         Verdict
	}{
		{"whole, close-delimited", head + "Connection: close\r\n\r\n" + event(0) + event(1) + end, OK},
		{"whole, chunked", head + "Transfer-Encoding: chunked\r\n\r\n" + chunked(event(0)) + chunked(event(1)+end) + "0\r\n\r\n", OK},
		{"no last chunk", head + "Transfer-Encoding: chunked\r\n\r\n" + chunked(event(0)+event(1)+end), Truncated},
		{"cut in mid-chunk", head + "Transfer-Encoding: chunked\r\n\r\n" + chunked(event(0))[:40], Truncated},
		{"cut in mid-line, close-delimited", head + "Connection: close\r\n\r\n" + event(0) + event(1)[:20], Truncated},
		{"no answer", "", Failed},
		{"refused", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}", Failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = c.Read(make([]byte, 8192))
				_, _ = io.WriteString(c, tt.answer)
			}()
			res, err := Run(bounded(t), Job{Pattern: Closed, Addr: l.Addr().String(), Workers: 1, Count: 1, Shape: shape})
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

func TestStartsSpread(t *testing.T) {
	period := 20 * time.Millisecond
	var bins [10]int
	for i := range 200 {
		at := startOf(i, 200, period)
		if at < 0 || at > Ramp+period {
			t.Fatalf("start %d at %v", i, at)
		}
		bins[at%period/(2*time.Millisecond)]++
	}
	for b, n := range bins {
		if n < 15 || n > 25 {
			t.Errorf("phase %d holds %d of 200 streams, want about 20", b, n)
		}
	}
}

func TestUnknownPattern(t *testing.T) {
	if _, err := Run(bounded(t), Job{Pattern: "x"}); err == nil {
		t.Error("no error")
	}
}
