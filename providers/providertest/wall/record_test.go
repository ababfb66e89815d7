package wall

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestClientGoneIsNoticed(t *testing.T) {
	for _, tc := range []struct {
		spec   string
		stream bool
		ready  func(Request) bool
	}{
		{"headers=1h", true, func(q Request) bool { return !q.Read.IsZero() }},
		{"stall=pre", true, func(q Request) bool { return !q.Read.IsZero() }},
		{"first=1h", true, func(q Request) bool { return q.Status == 200 }},
		{"role=early first=1h", true, func(q Request) bool { return q.Bytes > 0 }},
		{"first=1h keepalive=1ms", true, func(q Request) bool { return q.Bytes > 20 }},
		{"tokens=1000000 delay=1ms", true, func(q Request) bool { return q.Tokens > 5 }},
		{"stall=3", true, func(q Request) bool { return q.Tokens == 3 }},
		{"first=1h", false, func(q Request) bool { return !q.Read.IsZero() }},
		{"giant=3:16MiB", true, func(q Request) bool { return q.Tokens == 4 }}, // blocked in a write
		{"hold=1h", true, func(q Request) bool { return q.Tokens == 16 }},
	} {
		t.Run(fmt.Sprint(tc.spec, tc.stream), func(t *testing.T) {
			base, w := Start(t)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			call, leave := context.WithCancel(ctx)
			raw, _ := json.Marshal(chatBody(tc.spec, tc.stream))
			req, _ := http.NewRequestWithContext(call, http.MethodPost, base+"/chat/completions", bytes.NewReader(raw))
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					return
				}
				<-call.Done() // unread
				_ = res.Body.Close()
			}()
			if _, err := w.Await(ctx, tc.ready); err != nil {
				t.Fatalf("not ready: %v, %+v", err, w.Requests())
			}
			left := time.Now()
			leave()
			<-closed
			q, err := w.Await(ctx, func(q Request) bool { return q.End != Running })
			if err != nil {
				t.Fatal(err)
			}
			want := ClientGone
			if tc.spec == "hold=1h" {
				want = Complete
			}
			if q.End != want || q.Gone.IsZero() || q.Gone.Sub(left) > time.Second || q.Ended.Sub(left) > time.Second {
				t.Errorf("end %q, gone after %v, ended after %v", q.End, q.Gone.Sub(left), q.Ended.Sub(left))
			}
		})
	}
}

func TestRecordsAreBounded(t *testing.T) {
	base, w := Start(t, Keep(3))
	for i := range 5 {
		body := chatBody(fmt.Sprintf("tokens=1 key=%d", i), false)
		body["pad"] = strings.Repeat("x", 2*keptBody)
		if _, _, err := post(t, base, "/chat/completions", body); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := w.AwaitStats(ctx, func(s Stats) bool { return s.Active == 0 }); err != nil {
		t.Fatal(err)
	}
	qs := w.Requests()
	if len(qs) != 3 || qs[0].Key != "key:2" || qs[2].Key != "key:4" || len(qs[2].Body) != keptBody || qs[2].BodySize <= 2*keptBody {
		t.Errorf("%d kept", len(qs))
	}
	s := w.Stats()
	if s.Total != 5 || s.Active != 0 || s.ByEnd[Complete] != 5 || s.Tokens != 5 || s.Dialed < 1 {
		t.Errorf("%+v", s)
	}
	root := strings.TrimSuffix(base, "/v1")
	res, err := http.Get(root + "/wall/requests")
	if err != nil {
		t.Fatal(err)
	}
	var list []Request
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil || len(list) != 3 || list[0].Key != "key:2" {
		t.Errorf("%v", err)
	}
	_ = res.Body.Close()
	if res, err := http.Post(root+"/wall/reset", "", nil); err != nil || res.StatusCode != 200 {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Total != 0 || len(w.Requests()) != 0 {
		t.Errorf("after reset: %+v", s)
	}
	if res, err := http.Post(root+"/wall/script?model=x", "", strings.NewReader("status=503")); err != nil || res.StatusCode != 200 {
		t.Fatal(err)
	}
	body := chatBody("", false)
	body["model"] = "x"
	if res, _, err := post(t, base, "/chat/completions", body); err != nil || res.StatusCode != 503 {
		t.Errorf("script over HTTP: %v", err)
	}
}

func TestServerComesBackOnTheSamePort(t *testing.T) {
	w := New()
	s, err := Listen("127.0.0.1:0", w)
	if err != nil {
		t.Fatal(err)
	}
	addr := s.Addr
	if _, err := chatStream(t, s.URL(), "tokens=1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	if _, err := chatStream(t, "http://"+addr+"/v1", "tokens=1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed: %v", err)
	}
	if s, err = Listen(addr, w); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := chatStream(t, s.URL(), "tokens=1"); err != nil || w.Stats().Total != 2 {
		t.Errorf("back: %v", err)
	}
}
